//! Who may log in: a TOML file of names, Argon2id hashes (RFC 9106, PHC strings) and home directories.
//!
//! ```toml
//! [[user]]
//! name = "demo"
//! password = "$argon2id$v=19$m=19456,t=2,p=1$..."   # printed by `trebol passwd`
//! home = "/"            # what this user sees as /; "/" unless set
//! read_only = false     # unless set
//! ```
//!
//! The file is read again when it changed; one that cannot be read leaves the users as they were. Unknown names cost as
//! much time as a wrong password of the user whose hash costs most. A login that succeeded is remembered, as a keyed hash that dies with the process, so
//! that eight parallel sessions pay for one Argon2. Passwords are neither kept nor logged.

use crate::path::{FtpPath, PathError};
use argon2::password_hash::{self, PasswordHash, PasswordVerifier};
use argon2::{Argon2, Params};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::sync::Semaphore;

/// Logins remembered; when there are more, all are forgotten and paid for again.
const REMEMBERED: usize = 4096;
/// Argon2 runs at once: each takes 20 MiB and a core for 20 ms or more.
const RUNS: usize = 2;
/// Longest users file, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// The users of one node.
pub struct Users {
    file: Option<PathBuf>,
    state: Mutex<State>,
    runs: Semaphore,
    /// Keys the hashes of remembered logins.
    key: [u8; 32],
}

/// Why the users file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("the users file {path} cannot be read: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no TOML, or has keys that mean nothing.
    #[error("the users file is wrong in line {line}: {message}")]
    Toml {
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A user's hash is none.
    #[error("the password of user {name:?} is no Argon2id hash ({error}); make one with `trebol passwd`")]
    Hash {
        /// Whose.
        name: String,
        /// What is wrong.
        error: password_hash::Error,
    },
    /// A user's home is no path.
    #[error("the home of user {name:?} is of no use: {error}")]
    Home {
        /// Whose.
        name: String,
        /// What is wrong.
        error: PathError,
    },
    /// Two users of one name, or a name that is empty or cannot be typed.
    #[error("the user name {0:?} is there twice, empty, or holds control characters")]
    Name(String),
    /// The system gives no randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// As typed.
    pub name: String,
    /// What they see as `/`.
    pub home: FtpPath,
    /// Whether every change is refused.
    pub read_only: bool,
}

