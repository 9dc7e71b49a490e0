//! The files that settings name: certificates and keys. Read once, at the start.

use super::ServeError;
use crate::config::Settings;
use crate::peer::{PeerTls, Pem};
use std::path::Path;

/// What was read.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) peer: PeerTls,
}

impl Material {
    /// Blocking, a few small files.
    pub(super) fn load(settings: &Settings) -> Result<Self, ServeError> {
        Ok(Self { peer: peer_tls(settings)? })
    }
}

fn peer_tls(settings: &Settings) -> Result<PeerTls, ServeError> {
    let files = settings.peer_files().map_err(|unfit| ServeError::Settings(unfit.to_string()))?;
    let Some(files) = files else {
        tracing::warn!("peers are not authenticated: whoever reaches the peer ports reads and changes every file");
        return Ok(PeerTls::insecure());
    };
    let ca = read(&files.ca, "peer.ca")?;
    let certificate = read(&files.certificate, "peer.certificate")?;
    let key = read(&files.key, "peer.key")?;
    PeerTls::new(&settings.node.cluster, Pem { ca: &ca, certificate: &certificate, key: &key })
        .map_err(|error| ServeError::Settings(error.to_string()))
}

fn read(path: &Path, setting: &str) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path)
        .map_err(|error| ServeError::Settings(format!("{setting}: cannot read {}: {error}", path.display())))
}
