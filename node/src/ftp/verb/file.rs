//! DELE, RNFR, RNTO (RFC 959, section 4.1.3): "RNFR ... must be immediately followed by a 'rename to' command specifying
//! the new file pathname." A rename is one operation under the locks of both names.

use super::look::{Seen, look};
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
    match look(session, &path).await? {
        Seen::File(..) => {
            session.rename_from = Some(path);
            Ok(Reply::new(350, "Ready for RNTO."))
        }
        Seen::Directory(_) => Err(Reply::new(550, "Is a directory, and only files can be renamed.").into()),
    }
}

/// The other half.
pub(crate) async fn rnto(session: &mut Session, from: Option<FtpPath>, typed: &str) -> Result<Reply, Stop> {
    let from = from.ok_or_else(|| Reply::new(503, "Say RNFR first."))?;
    let to = session.path(typed)?;
    session.change(Change::Rename { from, to }).await?;
    Ok(Reply::new(250, "Renamed."))
}
