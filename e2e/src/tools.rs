//! The helper image: `tap` and this machine's own `nft`, with the libraries they link. Containers of it join a node's
//! network namespace, so nothing here needs root on this machine, nor a shell in the node's image.

use crate::place::labels;
use anyhow::{Context, Result, bail};
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use swarm::engine::Engine;
use swarm::machines::{linked, named};
use swarm::sweep;

const DOCKERFILE: &str = include_str!("../../images/tools/Dockerfile");
/// No registry is called that.
const REPOSITORY: &str = "localhost/trebol-tools";

/// The image, built.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Its name.
    pub image: String,
}

/// Why the network between nodes cannot be cut here, if so.
pub fn lacking() -> Option<String> {
    named("nft").is_none().then(|| "nft is not installed".to_owned())
}

impl Tools {
    /// Builds the image on an engine.
    pub async fn build(engine: &Engine, tap: &Path) -> Result<Self> {
        let tap = tap.to_owned();
        let context =
            tokio::task::spawn_blocking(move || context(&tap)).await.context("the context was not made")??;
        // Its name is this run's alone: another one, which ends first, must not take it away.
        let image = format!("{REPOSITORY}:{}", sweep::named(&blake3::hash(&context).to_hex()[..12]));
        let all: HashMap<String, String> = labels().into_iter().collect();
        let options =
            BuildImageOptionsBuilder::default().dockerfile("Dockerfile").t(&image).rm(true).forcerm(true).labels(&all);
        let mut answers = engine.docker.build_image(options.build(), None, Some(bollard::body_full(context.into())));
        while let Some(answer) = answers.next().await {
            answer.map_err(|error| engine.failed("build the image of tools", &error))?;
        }
        Ok(Self { image })
    }
}

fn context(tap: &Path) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(true);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(DOCKERFILE.len() as u64);
    tar.append_data(&mut header, "Dockerfile", DOCKERFILE.as_bytes())?;
    let mut programs = vec![(PathBuf::from("usr/bin/tap"), tap.to_owned())];
    programs.extend(named("nft"));
    let mut libraries = BTreeSet::new();
    for (inside, outside) in programs {
        libraries.extend(linked(&outside)?);
        add(&mut tar, &inside, &outside)?;
    }
    if libraries.is_empty() {
        bail!("ldd says nothing of {}", tap.display());
    }
    for library in libraries {
        add(&mut tar, library.strip_prefix("/").unwrap_or(&library), &library)?;
    }
    tar.into_inner().context("the files of the tools cannot be put together")
}

fn add(tar: &mut tar::Builder<Vec<u8>>, inside: &Path, outside: &Path) -> Result<()> {
    let unreadable = || format!("cannot read {}", outside.display());
    tar.append_path_with_name(outside, Path::new("root").join(inside)).with_context(unreadable)
}
