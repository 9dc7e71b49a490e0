//! RETR (RFC 959, section 4.1.3): "causes the server to transfer a copy of the file ... The status and contents of the
//! file at the server site shall be unaffected." With REST, from that byte on (RFC 3659, section 5).
//!
//! One version is read to its end, whatever is written meanwhile.

use super::look::{Seen, look};
use crate::ftp::conflicts::Place;
use crate::ftp::control::Stop;
use crate::ftp::download::Sender;
use crate::ftp::progress::Progress;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use crate::meter::{Direction, Open};
use crate::path::FtpPath;
use tokio::time::Instant;

pub(super) async fn retr(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    // However this ends, it was the transfer that REST was said for.
    let offset = std::mem::take(&mut session.rest);
    let place = session.place(&session.seen(typed)?)?;
    let transfer = Transfer::begin(session, "RETR", place.path());
    let result = retrieve(session, &place, offset, &transfer.progress).await;
    transfer.log(session, &result);
    result
}

async fn retrieve(session: &mut Session, place: &Place, offset: u64, progress: &Progress) -> Result<Reply, Stop> {
    // Before anything is said of the file.
    session.may_transfer()?;
    let (file, location) = match look(session, place).await? {
        Seen::File(file, location) => (file, location),
        Seen::Directory(_) => return Err(Reply::new(550, "Is a directory.").into()),
    };
    if session.ascii && offset > 0 {
        return Err(Reply::new(504, "REST needs TYPE I.").into());
    }
    let dock = session.dock()?;
    let files = session.shared.files.clone();
    let download = session.control.attend(progress, files.open(&file, &location, offset)).await??;
    let kind = if session.ascii { "ASCII" } else { "BINARY" };
    let text = format!("Opening {kind} mode data connection for {} ({} bytes).", place.path().name(), file.size);
    session.control.say(&Reply::new(150, text)).await?;

    let (ascii, counted) = (session.ascii, progress.clone());
    let send = async move {
        let stall = dock.stall;
        let sender = Sender::new(dock.open().await?, counted, stall);
        sender.send(download, ascii).await.map_err(Reply::from)
    };
    session.control.attend(progress, send).await??;
    Ok(Reply::new(226, "Transfer complete."))
}

/// One transfer, for the log and for metrics: who, what, how many bytes, how it ended, how long it took.
pub(super) struct Transfer {
    verb: &'static str,
    path: FtpPath,
    begun: Instant,
    _open: Open,
    /// Its bytes.
    pub(super) progress: Progress,
}

impl Transfer {
    /// Begins now.
    pub(super) fn begin(session: &Session, verb: &'static str, path: &FtpPath) -> Self {
        let direction = if verb == "RETR" { Direction::Out } else { Direction::In };
        let (open, bytes) = session.shared.meter.transfer(direction);
        Self { verb, path: path.clone(), begun: Instant::now(), _open: open, progress: Progress::counted(bytes) }
    }
    /// Writes the line, and counts it.
    pub(super) fn log(&self, session: &Session, result: &Result<Reply, Stop>) {
        let (code, text) = match result {
            Ok(reply) | Err(Stop::Told(reply)) => (reply.code(), reply.text()),
            Err(Stop::Aborted) => (426, "aborted"),
            Err(Stop::Gone(_) | Stop::Silent) => (426, "the client left"),
        };
        let (verb, user, path, peer) = (self.verb, session.user(), &self.path, session.peer);
        let (bytes, took) = (self.progress.bytes(), self.begun.elapsed());
        let ms = took.as_millis();
        session.shared.meter.transferred(verb, code == 226, took);
        tracing::info!(target: "transfer", verb, user, ?path, %peer, bytes, code, text, ms, "transfer");
    }
}
