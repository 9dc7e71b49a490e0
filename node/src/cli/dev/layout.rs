//! The directory of a `trebol dev` cluster: `pki/` (authority and certificates), `users.toml` and `password` (demo user),
//! `ports.json`, and for every node `n1.toml` (settings), `n1.log`, `n1/` (data). Held by one `dev` at a time.

use super::ports::{self, Ports};
use crate::cli::{Failure, passwd};
use crate::config::{SETTINGS, Setting};
use crate::pki::{Authority, PkiError};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The cluster's name.
const CLUSTER: &str = "dev";
/// The demo user.
const USER: &str = "demo";

/// A prepared directory, held.
#[derive(Debug)]
pub(super) struct Layout {
    /// Absolute.
    pub(super) dir: PathBuf,
    pub(super) user: &'static str,
    pub(super) password: String,
    /// What clients verify with.
    pub(super) ca: PathBuf,
    pub(super) nodes: Vec<NodeFiles>,
    /// The variables of all settings that are the nodes' own.
    pub(super) own_variables: Vec<String>,
    _hold: File,
}

/// What one node is started with.
#[derive(Debug, Clone)]
pub(super) struct NodeFiles {
    pub(super) name: String,
    pub(super) settings: PathBuf,
    pub(super) log: PathBuf,
    pub(super) data: PathBuf,
}

/// `ports.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    version: u32,
    nodes: Vec<Ports>,
}

/// The nodes' data directories in the directory of a `dev` cluster, in order; none if it is something else.
pub(in crate::cli) fn node_directories(dir: &Path) -> Vec<PathBuf> {
    (1..=50).map(|n| dir.join(format!("n{n}"))).filter(|path| path.is_dir()).collect()
}

impl Layout {
    /// Makes what is missing in `dir`, keeps what is there, and holds it.
    pub(super) fn prepare(dir: &Path, count: u16) -> Result<Self, Failure> {
        let io = |error: std::io::Error| Failure::Runtime(format!("cannot prepare {}: {error}", dir.display()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let dir = fs::canonicalize(dir).map_err(io)?;
        let hold = hold(&dir)?;
        let authority = Authority::open(&dir.join("pki"), CLUSTER).map_err(Failure::runtime)?;
        let password = demo_user(&dir)?;
        let ports = remembered_ports(&dir, count)?;
        let seeds: Vec<String> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports.peer)).collect();
        let (mut nodes, mut own_variables) = (Vec::new(), Vec::new());
        for (number, ports) in (1u16..).zip(&ports) {
            let name = format!("n{number}");
            let files = NodeFiles {
                settings: dir.join(format!("{name}.toml")),
                log: dir.join(format!("{name}.log")),
                data: dir.join(&name),
                name,
            };
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&files.data).map_err(io)?;
            let settings = node_settings(&dir, &files, &authority, *ports, &seeds).map_err(Failure::runtime)?;
            own_variables = variables(&settings);
            write(&files.settings, &settings.to_string(), 0o600).map_err(io)?;
            nodes.push(files);
        }
        Ok(Self { user: USER, password, ca: authority.certificate(), nodes, own_variables, dir, _hold: hold })
    }
}

/// Locks the directory, or says who has it.
fn hold(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("dev.lock");
    let io = |error: std::io::Error| Failure::Runtime(format!("cannot lock {}: {error}", path.display()));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Without a readable pid the sentence is just less helpful.
            let _ = file.read_to_string(&mut pid);
            let (dir, pid) = (dir.display(), pid.trim());
            return Err(Failure::Runtime(format!(
                "{dir} is in use by process {pid}; stop that `trebol dev` or choose another directory with --data"
            )));
        }
        Err(errno) => return Err(io(errno.into())),
    }
    file.set_len(0).map_err(io)?;
    file.write_all(std::process::id().to_string().as_bytes()).map_err(io)?;
    Ok(file)
}

