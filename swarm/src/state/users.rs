//! The first users of a cluster, as the file that nodes read. Who was given no hash gets a password, made once and kept, so
//! that the same cluster has the same users file on any day.

use super::{read, write};
use crate::cluster::{Cluster, User};
use anyhow::{Context, Result, anyhow};
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, SaltString};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Of passwords and their hashes.
const FILE: &str = "passwords.toml";

/// A password that was made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// Whose.
    pub user: String,
    /// In clear.
    pub password: String,
    /// Argon2id.
    hash: String,
}

/// Without the password.
impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Password").field("user", &self.user).finish_non_exhaustive()
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    #[serde(default)]
    made: Vec<Password>,
}

/// As `ftp.users` wants it.
#[derive(Serialize)]
struct UsersFile {
    user: Vec<UserText>,
}

#[derive(Serialize)]
struct UserText {
    name: String,
    password: String,
    home: String,
    read_only: bool,
}

fn made(dir: &Path) -> Result<Made> {
    let path = dir.join(FILE);
    let text = read(&path)?.unwrap_or_default();
    toml::from_str(&text).map_err(|error| anyhow!("{}: {}", path.display(), error.message()))
}

/// Makes the passwords that are missing.
pub(super) fn make(dir: &Path, cluster: &Cluster) -> Result<()> {
    let mut made = made(dir)?;
    let known = |made: &Made, user: &User| made.made.iter().any(|password| password.user == user.name);
    let mut changed = false;
    for user in cluster.users.iter().filter(|user| user.password.is_none()) {
        if !known(&made, user) {
            made.made.push(new_password(&user.name)?);
            changed = true;
        }
    }
    if changed {
        write(&dir.join(FILE), &toml::to_string(&made).context("passwords are plain data")?)?;
    }
    Ok(())
}

/// Those of users who are still asked for, and were given no hash.
pub(super) fn passwords(dir: &Path, cluster: &Cluster) -> Result<Vec<Password>> {
    let made = made(dir)?.made;
    let asked =
        |password: &Password| cluster.users.iter().any(|user| user.name == password.user && user.password.is_none());
    Ok(made.into_iter().filter(asked).collect())
}

/// The users file, if every user has a hash.
pub(super) fn file(dir: &Path, cluster: &Cluster) -> Result<Option<String>> {
    let made = made(dir)?.made;
    let text = |user: &User| {
        let own = made.iter().find(|password| password.user == user.name).map(|password| &password.hash);
        let password = user.password.as_ref().or(own)?.clone();
        Some(UserText { name: user.name.clone(), password, home: user.home.clone(), read_only: user.read_only })
    };
    let users: Option<Vec<UserText>> = cluster.users.iter().map(text).collect();
    users.map(|user| toml::to_string(&UsersFile { user }).context("users are plain data")).transpose()
}

/// 96 random bits.
fn new_password(user: &str) -> Result<Password> {
    let mut random = [0; 12 + 16];
    getrandom::fill(&mut random).map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
    let (secret, salt) = random.split_at(12);
    let password: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let salt = SaltString::encode_b64(salt).map_err(|error| anyhow!("{error}"))?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|error| anyhow!("{error}"))?;
    Ok(Password { user: user.to_owned(), password, hash: hash.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_that_nodes_read() {
        let dir = tempfile::tempdir().unwrap();
        let hash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$SFSVUjwQE0yKZyDNsiKa6Q";
        let text = format!("[[user]]\nname = \"a\"\n[[user]]\nname = \"b\"\npassword = \"{hash}\"\nread_only = true\n");
        let cluster = Cluster::parse(&text, "c").unwrap();
        assert_eq!(file(dir.path(), &cluster).unwrap(), None, "a has no password yet");
        make(dir.path(), &cluster).unwrap();
        let users = file(dir.path(), &cluster).unwrap().unwrap();
        let path = dir.path().join("users.toml");
        std::fs::write(&path, &users).unwrap();
        assert_eq!(node::ftp::Users::load(&path).unwrap().count(), 2);
        let passwords = passwords(dir.path(), &cluster).unwrap();
        assert_eq!(passwords.iter().map(|made| made.user.as_str()).collect::<Vec<_>>(), ["a"]);
        assert!(!format!("{passwords:?}").contains(&passwords[0].password));
    }
}
