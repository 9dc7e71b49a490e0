//! What happened, as lines for people and as a digest that shows that a seed is a history. Never read by the world itself:
//! with and without it a run is the same.

use crate::sim::world::Time;
use std::collections::VecDeque;

/// Lines kept at the end of a run.
const KEPT: usize = 70;
/// Lines kept for the report of a failure: more than a run has.
const WHOLE: usize = 200_000;

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Nothing: the fast way through thousands of seeds.
    Nothing,
    /// Events of the protocol, faults and operations, the last of them kept.
    Tail,
    /// All of them kept, as far as there is room.
    Whole,
    /// The same, and every message, printed at once.
    Trace,
}

#[derive(Debug)]
pub(crate) struct History {
    detail: Detail,
    lines: VecDeque<String>,
    digest: u64,
}

impl History {
    pub(crate) fn new(detail: Detail) -> Self {
        Self { detail, lines: VecDeque::new(), digest: 0xcbf2_9ce4_8422_2325 }
    }
    /// Something relevant for whoever reads a failure.
    pub(crate) fn note(&mut self, now: Time, line: impl FnOnce() -> String) {
        if self.detail == Detail::Nothing {
            return;
        }
        let line = format!("{:9.4} {}", now as f64 / 1e6, line());
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.detail == Detail::Trace {
            println!("{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > if self.detail == Detail::Whole { WHOLE } else { KEPT } {
            self.lines.pop_front();
        }
    }
    /// Something only a trace shows.
    pub(crate) fn detail(&mut self, now: Time, line: impl FnOnce() -> String) {
        if self.detail == Detail::Trace {
            println!("{:9.4}      {}", now as f64 / 1e6, line());
        }
    }
    pub(crate) fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }
    /// Over every line so far, also those not kept.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}

/// A debug text of bounded length.
pub(crate) fn brief(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
