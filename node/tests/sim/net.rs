//! Links between processes: each direction in order, with random delays; a break loses whatever was under way in the
//! directions it concerns, and both ends hear of it in their own time. While a direction is cut its messages wait, as TCP
//! sends them again: they arrive late when it is mended soon, and are lost when the connection starves first. Never a
//! byte: messages travel as values.

use crate::sim::history::brief;
use crate::sim::rng::Rng;
use crate::sim::world::{SECOND, Step, Time, World};
use node::cluster::{Input, MS, Message};
use std::collections::BTreeSet;

/// One pair's connection. Index 0 is the lower node's side, or the direction from it to the higher one.
#[derive(Debug, Clone, Default)]
struct Link {
    /// Which connection this is.
    number: u32,
    /// Whether each side takes it for up.
    up: [bool; 2],
    /// Per direction: messages of another generation are lost.
    generation: [u32; 2],
    /// Per direction: when the last message arrives.
    last: [Time; 2],
    slow_until: Time,
    /// A connection is being made.
    dialled: bool,
    /// Nothing sent by a side that has not noticed gets through.
    broken: bool,
}

/// What a message carries so that a break can lose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage(u32);

#[derive(Debug)]
pub(crate) struct Net {
    nodes: usize,
    links: Vec<Link>,
    /// `cuts[from * nodes + to]`: how many faults keep everything from passing.
    cuts: Vec<u32>,
    /// What waits there for the end of a cut.
    held: Vec<Vec<Message>>,
    slow_until: Vec<Time>,
    scale: u64,
    rng: Rng,
}

impl Net {
    pub(crate) fn new(nodes: usize, scale: u64, rng: Rng) -> Self {
        let links = vec![Link::default(); nodes * nodes];
        let held = vec![vec![]; nodes * nodes];
        Self { nodes, links, cuts: vec![0; nodes * nodes], held, slow_until: vec![0; nodes], scale, rng }
    }
    fn at(&self, a: usize, b: usize) -> (usize, usize) {
        (a.min(b) * self.nodes + a.max(b), usize::from(a > b))
    }
    /// Whether `side` takes its link to `peer` for up.
    pub(crate) fn up(&self, side: usize, peer: usize) -> bool {
        let (link, side) = self.at(side, peer);
        self.links[link].up[side]
    }
    pub(crate) fn number(&self, a: usize, b: usize) -> u32 {
        self.links[self.at(a, b).0].number
    }
    pub(crate) fn set_up(&mut self, side: usize, peer: usize, up: bool) {
        let (link, side) = self.at(side, peer);
        self.links[link].up[side] = up;
        if self.links[link].up == [true; 2] {
            self.links[link].dialled = false;
        }
    }
    pub(crate) fn dialled(&self, a: usize, b: usize) -> bool {
        self.links[self.at(a, b).0].dialled
    }
    /// The connection ends; what its ends hear of it has this number.
    pub(crate) fn end(&mut self, a: usize, b: usize) -> u32 {
        let (at, _) = self.at(a, b);
        let link = &mut self.links[at];
        link.number += 1;
        (link.dialled, link.broken) = (false, true);
        link.number
    }
    pub(crate) fn cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.nodes + to] > 0
    }
    /// Whether nothing keeps two nodes from a connection.
    pub(crate) fn joined(&self, a: usize, b: usize) -> bool {
        !self.cut(a, b) && !self.cut(b, a)
    }
    /// One more fault cuts this direction; true for the first.
    fn begin_cut(&mut self, from: usize, to: usize) -> bool {
        let cuts = &mut self.cuts[from * self.nodes + to];
        *cuts += 1;
        *cuts == 1
    }
    /// One fault less; what waited, when it was the last.
    fn end_cut(&mut self, from: usize, to: usize) -> Vec<Message> {
        let at = from * self.nodes + to;
        self.cuts[at] = self.cuts[at].saturating_sub(1);
        if self.cuts[at] == 0 { std::mem::take(&mut self.held[at]) } else { vec![] }
    }
    /// A new connection: its number, and when each of the two sides has it.
    pub(crate) fn connect(&mut self, now: Time, a: usize, b: usize) -> (u32, Time, Time) {
        let (at, side) = self.at(a, b);
        let (here, there) = (now + self.rng.range(200, 4000), now + self.rng.range(200, 4000));
        let link = &mut self.links[at];
        link.number += 1;
        (link.dialled, link.broken) = (true, false);
        link.generation = link.generation.map(|g| g + 1);
        for at in [a * self.nodes + b, b * self.nodes + a] {
            self.held[at].clear();
        }
        // Nothing arrives before its receiver has the link.
        link.last[side] = there;
        link.last[1 - side] = here;
        (link.number, here, there)
    }
    /// When a message sent now arrives, or `None` when it is lost at once.
    pub(crate) fn send(&mut self, now: Time, from: usize, to: usize) -> Option<(Time, Passage)> {
        let (at, side) = self.at(from, to);
        if !self.links[at].up[side] || self.links[at].broken {
            return None;
        }
        let slow = self.slow_until[from] > now || self.slow_until[to] > now || self.links[at].slow_until > now;
        let delay = match self.rng.below(200) {
            _ if slow => self.rng.range(20, 400) * MS,
            0..=191 => self.rng.range(150, 1500) * self.scale,
            192..=198 => self.rng.range(3, 40) * MS,
            _ => self.rng.range(40, 250) * MS,
        };
        let link = &mut self.links[at];
        let arrives = (now + delay).max(link.last[side] + 1);
        link.last[side] = arrives;
        Some((arrives, Passage(link.generation[side])))
    }
    fn hold(&mut self, from: usize, to: usize, message: Message) {
        self.held[from * self.nodes + to].push(message);
    }
    /// All directions that are cut.
    pub(crate) fn all_cut(&self) -> Vec<(usize, usize)> {
        let cut = self.cuts.iter().enumerate().filter(|(_, n)| **n > 0);
        cut.map(|(at, _)| (at / self.nodes, at % self.nodes)).collect()
    }
    /// Whether a message under way still arrives.
    pub(crate) fn arrives(&self, from: usize, to: usize, passage: Passage) -> bool {
        let (at, side) = self.at(from, to);
        self.links[at].generation[side] == passage.0
    }
    /// What is under way from `from` is lost.
    pub(crate) fn lose(&mut self, now: Time, from: usize, to: usize) {
        let (at, side) = self.at(from, to);
        self.links[at].generation[side] += 1;
        self.links[at].last[side] = now;
        self.held[from * self.nodes + to].clear();
    }
    /// When the last message under way from `from` arrives.
    pub(crate) fn drained(&self, now: Time, from: usize, to: usize) -> Time {
        let (at, side) = self.at(from, to);
        self.links[at].last[side].max(now) + 1
    }
    pub(crate) fn slow_node(&mut self, node: usize, until: Time) {
        self.slow_until[node] = until;
    }
    pub(crate) fn slow_link(&mut self, a: usize, b: usize, until: Time) {
        let (at, _) = self.at(a, b);
        self.links[at].slow_until = until;
    }
    pub(crate) fn heal(&mut self) {
        self.slow_until.fill(0);
        for link in &mut self.links {
            link.slow_until = 0;
        }
    }
}

