//! The files that settings name: certificates, keys, users. Read once, at the start; the users file is looked after by
//! the client side from then on.

use super::ServeError;
use crate::config::{PeerFiles, Settings, Unfit};
use crate::ftp::{FtpConfig, FtpTls, Users};
use crate::peer::{PeerTls, Pem};
use rustls::pki_types::UnixTime;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What was read.
pub(super) struct Material {
    pub(super) peer: PeerTls,
    pub(super) ftp: FtpConfig,
}

/// Nothing of keys and hashes.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

impl Material {
    /// Blocking, a few small files.
    pub(super) fn load(settings: &Settings) -> Result<Self, ServeError> {
        Ok(Self { peer: peer_tls(settings)?, ftp: ftp_config(settings)? })
    }
}

/// Everything that would keep a node from starting with these settings and the files they name, one sentence each. Reads the
/// files, opens nothing else. Blocking.
pub fn faults(settings: &Settings) -> Vec<String> {
    let unfit = settings.faults();
    let mut found: Vec<String> = unfit.iter().map(ToString::to_string).collect();
    // Without a cluster's name nobody knows what name a certificate is to be for.
    let unnamed = unfit.iter().any(|unfit| matches!(unfit, Unfit::Cluster(_)));
    let peer = if unnamed { None } else { peer_files(settings).err() };
    let files = [peer, users(settings).err(), ftp_tls(settings).err()];
    for fault in files.into_iter().flatten().map(|error| error.to_string()) {
        // What is missing among the settings was said with them.
        if !found.contains(&fault) {
            found.push(fault);
        }
    }
    found
}

/// As [`peer_tls`], and whether peers would take this node's certificate now.
fn peer_files(settings: &Settings) -> Result<(), ServeError> {
    let Some(files) = settings.peer_files().map_err(|unfit| wrong(&unfit))? else { return Ok(()) };
    peer_tls(settings)?.check_own(UnixTime::now()).map_err(|error| of_no_use(&error, &files))
}

/// What is wrong with files that have to fit together, with all their names.
fn of_no_use(error: &dyn fmt::Display, PeerFiles { ca, certificate, key }: &PeerFiles) -> ServeError {
    let names = [("peer.ca", ca), ("peer.certificate", certificate), ("peer.key", key)];
    let names = names.map(|(setting, path)| format!("{setting} {}", path.display())).join(", ");
    wrong(&format!("{error} ({names})"))
}

fn peer_tls(settings: &Settings) -> Result<PeerTls, ServeError> {
    let files = settings.peer_files().map_err(|unfit| wrong(&unfit))?;
    let Some(files) = files else {
        tracing::warn!("peers are not authenticated: whoever reaches the peer ports reads and changes every file");
        return Ok(PeerTls::insecure());
    };
    let ca = read(&files.ca, "peer.ca")?;
    let certificate = read(&files.certificate, "peer.certificate")?;
    let key = read_secret(&files.key, "peer.key")?;
    PeerTls::new(&settings.node.cluster, Pem { ca: &ca, certificate: &certificate, key: &key })
        .map_err(|error| of_no_use(&error, &files))
}

fn users(settings: &Settings) -> Result<Arc<Users>, ServeError> {
    let path = settings.ftp.users.as_ref().ok_or_else(|| wrong(&Unfit::Users))?;
    warn_if_open(path, "ftp.users");
    let users = Arc::new(Users::load(path).map_err(|error| wrong(&error))?);
    if users.count() == 0 {
        tracing::warn!("the users file names nobody: no client can log in");
    }
    Ok(users)
}

fn ftp_tls(settings: &Settings) -> Result<Option<FtpTls>, ServeError> {
    let Some(files) = settings.ftp_files().map_err(|unfit| wrong(&unfit))? else { return Ok(None) };
    let (certificate, key) = (read(&files.0, "ftp.tls_certificate")?, read_secret(&files.1, "ftp.tls_key")?);
    FtpTls::new(&certificate, &key).map(Some).map_err(|error| {
        let names = format!("ftp.tls_certificate {}, ftp.tls_key {}", files.0.display(), files.1.display());
        wrong(&format!("{error} ({names})"))
    })
}

fn wrong(error: &dyn fmt::Display) -> ServeError {
    ServeError::Settings(error.to_string())
}

fn ftp_config(settings: &Settings) -> Result<FtpConfig, ServeError> {
    let ftp = &settings.ftp;
    let (users, tls) = (users(settings)?, ftp_tls(settings)?);
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let range = ftp.passive_ports;
    Ok(FtpConfig {
        require_tls: ftp.require_tls,
        passive_ports: (range.first != 0).then_some(range.first..=range.last),
        passive_address: ftp.passive_address,
        max_sessions: count(ftp.max_sessions),
        max_sessions_per_address: count(ftp.max_sessions_per_address),
        login_timeout: Duration::from_secs(ftp.login_timeout_s),
        idle_timeout: Duration::from_secs(ftp.idle_timeout_s),
        accept_timeout: Duration::from_secs(ftp.accept_timeout_s),
        stall_timeout: Duration::from_secs(ftp.stall_timeout_s),
        patience: Duration::from_millis(settings.core.lock_wait_ms),
        max_failed_logins: ftp.max_failed_logins,
        ban_time: Duration::from_secs(ftp.ban_s),
        ..FtpConfig::new(users, tls)
    })
}

fn read(path: &Path, setting: &str) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path)
        .map_err(|error| ServeError::Settings(format!("{setting}: cannot read {}: {error}", path.display())))
}

/// The same, with a warning when it is no secret to others.
fn read_secret(path: &Path, setting: &str) -> Result<Vec<u8>, ServeError> {
    warn_if_open(path, setting);
    read(path, setting)
}

/// Warns only: how secrets are mounted is the operator's business, and a node that does not start helps nobody.
fn warn_if_open(path: &Path, setting: &str) {
    if is_open(path) {
        tracing::warn!(?path, setting, "other users of this machine can read or change this file: take that from them");
    }
}

/// Whether users who are neither its owner nor of its group can read or change a file. One that is not there is not open:
/// reading it tells.
fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o006 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn a_file_that_others_can_read_or_change_is_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open(file.path()), open, "{mode:o}");
        }
        assert!(!is_open(Path::new("/nowhere/key")));
    }
}
