//! Which records the log may lose. What every known node has is needed by nobody; for one that is away, records are kept up
//! to a number, and beyond that only what the live ones lack. Whoever needs what is gone gets the index (`transfer.rs`).

use super::config::Config;
use super::log::Log;
use super::marks::Marks;
use super::member::{Cx, Member};
use super::record::Record;
use super::storage::Storage;
use super::types::Position;

/// Records looked at in one beat: more than can come to be between two.
const AT_ONCE: usize = 2048;

impl Member {
    /// Truncates the log by what is known of others now.
    pub(super) fn tick_truncation(&mut self, cx: Cx<'_>) {
        let me = self.me.node;
        let others = self.log.state.known.iter().filter(|n| **n != me);
        // One of which nothing was heard since our start has, for all we know, nothing.
        let known: Option<Vec<&Marks>> = others.map(|n| self.peers.covered(*n)).collect();
        let live: Vec<&Marks> = self.peers.marks_of_live(cx.mono()).collect();
        let everybody = |p: Position| known.as_ref().is_some_and(|all| all.iter().all(|marks| marks.has(p)));
        let all_live = |p: Position| live.iter().all(|marks| marks.has(p));
        let positions = self.log.spare(&self.config, cx.storage, everybody, all_live);
        if !positions.is_empty() {
            self.log.truncate(positions);
        }
    }

    /// Whether records are enough for whoever has this much.
    pub(super) fn log_reaches(&self, marks: &Marks) -> bool {
        marks.covers(&self.log.state.truncated)
    }
}

impl Log {
    /// How many records are in the log.
    fn length(&self) -> u64 {
        let total = |marks: &Marks| marks.iter().map(|(_, n)| n).fold(0, u64::saturating_add);
        total(&self.state.logged).saturating_sub(total(&self.state.truncated))
    }

    /// The oldest records that nobody needs: `everybody` has them, or the log is too long and all that live have them.
    fn spare(
        &self,
        config: &Config,
        storage: &dyn Storage,
        everybody: impl Fn(Position) -> bool,
        live: impl Fn(Position) -> bool,
    ) -> Vec<Position> {
        let length = self.length();
        if length <= config.log_least {
            return vec![];
        }
        let limit = AT_ONCE.min((length - config.log_least) as usize);
        let mut surplus = length.saturating_sub(config.log_most);
        let mut spare = |record: &Record| {
            let p = record.position;
            let gone = self.state.truncated.has(p); // the index of another came in their place
            let needless = gone || everybody(p) || (surplus > 0 && live(p));
            surplus = surplus.saturating_sub(1);
            #[cfg(feature = "planted-bugs")]
            if self.planted == super::planted::Planted::TruncatedTooEarly {
                return true;
            }
            needless && self.state.applied.has(p)
        };
        let oldest = storage.oldest(limit);
        oldest.iter().take_while(|record| spare(record)).map(|record| record.position).collect()
    }

    fn truncate(&mut self, positions: Vec<Position>) {
        for p in &positions {
            self.state.truncated.raise(p.epoch, p.seq + 1);
        }
        self.pending.truncate(positions);
    }
}
