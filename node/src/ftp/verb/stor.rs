//! STOR (RFC 959, section 4.1.3): "causes the server to accept the data transferred via the data connection and to store
//! the data as a file ... If the file exists, its contents shall be replaced."
//!
//! The lock is held and the replicas are known before 150 is said; the old version stays until the commit; 226 says that
//! the new one is durable on as many nodes as it names. Whatever ends it earlier leaves the old version.

use super::retr::Transfer;
use crate::cluster::Change;
use crate::ftp::control::Stop;
use crate::ftp::progress::Progress;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use crate::ftp::upload::Receiver;
use crate::path::FtpPath;

pub(super) async fn stor(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    // However this ends, it was the transfer that REST was said for.
    let offset = std::mem::take(&mut session.rest);
    let path = session.path(typed)?;
    let transfer = Transfer::begin("STOR", &path);
    let result = store(session, path, offset, &transfer.progress).await;
    transfer.log(session, &result);
    result
}

async fn store(session: &mut Session, path: FtpPath, offset: u64, progress: &Progress) -> Result<Reply, Stop> {
    session.may_write()?;
    if offset > 0 {
        return Err(Reply::new(504, "REST before STOR is not implemented.").into());
    }
    let dock = session.dock()?;
    let files = session.shared.files.clone();
    let upload = session.control.attend(progress, files.begin(Change::Store { path, create_only: false })).await??;
    session.control.say(&Reply::new(150, "Lock held, send the data.")).await?;

    let (ascii, counted) = (session.ascii, progress.clone());
    let receive = async move {
        let stall = dock.stall;
        let mut source = Receiver::new(dock.open().await?, ascii, counted, stall);
        upload.run(&mut source).await.map_err(Reply::from)
    };
    let stored = session.control.attend(progress, receive).await??;
    let n = stored.outcome.copies;
    let (copies, nodes) = if n == 1 { ("copy", "node") } else { ("copies", "nodes") };
    Ok(Reply::new(226, format!("Transfer complete; {n} {copies}, durable on {n} {nodes}.")))
}
