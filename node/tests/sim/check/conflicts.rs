//! What a partition is for: acknowledged writes to one path, made on two sides that did not know of each other. Counted, not
//! judged; that both survive is I1.

use super::Truth;
use node::cluster::Position;

impl Truth {
    /// Notes an acknowledged write; with how many acknowledged before it is in conflict.
    pub(super) fn acknowledged(&mut self, position: Position) -> u64 {
        let parts: Vec<_> = self.parts(position).cloned().collect();
        let Some(write) = parts.last().and_then(|r| r.write()) else { return 0 };
        let before = self.closure(position.epoch, position.seq);
        let mut conflicts = 0;
        for effect in parts.iter().filter_map(|r| r.write()).flat_map(|w| &w.effects) {
            let earlier = self.acked.get(&effect.path).map(Vec::as_slice).unwrap_or_default();
            let unknown = earlier.iter().filter(|p| p.epoch != position.epoch && !before.has(**p));
            let apart = unknown.filter(|p| !self.closure(p.epoch, p.seq).has(position));
            conflicts += apart.filter(|p| self.records[*p].write().is_some_and(|w| w.op != write.op)).count() as u64;
            self.acked.entry(effect.path.clone()).or_default().push(position);
        }
        conflicts
    }
}