/// The demo user's password, made at the first run together with the users file.
fn demo_user(dir: &Path) -> Result<String, Failure> {
    let (path, users) = (dir.join("password"), dir.join("users.toml"));
    let io =
        |error: std::io::Error| Failure::Runtime(format!("cannot prepare the demo user in {}: {error}", dir.display()));
    let kept = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
    if !kept.is_empty() && users.exists() {
        return Ok(kept);
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(Failure::runtime)?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = passwd::hash(&password).map_err(Failure::Runtime)?;
    // The user's file last: it alone without its password would lock everybody out.
    write(&path, &format!("{password}\n"), 0o600).map_err(io)?;
    write(&users, &format!("[[user]]\nname = \"{USER}\"\npassword = \"{hash}\"\nhome = \"/\"\n"), 0o600).map_err(io)?;
    Ok(password)
}

/// The ports of the last run where they are free. Nodes that do not run this time keep theirs.
fn remembered_ports(dir: &Path, count: u16) -> Result<Vec<Ports>, Failure> {
    let path = dir.join("ports.json");
    let last = fs::read(&path).ok().and_then(|json| serde_json::from_slice::<Remembered>(&json).ok());
    let mut last = last.filter(|last| last.version == 1).map_or(vec![], |last| last.nodes);
    let chosen = ports::choose(count, &last).map_err(Failure::Runtime)?;
    let kept = last.split_off(chosen.len().min(last.len()));
    let last = [chosen.as_slice(), &kept].concat();
    let json = serde_json::to_string(&Remembered { version: 1, nodes: last }).map_err(Failure::runtime)?;
    write(&path, &json, 0o600)
        .map_err(|error| Failure::Runtime(format!("cannot write {}: {error}", path.display())))?;
    Ok(chosen)
}

fn node_settings(
    dir: &Path,
    files: &NodeFiles,
    authority: &Authority,
    ports: Ports,
    seeds: &[String],
) -> Result<toml::Table, PkiError> {
    let peer = authority.peer(&files.name, CLUSTER)?;
    let ftp = authority.ftp_on_loopback()?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let local = |port: u16| format!("127.0.0.1:{port}");
    let node = table([
        ("data", text(&files.data).into()),
        ("cluster", CLUSTER.into()),
        ("name", files.name.clone().into()),
        // Every node its own: on one machine there is nothing to spread over.
        ("zone", files.name.clone().into()),
        ("drain_s", 10.into()),
    ]);
    let clients = table([
        ("listen", local(ports.ftp).into()),
        ("passive_ports", "0".into()),
        ("tls_certificate", text(&ftp.certificate).into()),
        ("tls_key", text(&ftp.key).into()),
        ("users", text(&dir.join("users.toml")).into()),
    ]);
    let peers = table([
        ("listen", local(ports.peer).into()),
        ("raw_listen", local(ports.raw).into()),
        ("seeds", seeds.to_vec().into()),
        ("ca", text(&authority.certificate()).into()),
        ("certificate", text(&peer.certificate).into()),
        ("key", text(&peer.key).into()),
    ]);
    let mut all = table([("node", node.into()), ("ftp", clients.into()), ("peer", peers.into())]);
    if seeds.len() == 1 {
        // The operator's word: a single node has nobody to keep a second copy.
        all.insert("core".to_owned(), table([("min_copies", 1.into())]).into());
    }
    Ok(all)
}

/// The variables that would win over these settings.
fn variables(settings: &toml::Table) -> Vec<String> {
    let is_set =
        |setting: &&Setting| settings.get(setting.section).is_some_and(|section| section.get(setting.key).is_some());
    SETTINGS.iter().filter(is_set).map(Setting::variable).collect()
}

fn table<const N: usize>(rows: [(&str, toml::Value); N]) -> toml::Table {
    rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn settings_of_the_nodes_are_fit_to_serve() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path(), 3).unwrap();
        assert_eq!(layout.nodes.len(), 3);
        for node in &layout.nodes {
            let settings = config::load(Some(&node.settings), [], &[]).unwrap();
            assert_eq!(settings.check(), Ok(()));
            assert_eq!((settings.node.data, settings.core.min_copies), (node.data.clone(), 2));
        }
        assert_eq!(node_directories(dir.path()).len(), 3);
        assert!(layout.own_variables.contains(&"TREBOL_DATA".to_owned()));
        assert!(!layout.own_variables.contains(&"TREBOL_CORE_DOWN_MS".to_owned()));
    }

    #[test]
    fn a_held_directory_is_refused_with_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let held = Layout::prepare(dir.path(), 1).unwrap();
        let Err(Failure::Runtime(sentence)) = Layout::prepare(dir.path(), 1) else { panic!("not refused") };
        assert!(sentence.contains(&format!("in use by process {}", std::process::id())), "{sentence}");
        let password = held.password.clone();
        drop(held);
        assert_eq!(Layout::prepare(dir.path(), 2).unwrap().password, password, "kept between runs");
    }

    #[test]
    fn one_node_may_keep_one_copy() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path(), 1).unwrap();
        let settings = config::load(Some(&layout.nodes[0].settings), [], &[]).unwrap();
        assert_eq!(settings.core.min_copies, 1);
    }
}
