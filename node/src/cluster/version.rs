//! Versions of the protocol, so that a cluster is updated node by node and, where people think better of it, goes back.
//! Neighbouring versions work together:
//!
//! - Two nodes speak with each other when each knows the version of the other, or the other says that it still speaks one
//!   that this one knows ([`speaks`]).
//! - What is logged are effects. Fields that a later version gives to a file's version, or to a write, are kept by those that
//!   do not know them ([`Later`]): stored, handed on, and there when the node is updated.
//! - Operations are judged by the leader. One that a leader does not know yet is not asked of it ([`Change::since`]); its
//!   effects are understood by everybody.
//!
//! Anything else that an earlier version has to understand takes two versions: one that reads it, and one that writes it and
//! no longer speaks with those before ([`OLDEST`]). Nothing may be said to a peer in a word that it does not know: it takes
//! that for garbage, and ends the link.

use super::change::Change;
use super::member::Member;
use super::types::NodeId;
use std::collections::BTreeMap;

/// The version of all that nodes say to each other, in records as well. To be raised with every change that a node of the
/// version before would misread.
pub const PROTOCOL: u32 = if cfg!(feature = "next-protocol") { 6 } else { OLDEST };
/// The oldest version that is still spoken.
pub const OLDEST: u32 = 5;

/// Fields that a later version has written, with what they say. They are kept as they are, whatever becomes of the bytes: so a
/// new field says nothing of the bytes, may be missing, and holds neither fractions nor numbers of more than 64 bits.
pub type Later = BTreeMap<String, serde_json::Value>;

/// Whether this program speaks with one of version `theirs` that understands versions from `oldest` on, as far as it says.
pub fn speaks(theirs: u32, oldest: Option<u32>) -> bool {
    theirs >= OLDEST && oldest.unwrap_or(theirs) <= PROTOCOL
}

impl Change {
    /// The version that knew it first.
    fn since(&self) -> u32 {
        match self {
            Self::Store { .. }
            | Self::Append { .. }
            | Self::Delete { .. }
            | Self::MakeDirectory { .. }
            | Self::RemoveDirectory { .. }
            | Self::Rename { .. }
            | Self::SetModified { .. }
            | Self::Resolve { .. }
            | Self::Forget { .. }
            | Self::Drain(_)
            | Self::Recover { .. } => OLDEST,
            #[cfg(feature = "next-protocol")]
            Self::SetMode { .. } => 6,
        }
    }
}

impl Member {
    /// Whether a node can judge such a change, by what its last heartbeat said of its version; `None` until one came.
    pub(super) fn judges(&self, node: NodeId, change: &Change) -> Option<bool> {
        let said = if node == self.me.node { PROTOCOL } else { self.peers.said(node)?.protocol };
        Some(said >= change.since())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Body, File, Record, Write};

    #[test]
    fn neighbours_speak_and_others_do_not() {
        assert!(speaks(PROTOCOL, None) && speaks(PROTOCOL, Some(OLDEST)) && speaks(OLDEST, None));
        assert!(speaks(PROTOCOL + 1, Some(PROTOCOL)) && speaks(PROTOCOL + 9, Some(OLDEST)));
        assert!(!speaks(PROTOCOL + 1, None) && !speaks(PROTOCOL + 2, Some(PROTOCOL + 1)));
        assert!(!speaks(OLDEST - 1, None) && !speaks(OLDEST - 1, Some(1)));
    }

    #[test]
    fn fields_of_a_later_version_are_kept_as_they_are() {
        let mut file = serde_json::to_value(File { size: 3, ..File::default() }).unwrap();
        file["moon"] = serde_json::json!({"phase": [3, "waning"], "age": u64::MAX});
        let (path, over) = (serde_json::json!("/f"), serde_json::json!([]));
        let effect = serde_json::json!({"path": path, "over": over, "what": {"file": file}});
        let record = Record { body: Body::Write(Write::default()), ..serde_json::from_value(record()).unwrap() };
        let mut record = serde_json::to_value(record).unwrap();
        record["body"]["write"]["effects"] = serde_json::json!([effect]);
        record["body"]["write"]["tide"] = serde_json::json!(null);
        let read: Record = serde_json::from_str(&record.to_string()).unwrap();
        assert_eq!(read.write().unwrap().later.len(), 1);
        assert_eq!(serde_json::to_value(&read).unwrap(), record);
    }

    fn record() -> serde_json::Value {
        serde_json::json!({
            "position": crate::cluster::Position::default(), "hlc": crate::cluster::Hlc(1), "durability": [],
            "body": {"drop": {"heads": []}}
        })
    }
}
