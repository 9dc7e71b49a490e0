//! What may be dropped from an index for good: losers, void duplicates, and deletes that are all there is (I1).

use super::records::stamp;
use super::{Broken, Truth};
use node::cluster::{Marks, Position, Record, Stamp, Version};
use node::path::FtpPath;

impl Truth {
    /// Judges a record that drops heads by all that its leader had logged before.
    pub(super) fn drop_allowed(&self, record: &Record) -> Result<(), Broken> {
        let Position { epoch, seq } = record.position;
        for (path, head) in record.dropped() {
            let scope = self.closure(epoch, seq);
            let heads = self.heads(path, &scope, epoch);
            if self.standing(path, &scope, epoch) == Some(*head) && !(heads.len() == 1 && self.is_delete(*head, path)) {
                let what = format!("{:?} drops {head:?}, which is what clients see at {path}", record.position);
                return Err(Broken::new("I1", what));
            }
        }
        Ok(())
    }
    pub(super) fn is_dropped(&self, path: &FtpPath, head: Position, scope: &Marks) -> bool {
        let by = self.drops.get(&(path.clone(), head));
        by.is_some_and(|records| records.iter().any(|r| scope.has(*r)))
    }
    /// The greatest head of a path that anybody ever dropped.
    pub(super) fn last_dropped(&self, path: &FtpPath) -> Option<Stamp> {
        let of = self.drops.range((path.clone(), Position::default())..).take_while(|((p, _), _)| p == path);
        of.map(|((_, head), _)| stamp(&self.records[head])).max()
    }
    fn is_delete(&self, position: Position, path: &FtpPath) -> bool {
        let effect = self.records.get(&position).and_then(|r| Self::effect(r, path));
        effect.is_some_and(|e| e.what == Version::Deleted)
    }
}
