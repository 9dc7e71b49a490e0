//! MLST (RFC 3659, section 7), SIZE (section 4), MDTM (section 3): what is known of one path. They see everything that was
//! committed when they came.

use super::conflicts;
use crate::cluster::{File, Location, Micros, Version};
use crate::ftp::conflicts::{Entry, Place};
use crate::ftp::control::Stop;
use crate::ftp::listing::{Kind, facts, time_val};
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use crate::path::FtpPath;

/// What is at a path.
#[derive(Debug)]
pub(super) enum Seen {
    /// A file, and where its bytes are.
    File(Box<File>, Location),
    /// A directory; its time is not known when it is only implied.
    Directory(Option<Micros>),
}

/// What is committed at a place; 550 when there is nothing.
pub(super) async fn look(session: &Session, place: &Place) -> Result<Seen, Reply> {
    session.shared.files.fresh().await?;
    let seen = match place {
        Place::Tree(path) => seen(session, path),
        Place::Conflicts(mirrored) => conflicts::look(session, mirrored).await?.map(|entry| match entry {
            Entry::Loser(loser) => Seen::File(Box::new(loser.file), loser.location),
            Entry::Directory => Seen::Directory(None),
        }),
    };
    seen.ok_or_else(|| Reply::new(550, "No such file or directory."))
}

/// What is at a path of the cluster, from what shows here by now. A user's home is there even before it was made.
pub(super) fn seen(session: &Session, path: &FtpPath) -> Option<Seen> {
    let files = &session.shared.files;
    match files.visible(path).map(|head| (head.what, head.location)) {
        Some((Version::File(file), location)) => Some(Seen::File(Box::new(file), location)),
        Some((Version::Directory { modified }, _)) => Some(Seen::Directory(Some(modified))),
        Some((Version::Deleted | Version::Resolved, _)) | None => {
            let home = session.account().is_ok_and(|account| account.home == *path);
            (home || files.is_directory(path)).then_some(Seen::Directory(None))
        }
    }
}

/// "MLST provides data about exactly the object named on its command line", on the control connection.
pub(super) async fn mlst(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    let shown = session.seen(typed)?;
    let place = session.place(&shown)?;
    let seen = look(session, &place).await?;
    #[cfg(feature = "next-protocol")]
    let mode = if let Seen::File(file, _) = &seen { file.mode } else { None };
    let (kind, size, modified) = match seen {
        Seen::File(file, _) => (Kind::File, file.size, Some(file.modified)),
        Seen::Directory(modified) => (Kind::Directory, 0, modified),
    };
    let entry = facts(session.facts, kind, size, modified, session.access(&place), shown.as_str());
    #[cfg(feature = "next-protocol")]
    let entry = mode.map_or(entry.clone(), |mode| format!("UNIX.mode={mode:04o};{entry}"));
    Ok(Reply::lines(250, "Facts", vec![entry], "End."))
}

/// The number of bytes that a transfer would move, which in TYPE A nobody knows without reading it all.
pub(super) async fn size(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    if session.ascii {
        return Err(Reply::new(550, "SIZE is not available in TYPE A.").into());
    }
    match look(session, &session.place(&session.seen(typed)?)?).await? {
        Seen::File(file, _) => Ok(Reply::new(213, file.size.to_string())),
        Seen::Directory(_) => Err(Reply::new(550, "Is a directory.").into()),
    }
}

pub(super) async fn mdtm(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    match look(session, &session.place(&session.seen(typed)?)?).await? {
        Seen::File(file, _) => Ok(Reply::new(213, time_val(file.modified))),
        Seen::Directory(Some(modified)) => Ok(Reply::new(213, time_val(modified))),
        Seen::Directory(None) => Err(Reply::new(550, "The time of this directory is not known.").into()),
    }
}
