//! Certificates, users and settings of a cluster: the same for nodes in containers and in processes. Never written into the
//! workspace.

use anyhow::{Context, Result, bail};
use node::pki::Authority;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The cluster's user, who may do everything.
pub const USER: &str = "demo";
/// Its password.
pub const PASSWORD: &str = "five leaves, one clover";
/// The cluster's name.
pub const CLUSTER: &str = "stories";
/// Settings that name a file, and the file.
const FILES: [(&str, &str); 6] = [
    ("PEER_CA", "ca.pem"),
    ("PEER_CERTIFICATE", "peer.pem"),
    ("PEER_KEY", "peer.key"),
    ("FTP_TLS_CERTIFICATE", "ftp.pem"),
    ("FTP_TLS_KEY", "ftp.key"),
    ("FTP_USERS", "users.toml"),
];
/// A node that is away for longer has its copies made again, in seconds. The default of a minute is longer than a story.
const REPAIR_AFTER_S: u64 = 10;

/// The directories of this run, for an end by a signal: then nothing is dropped.
static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Settings of a node, as variables.
pub type Variables = BTreeMap<String, String>;

/// What one cluster needs to be let in, and to let in.
#[derive(Debug)]
pub struct Access {
    directory: TempDir,
    authority: Authority,
}

impl Access {
    /// An authority and a user, new.
    pub async fn make(trebol: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("trebol-e2e-").tempdir()?;
        DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner).push(directory.path().to_owned());
        let authority = Authority::open(directory.path(), CLUSTER)?;
        let user = format!("[[user]]\nname = \"{USER}\"\npassword = \"{}\"\nhome = \"/\"\n", hash(trebol).await?);
        std::fs::write(directory.path().join("users.toml"), user)?;
        Ok(Self { directory, authority })
    }
    /// What clients trust.
    pub fn authority(&self) -> PathBuf {
        self.authority.certificate()
    }
    /// A directory that is gone with the cluster.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
    /// The files of a node, by the names they have in [`Access::variables`].
    pub fn files(&self, node: &str) -> Result<BTreeMap<&'static str, PathBuf>> {
        let (peer, ftp) = (self.authority.peer(node, CLUSTER)?, self.authority.ftp_on_loopback()?);
        Ok(BTreeMap::from([
            ("ca.pem", self.authority.certificate()),
            ("peer.pem", peer.certificate),
            ("peer.key", peer.key),
            ("ftp.pem", ftp.certificate),
            ("ftp.key", ftp.key),
            ("users.toml", self.directory.path().join("users.toml")),
        ]))
    }
    /// The settings that nodes have anywhere; `file` says where theirs are. The first node has the highest rank.
    pub fn variables(&self, node: &str, number: usize, file: impl Fn(&str) -> String) -> Variables {
        let own = [
            ("CLUSTER", CLUSTER.to_owned()),
            ("NAME", node.to_owned()),
            ("ZONE", node.to_owned()),
            ("PRIORITY", (100 - i64::try_from(number).unwrap_or_default()).to_string()),
            ("CORE_REPAIR_AFTER_S", REPAIR_AFTER_S.to_string()),
            ("LOG", "info".to_owned()),
        ];
        let files = FILES.iter().map(|(setting, name)| (*setting, file(name)));
        own.into_iter().chain(files).map(|(setting, value)| (format!("TREBOL_{setting}"), value)).collect()
    }
}

/// Removes the directories of all clusters, at the end of a run that is not told to its end.
pub(crate) fn clear() {
    for directory in DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("{} cannot be removed: {error}", directory.display());
            }
            _ => {}
        }
    }
}

/// Sets more of them. One without a value takes a setting away.
pub(crate) fn set(variables: &mut Variables, more: &Variables) {
    for (name, value) in more {
        if value.is_empty() {
            variables.remove(name);
        } else {
            variables.insert(name.clone(), value.clone());
        }
    }
}

/// `trebol passwd`.
async fn hash(trebol: &Path) -> Result<String> {
    let mut command = Command::new(trebol);
    command.arg("passwd").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", trebol.display()))?;
    child.stdin.take().context("no stdin")?.write_all(PASSWORD.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("passwd ended with {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
