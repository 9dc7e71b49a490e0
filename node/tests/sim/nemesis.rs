//! Faults of the network that last: a topology is cut at once or link by link, and mended after a while, all at once or in
//! another order.

use crate::sim::check::Broken;
use crate::sim::rng::Rng;
use crate::sim::topology::{Pairs, Topology, all, cliques, shuffled};
use crate::sim::world::{SECOND, Step, Time, World};
use node::cluster::MS;
use std::collections::BTreeSet;

/// A group that sees all of itself and none of the others has one leader within this time.
pub(crate) const LEADER_WITHIN: Time = 6 * SECOND;

/// A broken network that stays as it is has settled by then.
const SETTLED: Time = 20 * SECOND;
const MINUTE: Time = 60 * SECOND;
/// Takeovers in a minute on a network that does not change.
const MOST_TAKEOVERS: u64 = 10;

impl World {
    /// Something happened that may cost a group its leader, or will until then.
    pub(crate) fn disturb(&mut self, span: Time) {
        self.disturbed = self.disturbed.max(self.now + span);
    }
    /// Cuts a topology for a while.
    pub(crate) fn partition(&mut self, topology: Topology, at: usize, span: Time, rng: &mut Rng) {
        let pairs = topology.pairs(self.processes.len(), at, rng);
        self.cut(&pairs);
        if matches!(topology, Topology::Halves | Topology::Thirds | Topology::Isolated) {
            self.totals.partitions += 1;
        }
        self.plan(span, Step::Mend(pairs));
    }
    /// Links are cut one by one and mended one by one, in another order.
    pub(crate) fn swizzle(&mut self, span: Time, rng: &mut Rng) {
        let nodes = self.processes.len();
        let touched: BTreeSet<usize> = (0..nodes).filter(|_| rng.chance(60)).collect();
        let links = all(nodes).filter(|(a, b)| a < b && (touched.contains(a) || touched.contains(b)));
        let links = shuffled(links.collect(), rng);
        let third = span / 3;
        for (a, b) in &links {
            self.plan(rng.below(third), Step::Cut(vec![(*a, *b), (*b, *a)]));
        }
        for (a, b) in &links {
            self.plan(2 * third + rng.below(third), Step::Mend(vec![(*a, *b), (*b, *a)]));
        }
        self.disturb(span);
    }
    /// Some links break again and again, and are slow between.
    pub(crate) fn flake(&mut self, span: Time, rng: &mut Rng) {
        let links: Pairs = all(self.processes.len()).filter(|(a, b)| a < b && rng.chance(30)).collect();
        for (a, b) in links {
            self.net.slow_link(a, b, self.now + span);
            let pairs = vec![(a, b), (b, a)];
            for _ in 0..rng.range(1, 6) {
                let (begin, lasts) = (rng.below(span), rng.range(20, 900) * MS);
                self.plan(begin, Step::Cut(pairs.clone()));
                self.plan(begin + lasts, Step::Mend(pairs.clone()));
            }
        }
        self.disturb(span + SECOND);
    }

    /// Load on a network that breaks once and stays like that: elections come to rest.
    pub(crate) fn stay_broken(&mut self, topology: Topology) -> Result<(), Broken> {
        self.until(4 * SECOND)?;
        let mut rng = Rng::new(self.plan.seed ^ 0x70b0);
        let at = rng.below(self.plan.nodes as u64) as usize;
        self.history.note(self.now, || format!("FIXED {topology:?} near {at}"));
        self.partition(topology, at, 1000 * SECOND, &mut rng);
        self.until(SETTLED)?;
        let before = self.truth.takeovers();
        self.until(SETTLED + MINUTE)?;
        let late = self.truth.takeovers() - before;
        self.totals.late_epochs = self.totals.late_epochs.max(late);
        if late > MOST_TAKEOVERS {
            return Err(Broken::new("I4", format!("{late} takeovers in a minute of an unchanging network")));
        }
        Ok(())
    }

    /// I4 while the network is broken: each group that is whole in itself and apart from all others has one leader in time.
    pub(crate) fn watch_groups(&mut self) -> Result<(), Broken> {
        self.plan(200 * MS, Step::Watch);
        let living: Vec<usize> = (0..self.processes.len()).filter(|n| !self.processes[*n].gone).collect();
        let awake = living.iter().all(|n| self.processes[*n].runs(self.now));
        let (joined, apart) = (|a, b| self.net.joined(a, b), |a, b| self.net.cut(a, b) && self.net.cut(b, a));
        let groups = if awake { cliques(&living, joined, apart) } else { None };
        let Some(groups) = groups else {
            self.disturb(0);
            return Ok(());
        };
        let Some(unled) = groups.iter().find(|group| !self.led(group)) else {
            if self.unled {
                self.totals.led_after = self.totals.led_after.max(self.now.saturating_sub(self.disturbed));
            }
            self.unled = false;
            self.disturb(0);
            return Ok(());
        };
        self.unled = true;
        if self.now > self.disturbed + LEADER_WITHIN {
            let what = format!(
                "{unled:?} see each other and nobody else, and have no single leader after {} s",
                LEADER_WITHIN / SECOND
            );
            return Err(Broken::new("I4", what));
        }
        Ok(())
    }
}
