//! STOR (RFC 959, section 4.1.3): "causes the server to accept the data transferred via the data connection and to store
//! the data as a file ... If the file exists, its contents shall be replaced." STOU: the same under a name that the server
//! chooses, "unique to that directory", and says in its 150 as RFC 1123, section 4.1.2.9, has it.
//!
//! The lock is held and the replicas are known before 150 is said (but behind REST: see `append`); the old version stays until the commit; 226 says that
//! the new one is durable on as many nodes as it names. Whatever ends it earlier leaves the old version.

use super::append::restart;
use super::retr::Transfer;
use crate::cluster::Change;
use crate::ftp::control::Stop;
use crate::ftp::progress::Progress;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use crate::ftp::upload::Receiver;
use crate::peer::random128;
use crate::replica::Uploaded;

pub(super) async fn stor(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    // However this ends, it was the transfer that REST was said for.
    let offset = std::mem::take(&mut session.rest);
    let path = session.path(typed)?;
    let transfer = Transfer::begin(session, "STOR", &path);
    let result = if offset > 0 {
        restart(session, path, offset, &transfer.progress).await
    } else {
        let change = Change::Store { path, create_only: false };
        store(session, change, "Lock held, send the data.", &transfer.progress).await
    };
    transfer.log(session, &result);
    result
}

/// What the client gives, if it gives anything, is the beginning of the name.
pub(super) async fn stou(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    session.rest = 0;
    let name = if typed.is_empty() { "file" } else { typed };
    let seen = session.seen(&format!("{name}.{:032x}", random128()))?;
    let path = session.real(&seen)?;
    let transfer = Transfer::begin(session, "STOU", &path);
    let (change, said) = (Change::Store { path, create_only: true }, format!("FILE: {seen}"));
    let result = store(session, change, &said, &transfer.progress).await;
    transfer.log(session, &result);
    result
}

async fn store(session: &mut Session, change: Change, said: &str, progress: &Progress) -> Result<Reply, Stop> {
    session.may_write()?;
    let dock = session.dock()?;
    let files = session.shared.files.clone();
    let upload = session.control.attend(progress, files.begin(change)).await??;
    session.control.say(&Reply::new(150, said)).await?;

    let (ascii, counted) = (session.ascii, progress.clone());
    let receive = async move {
        let stall = dock.stall;
        let mut source = Receiver::new(dock.open().await?, ascii, counted, stall);
        upload.run(&mut source).await.map_err(Reply::from)
    };
    Ok(stored(&session.control.attend(progress, receive).await??))
}

/// What is said of bytes that are safe.
pub(super) fn stored(uploaded: &Uploaded) -> Reply {
    let n = uploaded.outcome.copies;
    let (copies, nodes) = if n == 1 { ("copy", "node") } else { ("copies", "nodes") };
    Reply::new(226, format!("Transfer complete; {n} {copies}, durable on {n} {nodes}."))
}