#[derive(Clone, Default)]
struct State {
    accounts: BTreeMap<String, (Account, Arc<str>)>,
    /// The hash that costs most: unknown names pay for it.
    dearest: Option<Arc<str>>,
    remembered: BTreeSet<[u8; 32]>,
    /// Of the file that was read.
    version: Option<(SystemTime, u64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    user: Vec<UserText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserText {
    name: String,
    password: String,
    #[serde(default)]
    home: Option<String>,
    #[serde(default)]
    read_only: bool,
}

impl Users {
    /// Reads a users file. Blocking.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let state = read(path)?;
        Self::with(Some(path.to_owned()), state)
    }
    /// From the text of a users file that never changes.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        Self::with(None, parse(text)?)
    }
    fn with(file: Option<PathBuf>, state: State) -> Result<Self, UsersError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(UsersError::Random)?;
        Ok(Self { file, state: Mutex::new(state), runs: Semaphore::new(RUNS), key })
    }
    /// How many there are.
    pub fn count(&self) -> usize {
        self.state.lock().expect("no panic while held").accounts.len()
    }

    /// The account of `name`, if `password` is theirs. What costs time runs on blocking threads.
    pub(crate) async fn verify(self: &Arc<Self>, name: &str, password: &str) -> Option<Account> {
        let users = self.clone();
        tokio::task::spawn_blocking(move || users.reload_if_changed()).await.ok()?;
        if let Some(account) = self.remembered(name, password) {
            return Some(account);
        }
        let _run = self.runs.acquire().await.ok()?;
        // Somebody may have paid for the same login while this one waited.
        if let Some(account) = self.remembered(name, password) {
            return Some(account);
        }
        let (users, name, password) = (self.clone(), name.to_owned(), password.to_owned());
        tokio::task::spawn_blocking(move || users.pay(&name, &password)).await.ok()?
    }

    fn remembered(&self, name: &str, password: &str) -> Option<Account> {
        let state = self.state.lock().expect("no panic while held");
        let (account, hash) = state.accounts.get(name)?;
        state.remembered.contains(&self.digest(name, password, hash)).then(|| account.clone())
    }

    /// Runs Argon2, for an unknown name too: over the dearest hash there is, so that the answer never comes sooner than for
    /// a name that is known.
    fn pay(&self, name: &str, password: &str) -> Option<Account> {
        let (known, hash) = {
            let state = self.state.lock().expect("no panic while held");
            let known = state.accounts.get(name).cloned();
            let hash = known.as_ref().map(|(_, hash)| hash.clone()).or_else(|| state.dearest.clone());
            (known, hash?)
        };
        let parsed = PasswordHash::new(&hash).ok()?;
        let right = Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
        let (account, _) = known.filter(|_| right)?;
        let digest = self.digest(name, password, &hash);
        let mut state = self.state.lock().expect("no panic while held");
        if state.remembered.len() >= REMEMBERED {
            state.remembered.clear();
        }
        state.remembered.insert(digest);
        Some(account)
    }

    fn digest(&self, name: &str, password: &str, hash: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [name, password, hash] {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Blocking.
    fn reload_if_changed(&self) {
        let Some(path) = &self.file else { return };
        let known = self.state.lock().expect("no panic while held").version;
        let now = std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        if now.is_none() || now == known {
            return;
        }
        match read(path) {
            Ok(state) => {
                tracing::info!(users = state.accounts.len(), "the users file changed");
                *self.state.lock().expect("no panic while held") = state;
            }
            Err(error) => {
                tracing::warn!(%error, "the users file changed and is of no use; the users stay as they were");
                // Said once for each change.
                self.state.lock().expect("no panic while held").version = now;
            }
        }
    }
}

/// Neither hashes nor the key: settings are logged whole now and then.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("file", &self.file).field("count", &self.count()).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<State, UsersError> {
    let io = |error| UsersError::Io { path: path.to_owned(), error };
    // The version is taken first: a change during the read is then seen as one more change.
    let metadata = std::fs::metadata(path).map_err(io)?;
    if metadata.len() > FILE_MAX {
        return Err(io(std::io::Error::other("longer than 16 MiB")));
    }
    let version = Some((metadata.modified().map_err(io)?, metadata.len()));
    let text = std::fs::read_to_string(path).map_err(io)?;
    Ok(State { version, ..parse(&text)? })
}

fn parse(text: &str) -> Result<State, UsersError> {
    let (mut accounts, mut dearest) = (BTreeMap::new(), None);
    for user in toml::from_str::<FileText>(text).map_err(|error| mistake(text, &error))?.user {
        let name = user.name;
        let hash_error = |error| UsersError::Hash { name: name.clone(), error };
        let parsed = PasswordHash::new(&user.password).map_err(hash_error)?;
        if parsed.algorithm.as_str() != "argon2id" || parsed.hash.is_none() {
            return Err(hash_error(password_hash::Error::Algorithm));
        }
        let params = Params::try_from(&parsed).map_err(hash_error)?;
        // Memory times passes: what Argon2 works through.
        let cost = u64::from(params.m_cost()) * u64::from(params.t_cost());
        let hash: Arc<str> = user.password.as_str().into();
        if dearest.as_ref().is_none_or(|(most, _)| cost > *most) {
            dearest = Some((cost, hash.clone()));
        }
        let home = FtpPath::root()
            .resolve(user.home.as_deref().unwrap_or("/"))
            .map_err(|error| UsersError::Home { name: name.clone(), error })?;
        let account = Account { name: name.clone(), home, read_only: user.read_only };
        let typeable = !name.is_empty() && !name.contains(char::is_control);
        if !typeable || accounts.insert(name.clone(), (account, hash)).is_some() {
            return Err(UsersError::Name(name));
        }
    }
    let dearest = dearest.map(|(_, hash)| hash);
    Ok(State { accounts, dearest, ..State::default() })
}

