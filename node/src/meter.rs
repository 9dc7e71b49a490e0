//! What passes through a node, counted since it started: sessions, transfers and their bytes, commits, bytes between nodes,
//! changes of leader. `serve` makes one and hands it down; clones count together. It only counts: nothing decides by it.
//!
//! What the node knows anyway (members, copies, disk, scrub) is not here: `admin/metrics` takes that from its status.

use crate::cluster::Event;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Upper ends of the buckets of every duration, in seconds: from a small file on a quiet disk to a large one.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Commands that transfer files.
const VERBS: [&str; 4] = ["RETR", "STOR", "STOU", "APPE"];

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// Counters of one node.
#[derive(Debug, Clone)]
pub struct Meter {
    sessions_open: Gauge,
    sessions: Counter,
    sessions_refused: Family<Label, Counter>,
    transfers_open: Family<Label, Gauge>,
    transfers: Family<Labels, Counter>,
    transfer_bytes: Family<Label, Counter>,
    transfer_duration: Family<Label, Histogram>,
    commit_duration: Histogram,
    replica_bytes: Family<Label, Counter>,
    copies_fetched: Family<Label, Counter>,
    compactions: Family<Label, Counter>,
    takeovers: Counter,
    leader_changes: Counter,
    leader_losses: Counter,
}

/// Which way bytes go, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To this node.
    In,
    /// From it.
    Out,
}

/// Why a client was turned away at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too many sessions, in all or from its address.
    Limit,
    /// Too many failed logins from its address.
    Banned,
    /// The node waits for its data directory.
    Starting,
    /// It stops.
    Stopping,
}

/// Something that counts as open until this is dropped.
#[derive(Debug)]
pub(crate) struct Open(Gauge);

impl Default for Meter {
    fn default() -> Self {
        let meter = Self {
            sessions_open: Gauge::default(),
            sessions: Counter::default(),
            sessions_refused: Family::default(),
            transfers_open: Family::default(),
            transfers: Family::default(),
            transfer_bytes: Family::default(),
            transfer_duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            commit_duration: Histogram::new(SECONDS),
            replica_bytes: Family::default(),
            copies_fetched: Family::default(),
            compactions: Family::default(),
            takeovers: Counter::default(),
            leader_changes: Counter::default(),
            leader_losses: Counter::default(),
        };
        meter.begin();
        meter
    }
}

impl Meter {
    /// All series are there from the start, at 0: a rate over one that appears with its first event misses that event.
    fn begin(&self) {
        for why in [Refused::Limit, Refused::Banned, Refused::Starting, Refused::Stopping] {
            drop(self.sessions_refused.get_or_create(&why.label()));
        }
        for direction in [Direction::In, Direction::Out] {
            drop(self.transfers_open.get_or_create(&direction.label()));
            drop(self.transfer_bytes.get_or_create(&direction.label()));
            drop(self.replica_bytes.get_or_create(&direction.label()));
        }
        for good in [true, false] {
            VERBS.into_iter().for_each(|verb| drop(self.transfers.get_or_create(&[("verb", verb), result(good)])));
            drop(self.copies_fetched.get_or_create(&[result(good)]));
            drop(self.compactions.get_or_create(&[result(good)]));
        }
        VERBS.into_iter().for_each(|verb| drop(self.transfer_duration.get_or_create(&[("verb", verb)])));
    }

    /// A control connection, open until the answer is dropped.
    pub(crate) fn session(&self) -> Open {
        Open::new(&self.sessions_open)
    }
    /// A session's first command came: whoever connects and says nothing, as a health check does, is no session.
    pub(crate) fn spoke(&self) {
        self.sessions.inc();
    }
    /// A client was turned away.
    pub(crate) fn refused(&self, why: Refused) {
        self.sessions_refused.get_or_create(&why.label()).inc();
    }
    /// A transfer of a file, open until the first answer is dropped; the second counts its bytes.
    pub(crate) fn transfer(&self, direction: Direction) -> (Open, Counter) {
        let label = direction.label();
        (Open::new(&self.transfers_open.get_or_create(&label)), self.transfer_bytes.get_or_create_owned(&label))
    }
    /// A transfer of a file ended, `took` after its command, with a reply that says done or something else.
    pub(crate) fn transferred(&self, verb: &'static str, done: bool, took: Duration) {
        self.transfers.get_or_create(&[("verb", verb), result(done)]).inc();
        if done {
            self.transfer_duration.get_or_create(&[("verb", verb)]).observe(took.as_secs_f64());
        }
    }
    /// An upload was committed, `took` after its bytes were on all disks.
    pub(crate) fn committed(&self, took: Duration) {
        self.commit_duration.observe(took.as_secs_f64());
    }
    /// File bytes went from or to another node.
    pub(crate) fn replicated(&self, direction: Direction, bytes: usize) {
        self.replica_bytes.get_or_create(&direction.label()).inc_by(bytes as u64);
    }
    /// A copy that the cluster wanted here was fetched, or could not be.
    pub(crate) fn fetched(&self, good: bool) {
        self.copies_fetched.get_or_create(&[result(good)]).inc();
    }
    /// Extents that the cluster wanted as one were merged, or could not be.
    pub(crate) fn compacted(&self, good: bool) {
        self.compactions.get_or_create(&[result(good)]).inc();
    }
    /// Something happened in the cluster.
    pub(crate) fn heard(&self, event: &Event) {
        match event {
            Event::TookOver { .. } => self.takeovers.inc(),
            Event::Follows { .. } => self.leader_changes.inc(),
            Event::Leaderless => self.leader_losses.inc(),
            _ => return,
        };
    }

