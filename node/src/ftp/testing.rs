//! For tests: files in a map, and a client that shows every byte of the control connection. Not part of any build.

use super::config::FtpConfig;
use super::files::{Answer, Files, Pending};
use super::listener::{FtpTasks, serve_files};
pub(crate) use super::testing_client::Client;
use super::tls::FtpTls;
use super::upload::Receiver;
use super::users::Users;
use crate::cluster::{
    BlobId, Change, Epoch, Extent, File, Hash, Head, Hlc, Location, OpId, Outcome, Position, Refusal, Stamp, Version,
};
use crate::meter::Meter;
use crate::path::FtpPath;
use crate::peer::{ReadRefused, Stopped};
use crate::replica::{Download, ReadError, Restored, Source as _, UploadError, Uploaded};
use crate::store::{Conflicted, Row};
use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params};
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// Bound of every wait.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// A modification time.
const MODIFIED: u64 = 1_763_985_600_000_000;

/// A version that lost, with its bytes.
type Lost = (Head, Vec<u8>);

/// Files by path; `None` is a directory.
pub(crate) struct Memory {
    tree: Mutex<BTreeMap<String, Option<Vec<u8>>>>,
    /// Losers of conflicts by path.
    lost: Mutex<BTreeMap<FtpPath, Vec<Lost>>>,
    /// What the next change is refused with.
    pub(crate) refusal: Mutex<Option<Refusal>>,
    /// The cluster has stopped beneath the front.
    pub(crate) stopped: AtomicBool,
    /// There is a leader that the node cannot keep up with.
    pub(crate) behind: AtomicBool,
    /// One permit a commit.
    pub(crate) commits: Semaphore,
}

impl Memory {
    pub(crate) fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.tree.lock().unwrap().get(path).cloned().flatten()
    }
    pub(crate) fn put(&self, path: &str, bytes: Option<&[u8]>) {
        self.tree.lock().unwrap().insert(path.to_owned(), bytes.map(<[u8]>::to_vec));
    }
    /// A version that lost, logged at noon as the `seq`-th of its epoch.
    pub(crate) fn lose(&self, path: &str, seq: u64, bytes: &[u8]) {
        let file = file(bytes);
        let position = Position { epoch: Epoch(3, 0x9f86), seq };
        let location = Location::default();
        let head = Head { position, hlc: Hlc(MODIFIED + seq), op: OpId(1), confirmed: true, what: file, location };
        let path = FtpPath::try_from(path.to_owned()).unwrap();
        self.lost.lock().unwrap().entry(path).or_default().push((head, bytes.to_vec()));
    }
    /// Takes a loser away; what it was.
    fn settle(&self, path: &FtpPath, position: Position) -> Result<Vec<u8>, Refusal> {
        let mut lost = self.lost.lock().unwrap();
        let losers = lost.get_mut(path).ok_or(Refusal::NotFound)?;
        let at = losers.iter().position(|(head, _)| head.position == position).ok_or(Refusal::NotFound)?;
        let bytes = losers.remove(at).1;
        lost.retain(|_, losers| !losers.is_empty());
        Ok(bytes)
    }
    fn refused(&self) -> Result<(), Refusal> {
        self.refusal.lock().unwrap().take().map_or(Ok(()), Err)
    }
    fn apply(&self, change: Change) -> Result<Outcome, Refusal> {
        self.refused()?;
        let mut tree = self.tree.lock().unwrap();
        match change {
            Change::MakeDirectory { path } => drop(tree.insert(path.to_string(), None)),
            Change::Delete { path } | Change::RemoveDirectory { path } => {
                tree.remove(path.as_str()).ok_or(Refusal::NotFound)?;
            }
            Change::Rename { from, to } => {
                let what = tree.get(from.as_str()).cloned().ok_or(Refusal::NotFound)?;
                if what.is_none() && (to.is_within(&from) || tree.contains_key(to.as_str())) {
                    return Err(if to.is_within(&from) { Refusal::IntoItself } else { Refusal::Exists });
                }
                let all = std::mem::take(&mut *tree).into_iter().map(|(path, what)| {
                    let path = FtpPath::try_from(path).unwrap();
                    (path.moved(&from, &to).ok().filter(|_| path.is_within(&from)).unwrap_or(path).to_string(), what)
                });
                *tree = all.collect();
                tree.insert(to.to_string(), what);
            }
            Change::Resolve { path, position } => drop(self.settle(&path, position)?),
            Change::Recover { path, position, to } => {
                drop(tree.insert(to.to_string(), Some(self.settle(&path, position)?)));
            }
            _ => return Err(Refusal::Busy),
        }
        Ok(outcome())
    }
}