/// In one line, for logs and for the command line.
fn mistake(text: &str, error: &toml::de::Error) -> UsersError {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    UsersError::Toml { line, message: error.message().lines().collect::<Vec<_>>().join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::{PasswordHasher, SaltString};
    use argon2::{Algorithm, Version};

    fn hash(password: &str) -> String {
        let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(16, 1, 1, None).unwrap());
        cheap.hash_password(password.as_bytes(), &SaltString::encode_b64(b"saltsalt").unwrap()).unwrap().to_string()
    }
    fn text(name: &str, password: &str, more: &str) -> String {
        format!("[[user]]\nname = \"{name}\"\npassword = \"{}\"\n{more}\n", hash(password))
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_passes() {
        let users = Arc::new(Users::parse(&text("ana", "secreto", "home = \"/a\"\nread_only = true")).unwrap());
        for _ in 0..2 {
            let account = users.verify("ana", "secreto").await.unwrap();
            assert_eq!((account.home.as_str(), account.read_only), ("/a", true));
            assert_eq!(users.verify("ana", "Secreto").await, None);
            assert_eq!(users.verify("eva", "secreto").await, None);
        }
    }

    #[tokio::test]
    async fn a_login_that_succeeded_is_remembered_and_a_failure_is_not() {
        let users = Arc::new(Users::parse(&text("ana", "secreto", "")).unwrap());
        assert!(!format!("{users:?}").contains("argon2"), "{users:?}");
        assert!(users.verify("ana", "nada").await.is_none());
        assert!(users.remembered("ana", "nada").is_none() && users.remembered("ana", "secreto").is_none());
        assert!(users.verify("ana", "secreto").await.is_some());
        assert!(users.remembered("ana", "secreto").is_some());
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_the_next_login_and_a_broken_one_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text("ana", "uno", "")).unwrap();
        let users = Arc::new(Users::load(file.path()).unwrap());
        assert!(users.verify("ana", "uno").await.is_some());
        std::fs::write(file.path(), text("ana", "uno-dos", "# longer")).unwrap();
        assert!(users.verify("ana", "uno").await.is_none());
        assert!(users.verify("ana", "uno-dos").await.is_some());
        std::fs::write(file.path(), "nonsense").unwrap();
        assert!(users.verify("ana", "uno-dos").await.is_some());
    }

    #[test]
    fn unknown_names_pay_for_the_dearest_hash() {
        let dear = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 2, 1, None).unwrap());
        let salt = SaltString::encode_b64(b"saltsalt").unwrap();
        let dear = dear.hash_password(b"x", &salt).unwrap().to_string();
        let eva = format!("[[user]]\nname = \"eva\"\npassword = \"{dear}\"\n");
        let users = Users::parse(&[text("ana", "x", ""), eva, text("leo", "x", "")].concat()).unwrap();
        assert_eq!(users.state.lock().unwrap().dearest.as_deref(), Some(dear.as_str()));
        assert!(users.pay("nobody", "x").is_none(), "even with the password of that hash");
    }

    #[test]
    fn mistakes_are_named() {
        let refusal = |text: &str| Users::parse(text).unwrap_err().to_string();
        assert!(refusal(&text("ana", "x", "hoem = \"/a\"")).contains("hoem"));
        assert!(refusal("[[user]]\nname = \"ana\"\npassword = \"clear\"\n").contains("ana"));
        let broken = refusal("[[user]]\nname ana\n");
        assert!(broken.starts_with("the users file is wrong in line 2: ") && broken.lines().count() == 1, "{broken}");
        assert!(refusal(&format!("{0}{0}", text("ana", "x", ""))).contains("twice"));
        assert!(refusal(&text("ana", "x", "home = \"/..\"")).contains("ana"));
    }
}