    /// Puts all of it into a registry.
    pub(crate) fn register(&self, to: &mut Registry) {
        to.register("sessions_open", "Control connections that are open now", self.sessions_open.clone());
        to.register("sessions", "Control connections on which a command came", self.sessions.clone());
        let refused = self.sessions_refused.clone();
        to.register("sessions_refused", "Control connections that were answered 421 and closed at once", refused);
        let open = self.transfers_open.clone();
        to.register("transfers_open", "Files that are being stored (in) or retrieved (out) now", open);
        to.register("transfers", "Transfers of files that ended", self.transfers.clone());
        let bytes = self.transfer_bytes.clone();
        to.register("transfer_bytes", "Bytes of files on data connections of clients", bytes);
        let took = self.transfer_duration.clone();
        to.register("transfer_duration_seconds", "From a command to its 226, of transfers that were done", took);
        let took = self.commit_duration.clone();
        to.register("commit_duration_seconds", "From an upload's bytes on all disks to its commit", took);
        to.register("replica_bytes", "Bytes of files from and to other nodes", self.replica_bytes.clone());
        let fetched = self.copies_fetched.clone();
        to.register("copies_fetched", "Copies that the cluster wanted on this node: repair, drain, healing", fetched);
        let merged = self.compactions.clone();
        to.register("compactions", "Runs of extents that were to be merged on this node's disk", merged);
        to.register("takeovers", "Epochs that this node took over in", self.takeovers.clone());
        let changes = self.leader_changes.clone();
        to.register("leader_changes", "Times that this node came to follow a leader or to lead, by epoch", changes);
        to.register("leader_losses", "Times that this node was left without a leader", self.leader_losses.clone());
    }
}

impl Direction {
    fn label(self) -> Label {
        [("direction", if self == Self::In { "in" } else { "out" })]
    }
}

impl Refused {
    fn label(self) -> Label {
        let reason = match self {
            Self::Limit => "limit",
            Self::Banned => "banned",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
        };
        [("reason", reason)]
    }
}

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn result(good: bool) -> (&'static str, &'static str) {
    ("result", if good { "done" } else { "failed" })
}

#[cfg(test)]
impl Meter {
    /// Whether one line of what it comes to is this one.
    pub(crate) fn shows(&self, line: &str) -> bool {
        let (mut registry, mut text) = (Registry::with_prefix("trebol"), String::new());
        self.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().any(|l| l == line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let meter = Meter::default();
        for series in [
            "trebol_sessions_open 0",
            "trebol_sessions_total 0",
            "trebol_sessions_refused_total{reason=\"stopping\"} 0",
            "trebol_transfers_open{direction=\"in\"} 0",
            "trebol_transfers_total{verb=\"STOR\",result=\"failed\"} 0",
            "trebol_transfer_bytes_total{direction=\"out\"} 0",
            "trebol_transfer_duration_seconds_count{verb=\"RETR\"} 0",
            "trebol_commit_duration_seconds_bucket{le=\"+Inf\"} 0",
            "trebol_replica_bytes_total{direction=\"in\"} 0",
            "trebol_copies_fetched_total{result=\"done\"} 0",
            "trebol_leader_losses_total 0",
        ] {
            assert!(meter.shows(series), "no {series}");
        }
    }

    #[test]
    fn clones_count_together_and_what_is_open_ends_with_its_guard() {
        let meter = Meter::default();
        let (open, bytes) = meter.clone().transfer(Direction::In);
        let session = meter.session();
        bytes.inc_by(5);
        meter.clone().transferred("STOR", true, Duration::from_millis(20));
        meter.transferred("STOR", false, Duration::from_secs(9));
        assert!(meter.shows("trebol_transfers_open{direction=\"in\"} 1") && meter.shows("trebol_sessions_open 1"));
        assert!(meter.shows("trebol_transfer_bytes_total{direction=\"in\"} 5"));
        assert!(meter.shows("trebol_transfer_duration_seconds_count{verb=\"STOR\"} 1"), "failures are not timed");
        drop((open, session));
        assert!(meter.shows("trebol_transfers_open{direction=\"in\"} 0") && meter.shows("trebol_sessions_open 0"));
    }
}
