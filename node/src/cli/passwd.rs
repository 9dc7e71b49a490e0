//! `trebol passwd`: an Argon2id hash (RFC 9106) of a password read from stdin, for the users file. The password is neither
//! an argument, which others could see, nor printed.

use super::Failure;
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, SaltString};
use std::io::{BufRead, IsTerminal, Read};

/// Longest password, in bytes: what an FTP line can carry and then some.
const PASSWORD_MAX: usize = 1024;

/// Print the Argon2id hash of a password, for the users file
///
/// Reads one line from stdin. The hash goes into the file that ftp.users names.
#[derive(Debug, clap::Args)]
pub(super) struct Passwd {}

impl Passwd {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            eprint!("Password (it is shown as you type; pipe it in to keep it off the screen): ");
        }
        let mut line = String::new();
        let read = stdin.lock().take(PASSWORD_MAX as u64 + 2).read_line(&mut line);
        read.map_err(|error| Failure::Runtime(format!("cannot read the password: {error}")))?;
        let password = line.trim_end_matches(['\r', '\n']);
        super::print(&format!("{}\n", hash(password).map_err(Failure::Usage)?))
    }
}

/// The hash in PHC form, with a fresh salt.
pub(super) fn hash(password: &str) -> Result<String, String> {
    if password.is_empty() {
        return Err("the password is empty: give one line on stdin".to_owned());
    }
    if password.len() > PASSWORD_MAX {
        return Err(format!("the password is longer than {PASSWORD_MAX} bytes"));
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    let hashed = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hashed.map_err(|error| error.to_string())?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::{PasswordHash, PasswordVerifier};

    #[test]
    fn hash_verifies_its_password_only() {
        let text = hash("correct horse").unwrap();
        assert!(text.starts_with("$argon2id$"), "{text}");
        let parsed = PasswordHash::new(&text).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"wrong", &parsed).is_err());
        assert_ne!(text, hash("correct horse").unwrap());
    }

    #[test]
    fn empty_and_endless_passwords_are_refused() {
        assert!(hash("").is_err() && hash(&"x".repeat(2000)).is_err());
    }
}
