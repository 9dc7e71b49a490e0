//! APPE (RFC 959, section 4.1.3): "If the file specified in the pathname exists at the server site, then the data shall be
//! appended to that file; otherwise the file ... shall be created." REST and STOR (RFC 3659, section 5): the same behind
//! the first bytes of what is there; its rest goes.
//!
//! All bytes are taken before the lock is asked for, so that a slow client keeps no other from appending.

use super::retr::Transfer;
use super::stor::stored;
use crate::cluster::{Change, Cut, Head, Refusal, Version, split};
use crate::ftp::control::Stop;
use crate::ftp::progress::Progress;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use crate::ftp::upload::Receiver;
use crate::path::FtpPath;
use crate::replica::{ReadError, Restored};

pub(super) async fn appe(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    let offset = std::mem::take(&mut session.rest);
    let path = session.path(typed)?;
    let transfer = Transfer::begin(session, "APPE", &path);
    let result = if offset > 0 {
        Err(Reply::new(504, "APPE begins at the end of the file, say REST 0 or nothing.").into())
    } else {
        append(session, path, &transfer.progress).await
    };
    transfer.log(session, &result);
    result
}

async fn append(session: &mut Session, path: FtpPath, progress: &Progress) -> Result<Reply, Stop> {
    session.may_write()?;
    // The leader judges once the bytes are there; what is clear by now is said before they come.
    base(session, &path).await?;
    send(session, Change::Append { path, cut: None }, None, progress).await
}

/// STOR behind byte `offset` of what is there.
pub(super) async fn restart(
    session: &mut Session,
    path: FtpPath,
    offset: u64,
    progress: &Progress,
) -> Result<Reply, Stop> {
    session.may_write()?;
    if session.ascii {
        return Err(Reply::new(504, "REST needs TYPE I.").into());
    }
    let cut = base(session, &path).await?.and_then(|head| cut(head, offset));
    let (cut, restored) = cut.ok_or(ReadError::BeyondEnd).map_err(Reply::from)?;
    send(session, Change::Append { path, cut: Some(cut) }, restored, progress).await
}

/// The file that is there, if there is one; 550 for a directory.
async fn base(session: &Session, path: &FtpPath) -> Result<Option<Head>, Reply> {
    let files = &session.shared.files;
    files.fresh().await?;
    let head = files.visible(path);
    if head.as_ref().is_some_and(|head| matches!(head.what, Version::Directory { .. })) || files.is_directory(path) {
        return Err(Refusal::IsDirectory.into());
    }
    Ok(head)
}

/// What stays where it is of a file's first `offset` bytes, and what is stored anew; `None` beyond its end.
fn cut(head: Head, offset: u64) -> Option<(Cut, Option<Restored>)> {
    let Version::File(file) = head.what else { return None };
    let (kept, inside) = split(&file.extents, offset)?;
    let restored =
        (inside > 0).then(|| Restored { extent: file.extents[kept], length: inside, location: head.location });
    Some((Cut { base: head.position, keep: offset - inside }, restored))
}

async fn send(
    session: &mut Session,
    change: Change,
    restored: Option<Restored>,
    progress: &Progress,
) -> Result<Reply, Stop> {
    let dock = session.dock()?;
    let files = session.shared.files.clone();
    session.control.say(&Reply::new(150, "Send the data.")).await?;
    let (ascii, counted) = (session.ascii, progress.clone());
    let receive = async move {
        let stall = dock.stall;
        let mut source = Receiver::new(dock.open().await?, ascii, counted, stall);
        files.append(change, restored, &mut source).await.map_err(Reply::from)
    };
    Ok(stored(&session.control.attend(progress, receive).await??))
}
