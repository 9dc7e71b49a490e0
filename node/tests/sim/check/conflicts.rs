//! What a partition is for: acknowledged writes to one path, made on two sides that did not know of each other. Counted, not
//! judged; that both survive is I1.

use super::Truth;
use node::cluster::Position;

impl Truth {
    /// Notes an acknowledged write; with how many acknowledged before it is in conflict.
    pub(super) fn acknowledged(&mut self, position: Position) -> u64 {
        let Some(record) = self.records.get(&position).cloned() else { return 0 };
        let Some(write) = record.write() else { return 0 };
        let before = self.closure(position.epoch, position.seq);
        let mut conflicts = 0;
        for effect in &write.effects {
            let earlier = self.acked.get(&effect.path).map(Vec::as_slice).unwrap_or_default();
            let unknown = earlier.iter().filter(|p| p.epoch != position.epoch && !before.has(**p));
            let apart = unknown.filter(|p| !self.closure(p.epoch, p.seq).has(position));
            conflicts += apart.filter(|p| self.records[*p].write().is_some_and(|w| w.op != write.op)).count() as u64;
            self.acked.entry(effect.path.clone()).or_default().push(position);
        }
        conflicts
    }
}
