//! What goes wrong: kinds of faults, and the moments of the protocol at which they strike. A fault's place and length are
//! drawn when it strikes; that it comes was decided by the plan.

use crate::sim::check::Broken;
use crate::sim::plan::{Due, LEAST_FAULTS};
use crate::sim::process::id;
use crate::sim::rng::Rng;
use crate::sim::topology::Topology;
use crate::sim::world::{SECOND, Step, Time, World};
use node::cluster::{Change, Drain, Event, MS, Marks};

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One process dies and starts again.
    Crash,
    /// The leader's does.
    CrashLeader,
    /// One machine loses power: what was not fsynced is gone, and its port does not even refuse.
    PowerLoss,
    /// Several processes, or all, die at once.
    CrashMany,
    /// A process stands still while its clocks run.
    Pause,
    /// The leader's does.
    PauseLeader,
    /// A process is told to stop: it says that it leaves, ends a while later, and is started again.
    Leave,
    /// The leader's is.
    LeaveLeader,
    /// All that a node sends or is sent takes long.
    Delay,
    /// Some links take long, and others overtake them.
    Reorder,
    /// A link breaks and loses what was under way.
    Drop,
    /// All links of a node do.
    DropAll,
    /// Writes take long on one disk.
    SlowDisk,
    /// A wall clock jumps.
    Clock,
    /// A process dies and comes back under another address, and so with another rank.
    Move,
    /// A new node joins with nothing.
    Join,
    /// A node loses its disk; a new one comes in its place.
    Wipe,
    /// The operator has a node drained, and may take it back.
    Drain,
    /// A process dies and finds a blob missing when it comes back.
    Rot,
    /// The nodes fall into two groups.
    Halves,
    /// Into three.
    Thirds,
    /// One node is alone.
    Isolate,
    /// The leader is.
    IsolateLeader,
    /// Nothing passes from some to others.
    OneWay,
    /// One node is between two groups.
    Bridge,
    /// The leader keeps one node in common with the rest.
    BridgeLeader,
    /// Everybody sees two others.
    Ring,
    /// Links are gone here and there.
    Random,
    /// Links go one by one and come back in another order.
    Swizzle,
    /// Links break again and again.
    Flaky,
}

impl Kind {
    pub(crate) const ALL: [Self; 30] = [
        Self::Crash,
        Self::CrashLeader,
        Self::PowerLoss,
        Self::CrashMany,
        Self::Pause,
        Self::PauseLeader,
        Self::Leave,
        Self::LeaveLeader,
        Self::Delay,
        Self::Reorder,
        Self::Drop,
        Self::DropAll,
        Self::SlowDisk,
        Self::Clock,
        Self::Move,
        Self::Join,
        Self::Wipe,
        Self::Drain,
        Self::Rot,
        Self::Halves,
        Self::Thirds,
        Self::Isolate,
        Self::IsolateLeader,
        Self::OneWay,
        Self::Bridge,
        Self::BridgeLeader,
        Self::Ring,
        Self::Random,
        Self::Swizzle,
        Self::Flaky,
    ];
    fn topology(self) -> Option<Topology> {
        Some(match self {
            Self::Halves => Topology::Halves,
            Self::Thirds => Topology::Thirds,
            Self::Isolate | Self::IsolateLeader => Topology::Isolated,
            Self::OneWay => Topology::OneWay,
            Self::Bridge => Topology::Bridge,
            Self::BridgeLeader => Topology::Hinge,
            Self::Ring => Topology::Ring,
            Self::Random => Topology::Random,
            _ => return None,
        })
    }
    /// How long it lasts: what cuts groups apart mostly long enough for both sides to elect and write.
    fn span(self, rng: &mut Rng) -> Time {
        let lasting = self.topology().is_some() || self == Self::Swizzle;
        match rng.below(10) {
            0..=4 if lasting => rng.range(6000, 16_000) * MS,
            0..=4 => rng.range(20, 600) * MS,
            5..=8 => rng.range(600, 4000) * MS,
            _ => rng.range(4000, 9000) * MS,
        }
    }
}

