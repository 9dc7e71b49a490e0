//! Figures of a large cluster, for people: messages at rest, for an election, for a write. It judges nothing but that the
//! cluster works, and no fault disturbs it but the death of its leader.

use crate::sim::check::Broken;
use crate::sim::history::Detail;
use crate::sim::plan::Plan;
use crate::sim::world::{SECOND, Time, World};
use node::cluster::{Config, MS};

/// Longest wait for a leader, or for a write.
const LONGEST: Time = 60 * SECOND;
/// Simulated time looked at while nothing happens.
const REST: u64 = 20;
/// Writes measured, one after the other.
const WRITES: u64 = 20;

/// Messages so far: of all, and those the leader sent or got.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Time,
    all: u64,
    leader: u64,
}

impl World {
    fn seen(&self, leader: usize) -> Seen {
        Seen { at: self.now, all: self.posted.iter().map(|(sent, _)| sent).sum(), leader: self.posted_at(leader) }
    }
    fn posted_at(&self, node: usize) -> u64 {
        self.posted.get(node).map_or(0, |(sent, got)| sent + got)
    }
    /// Runs until these nodes have one leader; which.
    fn until_led(&mut self, group: &[usize]) -> Result<usize, Broken> {
        let began = self.now;
        while !self.led(group) {
            self.until(self.now + 10 * MS)?;
            if self.now > began + LONGEST {
                return Err(Broken::new(
                    "I4",
                    format!("{} nodes have no leader after {} s", group.len(), LONGEST / SECOND),
                ));
            }
        }
        self.truth.leader().ok_or_else(|| Broken::new("I4", "nobody served".into()))
    }
    fn write_and_wait(&mut self, at: usize) -> Result<(), Broken> {
        let began = self.now;
        self.probe(at)?;
        while !self.sessions.is_empty() {
            self.until(self.now + MS)?;
            if self.now > began + LONGEST {
                return Err(Broken::new("I7", "a write is not answered".into()));
            }
        }
        Ok(())
    }
}

/// Runs `nodes` nodes and prints what they say to each other.
pub(crate) fn crowd(nodes: usize) -> Result<(), Broken> {
    let mut plan = Plan::new(1);
    (plan.nodes, plan.spares, plan.clients, plan.net_scale, plan.disk_scale) = (nodes, 0, 0, 1, 1);
    plan.config = Config::default();
    plan.faults.clear();
    let mut world = World::new(plan, Detail::Nothing);
    world.begin();
    let all = world.living();
    let leader = world.until_led(&all)?;
    println!("{nodes} nodes: one leader after {} ms and {} messages", world.now / MS, world.seen(leader).all);
    world.until(world.now + 10 * SECOND)?;
    let before = world.seen(leader);
    world.until(world.now + REST * SECOND)?;
    let after = world.seen(leader);
    let (rate, at_leader) = ((after.all - before.all) / REST, (after.leader - before.leader) / REST);
    println!("at rest {rate} messages a second, {at_leader} of them at the leader");
    let before = world.seen(leader);
    for n in 0..WRITES {
        world.write_and_wait(all[n as usize % all.len()])?;
    }
    let after = world.seen(leader);
    let idle = |rate: u64| rate * (after.at - before.at) / SECOND;
    let per_write = (after.all - before.all).saturating_sub(idle(rate)) / WRITES;
    println!("a write takes {per_write} messages and {} ms", (after.at - before.at) / MS / WRITES);
    let rest: Vec<usize> = all.iter().copied().filter(|n| *n != leader).collect();
    let before = world.seen(leader);
    world.crash(leader, false, 1000 * SECOND)?;
    let next = world.until_led(&rest)?;
    let after = world.seen(next);
    println!(
        "the leader's death: another serves after {} ms and {} messages, {} of them at the new one",
        (after.at - before.at) / MS,
        after.all - before.all,
        after.leader
    );
    Ok(())
}
