//! How two indexes are compared: digests of ranges of paths, then of parts of those that differ, then what is there. The
//! words of it, and the side that is asked; it keeps no state, every answer says what the index was made of just then.

use super::digest::Digests as _;
use super::frame;
use super::marks::Marks;
use super::member::{Cx, Member};
use super::message::Message;
use super::pending::View;
use super::record::{Outcome, PathEntry};
use super::storage::{Drained, PathRange};
use super::types::{Digest, Hlc, NodeId, OpId};
use crate::path::FtpPath;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Parts of a range.
const PARTS: usize = 64;
/// Outcomes in one answer.
const OUTCOMES: usize = 4096;

/// One question about another's index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexAsk {
    /// The asker's number of it.
    pub number: u64,
    /// Of which paths.
    pub range: PathRange,
    /// What of them.
    pub want: IndexWant,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexWant {
    /// The digest of the first [`Config::index_range`](super::Config) paths of the range.
    Next,
    /// The digests of parts of it.
    Parts,
    /// What is there.
    Entries,
    /// Outcomes of operations, beyond this one's.
    Outcomes(Option<OpId>),
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexAnswer {
    /// The number of the question.
    pub number: u64,
    /// What the index was made of when this was read from it.
    pub state: IndexState,
    /// The answer itself.
    pub found: IndexFound,
}

/// What goes with an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexState {
    /// The records folded into it.
    pub applied: Marks,
    /// Known commits.
    pub committed: Marks,
    /// The greatest clock seen.
    pub hlc: Hlc,
    /// Known nodes.
    pub known: Vec<NodeId>,
    /// Nodes that a record forgot.
    pub forgotten: Vec<NodeId>,
    /// Who is being drained, or was.
    pub drains: BTreeMap<NodeId, Drained>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexFound {
    /// Ranges that follow one another, with their digests. The last may end before the range that was asked for does.
    Digests(Vec<(PathRange, Digest)>),
    /// All there is in a range, which may end before the one that was asked for does.
    Entries {
        /// The range.
        range: PathRange,
        /// Its paths.
        entries: Vec<(FtpPath, PathEntry)>,
    },
    /// Outcomes in the order of operations.
    Outcomes {
        /// They.
        outcomes: Vec<(OpId, Outcome)>,
        /// There are others beyond.
        more: bool,
    },
}

impl Member {
    pub(super) fn on_index_ask(&mut self, cx: Cx<'_>, from: NodeId, ask: &IndexAsk) {
        if self.is_borrowing() {
            return; // the index is none that anybody ever had
        }
        let (view, size) = (self.log.view(cx.storage), self.config.index_range);
        let found = match ask.want {
            IndexWant::Next => IndexFound::Digests(digests(&view, &ask.range, size, size)),
            IndexWant::Parts => IndexFound::Digests(digests(&view, &ask.range, size, (size / PARTS).max(1))),
            IndexWant::Entries => {
                let found = view.entries(&ask.range, size);
                let fit = frame::fit(found.iter().map(|(path, entry)| frame::weight_of_entry(path, entry)), size);
                let range = ends(&ask.range, &found[..fit], fit == found.len() && fit < size);
                IndexFound::Entries { range, entries: found.into_iter().take(fit).collect() }
            }
            IndexWant::Outcomes(after) => {
                let mut outcomes = view.outcomes(after, OUTCOMES + 1);
                let more = outcomes.len() > OUTCOMES;
                outcomes.truncate(OUTCOMES);
                IndexFound::Outcomes { outcomes, more }
            }
        };
        let state = &self.log.state;
        let state = IndexState {
            applied: state.applied.clone(),
            committed: state.committed.clone(),
            hlc: state.hlc,
            known: state.known.clone(),
            forgotten: state.forgotten.clone(),
            drains: state.drains.clone(),
        };
        let answer = IndexAnswer { number: ask.number, state, found };
        // What we could lose in a crash is not given away.
        self.send_durable(from, Message::IndexAnswer(Box::new(answer)));
    }
}

/// Digests of up to `limit` paths from the beginning of a range, in runs of `run` paths.
fn digests(view: &View<'_>, range: &PathRange, limit: usize, run: usize) -> Vec<(PathRange, Digest)> {
    let found = view.entries(range, limit);
    let mut rest = range.clone();
    let mut runs = found.chunks(run).peekable();
    let mut digests = vec![];
    while let Some(run) = runs.next() {
        let all = runs.peek().is_none() && found.len() < limit;
        let part = ends(&rest, run, all);
        rest.after.clone_from(&part.upto);
        digests.push((part, run.digest()));
    }
    if digests.is_empty() {
        digests.push((rest, Digest::default()));
    }
    digests
}

/// The range from its beginning to the end of what was found, or to its own end where that is all there is.
fn ends(range: &PathRange, found: &[(FtpPath, PathEntry)], all: bool) -> PathRange {
    let last = found.last().map(|(path, _)| path.clone());
    let upto = if all { range.upto.clone() } else { last.or_else(|| range.upto.clone()) };
    PathRange { after: range.after.clone(), upto }
}
