//! SITE CONFLICTS (RFC 959, section 4.1.3: "services specific to his system that are essential to file transfer but not
//! sufficiently universal to be included as commands in the protocol"), and what verbs find in the view of conflicts.
//!
//! One line a loser: path, size and time, then the name under which it is read (RETR), dropped for good (DELE), or brought
//! back (RNFR and RNTO). Paths are between quotes, as in replies to PWD.

use crate::cluster::{CONFLICTS, Refusal, Version};
use crate::ftp::conflicts::{Entry, Loser, entry, shown};
use crate::ftp::control::Stop;
use crate::ftp::download::SendError;
use crate::ftp::files::Files;
use crate::ftp::listing::time_val;
use crate::ftp::reply::{Reply, quoted};
use crate::ftp::session::Session;
use crate::path::FtpPath;
use tokio::task::spawn_blocking;

/// Losers in one answer: it is one reply on the control connection.
const MAX: usize = 1000;

/// What is at a place of the view, from what shows here by now.
pub(super) async fn look(session: &Session, mirrored: &FtpPath) -> Result<Option<Entry>, Reply> {
    let (files, path, root) = (session.shared.files.clone(), mirrored.clone(), session.account()?.home.clone());
    let found = spawn_blocking(move || entry(&*files, &path, &root)).await;
    found.map_err(|error| SendError::Disk(error.into()).into())
}

/// The loser at a place of the view. Its directories are nobody's to change: 553.
pub(super) async fn loser(session: &Session, mirrored: &FtpPath) -> Result<Loser, Reply> {
    session.shared.files.fresh().await?;
    match look(session, mirrored).await? {
        Some(Entry::Loser(loser)) => Ok(*loser),
        Some(Entry::Directory) => Err(Refusal::Reserved.into()),
        None => Err(Refusal::NotFound.into()),
    }
}

/// Of everything that the user sees, unless a path is given.
pub(super) async fn site(session: &mut Session, typed: &str) -> Result<Reply, Stop> {
    let of = if typed.is_empty() { FtpPath::root() } else { session.seen(typed)? };
    let (path, home) = (session.place(&of)?.path().clone(), session.account()?.home.clone());
    session.shared.files.fresh().await?;
    let files = session.shared.files.clone();
    let read = spawn_blocking(move || lines(&*files, &path, &home)).await;
    let (lines, losers) = read.map_err(|error| Reply::from(SendError::Disk(error.into())))?;
    let left_out = losers.saturating_sub(lines.len() as u64);
    let end = match (losers, left_out) {
        (0, _) => "No conflicts.".to_owned(),
        (1, 0) => "1 loser of a conflict.".to_owned(),
        (_, 0) => format!("{losers} losers of conflicts."),
        _ => format!("{} losers of conflicts, and {left_out} more that are left out: list /.conflicts.", lines.len()),
    };
    Ok(Reply::lines(200, "Losers of conflicts:", lines, &end))
}

/// The first losers at and below a path, and how many there are.
fn lines(files: &dyn Files, path: &FtpPath, home: &FtpPath) -> (Vec<String>, u64) {
    let (mut paths, mut losers) = files.conflicts_below(path, MAX);
    // What a home itself lost is not in it.
    if path != home {
        losers += files.losers(path).len() as u64;
        paths.insert(0, path.clone());
    }
    let mut lines = vec![];
    for path in paths {
        let (Ok(seen), Some((_, name))) = (path.moved(home, &FtpPath::root()), path.split()) else { continue };
        let dir = seen.as_str().strip_suffix(name).unwrap_or_default();
        for head in files.losers(&path) {
            let Version::File(file) = &head.what else { continue };
            let view = format!("/{}{dir}{}", CONFLICTS, shown(name, &head));
            let (size, modified) = (file.size, time_val(file.modified));
            lines.push(format!("{} size={size};modify={modified}; {}", quoted(seen.as_str()), quoted(&view)));
        }
        if lines.len() >= MAX {
            break;
        }
    }
    lines.truncate(MAX);
    (lines, losers)
}
