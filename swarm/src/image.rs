//! The image of a node: compiled from this workspace as a static binary, built offline from it and one Dockerfile, carried
//! from engine to engine. Its name tells its content, so what is there already is neither built nor carried again.

mod compile;

pub use compile::{Source, workspace};

use crate::engine::{Engine, is_missing, is_there, unless_missing};
use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, bail};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, ImportImageOptionsBuilder, RemoveImageOptions,
};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

/// Repository of images that are built here. No registry is called that: an engine that tries to pull one before it looks
/// at home is refused at once, by itself.
const REPOSITORY: &str = "localhost/trebol-node";
/// The label on images that are built here.
pub const BUILT: &str = "trebol.image";
/// How images are made.
const DOCKERFILE: &str = include_str!("../../images/node/Dockerfile");
/// Largest binary, in bytes.
const BINARY_MAX: u64 = 1 << 30;
/// For an image to reach another engine, by a slow line.
const CARRY: Duration = Duration::from_secs(1800);

/// Whether an image was built here, and no registry has it.
pub fn is_local(image: &str) -> bool {
    image.strip_prefix(REPOSITORY).is_some_and(|rest| rest.starts_with(':'))
}

/// Compiles the workspace and builds the image on `engine`; its name.
pub async fn from_source(
    source: &Source,
    engine: &Engine,
    labels: &BTreeMap<String, String>,
    progress: &Progress,
) -> Result<String> {
    progress.step("compile trebol as a static binary");
    let binary = source.compile(progress).await?;
    progress.step("build the image");
    build(engine, &binary, labels).await
}

/// Builds the image of a static `trebol` on an engine, unless it is there; its name.
pub async fn build(engine: &Engine, binary: &Path, labels: &BTreeMap<String, String>) -> Result<String> {
    check_architecture(engine).await?;
    let path = binary.to_owned();
    let read = move || -> Result<(String, Bytes)> {
        let io = || format!("cannot read {}", path.display());
        if std::fs::metadata(&path).with_context(io)?.len() > BINARY_MAX {
            bail!("{} is larger than {BINARY_MAX} bytes", path.display());
        }
        let bytes = std::fs::read(&path).with_context(io)?;
        let hash = blake3::Hasher::new().update(DOCKERFILE.as_bytes()).update(&bytes).finalize();
        Ok((hash.to_hex()[..12].to_owned(), context(&bytes)?))
    };
    let (hash, context) = tokio::task::spawn_blocking(read).await.context("the context was not made")??;
    let image = format!("{REPOSITORY}:{}-{hash}", env!("CARGO_PKG_VERSION"));
    if engine.docker.inspect_image(&image).await.is_ok() {
        return Ok(image);
    }
    let mut all: HashMap<String, String> = labels.clone().into_iter().collect();
    all.insert(BUILT.to_owned(), "node".to_owned());
    all.insert("org.opencontainers.image.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let options = BuildImageOptionsBuilder::default()
        .dockerfile("Dockerfile")
        .t(&image)
        .rm(true)
        .forcerm(true)
        .labels(&all)
        .build();
    let mut answers = engine.docker.build_image(options, None, Some(bollard::body_full(context)));
    while let Some(answer) = answers.next().await {
        answer.map_err(|error| engine.failed("build the image", &error))?;
    }
    Ok(image)
}

/// What the Dockerfile copies from, as a tar.
fn context(binary: &[u8]) -> Result<Bytes> {
    let mut tar = tar::Builder::new(Vec::with_capacity(binary.len() + (1 << 16)));
    let mut add = |path: &str, mode: u32, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content)
    };
    add("Dockerfile", 0o644, tar::EntryType::Regular, DOCKERFILE.as_bytes())?;
    add("trebol", 0o755, tar::EntryType::Regular, binary)?;
    add("data/", 0o700, tar::EntryType::Directory, &[])?;
    Ok(tar.into_inner()?.into())
}

/// A binary of this machine's architecture runs on no other.
async fn check_architecture(engine: &Engine) -> Result<()> {
    let theirs = engine.info().await?.architecture.unwrap_or_default();
    let ours = std::env::consts::ARCH;
    let same = theirs == ours || matches!((theirs.as_str(), ours), ("amd64", "x86_64") | ("arm64", "aarch64"));
    if same {
        Ok(())
    } else {
        bail!("host {}: its engine runs {theirs}, and what is compiled here is {ours}", engine.host)
    }
}

/// Copies an image between engines, piece by piece.
pub async fn carry(from: &Engine, to: &Engine, image: &str) -> Result<()> {
    let whole = from.docker.export_image(image);
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    // An engine answers once it has all of it.
    let patient = to.docker.clone().with_timeout(CARRY);
    let mut answers = Box::pin(patient.import_image_stream(options, whole, None));
    while let Some(answer) = answers.next().await {
        answer.map_err(|error| to.failed(&format!("take the image {image}"), &error))?;
    }
    match to.docker.inspect_image(image).await {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error) => {
            Err(anyhow!("host {}: the image {image} was sent and is not there: is its disk full?", to.host))
        }
        Err(error) => Err(to.failed(&format!("find the image {image}"), &error)),
    }
}

/// Has an engine fetch an image from its registry.
pub async fn pull(engine: &Engine, image: &str) -> Result<()> {
    let options = CreateImageOptionsBuilder::default().from_image(image).build();
    let mut answers = engine.docker.create_image(Some(options), None, None);
    while let Some(answer) = answers.next().await {
        answer.map_err(|error| engine.failed(&format!("pull the image {image}"), &error))?;
    }
    Ok(())
}

/// Removes an image; one that something else uses stays.
pub async fn remove(engine: &Engine, image: &str) -> Result<()> {
    let removed = engine.docker.remove_image(image, None::<RemoveImageOptions>, None).await.map(drop);
    match unless_missing(removed) {
        Err(error) if !is_there(&error) => Err(engine.failed(&format!("remove the image {image}"), &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn images_built_here_are_told_from_others() {
        assert!(is_local("localhost/trebol-node:0.1.0-0123456789ab"));
        assert!(!is_local("localhost/trebol-nodes:1") && !is_local("registry.example/trebol-node:1"));
    }

    #[test]
    fn an_image_compiled_in_containers_tells_this_version() {
        let chef = include_str!("../../images/node/Dockerfile.chef");
        assert!(chef.contains(&format!("\nARG VERSION={}\n", env!("CARGO_PKG_VERSION"))));
    }

    #[test]
    fn the_context_holds_what_the_dockerfile_copies() {
        let bytes = context(b"binary").unwrap();
        let mut archive = tar::Archive::new(bytes.as_ref());
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let (path, mode) = (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap());
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            found.insert(path, (mode, content));
        }
        assert_eq!(found["trebol"], (0o755, "binary".to_owned()));
        assert_eq!(found["data/"].0, 0o700);
        for line in DOCKERFILE.lines().filter(|line| line.starts_with("COPY")) {
            let source = line.split(' ').rfind(|word| !word.starts_with('/')).unwrap();
            assert!(found.keys().any(|path| path.trim_end_matches('/') == source), "{line}");
        }
    }
}
