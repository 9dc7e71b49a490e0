//! Keeps numbers that no cluster can have come to out of this one. An epoch counter near the end of its range would leave
//! no higher one to the next election; it comes from a bug or from rot, and one peer's must not be everybody's.

use super::io::Event;
use super::marks::Marks;
use super::member::{Cx, Member};
use super::message::Message;
use super::record::Record;
use super::types::{Epoch, MS, Micros, NodeId};
use std::sync::Arc;

/// How far an epoch counter may be ahead of all that were seen here. Epochs change once a second at most: a node that is
/// further behind has been away for more than a century.
const LEAP: u64 = 1 << 32;
/// Between two complaints about one peer.
const COMPLAIN: Micros = 60_000 * MS;

impl Message {
    /// The greatest epoch counter that the receiver would have to believe in.
    fn counter(&self) -> u64 {
        let of = |epochs: [Option<Epoch>; 2]| epochs.into_iter().flatten().map(|epoch| epoch.0).max().unwrap_or(0);
        let marked = |marks: &Marks| marks.iter().map(|(epoch, _)| epoch.0).max().unwrap_or(0);
        let logged = |records: &[Arc<Record>]| records.iter().map(|record| record.epoch().0).max().unwrap_or(0);
        match self {
            Self::Heartbeat { info, .. } => {
                of([Some(info.promised), info.leader.map(|(_, epoch)| epoch)]).max(marked(&info.marks))
            }
            Self::Collect { epoch, marks } => epoch.0.max(marked(marks)),
            Self::Promise { epoch, marks, records, committed, .. } => {
                epoch.0.max(marked(marks)).max(marked(committed)).max(logged(records))
            }
            Self::Refuse { epoch, promised, .. } => of([Some(*epoch), Some(*promised)]),
            Self::Append { epoch, records, .. } => epoch.0.max(logged(records)),
            Self::Pulled { records, committed } => marked(committed).max(logged(records)),
            Self::Pull { marks, collecting } => of([*collecting, None]).max(marked(marks)),
            Self::Ack { epoch, .. } | Self::Coordinator { epoch, .. } | Self::Release { epoch } => epoch.0,
            Self::IndexAnswer(answer) => marked(&answer.state.applied).max(marked(&answer.state.committed)),
            _ => 0,
        }
    }
}

impl Member {
    /// Whether a message may be taken at its word; if not it is dropped, and that is said once a minute.
    pub(super) fn believes(&mut self, cx: Cx<'_>, from: NodeId, message: &Message) -> bool {
        let counter = message.counter();
        if counter <= self.top.saturating_add(LEAP) {
            return true;
        }
        let now = cx.mono();
        if let Some(peer) = self.peers.all.get_mut(&from)
            && peer.complained.is_none_or(|at| now.saturating_sub(at) > COMPLAIN)
        {
            peer.complained = Some(now);
            self.event(Event::Implausible { from, counter });
        }
        false
    }
}
