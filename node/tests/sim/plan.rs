//! What a seed decides before it runs: settings of the members, speeds, clients, and the faults to come.

use crate::sim::faults::{Kind, Moment};
use crate::sim::rng::Rng;
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
    pub(crate) after: Time,
    pub(crate) moment: Option<Moment>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) config: Config,
    /// Multiplies ordinary delays of links.
    pub(crate) net_scale: u64,
    /// Multiplies ordinary times of disk writes.
    pub(crate) disk_scale: u64,
    /// Longest time that inputs gather before a member handles them.
    pub(crate) gather: Time,
    pub(crate) clients: usize,
    /// Paths that clients choose from, of the list in `clients.rs`.
    pub(crate) paths: usize,
    /// Longest pause of a client between two operations.
    pub(crate) pace: Time,
    /// Longest patience of an operation.
    pub(crate) patience: Time,
    /// In the order they fall due.
    pub(crate) faults: Vec<Due>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let retention = rng.pick(&[600, 600, 60, 20]) * SECOND;
        let config = Config {
            lock_lease: rng.pick(&[2, 5, 10]) * SECOND,
            outcome_retention: retention,
            staged_grace: rng.pick(&[900, 15]) * SECOND,
            replaced_grace: rng.pick(&[60, 2]) * SECOND,
            stall_window: rng.pick(&[60, 8]) * SECOND,
            stall_bytes: 64 * 1024,
            records_per_frame: rng.pick(&[512, 512, 3]) as usize,
            ..Config::default()
        };
        let (clients, paths) = rng.pick(&[(8, 10), (8, 10), (8, 5), (6, 2)]);
        Self {
            seed,
            nodes: rng.pick(&[5, 5, 5, 6, 7]) as usize,
            config,
            net_scale: rng.pick(&[1, 1, 4, 15]),
            disk_scale: rng.pick(&[1, 1, 8, 30]),
            gather: rng.pick(&[1, 50, 500, 5000]),
            clients,
            paths,
            pace: rng.pick(&[800, 1500, 2500]) * MS,
            patience: rng.pick(&[4, 10, 30]) * SECOND.min(retention / 60),
            faults: Self::faults(&mut rng),
        }
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
        (0..many)
            .map(|n| Due {
                after: 3 * SECOND + n * step + rng.below(step),
                moment: (tails || rng.chance(moments))
                    .then(|| if tails { Moment::Logged } else { rng.pick(&Moment::ALL) }),
                kind: if tails && rng.chance(60) { Kind::CrashLeader } else { kind(rng) },
            })
            .collect()
    }
}
