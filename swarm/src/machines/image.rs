//! The image of a machine, made by the first way that works here: from `docker:dind` where a registry answers, from this
//! machine's own engine with the libraries it links, from Debian's packages.

use super::root;
use crate::engine::Engine;
use crate::image::BUILT;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use bollard::query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::timeout;

const REPOSITORY: &str = "localhost/trebol-host";
const START: &str = include_str!("../../../images/host/start");
const FROM_DIND: &str = include_str!("../../../images/host/Dockerfile");
const FROM_ROOT: &str = include_str!("../../../images/host/Dockerfile.root");
/// For a registry to send some hundred MiB.
const PULL: Duration = Duration::from_secs(300);

/// Makes the image on `outer`, unless it is there; its name.
pub async fn image(outer: &Engine, labels: &BTreeMap<String, String>, progress: &Progress) -> Result<String> {
    let image = image_name();
    if outer.docker.inspect_image(&image).await.is_ok() {
        return Ok(image);
    }
    progress.step("make the image of a machine");
    if has_dind(outer).await {
        build(outer, &image, context(FROM_DIND, None)?, labels).await?;
        return Ok(image);
    }
    let made = tokio::task::spawn_blocking(root::from_this_machine).await.context("the image was not made")?;
    let root = match made {
        Ok(root) => root,
        Err(own) => match root::from_packages().await {
            Ok(root) => root,
            Err(debian) => bail!(
                "no image of a machine can be made: no registry has docker:dind; from this machine's engine: {own:#}; from \
                 Debian's packages: {debian:#}"
            ),
        },
    };
    build(outer, &image, context(FROM_ROOT, Some(&root))?, labels).await?;
    Ok(image)
}

/// How the image of a machine is called; follows from what it is made with.
pub fn image_name() -> String {
    let hash = blake3::hash([START, FROM_DIND, FROM_ROOT, root::EDITION].concat().as_bytes());
    format!("{REPOSITORY}:{}", &hash.to_hex()[..12])
}

/// Whether the engine has Docker's own image, or gets it.
async fn has_dind(outer: &Engine) -> bool {
    if outer.docker.inspect_image("docker:dind").await.is_ok() {
        return true;
    }
    let options = CreateImageOptionsBuilder::default().from_image("docker").tag("dind").build();
    let mut answers = outer.docker.create_image(Some(options), None, None);
    let pull = async {
        while let Some(answer) = answers.next().await {
            // Any error means the same: there is another way.
            if answer.is_err() {
                return false;
            }
        }
        true
    };
    timeout(PULL, pull).await.unwrap_or(false)
}

fn context(dockerfile: &str, root: Option<&[u8]>) -> Result<Bytes> {
    let mut tar = tar::Builder::new(Vec::new());
    let files = [("Dockerfile", dockerfile.as_bytes()), ("start", START.as_bytes())];
    for (path, content) in files.into_iter().chain(root.map(|root| ("root.tar", root))) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content)?;
    }
    Ok(tar.into_inner()?.into())
}

async fn build(outer: &Engine, image: &str, context: Bytes, labels: &BTreeMap<String, String>) -> Result<()> {
    let mut all: HashMap<String, String> = labels.clone().into_iter().collect();
    all.insert(BUILT.to_owned(), "host".to_owned());
    let options = BuildImageOptionsBuilder::default()
        .dockerfile("Dockerfile")
        .t(image)
        .rm(true)
        .forcerm(true)
        .labels(&all)
        .build();
    let mut answers = outer.docker.build_image(options, None, Some(bollard::body_full(context)));
    while let Some(answer) = answers.next().await {
        answer.map_err(|error| outer.failed("build the image of a machine", &error))?;
    }
    Ok(())
}
