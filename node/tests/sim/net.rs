//! Links between processes: each direction in order, with random delays; a break loses whatever was under way in the
//! directions it concerns, and both ends hear of it in their own time. Never a byte: messages travel as values.

use crate::sim::rng::Rng;
use crate::sim::world::{SECOND, Step, Time, World, brief};
use node::cluster::{Input, MS, Message};

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
    /// `cut[from * nodes + to]`: nothing passes. Partitions come with the issue that merges them.
    cut: Vec<bool>,
    slow_until: Vec<Time>,
    scale: u64,
    rng: Rng,
}

impl Net {
    pub(crate) fn new(nodes: usize, scale: u64, rng: Rng) -> Self {
        let links = vec![Link::default(); nodes * nodes];
        Self { nodes, links, cut: vec![false; nodes * nodes], slow_until: vec![0; nodes], scale, rng }
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
        self.cut[from * self.nodes + to]
    }
    /// A new connection: its number, and when each of the two sides has it.
    pub(crate) fn connect(&mut self, now: Time, a: usize, b: usize) -> (u32, Time, Time) {
        let (at, side) = self.at(a, b);
        let (here, there) = (now + self.rng.range(200, 4000), now + self.rng.range(200, 4000));
        let link = &mut self.links[at];
        link.number += 1;
        (link.dialled, link.broken) = (true, false);
        link.generation = link.generation.map(|g| g + 1);
        // Nothing arrives before its receiver has the link.
        link.last[side] = there;
        link.last[1 - side] = here;
        (link.number, here, there)
    }
    /// When a message sent now arrives, or `None` when it is lost at once.
    pub(crate) fn send(&mut self, now: Time, from: usize, to: usize) -> Option<(Time, Passage)> {
        let (at, side) = self.at(from, to);
        if !self.links[at].up[side] || self.links[at].broken || self.cut(from, to) {
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
        self.cut.fill(false);
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
        if self.processes[peer].member.is_none() {
            if !self.processes[peer].silent {
                let node = self.processes[peer].info.node;
                self.push(at, Input::PortRefused(node));
            }
            return self.plan(SECOND, Step::Dial { at, boot, peer });
        }
        if self.net.cut(at, peer) || self.net.cut(peer, at) {
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
        if self.processes[a].member.is_none() || self.processes[b].member.is_none() {
            return;
        }
        self.net.lose(self.now, a, b);
        self.net.lose(self.now, b, a);
        let number = self.net.end(a, b);
        for (at, peer) in [(a, b), (b, a)] {
            let late = self.rng.pick(&[1, 5, 300]);
            let wait = self.rng.range(100, late * MS);
            self.plan(wait, Step::LinkDown { at, peer, number });
        }
        // Should neither side have had it, somebody has to call again.
        let boot = self.processes[a].boot;
        self.plan(400 * MS, Step::Dial { at: a, boot, peer: b });
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
            if !power {
                let wait = self.rng.range(100, 3000);
                let heard = self.net.drained(self.now, gone, peer).max(self.now + wait);
                self.plan_at(heard, Step::LinkDown { at: peer, peer: gone, number });
            }
        }
    }
    /// Sends a message, if there is a link.
    pub(crate) fn post(&mut self, from: usize, to: usize, message: Message) {
        if let Some((arrives, passage)) = self.net.send(self.now, from, to) {
            self.plan_at(arrives, Step::Deliver { from, to, passage, message: Box::new(message) });
        }
    }
    pub(crate) fn deliver(&mut self, from: usize, to: usize, passage: Passage, message: Message) {
        if self.net.arrives(from, to, passage) && self.processes[to].member.is_some() {
            self.history.detail(self.now, || format!("{from} -> {to} {}", brief(&message)));
            let from = self.processes[from].info.node;
            self.push(to, Input::Received { from, message });
        }
    }
}
