//! DELE, RNFR, RNTO (RFC 959, section 4.1.3): "RNFR ... must be immediately followed by a 'rename to' command specifying
//! the new file pathname." A rename is one operation under the locks of both names; a directory is moved with all that is
//! in it, to where nothing is, while a file replaces a file.

use super::look::look;
use crate::cluster::Change;
use crate::ftp::control::Stop;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use crate::path::FtpPath;

pub(super) async fn dele(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    session.may_write()?;
    let path = session.path(typed)?;
    session.change(Change::Delete { path }).await?;
    Ok(Reply::new(250, "Deleted."))
}

pub(super) async fn rnfr(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    session.may_write()?;
    let path = session.path(typed)?;
    is_not_home(session, &path)?;
    look(session, &path).await?;
    session.rename_from = Some(path);
    Ok(Reply::new(350, "Ready for RNTO."))
}

/// What a user sees as the root is no entry of any directory.
fn is_not_home(session: &Session, path: &FtpPath) -> Result<(), Reply> {
    if session.account()?.home == *path { Err(Reply::new(550, "This is the root directory.")) } else { Ok(()) }
}

/// The other half.
pub(crate) async fn rnto(session: &mut Session, from: Option<FtpPath>, typed: &str) -> Result<Reply, Stop> {
    let from = from.ok_or_else(|| Reply::new(503, "Say RNFR first."))?;
    let to = session.path(typed)?;
    is_not_home(session, &to)?;
    session.change(Change::Rename { from, to }).await?;
    Ok(Reply::new(250, "Renamed."))
}
