//! I4: no epoch is taken twice, each is on its leader's disk before it is used, and a promise holds across crashes. And the
//! part of I1 and I5 that rests on it: what a member acknowledged, every later epoch with that member knows.

use super::{Broken, Reign, Truth};
use crate::sim::disk::Disk;
use crate::sim::process::Process;
use node::cluster::{Epoch, Marks, Message, NodeId, Position};
use std::collections::BTreeSet;

impl Truth {
    pub(super) fn took_over(
        &mut self,
        at: usize,
        epoch: Epoch,
        members: &[NodeId],
        marks: &Marks,
        processes: &[Process],
    ) -> Result<(), Broken> {
        if let Some(other) = self.reigns.get(&epoch) {
            return Err(Broken::new("I4", format!("epoch {epoch:?} taken by {} and by {at}", other.node)));
        }
        let durable = processes[at].disk.synced.state.promised;
        if durable < epoch {
            return Err(Broken::new("I4", format!("{at} took over {epoch:?}, its disk remembers {durable:?}")));
        }
        for position in self.committed.keys().filter(|p| p.epoch < epoch) {
            promise_kept(*position, &self.held_below(*position, epoch), epoch, members, marks)?;
        }
        self.reigns.insert(epoch, Reign { node: at, members: members.to_vec(), committed: 0 });
        Ok(())
    }
    pub(super) fn serving(&mut self, at: usize, epoch: Epoch) -> Result<(), Broken> {
        match self.reigns.get(&epoch) {
            Some(reign) if reign.node == at && reign.committed > 0 => {
                self.served.push((epoch, at));
                Ok(())
            }
            _ => Err(Broken::new("I4", format!("{at} serves {epoch:?} without its first record's commit"))),
        }
    }
    /// What a node says of its own disk must be true, and a promise must hold.
    pub(super) fn sent(&mut self, at: usize, message: &Message, disk: &Disk) -> Result<(), Broken> {
        let durable = disk.synced.state.promised;
        match message {
            Message::Promise { epoch, .. } | Message::Collect { epoch, .. } => {
                if durable < *epoch {
                    let what = format!("{at} speaks of {epoch:?}, its disk remembers {durable:?}");
                    return Err(Broken::new("I4", what));
                }
                let highest = self.promised.entry(at).or_default();
                if *epoch < *highest {
                    return Err(Broken::new("I4", format!("{at} promises {epoch:?} after {highest:?}")));
                }
                *highest = *epoch;
            }
            Message::Ack { epoch, durable, .. } => {
                let on_disk = disk.synced.marks().count(*epoch);
                if *durable > on_disk {
                    let what = format!("{at} acknowledges {durable} records of {epoch:?}, its disk has {on_disk}");
                    return Err(Broken::new("I1", what));
                }
                let highest = self.promised.get(&at).copied().unwrap_or_default();
                if *epoch < highest {
                    return Err(Broken::new("I4", format!("{at} acknowledges {epoch:?} after promising {highest:?}")));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// An epoch stands on all that its members held when it was committed.
pub(super) fn promise_kept(
    position: Position,
    holders: &BTreeSet<NodeId>,
    epoch: Epoch,
    members: &[NodeId],
    marks: &Marks,
) -> Result<(), Broken> {
    if !marks.has(position) && members.iter().any(|m| holders.contains(m)) {
        let what = format!("{position:?} was committed by {holders:?}; {epoch:?} of {members:?} does not stand on it");
        return Err(Broken::new("I5", what));
    }
    Ok(())
}
