//! What this machine keeps of a cluster: `cluster.toml` (as it was last asked for), `pki/` (the authority with its key, and
//! what it issued), `passwords.toml` (those that were made, with their hashes), `images` (names it has had), `lock`. Private
//! to its owner. The authority's key never leaves it; certificates travel as secrets.

mod users;

pub use users::Password;

use crate::cluster::{Cluster, Host};
use crate::name::Name;
use crate::wanted::{CA, USERS, ftp_role, peer_role};
use anyhow::{Context, Result, bail};
use node::pki::{Authority, Issued};
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest list of images, in bytes.
const IMAGES_MAX: u64 = 1 << 20;

/// The directory of one cluster.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
}

/// Held while something is changed.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

/// Where clusters are kept unless told otherwise (XDG base directories).
pub fn default_directory() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("trebol-swarm"), |base| base.join("trebol/swarm"))
}

impl State {
    /// The directory of the cluster `name` below `base`. Nothing is made yet.
    pub fn of(base: &Path, name: &Name) -> Self {
        Self { dir: base.join(name.as_str()) }
    }
    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.dir
    }
    /// What clients verify with.
    pub fn authority_file(&self) -> PathBuf {
        self.dir.join("pki/ca.pem")
    }
    /// Makes the directory, and holds it: two commands at once would undo each other's work.
    pub fn hold(&self) -> Result<Hold> {
        let io = || format!("cannot prepare {}", self.dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).with_context(io)?;
        let path = self.dir.join("lock");
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).with_context(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Without a readable pid the sentence is just less helpful.
                let _ = file.read_to_string(&mut pid);
                bail!("process {} is changing this cluster: wait for it, or end it", pid.trim());
            }
            Err(errno) => return Err(errno).with_context(io),
        }
        file.set_len(0).with_context(io)?;
        file.write_all(std::process::id().to_string().as_bytes()).with_context(io)?;
        Ok(Hold { _file: file })
    }
    /// The cluster as it was last asked for; `None` if this machine knows none of that name.
    pub fn cluster(&self) -> Result<Option<Cluster>> {
        let path = self.dir.join("cluster.toml");
        let Some(text) = read(&path)? else { return Ok(None) };
        Cluster::parse(&text, &path.display().to_string()).map(Some)
    }
    /// Remembers it.
    pub fn remember(&self, cluster: &Cluster) -> Result<()> {
        let text = toml::to_string(cluster).context("a cluster is plain data")?;
        write(&self.dir.join("cluster.toml"), &text)
    }
    /// The images that its nodes have had.
    pub fn images(&self) -> Result<BTreeSet<String>> {
        Ok(read(&self.dir.join("images"))?.unwrap_or_default().lines().map(str::to_owned).collect())
    }
    /// Remembers one more.
    pub fn remember_image(&self, image: &str) -> Result<()> {
        let mut images = self.images()?;
        if !images.insert(image.to_owned()) {
            return Ok(());
        }
        let lines: String = images.iter().map(|image| format!("{image}\n")).collect();
        write(&self.dir.join("images"), &lines)
    }
    /// The contents of all secrets that were made before, by what they are. Makes nothing.
    pub fn contents(&self, cluster: &Cluster) -> Result<BTreeMap<String, Vec<u8>>> {
        let pki = self.dir.join("pki");
        let mut contents = BTreeMap::new();
        let mut put = |role: String, parts: &[PathBuf]| -> Result<()> {
            let read: Option<Vec<String>> = parts.iter().map(|part| read(part)).collect::<Result<_>>()?;
            contents.extend(read.map(|texts| (role, texts.concat().into_bytes())));
            Ok(())
        };
        let pair = |stem: String| [pki.join(format!("{stem}.pem")), pki.join(format!("{stem}.key"))];
        put(CA.to_owned(), &[self.authority_file()])?;
        for node in cluster.nodes() {
            put(peer_role(&node), &pair(format!("{node}-peer")))?;
        }
        for host in cluster.hosts.iter().filter(|host| host.nodes > 0) {
            if read(&pki.join(format!("{}-ftp.names", host.name)))?
                .is_some_and(|names| names == names_of(host).join("\n"))
            {
                put(ftp_role(&host.name), &pair(format!("{}-ftp", host.name)))?;
            }
        }
        if let Some(users) = users::file(&self.dir, cluster)? {
            contents.insert(USERS.to_owned(), users.into_bytes());
        }
        Ok(contents)
    }
    /// Makes what is missing: the authority, certificates, passwords; then their contents.
    pub fn make(&self, cluster: &Cluster) -> Result<BTreeMap<String, Vec<u8>>> {
        let pki = self.dir.join("pki");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&pki)
            .with_context(|| format!("cannot make {}", pki.display()))?;
        let authority = Authority::open(&pki, cluster.name.as_str())?;
        for node in cluster.nodes() {
            authority.peer(&node.to_string(), cluster.name.as_str())?;
        }
        for host in cluster.hosts.iter().filter(|host| host.nodes > 0) {
            let _: Issued = authority.ftp(&format!("{}-ftp", host.name), &names_of(host))?;
        }
        users::make(&self.dir, cluster)?;
        self.contents(cluster)
    }
    /// The passwords that were made, for those who shall be told.
    pub fn passwords(&self, cluster: &Cluster) -> Result<Vec<Password>> {
        users::passwords(&self.dir, cluster)
    }
    /// Removes all of it, and nothing else that may be in that directory. The lock stays held by who holds it.
    pub fn remove(&self) -> Result<()> {
        let removed = |path: &Path, removed: io::Result<()>| match removed {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        };
        let pki = self.dir.join("pki");
        // Only who has made an authority here has a directory of that name here.
        if self.authority_file().exists() {
            removed(&pki, fs::remove_dir_all(&pki))?;
        }
        for file in ["cluster.toml", "passwords.toml", "images", "lock"].map(|file| self.dir.join(file)) {
            removed(&file, fs::remove_file(&file))?;
        }
        removed(&self.dir, fs::remove_dir(&self.dir))
    }
}

