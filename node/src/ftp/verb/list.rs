//! LIST, NLST, STAT with a path (RFC 959, section 4.1.3) and MLSD (RFC 3659, section 7).
//!
//! Directories are read in pages, on a blocking thread, and sent as they are read: a hundred thousand entries neither
//! stall nor sit in memory. The last component of a path may be a glob, which only fits what is in one directory.
//! The user's root has `.conflicts` in it while there is something to see there.

use super::look::{Seen, look, seen};
use crate::cluster::{CONFLICTS, Micros};
use crate::ftp::conflicts::{self, Place};
use crate::ftp::control::Stop;
use crate::ftp::download::{SendError, Sender};
use crate::ftp::files::Files;
use crate::ftp::listing::{Access, Facts, Kind, facts, fits, is_glob, long};
use crate::ftp::progress::Progress;
use crate::ftp::reply::Reply;
use crate::ftp::session::Session;
use crate::store::Row;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Entries read at a time.
const PAGE: usize = 512;
/// Entries that STAT shows at most: its answer is one reply on the control connection.
const STAT_MAX: usize = 1000;

/// How entries are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// LIST.
    Long,
    /// NLST.
    Names,
    /// MLSD.
    Facts,
}

/// What is to be listed, found out before anything is sent.
#[derive(Debug)]
enum What {
    /// One entry.
    One(Row),
    /// The entries of a directory that fit the glob, if there is one.
    Directory { place: Place, glob: Option<String> },
}

/// All that formatting needs, apart from the session.
#[derive(Debug, Clone)]
struct Format {
    style: Style,
    facts: Facts,
    access: Access,
    now: Micros,
    /// Before each name of NLST, so that it is a path that can be used.
    prefix: String,
}

impl Format {
    fn line(&self, row: &Row) -> String {
        // It is shown among what can be changed, and cannot be changed.
        let access = match self.access {
            Access::Change if row.name == CONFLICTS => Access::Settle,
            access => access,
        };
        match self.style {
            Style::Long => long(row, self.now, access),
            Style::Names => format!("{}{}", self.prefix, row.name),
            Style::Facts => {
                let kind = if row.directory { Kind::Directory } else { Kind::File };
                let modified = (row.modified > 0).then_some(row.modified);
                facts(self.facts, kind, row.size, modified, access, &row.name)
            }
        }
    }
}

/// A directory read page by page.
struct Pages {
    files: Arc<dyn Files>,
    place: Place,
    glob: Option<String>,
    /// Whether `.conflicts` belongs here.
    is_root: bool,
    after: Option<String>,
    ended: bool,
}

impl Pages {
    fn new(session: &Session, place: Place, glob: Option<String>) -> Result<Self, Reply> {
        let is_root = place == Place::Tree(session.account()?.home.clone());
        Ok(Self { files: session.shared.files.clone(), place, glob, is_root, after: None, ended: false })
    }
    /// The next entries, maybe none of a page; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Row>>, SendError> {
        if self.ended {
            return Ok(None);
        }
        let (files, place, is_root) = (self.files.clone(), self.place.clone(), self.is_root);
        let after = self.after.clone();
        let read = spawn_blocking(move || page(&*files, &place, is_root, after.as_deref())).await;
        let mut rows;
        (rows, self.after) = read.map_err(|error| SendError::Disk(error.into()))?;
        self.ended = self.after.is_none();
        if let Some(glob) = &self.glob {
            rows.retain(|row| fits(glob, &row.name));
        }
        Ok(Some(rows))
    }
}

/// Entries beyond `after`, and where the next page begins, if there may be one.
fn page(files: &dyn Files, place: &Place, is_root: bool, after: Option<&str>) -> (Vec<Row>, Option<String>) {
    let path = match place {
        Place::Conflicts(mirrored) => return conflicts::list(files, mirrored, after, PAGE),
        Place::Tree(path) => path,
    };
    let mut rows = files.list(path, after, PAGE);
    let next = rows.last().filter(|_| rows.len() == PAGE).map(|row| row.name.clone());
    if is_root && after.is_none() && !files.conflicts(path, None, 1).is_empty() {
        rows.insert(0, Row { name: CONFLICTS.to_owned(), directory: true, size: 0, modified: 0 });
    }
    (rows, next)
}