fn file(bytes: &[u8]) -> Version {
    Version::File(File {
        extents: vec![Extent {
            blob: BlobId::default(),
            offset: 0,
            length: bytes.len() as u64,
            hash: blake3::hash(bytes).into(),
        }],
        size: bytes.len() as u64,
        // Lets `open` find the bytes again.
        hash: Some(Hash::from(blake3::hash(bytes))),
        modified: MODIFIED,
        ..File::default()
    })
}

fn outcome() -> Outcome {
    Outcome { position: Position::default(), hlc: Hlc::default(), copies: 3 }
}

/// The shared end of [`Memory`].
pub(crate) struct Tree(pub(crate) Arc<Memory>);

impl Files for Tree {
    fn fresh(&self) -> Answer<'_, Result<(), ReadRefused>> {
        let stopped = self.0.stopped.load(Ordering::Relaxed);
        let behind = self.0.behind.load(Ordering::Relaxed);
        Box::pin(async move {
            match (stopped, behind) {
                (true, _) => Err(Stopped.into()),
                (false, true) => Err(ReadRefused::Behind),
                (false, false) => Ok(()),
            }
        })
    }
    fn visible(&self, path: &FtpPath) -> Option<Head> {
        let what = match self.0.tree.lock().unwrap().get(path.as_str())? {
            None => Version::Directory { modified: MODIFIED },
            Some(bytes) => file(bytes),
        };
        let location = Location { stamp: Stamp::default(), nodes: vec![] };
        let (position, hlc, op) = (Position::default(), Hlc::default(), OpId(1));
        Some(Head { position, hlc, op, confirmed: true, what, location })
    }
    fn is_directory(&self, path: &FtpPath) -> bool {
        path.is_root() || self.0.tree.lock().unwrap().get(path.as_str()) == Some(&None)
    }
    fn list(&self, dir: &FtpPath, after: Option<&str>, limit: usize) -> Vec<Row> {
        let tree = self.0.tree.lock().unwrap();
        let rows = tree.iter().filter_map(|(path, bytes)| {
            let path = FtpPath::try_from(path.clone()).unwrap();
            let (parent, name) = path.split()?;
            let size = bytes.as_ref().map_or(0, |b| b.len() as u64);
            let row = Row { name: name.to_owned(), directory: bytes.is_none(), size, modified: MODIFIED };
            (parent == *dir && after.is_none_or(|after| name > after)).then_some(row)
        });
        rows.take(limit).collect()
    }
    fn losers(&self, path: &FtpPath) -> Vec<Head> {
        let lost = self.0.lost.lock().unwrap();
        lost.get(path).into_iter().flatten().map(|(head, _)| head.clone()).collect()
    }
    fn conflicts(&self, dir: &FtpPath, after: Option<&str>, limit: usize) -> Vec<Conflicted> {
        let mut children: BTreeMap<String, Conflicted> = BTreeMap::new();
        for path in self.conflicts_below(dir, usize::MAX).0 {
            let mut names = path.components().skip(dir.components().count()).map(str::to_owned);
            let name = names.next().unwrap();
            let child = Conflicted { name: name.clone(), itself: false, below: false };
            let child = children.entry(name).or_insert(child);
            if names.next().is_some() { child.below = true } else { child.itself = true }
        }
        let beyond = children.into_values().filter(|child| after.is_none_or(|after| &*child.name > after));
        beyond.take(limit).collect()
    }
    fn conflicts_below(&self, dir: &FtpPath, limit: usize) -> (Vec<FtpPath>, u64) {
        let lost = self.0.lost.lock().unwrap();
        let below: Vec<_> = lost.iter().filter(|(path, _)| path.is_within(dir) && *path != dir).collect();
        let losers = below.iter().map(|(_, losers)| losers.len() as u64).sum();
        (below.into_iter().map(|(path, _)| path.clone()).take(limit).collect(), losers)
    }
    fn change(&self, change: Change) -> Answer<'_, Result<Result<Outcome, Refusal>, Stopped>> {
        Box::pin(async { Ok(self.0.apply(change)) })
    }
    fn begin(&self, change: Change) -> Answer<'_, Result<Box<dyn Pending>, UploadError>> {
        Box::pin(async {
            self.0.refused()?;
            let Change::Store { path, .. } = change else { return Err(Refusal::Busy.into()) };
            Ok(Box::new(Uploading { memory: self.0.clone(), path }) as Box<dyn Pending>)
        })
    }
    fn append<'a>(
        &'a self,
        change: Change,
        restored: Option<Restored>,
        source: &'a mut Receiver,
    ) -> Answer<'a, Result<Uploaded, UploadError>> {
        Box::pin(async move {
            let Change::Append { path, cut } = change else { return Err(Refusal::Busy.into()) };
            let bytes = all(source).await?;
            self.0.refused()?;
            let keep = cut.map_or(u64::MAX, |cut| cut.keep + restored.map_or(0, |restored| restored.length));
            let mut whole = self.0.file(path.as_str()).unwrap_or_default();
            whole.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            whole.extend_from_slice(&bytes);
            self.0.put(path.as_str(), Some(&whole));
            Ok(Uploaded { outcome: outcome(), size: bytes.len() as u64 })
        })
    }
    fn open<'a>(&'a self, file: &'a File, _: &'a Location, offset: u64) -> Answer<'a, Result<Download, ReadError>> {
        Box::pin(async move {
            let tree = self.0.tree.lock().unwrap();
            let lost = self.0.lost.lock().unwrap();
            let all = tree.values().flatten().chain(lost.values().flatten().map(|(_, bytes)| bytes));
            let found = all.into_iter().find(|bytes| Some(Hash::from(blake3::hash(bytes))) == file.hash);
            let bytes = found.ok_or(ReadError::NoReplica)?;
            let length = file.size.checked_sub(offset).ok_or(ReadError::BeyondEnd)?;
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            Ok(Download::Local { file, offset, length, elsewhere: None })
        })
    }
}

