//! What a seed decides before it runs: settings of the members, speeds, clients, and the faults to come.

use crate::sim::faults::{Kind, Moment};
use crate::sim::rng::Rng;
use crate::sim::topology::Topology;
use crate::sim::world::{SECOND, Time};
use node::cluster::{Config, MS};

/// Least simulated time under faults and load.
pub(crate) const LEAST_TIME: Time = 60 * SECOND;
/// Least number of client operations, reads among them.
pub(crate) const LEAST_OPS: u64 = 200;
/// Least number of faults.
pub(crate) const LEAST_FAULTS: u64 = 5;

/// A fault to come: not before `after`, and then at the next such moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// Its number among all that the seed planned.
    pub(crate) id: usize,
    pub(crate) after: Time,
    pub(crate) moment: Option<Moment>,
    pub(crate) kind: Kind,
    /// How long it lasts, if that was decided here.
    pub(crate) span: Option<Time>,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Nodes that join later, or in place of one that is lost.
    pub(crate) spares: usize,
    pub(crate) config: Config,
    /// Failure domains.
    pub(crate) zones: usize,
    /// Multiplies ordinary delays of links.
    pub(crate) net_scale: u64,
    /// Multiplies ordinary times of disk writes.
    pub(crate) disk_scale: u64,
    /// Furthest that a wall clock is off at the start, in microseconds.
    pub(crate) skew: Time,
    /// Furthest that a wall clock runs too fast or too slow, in parts per million.
    pub(crate) drift: u64,
    /// Longest time that inputs gather before a member handles them.
    pub(crate) gather: Time,
    pub(crate) clients: usize,
    /// Paths that clients choose from, of the list in `clients.rs`.
    pub(crate) paths: usize,
    /// Longest pause of a client between two operations.
    pub(crate) pace: Time,
    /// Longest patience of an operation.
    pub(crate) patience: Time,
    /// Stale reads are left to the check of whole histories.
    pub(crate) reads_unjudged: bool,
    /// In the order they fall due.
    pub(crate) faults: Vec<Due>,
    /// Instead of faults: a network that stays broken like this.
    pub(crate) fixed: Option<Topology>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let retention = rng.pick(&[600, 600, 60, 20]) * SECOND;
        let config = Config {
            down: rng.pick(&[5000, 5000, 2500]) * MS,
            lock_lease: rng.pick(&[2, 5, 10]) * SECOND,
            outcome_retention: retention,
            staged_grace: rng.pick(&[900, 15]) * SECOND,
            replaced_grace: rng.pick(&[60, 2]) * SECOND,
            loser_retention: rng.pick(&[600, 600, 10]) * SECOND,
            stall_window: rng.pick(&[60, 8]) * SECOND,
            stall_bytes: 64 * 1024,
            repair_last_copy: rng.pick(&[1, 1, 5]) * SECOND,
            repair_after: rng.pick(&[2, 2, 8, 60]) * SECOND,
            repair_look: rng.pick(&[512, 3, 1]) as usize,
            repair_copies: rng.pick(&[1, 4, 16]) as usize,
            merge_extents: rng.pick(&[16, 4, 2]) as usize,
            max_extents: rng.pick(&[64, 64, 3]) as usize,
            records_per_frame: rng.pick(&[512, 512, 3]) as usize,
            effects_per_record: rng.pick(&[1000, 2, 1]) as usize,
            mesh: rng.pick(&[16, 16, 3]) as usize,
            far_behind: rng.pick(&[1000, 1000, 40]),
            log_least: rng.pick(&[4000, 30, 8]),
            log_most: rng.pick(&[200_000, 60, 12]),
            index_range: rng.pick(&[1024, 64, 4]) as usize,
            ..Config::default()
        };
        let nodes = rng.pick(&[5, 5, 5, 6, 7]) as usize;
        let (clients, paths) = rng.pick(&[(8, 10), (8, 10), (8, 5), (6, 2)]);
        Self {
            seed,
            nodes,
            zones: rng.pick(&[nodes as u64, 3, 2, 1]) as usize,
            spares: rng.pick(&[0, 1, 1, 2, 3]) as usize,
            config,
            net_scale: rng.pick(&[1, 1, 4, 15]),
            disk_scale: rng.pick(&[1, 1, 8, 30]),
            skew: rng.pick(&[200, 200, 2000]) * MS,
            drift: rng.pick(&[50, 10_000]),
            gather: rng.pick(&[1, 50, 500, 5000]),
            clients,
            paths,
            pace: rng.pick(&[800, 1500, 2500]) * MS,
            patience: rng.pick(&[4, 10, 30]) * SECOND.min(retention / 60),
            reads_unjudged: false,
            faults: Self::faults(&mut rng),
            fixed: None,
        }
    }

    /// No faults, but a network that breaks once and stays like that.
    pub(crate) fn fixed(seed: u64) -> Self {
        let mut plan = Self::new(seed);
        let mut rng = Rng::new(seed ^ 0xf1ed);
        (plan.fixed, plan.spares) = (Some(rng.pick(&Topology::ALL)), 0);
        plan.faults.clear();
        plan
    }

    /// Mostly at moments of the protocol, for that is when a fault may hurt.
    fn faults(rng: &mut Rng) -> Vec<Due> {
        let many = rng.range(LEAST_FAULTS + 2, 22);
        let step = 52 * SECOND / many;
        let weights = Kind::ALL.map(|_| rng.pick(&[0, 1, 1, 3]));
        let total: u64 = weights.iter().sum();
        let kind = |rng: &mut Rng| {
            let mut pick = rng.below(total);
            let at = weights.iter().position(|w| {
                let hit = pick < *w;
                pick = pick.wrapping_sub(*w);
                hit
            });
            at.map_or(Kind::Crash, |at| Kind::ALL[at])
        };
        let moments = rng.pick(&[50, 80, 95]);
        let tails = rng.chance(20);
        let mut faults: Vec<Due> = (0..many)
            .map(|n| Due {
                id: n as usize,
                after: 3 * SECOND + n * step + rng.below(step),
                moment: (tails || rng.chance(moments))
                    .then(|| if tails { Moment::Logged } else { rng.pick(&Moment::ALL) }),
                kind: if tails && rng.chance(60) { Kind::CrashLeader } else { kind(rng) },
                span: None,
            })
            .collect();
        if rng.chance(65) {
            Self::part(&mut faults, rng);
        }
        faults
    }

    /// Apart for so long that both sides write to the same paths, and mostly in peace.
    fn part(faults: &mut Vec<Due>, rng: &mut Rng) {
        let after = rng.range(8, 32) * SECOND;
        let kind = rng.pick(&[Kind::Halves, Kind::Halves, Kind::Thirds, Kind::IsolateLeader, Kind::BridgeLeader]);
        let span = rng.range(9, 17) * SECOND;
        if rng.chance(70) {
            for due in faults.iter_mut().filter(|d| (after.saturating_sub(8 * SECOND)..after + span).contains(&d.after))
            {
                due.after = if rng.chance(50) { after + span } else { 3 * SECOND } + rng.below(5 * SECOND);
                due.moment = due.moment.filter(|_| due.after > after);
            }
        }
        faults.push(Due { id: faults.len(), after, moment: None, kind, span: Some(span) });
        faults.sort_by_key(|d| d.after);
    }
}
