//! USER, PASS, REIN (RFC 959, section 4.1.1): "USER ... the user identification is that which is required by the server
//! for access to its file system ... PASS must be immediately preceded by the user name command."
//!
//! An unknown user and a wrong password are answered alike, after the same time. Passwords never reach a log.

use crate::cluster::Change;
use crate::ftp::command::Secret;
use crate::ftp::connection::Gone;
use crate::ftp::control::Stop;
use crate::ftp::reply::Reply;
use crate::ftp::session::{Login, Session};
use crate::path::FtpPath;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Wrong passwords on one connection.
const FAILURES: u32 = 3;
/// Longest wait for a home directory to be made at a first login.
const HOME: Duration = Duration::from_secs(5);

pub(super) fn user(session: &mut Session, name: String) -> Result<Reply, Stop> {
    if session.shared.config.require_tls && !session.control.is_secure() {
        return Err(Reply::new(530, "Encryption is required, say AUTH TLS first.").into());
    }
    forget(session);
    session.login = Login::Named(name);
    Ok(Reply::new(331, "Password, please."))
}

pub(super) async fn pass(session: &mut Session, password: &Secret) -> Result<Reply, Stop> {
    let name = match std::mem::replace(&mut session.login, Login::Nobody) {
        Login::Named(name) => name,
        other => {
            session.login = other;
            return Err(Reply::new(503, "Say USER first.").into());
        }
    };
    if session.shared.attempts.is_banned(Instant::now(), session.peer) {
        return refuse(session).await;
    }
    let users = session.shared.config.users.clone();
    if let Some(account) = users.verify(&name, &password.0).await {
        session.shared.attempts.succeeded(session.peer, &name);
        tracing::info!(user = name, tls = session.control.is_secure(), "login");
        session.login = Login::In(account);
        make_home(session).await;
        return Ok(Reply::new(230, "Logged in."));
    }
    let delay = session.shared.attempts.failed(Instant::now(), session.peer, &name);
    // The address is in the span: this is the line that a log watcher counts.
    tracing::warn!(user = name, peer = %session.peer, "login failed");
    sleep(delay).await;
    session.failures += 1;
    if session.failures >= FAILURES {
        return refuse(session).await;
    }
    Ok(Reply::new(530, "Login incorrect."))
}

async fn refuse(session: &mut Session) -> Result<Reply, Stop> {
    session.control.say(&Reply::new(421, "Too many failed logins, closing the control connection.")).await?;
    Err(Gone::Refused("too many failed logins").into())
}

/// Under TLS it would have to end TLS as well and go on in clear (RFC 4217, section 11): a new connection does better.
pub(super) fn rein(session: &mut Session) -> Result<Reply, Stop> {
    if session.control.is_secure() {
        return Err(Reply::new(502, "REIN is not done under TLS, say USER or connect again.").into());
    }
    forget(session);
    Ok(Reply::new(220, "Ready for a new user."))
}

/// Everything that belongs to the user who was logged in. TLS stays.
pub(super) fn forget(session: &mut Session) {
    session.login = Login::Nobody;
    session.cwd = FtpPath::root();
    session.passive = None;
    session.epsv_only = false;
    session.rest = 0;
    session.ascii = true;
}

/// A home that was never made is made, or its user could store nothing. What stands in the way shows with the first
/// command that needs it.
async fn make_home(session: &Session) {
    let Login::In(account) = &session.login else { return };
    let files = &session.shared.files;
    if account.read_only || files.is_directory(&account.home) {
        return;
    }
    let make = async {
        let mut path = FtpPath::root();
        for name in account.home.components() {
            let Ok(next) = path.join(name) else { return };
            path = next;
            if !files.is_directory(&path) {
                let made = files.change(Change::MakeDirectory { path: path.clone() }).await;
                tracing::info!(?path, ?made, "made a home directory");
            }
        }
    };
    if timeout(HOME, make).await.is_err() {
        tracing::warn!(home = ?account.home, "the home directory could not be made in time");
    }
}
