//! What clients were told is stored, and whether the cluster still has it: as a file, or as the loser of a conflict. It
//! never judges who should have won.

use crate::cluster::Cluster;
use crate::control::Control;
use crate::{Outcome, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// The side on which everything was that was there before the network was divided.
pub(crate) const BEFORE: &str = "before";

/// Acknowledged writes: the last of each side for each path. Shared by the threads of a test.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Writes>);

/// By path and side; a delete is no bytes.
type Writes = BTreeMap<(String, &'static str), Option<Vec<u8>>>;

impl Ledger {
    /// STOR, which must be acknowledged.
    pub(crate) fn put(&self, session: &mut Control, side: &'static str, path: &str, bytes: &[u8]) -> Outcome {
        let reply = session.put(path, bytes)?;
        ensure(reply.code == 226, || format!("{side}: STOR {path} was answered {}", reply.text))?;
        self.note(side, path, Some(bytes.to_vec()))
    }

    /// DELE, which must be acknowledged.
    pub(crate) fn delete(&self, session: &mut Control, side: &'static str, path: &str) -> Outcome {
        session.expect(&format!("DELE {path}"), 250)?;
        self.note(side, path, None)
    }

    /// A STOR that may be refused; what is acknowledged counts.
    pub(crate) fn try_put(&self, session: &mut Control, side: &'static str, path: &str, bytes: &[u8]) -> Outcome<u16> {
        let reply = session.put(path, bytes)?;
        if reply.code == 226 {
            self.note(side, path, Some(bytes.to_vec()))?;
        }
        ensure(matches!(reply.code, 226 | 450..=452), || format!("{side}: STOR {path} was answered {}", reply.text))?;
        Ok(reply.code)
    }

    fn note(&self, side: &'static str, path: &str, bytes: Option<Vec<u8>>) -> Outcome {
        let mut writes = self.0.lock().map_err(|_| "a writer panicked")?;
        if side != BEFORE {
            // Both sides saw it: it was replaced, not beaten.
            writes.remove(&(path.to_owned(), BEFORE));
        }
        writes.insert((path.to_owned(), side), bytes);
        Ok(())
    }

    /// Fails unless at this node every path shows something that was written to it last, on some side, and everything else
    /// that was written to it last is among its losers. Says how many writes lost.
    pub(crate) fn all_there(&self, cluster: &Cluster, node: usize) -> Outcome<usize> {
        let mut session = cluster.session(node)?;
        let writes = self.0.lock().map_err(|_| "a writer panicked")?;
        let paths: BTreeSet<_> = writes.keys().map(|(path, _)| path).collect();
        let mut lost = 0;
        for path in paths {
            let visible = visible(&mut session, path)?;
            let mut last: Vec<_> = writes.iter().filter(|((of, _), _)| of == path).map(|(_, bytes)| bytes).collect();
            let winner = last.iter().position(|bytes| **bytes == visible);
            last.remove(winner.ok_or_else(|| format!("node {node}: {path} shows what nobody wrote to it last"))?);
            let expected: Vec<_> =
                last.into_iter().flatten().filter(|bytes| Some(*bytes) != visible.as_ref()).collect();
            lost += expected.len();
            if !expected.is_empty() {
                let Some(losers) = losers(&mut session, path)? else {
                    println!("no view of losers in this build: those of {path} are not looked at");
                    continue;
                };
                let gone = expected.iter().filter(|bytes| !losers.contains(bytes)).count();
                ensure(gone == 0, || format!("node {node}: {gone} acknowledged writes to {path} are nowhere"))?;
            }
        }
        Ok(lost)
    }
}

/// The bytes of a file, if there is one.
fn visible(session: &mut Control, path: &str) -> Outcome<Option<Vec<u8>>> {
    let reply = session.command(&format!("SIZE {path}"))?;
    match reply.code {
        213 => Ok(Some(session.get(path)?)),
        550 => Ok(None),
        _ => Err(format!("SIZE {path} was answered {}", reply.text).into()),
    }
}

/// The bytes of all losers of a path: files `/.conflicts/DIRECTORY/NAME.STAMP.NODE`.
fn losers(session: &mut Control, path: &str) -> Outcome<Option<Vec<Vec<u8>>>> {
    if session.command("CWD /.conflicts")?.code != 250 {
        return Ok(None);
    }
    let (directory, name) = path.rsplit_once('/').ok_or_else(|| format!("{path} is no path"))?;
    let directory = format!("/.conflicts{directory}");
    let (names, prefix) = (session.list(&format!("NLST {directory}"))?, format!("{name}."));
    let names = names.lines().map(|line| line.rsplit('/').next().unwrap_or_default());
    let losers = names.filter(|name| name.starts_with(&prefix));
    losers.map(|name| session.get(&format!("{directory}/{name}"))).collect::<Outcome<_>>().map(Some)
}