pub(super) async fn list(session: &mut Session, typed: &str, style: Style) -> Result<Reply, Stop> {
    session.rest = 0;
    session.may_transfer()?;
    let what = find(session, typed, style).await?;
    let format = format(session, typed, style, prefix(&what, typed))?;
    let head = if style == Style::Facts { own_facts(session, typed, &what, &format)? } else { String::new() };
    let entries = match what {
        What::One(row) => Err(row),
        What::Directory { place, glob } => Ok(Pages::new(session, place, glob)?),
    };
    let dock = session.dock()?;
    session.control.say(&Reply::new(150, "Here comes the listing.")).await?;

    let progress = Progress::default();
    let counted = progress.clone();
    let send = async move {
        let stall = dock.stall;
        let mut sender = Sender::new(dock.open().await?, counted, stall);
        sender.write(head.as_bytes()).await?;
        match entries {
            Err(row) => sender.write(format!("{}\r\n", format.line(&row)).as_bytes()).await?,
            Ok(mut pages) => {
                while let Some(rows) = pages.next().await? {
                    let text: String = rows.iter().map(|row| format.line(row) + "\r\n").collect();
                    sender.write(text.as_bytes()).await?;
                }
            }
        }
        sender.close().await.map_err(SendError::from)
    };
    session.control.attend(&progress, send).await??;
    Ok(Reply::new(226, "Listing complete."))
}

/// The listing as a reply.
pub(super) async fn stat(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    let what = find(session, typed, Style::Long).await?;
    let format = format(session, typed, Style::Long, String::new())?;
    let mut lines = Vec::new();
    match what {
        What::One(row) => lines.push(format.line(&row)),
        What::Directory { place, glob } => {
            let mut pages = Pages::new(session, place, glob)?;
            while let Some(rows) = pages.next().await? {
                lines.extend(rows.iter().map(|row| format.line(row)));
                if lines.len() > STAT_MAX {
                    lines.truncate(STAT_MAX);
                    lines.push("... and more, say LIST.".to_owned());
                    break;
                }
            }
        }
    }
    Ok(Reply::lines(213, "Listing:", lines, "End."))
}

async fn find(session: &Session, typed: &str, style: Style) -> Result<What, Reply> {
    let place = session.place(&session.seen(typed)?)?;
    let (found, refusal) = match look(session, &place).await {
        Err(refusal) if style != Style::Facts && is_glob(place.path().name()) => (None, Some(refusal)),
        other => (Some(other?), None),
    };
    match (found, place.split()) {
        (Some(Seen::Directory(_)), _) => Ok(What::Directory { place, glob: None }),
        // RFC 3659, section 7.2.1: 501 when the argument is no directory.
        (Some(Seen::File(..)), _) if style == Style::Facts => Err(Reply::new(501, "Is not a directory.")),
        (Some(Seen::File(file, _)), _) => Ok(What::One(Row {
            name: place.path().name().to_owned(),
            directory: false,
            size: file.size,
            modified: file.modified,
        })),
        // The glob may not reach above what the user sees: only names below an existing directory are tried.
        (None, Some((parent, name))) if matches!(look(session, &parent).await, Ok(Seen::Directory(_))) => {
            Ok(What::Directory { place: parent, glob: Some(name.to_owned()) })
        }
        (None, _) => Err(refusal.unwrap_or_else(|| Reply::new(550, "No such file or directory."))),
    }
}

fn format(session: &Session, typed: &str, style: Style, prefix: String) -> Result<Format, Reply> {
    let now = session.shared.clock.wall();
    let access = session.access(&session.place(&session.seen(typed)?)?);
    Ok(Format { style, facts: session.facts, access, now, prefix })
}

/// What makes a usable path of a name, as the client typed it.
fn prefix(what: &What, typed: &str) -> String {
    match what {
        What::One(_) | What::Directory { glob: Some(_), .. } => {
            typed[..typed.rfind('/').map_or(0, |slash| slash + 1)].to_owned()
        }
        What::Directory { glob: None, .. } if typed.is_empty() || typed.ends_with('/') => typed.to_owned(),
        What::Directory { glob: None, .. } => format!("{typed}/"),
    }
}

/// The lines of MLSD for the directory itself and, below the user's root, for the one above.
fn own_facts(session: &Session, typed: &str, what: &What, format: &Format) -> Result<String, Reply> {
    let What::Directory { place, .. } = what else { return Ok(String::new()) };
    let line = |kind, place: &Place, name| {
        // A directory of the view has no time, nor has one that is only implied.
        let modified = match place {
            Place::Tree(path) => seen(session, path).and_then(|s| if let Seen::Directory(m) = s { m } else { None }),
            Place::Conflicts(_) => None,
        };
        facts(format.facts, kind, 0, modified, session.access(place), name) + "\r\n"
    };
    let mut out = line(Kind::Current, place, ".");
    if let Some((parent, _)) = session.seen(typed)?.split() {
        out += &line(Kind::Parent, &session.place(&parent)?, "..");
    }
    Ok(out)
}