impl World {
    /// `at` tries to reach `peer`.
    pub(crate) fn dial(&mut self, at: usize, peer: usize) {
        if self.net.up(at, peer) || self.net.dialled(at, peer) {
            return;
        }
        let boot = self.processes[at].boot;
        if !self.net.joined(at, peer) {
            return self.plan(SECOND, Step::Dial { at, boot, peer });
        }
        if self.processes[peer].member.is_none() {
            if !self.processes[peer].silent {
                let node = self.processes[peer].info.node;
                self.push(at, Input::PortRefused(node));
            }
            return self.plan(SECOND, Step::Dial { at, boot, peer });
        }
        for (side, other) in [(at, peer), (peer, at)] {
            self.hear_down(side, other); // a new connection takes the place of one that one side has not missed yet
        }
        let (number, here, there) = self.net.connect(self.now, at, peer);
        self.plan_at(here, Step::LinkUp { at, peer, number });
        self.plan_at(there, Step::LinkUp { at: peer, peer: at, number });
    }
    /// One side has the link.
    pub(crate) fn link_up(&mut self, at: usize, peer: usize, number: u32) {
        if self.net.number(at, peer) == number {
            self.net.set_up(at, peer, true);
            let info = self.processes[peer].info.clone();
            self.push(at, Input::LinkUp(info));
        }
    }
    /// One side misses the link, and dials again.
    pub(crate) fn link_down(&mut self, at: usize, peer: usize, number: u32) {
        if self.net.number(at, peer) == number && self.hear_down(at, peer) {
            let wait = self.rng.range(1, 20) * MS;
            let boot = self.processes[at].boot;
            self.plan(wait, Step::Dial { at, boot, peer });
        }
    }
    fn hear_down(&mut self, at: usize, peer: usize) -> bool {
        let was = self.net.up(at, peer) && self.processes[at].member.is_some();
        if was {
            let node = self.processes[peer].info.node;
            self.push(at, Input::LinkDown(node));
        }
        self.net.set_up(at, peer, false);
        was
    }
    /// The connection breaks; what was under way is lost.
    pub(crate) fn reset(&mut self, a: usize, b: usize) {
        if self.processes[a].member.is_none() && self.processes[b].member.is_none() {
            return;
        }
        self.net.lose(self.now, a, b);
        self.net.lose(self.now, b, a);
        let number = self.net.end(a, b);
        for (at, peer) in [(a, b), (b, a)] {
            let late = self.rng.pick(&[1, 5, 300]);
            let wait = self.rng.range(100, late * MS);
            self.plan(wait, Step::LinkDown { at, peer, number });
            // Should neither side have had it, somebody has to call again.
            let boot = self.processes[at].boot;
            self.plan(400 * MS, Step::Dial { at, boot, peer });
        }
    }
    /// Nothing passes in these directions any more, until as many faults have ended.
    pub(crate) fn cut(&mut self, pairs: &[(usize, usize)]) {
        if self.calm {
            return;
        }
        let cut: Vec<_> = pairs.iter().copied().filter(|(from, to)| self.net.begin_cut(*from, *to)).collect();
        self.history.note(self.now, || format!("CUT {cut:?}"));
        self.disturb(0);
        let links: BTreeSet<_> = cut.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
        for (a, b) in links {
            // A firewall that refuses, or packets that nobody acknowledges.
            let wait = if self.rng.chance(20) { self.rng.range(1, 50) } else { self.rng.range(2000, 4000) };
            let number = self.net.number(a, b);
            self.plan(wait * MS, Step::Starve { a, b, number });
        }
    }
    pub(crate) fn mend(&mut self, pairs: &[(usize, usize)]) {
        self.history.note(self.now, || format!("MEND {pairs:?}"));
        self.disturb(0);
        for (from, to) in pairs.iter().copied() {
            for message in self.net.end_cut(from, to) {
                self.arrive(from, to, message);
            }
        }
        if self.totals.conflicts > 0 && self.net.all_cut().is_empty() {
            self.totals.healed_conflict = 1;
        }
    }
    /// A connection on which nothing was acknowledged for long ends.
    pub(crate) fn starve(&mut self, a: usize, b: usize, number: u32) {
        if self.net.number(a, b) == number && !self.net.joined(a, b) {
            self.reset(a, b);
        }
    }
    /// The process at `gone` is gone. When its machine went, too, nobody is told.
    pub(crate) fn hang_up(&mut self, gone: usize, power: bool) {
        let lose_sent = power || self.rng.chance(50);
        for peer in (0..self.processes.len()).filter(|p| *p != gone) {
            self.net.lose(self.now, peer, gone);
            if lose_sent {
                self.net.lose(self.now, gone, peer);
            }
            self.net.set_up(gone, peer, false);
            let number = self.net.end(gone, peer);
            if !self.net.joined(gone, peer) {
                let wait = self.rng.range(2000, 4000) * MS;
                self.plan(wait, Step::LinkDown { at: peer, peer: gone, number });
            } else if !power {
                let wait = self.rng.range(100, 3000);
                let heard = self.net.drained(self.now, gone, peer).max(self.now + wait);
                self.plan_at(heard, Step::LinkDown { at: peer, peer: gone, number });
            }
        }
    }
    /// Sends a message, if there is a link.
    pub(crate) fn post(&mut self, from: usize, to: usize, message: Message) {
        if let Some((arrives, passage)) = self.net.send(self.now, from, to) {
            self.posted[from].0 += 1;
            self.posted[to].1 += 1;
            self.plan_at(arrives, Step::Deliver { from, to, passage, message: Box::new(message) });
        }
    }
    pub(crate) fn deliver(&mut self, from: usize, to: usize, passage: Passage, message: Message) {
        if !self.net.arrives(from, to, passage) {
            return;
        }
        if self.net.cut(from, to) {
            self.net.hold(from, to, message);
        } else {
            self.arrive(from, to, message);
        }
    }
    fn arrive(&mut self, from: usize, to: usize, message: Message) {
        if self.processes[to].member.is_some() {
            self.history.detail(self.now, || format!("{from} -> {to} {}", brief(&message)));
            let from = self.processes[from].info.node;
            self.push(to, Input::Received { from, message });
        }
    }
}
