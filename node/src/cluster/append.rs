//! Appends: among which nodes their bytes may go. Every copy of the new version is to be whole, so what is appended is
//! staged where the base is, as the leader sees it when it plans and again when it commits. The base itself is never moved
//! for an append: that is repair's.

use super::change::{Change, Refusal};
use super::decide::{Sight, base_of};
use super::member::{Cx, Member};
use super::types::NodeId;

impl Member {
    /// The nodes that hold what an append goes on, or why there is none to be made. `None` when any node will do: where there
    /// is no file yet, and for every other change.
    pub(super) fn base_holders(&self, cx: Cx<'_>, change: &Change) -> Result<Option<Vec<NodeId>>, Refusal> {
        let Change::Append { path } = change else { return Ok(None) };
        #[cfg(feature = "planted-bugs")]
        if self.config.planted == super::planted::Planted::AppendAnywhere {
            return Ok(None);
        }
        let sight = self.sight(cx);
        let entry = sight.entry(path);
        match base_of(&sight, &entry, path)? {
            Some((_, file)) if file.extents.len() >= self.config.max_extents => Err(Refusal::TooManyExtents),
            Some((head, _)) => Ok(Some(head.location.nodes.clone())),
            None => Ok(None),
        }
    }

    /// Planted: whether a repeat is not recognised.
    #[cfg(feature = "planted-bugs")]
    pub(super) fn overlooks(&self, cx: Cx<'_>, op: super::OpId) -> bool {
        use super::planted::Planted;
        let appended = |w: &super::Write| {
            let longer = |e: &super::Effect| matches!(&e.what, super::Version::File(f) if f.extents.len() > 1);
            w.op == op && w.blob.is_some() && w.effects.iter().any(longer)
        };
        match self.config.planted {
            Planted::NoDedupe => true,
            Planted::AppendTwice => cx.storage.oldest(usize::MAX).iter().filter_map(|r| r.write()).any(appended),
            _ => false,
        }
    }
}