/// Under which clients reach a host's nodes.
fn names_of(host: &Host) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.push(host.address.to_string());
    names.extend(host.names.iter().cloned());
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// A file's text, if it is there.
fn read(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut text = String::new();
    file.take(IMAGES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(text))
}

/// Whole or not at all, for the owner only.
fn write(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    let attempt = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wanted::{Wanted, authority};

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::of(dir.path(), &"demo".parse().unwrap());
        (dir, state)
    }

    #[test]
    fn what_was_made_stays() {
        let (_dir, state) = state();
        let _hold = state.hold().unwrap();
        let cluster = Cluster::parse("name = \"demo\"\n[[user]]\nname = \"ana\"\n", "c").unwrap();
        assert!(state.contents(&cluster).unwrap().is_empty());
        let first = state.make(&cluster).unwrap();
        assert_eq!(first.len(), 5 + 1 + 2);
        assert_eq!(state.make(&cluster).unwrap(), first);
        assert_eq!(state.contents(&cluster).unwrap(), first);
        assert_eq!(state.passwords(&cluster).unwrap()[0].user, "ana");
        let wanted = Wanted::new(cluster, "i".to_owned(), &first);
        assert_eq!(wanted.authority, Some(authority(&fs::read(state.authority_file()).unwrap())));
        assert!(wanted.secrets.values().all(|name| !name.ends_with("-new")));
    }

    #[test]
    fn another_address_is_another_certificate_for_clients_only() {
        let (_dir, state) = state();
        let _hold = state.hold().unwrap();
        let mut cluster = Cluster::default();
        let first = state.make(&cluster).unwrap();
        cluster.hosts[0].address = [192, 0, 2, 7].into();
        assert!(!state.contents(&cluster).unwrap().contains_key("h1-ftp"));
        let second = state.make(&cluster).unwrap();
        let changed: Vec<&String> = first.keys().filter(|role| first[*role] != second[*role]).collect();
        assert_eq!(changed, ["h1-ftp"]);
    }

    #[test]
    fn one_command_at_a_time_changes_a_cluster() {
        let (_dir, state) = state();
        let hold = state.hold().unwrap();
        let refusal = state.hold().unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(hold);
        state.hold().unwrap();
    }

    #[test]
    fn the_cluster_and_its_images_are_remembered() {
        let (_dir, state) = state();
        assert_eq!(state.cluster().unwrap(), None);
        let _hold = state.hold().unwrap();
        state.remember(&Cluster::default()).unwrap();
        assert_eq!(state.cluster().unwrap(), Some(Cluster::default()));
        state.remember_image("b").unwrap();
        state.remember_image("a").unwrap();
        state.remember_image("b").unwrap();
        assert_eq!(state.images().unwrap().into_iter().collect::<Vec<_>>(), ["a", "b"]);
        state.remove().unwrap();
        assert_eq!(state.cluster().unwrap(), None);
    }
}