struct Uploading {
    memory: Arc<Memory>,
    path: FtpPath,
}

impl Pending for Uploading {
    fn run<'a>(self: Box<Self>, source: &'a mut Receiver) -> Answer<'a, Result<Uploaded, UploadError>> {
        Box::pin(async move {
            let bytes = all(source).await?;
            self.memory.commits.acquire().await.unwrap().forget();
            let size = bytes.len() as u64;
            self.memory.put(self.path.as_str(), Some(&bytes));
            Ok(Uploaded { outcome: outcome(), size })
        })
    }
}

async fn all(source: &mut Receiver) -> Result<Vec<u8>, UploadError> {
    let mut bytes = vec![];
    while let Some(chunk) = source.next_chunk().await.map_err(UploadError::Source)? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A front over [`Memory`].
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) memory: Arc<Memory>,
    pub(crate) meter: Meter,
    pub(crate) tasks: FtpTasks,
    pub(crate) connector: TlsConnector,
}

/// An Argon2id hash that costs next to nothing.
pub(crate) fn cheap_hash(password: &str) -> String {
    let cheap = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, Params::new(16, 1, 1, None).expect("good"));
    let salt = SaltString::encode_b64(b"saltsalt").unwrap();
    cheap.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}

impl Front {
    /// Users: `ana` (all), `leo` (home `/leo`), `eva` (reads only); the password is `clave` for all.
    pub(crate) async fn start(change: impl FnOnce(&mut FtpConfig)) -> Self {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let tls = FtpTls::new(key.cert.pem().as_bytes(), key.signing_key.serialize_pem().as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();

        let user =
            |name, more| format!("[[user]]\nname = \"{name}\"\npassword = \"{}\"\n{more}\n", cheap_hash("clave"));
        let users = [user("ana", ""), user("leo", "home = \"/leo\""), user("eva", "read_only = true")].concat();
        let mut config = FtpConfig::new(Arc::new(Users::parse(&users).unwrap()), Some(tls));
        config.failed_login_delay = Duration::from_millis(1);
        change(&mut config);
        let memory = Arc::new(Memory {
            tree: Mutex::default(),
            lost: Mutex::default(),
            refusal: Mutex::default(),
            stopped: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            commits: Semaphore::new(1000),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let meter = Meter::default();
        let tasks = serve_files(config, listener, Arc::new(Tree(memory.clone())), meter.clone());
        Self { address, memory, meter, tasks, connector: TlsConnector::from(Arc::new(client)) }
    }
    /// A client that has said nothing.
    pub(crate) async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut client = Client::over(stream, &self.connector);
        assert_eq!(client.reply().await.0, 220);
        client
    }
    /// One that is logged in over TLS with PROT P and TYPE I, or all plain.
    pub(crate) async fn login(&self, user: &str, tls: bool) -> Client {
        let mut client = self.connect().await;
        if tls {
            client = client.secure().await;
            client.expect("PBSZ 0", 200).await;
            client.expect("PROT P", 200).await;
        }
        client.expect(&format!("USER {user}"), 331).await;
        client.expect("PASS clave", 230).await;
        client.expect("TYPE I", 200).await;
        client
    }
}

/// The settings of a front that takes plain clients.
pub(crate) fn plain(config: &mut FtpConfig) {
    config.require_tls = false;
}