/// When faults hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Granted,
    Logged,
    Committed,
    TookOver,
    Serving,
}

impl Moment {
    pub(crate) const ALL: [Self; 7] =
        [Self::Granted, Self::Granted, Self::Logged, Self::Logged, Self::Committed, Self::TookOver, Self::Serving];
}

impl World {
    /// A planned fault's time has come; mostly it then waits for its moment, but not for ever.
    pub(crate) fn fall_due(&mut self, due: usize) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        if self.plan.faults[due].moment.is_none() || self.armed.contains(&due) {
            self.armed.retain(|d| *d != due);
            return self.blow(due, None);
        }
        self.armed.push(due);
        self.plan(8 * SECOND, Step::Fault(due));
        Ok(())
    }
    /// A step of the protocol, seen at `at`.
    pub(crate) fn moment(&mut self, at: usize, event: &Event) {
        let moment = match event {
            Event::Granted { .. } => Moment::Granted,
            Event::Logged { .. } => Moment::Logged,
            Event::Committed { .. } => Moment::Committed,
            Event::TookOver { .. } => Moment::TookOver,
            Event::Serving { .. } => Moment::Serving,
            _ => return,
        };
        if let Some(n) = self.armed.iter().position(|due| self.plan.faults[*due].moment == Some(moment)) {
            let due = self.armed.remove(n);
            self.plan.faults[due].moment = None;
            let wait = self.rng.pick(&[0, 300, 2000, 12_000]);
            self.plan(wait, Step::Blow { due, at });
        }
    }
    pub(crate) fn short_of_faults(&self) -> bool {
        let (all, busy) = (self.totals.all_faults(), self.totals.in_flight);
        all < LEAST_FAULTS || busy * 3 < all
    }

    pub(crate) fn blow(&mut self, due: usize, near: Option<usize>) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        let open = !self.sessions.is_empty() || !self.reads.is_empty();
        if !open && self.totals.in_flight * 2 <= self.totals.all_faults() {
            self.plan(10 * MS, Step::Fault(due)); // half of them at least strike while something is going on
            self.armed.push(due);
            return Ok(());
        }
        let Due { id, kind, span, .. } = self.plan.faults[due];
        // Of its own, so that leaving another fault out changes nothing here.
        let mut rng = Rng::new(self.plan.seed ^ 0xfa17).fork_at(id);
        self.totals.fault(kind, open);
        let living = self.living();
        let any = rng.pick(&living);
        let leader = self.truth.leader().filter(|l| living.contains(l)).unwrap_or(any);
        let at = match near {
            Some(near) if rng.chance(35) && living.contains(&near) => near,
            _ if rng.chance(30) => leader,
            _ => any,
        };
        let span = span.unwrap_or_else(|| kind.span(&mut rng));
        self.history.note(self.now, || format!("FAULT {id} {kind:?} near {at}, {} ms", span / MS));
        if let Some(topology) = kind.topology() {
            let at = if matches!(kind, Kind::IsolateLeader | Kind::BridgeLeader) { leader } else { at };
            self.partition(topology, at, span, &mut rng);
            return Ok(());
        }
        self.strike(kind, at, leader, span, &mut rng)
    }
    fn strike(&mut self, kind: Kind, at: usize, leader: usize, span: Time, rng: &mut Rng) -> Result<(), Broken> {
        let nodes = self.processes.len();
        match kind {
            Kind::Crash => self.crash(at, false, span)?,
            Kind::CrashLeader => {
                let span = if rng.chance(6) { span + 18 * SECOND } else { span }; // longer than staged bytes are kept
                let power = rng.chance(40);
                self.crash(leader, power, span)?;
            }
            Kind::PowerLoss => self.crash(at, true, span)?,
            Kind::CrashMany => self.crash_many(span, rng)?,
            Kind::Move => {
                self.processes[at].moves = true;
                self.crash(at, rng.chance(50), span)?;
            }
            Kind::Join if self.join(span) => {}
            // At once a second time there might be nobody left who has a version.
            Kind::Wipe if self.can_lose(at) && self.join(span) => self.lose(at, rng)?,
            Kind::Rot => self.rot(at, span, rng)?,
            Kind::Drain => self.drain(at, span, rng),
            Kind::Join | Kind::Wipe => self.crash(at, true, span)?,
            Kind::Pause if self.processes[at].runs(self.now) => self.pause(at, span),
            Kind::PauseLeader if self.processes[leader].runs(self.now) => self.pause(leader, span),
            Kind::Leave if self.processes[at].runs(self.now) => self.leave(at, span),
            Kind::LeaveLeader if self.processes[leader].runs(self.now) => self.leave(leader, span),
            Kind::Delay => {
                self.net.slow_node(at, self.now + span);
                self.disturb(span);
            }
            Kind::Reorder => self.reorder(span, rng),
            Kind::Drop => {
                let step = 1 + rng.below(nodes as u64 - 1) as usize;
                self.reset(at, (at + step) % nodes);
            }
            Kind::DropAll => (0..nodes).filter(|p| *p != at).for_each(|peer| self.reset(at, peer)),
            Kind::SlowDisk => {
                self.processes[at].slow_disk_until = self.now + span;
                self.disturb(span + 5 * SECOND);
            }
            Kind::Clock => {
                let jump = rng.range(0, 4 * SECOND) as i64 - 2 * SECOND as i64;
                self.processes[at].skew += jump;
            }
            Kind::Swizzle => self.swizzle(span, rng),
            Kind::Flaky => self.flake(span, rng),
            _ => {} // asleep already
        }
        self.disturb(0);
        Ok(())
    }
    /// Whether others have on their disks whatever this node has: its blobs, and every committed record.
    fn can_lose(&self, at: usize) -> bool {
        let others = (0..self.processes.len()).filter(|n| *n != at && !self.processes[*n].gone);
        let mut elsewhere = Marks::default();
        others.for_each(|n| elsewhere.join(&self.processes[n].disk.synced.marks()));
        let here = self.processes[at].disk.shown.marks();
        !self.truth.has_committed(|p| here.has(p) && !elsewhere.has(p))
            && self.spare(at, self.processes[at].disk.blobs.keys().copied(), 1)
    }
    /// A disk is lost, and sooner or later the operator has its node forgotten.
    fn lose(&mut self, at: usize, rng: &mut Rng) -> Result<(), String> {
        if rng.chance(50) {
            self.plan(rng.range(6, 20) * SECOND, Step::Order(Change::Forget { node: id(at) }));
        }
        self.wipe(at)
    }
    /// Mostly until the end; up to all nodes may be drained.
    fn drain(&mut self, at: usize, span: Time, rng: &mut Rng) {
        let node = id(at);
        self.order_about(Change::Drain(Drain { node, draining: true }));
        if rng.chance(40) {
            self.plan(span * 2, Step::Order(Change::Drain(Drain { node, draining: false })));
        }
    }
    fn crash_many(&mut self, span: Time, rng: &mut Rng) -> Result<(), Broken> {
        let share = rng.pick(&[40, 60, 100]);
        let power = rng.chance(50);
        for at in 0..self.processes.len() {
            if rng.chance(share) {
                let back = rng.range(20 * MS, span.max(40 * MS));
                self.crash(at, power, back)?;
            }
        }
        Ok(())
    }
    fn reorder(&mut self, span: Time, rng: &mut Rng) {
        for a in 0..self.processes.len() {
            for b in 0..a {
                if rng.chance(40) {
                    self.net.slow_link(a, b, self.now + span);
                }
            }
        }
        self.disturb(span);
    }
}
