//! Figures of a run, and of many.

use crate::sim::check::Coverage;
use crate::sim::faults::Kind;
use crate::sim::plan::{LEAST_FAULTS, LEAST_OPS, LEAST_TIME};
use crate::sim::world::Time;
use std::collections::BTreeMap;

#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    pub(crate) ops: u64,
    pub(crate) changes: u64,
    pub(crate) reads: u64,
    /// Reads that no leader answered in time.
    pub(crate) local_reads: u64,
    pub(crate) refused_reads: u64,
    pub(crate) acks: u64,
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) replacements: u64,
    /// Acknowledged appends to what was there.
    pub(crate) appended: u64,
    /// Acknowledged renames of directories with something in them, and operations logged in more than one part.
    pub(crate) moved: u64,
    pub(crate) parted: u64,
    /// Blobs collected.
    pub(crate) dropped: u64,
    /// Blobs copied by repair.
    pub(crate) fetched: u64,
    /// Blobs made of others.
    pub(crate) merged: u64,
    /// Bad copies that their nodes found.
    pub(crate) condemned: u64,
    /// From rest to three copies of all; the longest of many runs.
    pub(crate) repaired_after: Time,
    /// Heads at rest whose twin was replaced elsewhere.
    pub(crate) stale: u64,
    /// What one order had to explain.
    pub(crate) order: Coverage,
    pub(crate) epochs: u64,
    /// Indexes taken over for want of records.
    pub(crate) transfers: u64,
    /// Records by which a leader took over what another had logged meanwhile.
    pub(crate) merges: u64,
    /// Reigns of another node than the one before.
    pub(crate) elections: u64,
    pub(crate) faults: BTreeMap<Kind, u64>,
    /// Faults that cut groups of nodes apart.
    pub(crate) partitions: u64,
    /// Acknowledged writes to one path of which neither knew the other.
    pub(crate) conflicts: u64,
    /// Seeds (1 here) in which such a conflict was there before a network healed.
    pub(crate) healed_conflict: u64,
    /// And which also saw an election between acknowledged writes.
    pub(crate) both: u64,
    /// Faults that struck while an operation was open.
    pub(crate) in_flight: u64,
    /// A new leader served after the first acknowledged write.
    pub(crate) elected_after_ack: bool,
    /// Seeds (1 here) in which a write was acknowledged after that.
    pub(crate) acked_after_election: u64,
    /// Simulated time under load, and until rest.
    pub(crate) loaded: Time,
    pub(crate) rested: Time,
    /// Takeovers in a minute on a network that stays broken; the most of many runs.
    pub(crate) late_epochs: u64,
    /// From the last disturbance to one leader; the longest of many runs.
    pub(crate) led_after: Time,
}

impl Totals {
    pub(crate) fn acknowledge(&mut self) {
        self.acks += 1;
        if self.elected_after_ack {
            self.acked_after_election = 1;
        }
    }
    pub(crate) fn fault(&mut self, kind: Kind, in_flight: bool) {
        *self.faults.entry(kind).or_insert(0) += 1;
        self.in_flight += u64::from(in_flight);
    }
    pub(crate) fn all_faults(&self) -> u64 {
        self.faults.values().sum()
    }
    /// What the run fell short of.
    pub(crate) fn shortfall(&self) -> Option<String> {
        let faults = self.all_faults();
        let least = [
            ("operations", self.ops, LEAST_OPS),
            ("changes", self.changes * 2, self.ops),
            ("faults", faults, LEAST_FAULTS),
            ("faults with an operation open", self.in_flight * 3, faults),
            ("simulated time", self.loaded, LEAST_TIME),
        ];
        let short = least.iter().find(|(_, is, least)| is < least);
        short.map(|(what, is, least)| format!("too few {what}: {is} of {least}"))
    }
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.ops, other.ops),
            (&mut self.changes, other.changes),
            (&mut self.reads, other.reads),
            (&mut self.local_reads, other.local_reads),
            (&mut self.refused_reads, other.refused_reads),
            (&mut self.acks, other.acks),
            (&mut self.replacements, other.replacements),
            (&mut self.appended, other.appended),
            (&mut self.moved, other.moved),
            (&mut self.parted, other.parted),
            (&mut self.dropped, other.dropped),
            (&mut self.fetched, other.fetched),
            (&mut self.merged, other.merged),
            (&mut self.condemned, other.condemned),
            (&mut self.stale, other.stale),
            (&mut self.order.windows, other.order.windows),
            (&mut self.order.placed, other.order.placed),
            (&mut self.order.answered, other.order.answered),
            (&mut self.epochs, other.epochs),
            (&mut self.transfers, other.transfers),
            (&mut self.merges, other.merges),
            (&mut self.elections, other.elections),
            (&mut self.in_flight, other.in_flight),
            (&mut self.partitions, other.partitions),
            (&mut self.conflicts, other.conflicts),
            (&mut self.healed_conflict, other.healed_conflict),
            (&mut self.both, other.both),
            (&mut self.acked_after_election, other.acked_after_election),
            (&mut self.loaded, other.loaded),
            (&mut self.rested, other.rested),
        ] {
            *mine += theirs;
        }
        self.led_after = self.led_after.max(other.led_after);
        self.repaired_after = self.repaired_after.max(other.repaired_after);
        self.late_epochs = self.late_epochs.max(other.late_epochs);
        for (kind, n) in &other.faults {
            *self.faults.entry(*kind).or_insert(0) += n;
        }
        for (refusal, n) in &other.refusals {
            *self.refusals.entry(refusal.clone()).or_insert(0) += n;
        }
    }
}
