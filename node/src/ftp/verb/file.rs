//! DELE, RNFR, RNTO (RFC 959, section 4.1.3): "RNFR ... must be immediately followed by a 'rename to' command specifying
//! the new file pathname." A rename is one operation under the locks of both names; a directory is moved with all that is
//! in it, to where nothing is, while a file replaces a file.
//!
//! For losers of conflicts these are the ways to settle one: to drop it for good, or to make it the version of some path.

use super::conflicts::loser;
use super::look::look;
use crate::cluster::{Change, Position};
use crate::ftp::conflicts::{Loser, Place};
use crate::ftp::control::Stop;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use crate::path::FtpPath;

/// What RNFR named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RenameFrom {
    /// What is at a path.
    Visible(FtpPath),
    /// A version of it that lost.
    Lost(FtpPath, Position),
}

pub(super) async fn dele(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    session.may_write()?;
    let change = match session.place(&session.seen(typed)?)? {
        Place::Tree(path) => Change::Delete { path },
        Place::Conflicts(mirrored) => {
            let Loser { path, position, .. } = loser(session, &mirrored).await?;
            Change::Resolve { path, position }
        }
    };
    session.change(change).await?;
    Ok(Reply::new(250, "Deleted."))
}

/// SITE CHMOD, which many servers have and no RFC.
#[cfg(feature = "next-protocol")]
pub(super) async fn chmod(session: &mut Session, mode: u16, typed: &str) -> Result<Reply, Stop> {
    session.may_write()?;
    let path = session.path(typed)?;
    session.change(Change::SetMode { path, mode }).await?;
    Ok(Reply::new(200, "Mode set."))
}

pub(super) async fn rnfr(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    session.may_write()?;
    let place = session.place(&session.seen(typed)?)?;
    let from = match &place {
        Place::Conflicts(mirrored) => {
            let Loser { path, position, .. } = loser(session, mirrored).await?;
            RenameFrom::Lost(path, position)
        }
        Place::Tree(path) => {
            is_not_home(session, path)?;
            look(session, &place).await?;
            RenameFrom::Visible(path.clone())
        }
    };
    session.rename_from = Some(from);
    Ok(Reply::new(350, "Ready for RNTO."))
}

/// What a user sees as the root is no entry of any directory.
fn is_not_home(session: &Session, path: &FtpPath) -> Result<(), Reply> {
    if session.account()?.home == *path { Err(Reply::new(550, "This is the root directory.")) } else { Ok(()) }
}

/// The other half.
pub(crate) async fn rnto(session: &mut Session, from: Option<RenameFrom>, typed: &str) -> Result<Reply, Stop> {
    let from = from.ok_or_else(|| Reply::new(503, "Say RNFR first."))?;
    let to = session.path(typed)?;
    is_not_home(session, &to)?;
    let change = match from {
        RenameFrom::Visible(from) => Change::Rename { from, to },
        RenameFrom::Lost(path, position) => Change::Recover { path, position, to },
    };
    session.change(change).await?;
    Ok(Reply::new(250, "Renamed."))
}
