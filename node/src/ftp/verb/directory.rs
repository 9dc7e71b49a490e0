//! CWD, CDUP, PWD, MKD, RMD (RFC 959, sections 4.1.1 and 4.1.3) and their X forms (RFC 1123, section 4.1.3.1).

use super::look::{Seen, look};
use crate::cluster::Change;
use crate::ftp::control::Stop;
use crate::ftp::reply::{Reply, quoted};
use crate::ftp::session::Session;

pub(super) async fn cwd(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    let shown = session.seen(typed)?;
    match look(session, &session.place(&shown)?).await? {
        Seen::Directory(_) => {
            let reply = Reply::new(250, format!("{} is the current directory.", quoted(shown.as_str())));
            session.cwd = shown;
            Ok(reply)
        }
        Seen::File(..) => Err(Reply::new(550, "Is not a directory.").into()),
    }
}

pub(super) fn pwd(session: &Session) -> Reply {
    Reply::new(257, format!("{} is the current directory.", quoted(session.cwd.as_str())))
}

/// "257 PATHNAME created": the whole path, between quotes.
pub(super) async fn mkd(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    session.may_write()?;
    let shown = session.seen(typed)?;
    let path = session.real(&shown)?;
    session.change(Change::MakeDirectory { path }).await?;
    Ok(Reply::new(257, format!("{} created.", quoted(shown.as_str()))))
}

pub(super) async fn rmd(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    session.may_write()?;
    let path = session.path(typed)?;
    if session.account()?.home == path {
        return Err(Reply::new(550, "This is the root directory.").into());
    }
    session.change(Change::RemoveDirectory { path }).await?;
    Ok(Reply::new(250, "Removed."))
}
