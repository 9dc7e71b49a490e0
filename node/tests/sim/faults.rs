//! What goes wrong: kinds of faults, and the moments of the protocol at which they strike. A fault's place and length are
//! drawn when it strikes; that it comes was decided by the plan.

use crate::sim::check::Broken;
use crate::sim::plan::LEAST_FAULTS;
use crate::sim::world::{SECOND, Step, Time, World};
use node::cluster::{Event, MS};

/// What can go wrong. Cuts between groups of nodes come with the issue that merges them.
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
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Crash,
        Self::CrashLeader,
        Self::PowerLoss,
        Self::CrashMany,
        Self::Pause,
        Self::PauseLeader,
        Self::Delay,
        Self::Reorder,
        Self::Drop,
        Self::DropAll,
        Self::SlowDisk,
        Self::Clock,
    ];
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
        let kind = self.plan.faults[due].kind;
        self.totals.fault(kind, open);
        let nodes = self.processes.len();
        let any = self.rng.below(nodes as u64) as usize;
        let leader = self.truth.leader().unwrap_or(any);
        let at = match near {
            Some(near) if self.rng.chance(35) => near,
            _ if self.rng.chance(30) => leader,
            _ => any,
        };
        let span = match self.rng.below(10) {
            0..=4 => self.rng.range(20, 600) * MS,
            5..=8 => self.rng.range(600, 4000) * MS,
            _ => self.rng.range(4000, 9000) * MS,
        };
        self.history.note(self.now, || format!("FAULT {kind:?} near {at}, {} ms", span / MS));
        match kind {
            Kind::Crash => self.crash(at, false, span)?,
            Kind::CrashLeader => {
                let span = if self.rng.chance(6) { span + 18 * SECOND } else { span }; // longer than staged bytes are kept
                let power = self.rng.chance(40);
                self.crash(leader, power, span)?;
            }
            Kind::PowerLoss => self.crash(at, true, span)?,
            Kind::CrashMany => self.crash_many(span)?,
            Kind::Pause if self.processes[at].runs(self.now) => self.pause(at, span),
            Kind::PauseLeader if self.processes[leader].runs(self.now) => self.pause(leader, span),
            Kind::Pause | Kind::PauseLeader => {}
            Kind::Delay => self.net.slow_node(at, self.now + span),
            Kind::Reorder => self.reorder(span),
            Kind::Drop => {
                let step = 1 + self.rng.below(nodes as u64 - 1) as usize;
                self.reset(at, (at + step) % nodes);
            }
            Kind::DropAll => (0..nodes).filter(|p| *p != at).for_each(|peer| self.reset(at, peer)),
            Kind::SlowDisk => self.processes[at].slow_disk_until = self.now + span,
            Kind::Clock => {
                let jump = self.rng.range(0, 4 * SECOND) as i64 - 2 * SECOND as i64;
                self.processes[at].skew += jump;
            }
        }
        Ok(())
    }
    fn crash_many(&mut self, span: Time) -> Result<(), Broken> {
        let share = self.rng.pick(&[40, 60, 100]);
        let power = self.rng.chance(50);
        for at in 0..self.processes.len() {
            if self.rng.chance(share) {
                let back = self.rng.range(20 * MS, span.max(40 * MS));
                self.crash(at, power, back)?;
            }
        }
        Ok(())
    }
    fn reorder(&mut self, span: Time) {
        for a in 0..self.processes.len() {
            for b in 0..a {
                if self.rng.chance(40) {
                    self.net.slow_link(a, b, self.now + span);
                }
            }
        }
    }
}
