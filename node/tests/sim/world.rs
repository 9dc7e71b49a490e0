//! The world around the members: virtual time and the queue of what happens next. Everything in it comes from one seed.

use crate::sim::check::copies::unrepaired;
use crate::sim::check::{Broken, Truth};
use crate::sim::clients::{Client, Reading, Session};
use crate::sim::fetches::{Fetch, Merge};
use crate::sim::history::{Detail, History, brief};
use crate::sim::nemesis::LEADER_WITHIN;
use crate::sim::net::{Net, Passage};
use crate::sim::plan::{LEAST_OPS, LEAST_TIME, Plan};
use crate::sim::process::{Process, index};
use crate::sim::rng::Rng;
use crate::sim::topology::Pairs;
use crate::sim::totals::Totals;
use crate::sim::uploads;
use node::cluster::{Change, Event, Input, MS, Message, OpId, Output, RoleName};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Simulated microseconds since the run began.
pub(crate) type Time = u64;
pub(crate) const SECOND: Time = 1000 * MS;

/// Longest run under load, should faults or operations fall short.
const MOST_TIME: Time = 200 * SECOND;
/// And everything must have come to rest after this.
const REST_WITHIN: Time = 90 * SECOND;
/// And repaired this long after what is waited for before a copy is made.
const REPAIRED_WITHIN: Time = 30 * SECOND;

/// What happens next.
#[derive(Debug)]
pub(crate) enum Step {
    Deliver {
        from: usize,
        to: usize,
        passage: Passage,
        message: Box<Message>,
    },
    Wake {
        at: usize,
        boot: u32,
    },
    Tick {
        at: usize,
        boot: u32,
    },
    Report {
        at: usize,
        boot: u32,
    },
    Written {
        at: usize,
        boot: u32,
        batch: u64,
    },
    Start {
        at: usize,
    },
    Dial {
        at: usize,
        boot: u32,
        peer: usize,
    },
    LinkUp {
        at: usize,
        peer: usize,
        number: u32,
    },
    LinkDown {
        at: usize,
        peer: usize,
        number: u32,
    },
    Client(usize),
    Upload(uploads::Step),
    Fetch(Fetch),
    Merge(Merge),
    /// The operator gives up a node, or takes back that it is to be drained.
    Order(Change),
    Fault(usize),
    Blow {
        due: usize,
        at: usize,
    },
    Cut(Pairs),
    Mend(Pairs),
    /// A connection between two nodes that was cut then.
    Starve {
        a: usize,
        b: usize,
        number: u32,
    },
    Stop(usize, u32),
    Watch,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Time,
    pub(crate) processes: Vec<Process>,
    pub(crate) net: Net,
    pub(crate) rng: Rng,
    pub(crate) clients: Vec<Client>,
    pub(crate) sessions: BTreeMap<OpId, Session>,
    pub(crate) reads: BTreeMap<u64, Reading>,
    pub(crate) truth: Truth,
    pub(crate) history: History,
    pub(crate) totals: Totals,
    /// Faults that wait for their moment, by their place in the plan.
    pub(crate) armed: Vec<usize>,
    /// No more faults and no more clients.
    pub(crate) calm: bool,
    /// When every group that should have one leader had it, or something happened that may cost it, last.
    pub(crate) disturbed: Time,
    /// A group had no single leader when it was last looked at.
    pub(crate) unled: bool,
    pub(crate) handled: u64,
    /// Messages that each node sent and that were sent to it.
    pub(crate) posted: Vec<(u64, u64)>,
    queue: BinaryHeap<Reverse<(Time, u64, Slot)>>,
    planned: u64,
}

/// A step in the queue; its place there is decided by time and number alone.
#[derive(Debug)]
struct Slot(Step);

impl PartialEq for Slot {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Slot {}
impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Slot {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl World {
    pub(crate) fn new(plan: Plan, detail: Detail) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x5eed);
        let all = plan.nodes + plan.spares;
        let processes = (0..all).map(|n| Process::new(n, &plan, &mut rng)).collect();
        let net = Net::new(all, plan.net_scale, rng.fork());
        let clients = (0..plan.clients).map(|_| Client::default()).collect();
        Self {
            now: 0,
            processes,
            net,
            rng,
            clients,
            sessions: BTreeMap::new(),
            reads: BTreeMap::new(),
            truth: Truth::new(plan.reads_unjudged),
            history: History::new(detail),
            totals: Totals::default(),
            armed: vec![],
            calm: false,
            disturbed: 0,
            unled: false,
            handled: 0,
            posted: vec![(0, 0); all],
            queue: BinaryHeap::new(),
            planned: 0,
            plan,
        }
    }

    pub(crate) fn plan(&mut self, wait: Time, step: Step) {
        self.plan_at(self.now + wait, step);
    }
    pub(crate) fn plan_at(&mut self, at: Time, step: Step) {
        self.planned += 1;
        self.queue.push(Reverse((at.max(self.now), self.planned, Slot(step))));
    }

    /// Plans the start of all nodes, of the clients and of the faults.
    pub(crate) fn begin(&mut self) {
        for at in 0..self.processes.len() {
            let wait = self.rng.below(300) * MS;
            self.plan(wait, Step::Start { at });
        }
        for client in 0..self.clients.len() {
            let wait = self.rng.range(500, 2500) * MS;
            self.plan(wait, Step::Client(client));
        }
        for due in 0..self.plan.faults.len() {
            self.plan_at(self.plan.faults[due].after, Step::Fault(due));
        }
        self.plan(0, Step::Watch);
    }

    /// The whole run. An error is a broken invariant.
    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        self.begin();
        if let Some(topology) = self.plan.fixed {
            self.stay_broken(topology)?;
        } else {
            self.bear_faults()?;
        }
        self.totals.loaded = self.now;
        self.come_to_rest()?;
        self.totals.rested = self.now;
        let (epochs, leaders) = self.truth.reigns();
        (self.totals.epochs, self.totals.elections) = (epochs, leaders);
        self.totals.stale = self.truth.at_rest(&self.processes)?;
        self.totals.order = self.truth.linearizable()?;
        self.totals.merges = self.truth.merges() as u64;
        self.totals.both = self.totals.healed_conflict & self.totals.acked_after_election;
        Ok(())
    }

    fn bear_faults(&mut self) -> Result<(), Broken> {
        self.until(LEAST_TIME)?;
        while self.now < MOST_TIME && (self.totals.ops < LEAST_OPS || self.short_of_faults()) {
            self.until(self.now + SECOND)?;
        }
        Ok(())
    }

    pub(crate) fn until(&mut self, end: Time) -> Result<(), Broken> {
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, Slot(step)))) = self.queue.pop() else { break };
            self.now = at;
            self.step(step)?;
        }
        self.now = end;
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Broken> {
        let lives = |at: usize, boot: u32| self.processes[at].boot == boot && self.processes[at].member.is_some();
        match step {
            Step::Deliver { from, to, passage, message } => self.deliver(from, to, passage, *message),
            Step::Wake { at, boot } if lives(at, boot) => self.wake(at)?,
            Step::Tick { at, boot } if lives(at, boot) => {
                if self.processes[at].runs(self.now) {
                    self.push(at, Input::Tick);
                }
                let wait = self.rng.range(30, 50) * MS;
                self.plan(wait, Step::Tick { at, boot });
            }
            Step::Report { at, boot } if lives(at, boot) => self.report(at),
            Step::Written { at, boot, batch } if lives(at, boot) => self.written(at, batch)?,
            Step::Start { at } => self.start(at),
            Step::Dial { at, boot, peer } if lives(at, boot) => self.dial(at, peer),
            Step::LinkUp { at, peer, number } => self.link_up(at, peer, number),
            Step::LinkDown { at, peer, number } => self.link_down(at, peer, number),
            Step::Client(client) => self.client(client)?,
            Step::Upload(step) => self.upload(step),
            Step::Fetch(fetch) => self.fetch(fetch),
            Step::Merge(merge) => self.merge(merge),
            Step::Order(change) => self.order_about(change),
            Step::Fault(due) => self.fall_due(due)?,
            Step::Blow { due, at } => self.blow(due, Some(at))?,
            Step::Cut(pairs) => self.cut(&pairs),
            Step::Mend(pairs) => self.mend(&pairs),
            Step::Starve { a, b, number } => self.starve(a, b, number),
            Step::Stop(at, boot) if !self.calm && self.processes[at].boot == boot => self.crash(at, false, SECOND)?,
            Step::Watch => self.watch_groups()?,
            _ => {} // of an earlier start
        }
        Ok(())
    }

    /// Does what a member wants done.
    pub(crate) fn carry_out(&mut self, at: usize, outputs: Vec<Output>) -> Result<(), Broken> {
        for output in outputs {
            match output {
                Output::Send { to, message } => self.post(at, index(to), message),
                Output::Front { op, event } => self.front(at, op, event)?,
                Output::ReadReady { id, shows } => self.look_up(at, id, shows)?,
                Output::DropBlobs(blobs) => {
                    self.totals.dropped += blobs.len() as u64;
                    for blob in &blobs {
                        self.history.note(self.now, || format!("{at} drops {blob:?}"));
                        self.truth.dropped(self.now, at, *blob, &self.processes)?;
                        self.processes[at].disk.take(*blob);
                    }
                    self.push(at, Input::BlobsDropped(blobs));
                }
                Output::Fetch { id, extents, sources } => self.order(at, id, extents, &sources),
                Output::Merge { blob, run } => self.have_merged(at, blob, run),
                Output::Event(event) => {
                    self.history.note(self.now, || format!("{at}: {}", brief(&event)));
                    self.totals.elected_after_ack |= self.totals.acks > 0 && self.truth.new_leader(&event);
                    self.totals.transfers += u64::from(matches!(event, Event::TookIndex { .. }));
                    self.moment(at, &event);
                }
            }
        }
        Ok(())
    }

    /// Everything heals, one leader is found in time, every node serves a write, and all is quiet.
    fn come_to_rest(&mut self) -> Result<(), Broken> {
        self.history.note(self.now, || "HEAL".into());
        self.calm = true;
        self.armed.clear();
        self.net.heal();
        while let Some(cut) = Some(self.net.all_cut()).filter(|cut| !cut.is_empty()) {
            self.mend(&cut);
        }
        let now = self.now;
        for at in 0..self.processes.len() {
            self.processes[at].slow_disk_until = 0;
            self.plan(0, Step::Start { at });
            if self.processes[at].paused_until > now {
                self.processes[at].paused_until = now;
                let boot = self.processes[at].boot;
                self.plan(0, Step::Wake { at, boot });
            }
        }
        while !self.one_leader() {
            self.until(self.now + 50 * MS)?;
            if self.now > now + LEADER_WITHIN {
                return Err(Broken::new("I4", format!("no single leader {} s after healing", LEADER_WITHIN / SECOND)));
            }
        }
        self.totals.led_after = self.totals.led_after.max(self.now - now);
        self.until(self.now + SECOND)?;
        for at in self.living() {
            self.probe(at)?;
            self.until(self.now + 300 * MS)?;
        }
        let mut quiet = 0;
        while quiet < 12 {
            self.until(self.now + 100 * MS)?;
            let still = self.sessions.is_empty() && self.reads.is_empty() && self.one_leader() && self.agreed();
            quiet = if still { quiet + 1 } else { 0 };
            if self.now > now + REST_WITHIN {
                let open: Vec<_> =
                    self.sessions.iter().map(|(op, s)| format!("{op:?} at {} {:?}", s.at, s.change)).collect();
                let what = format!("not at rest {} s after healing; open: {open:?}", REST_WITHIN / SECOND);
                return Err(Broken::new(if self.agreed() { "I7" } else { "I2" }, what));
            }
        }
        self.be_repaired()
    }
    /// Three copies of everything, where the registers say, and no more.
    fn be_repaired(&mut self) -> Result<(), Broken> {
        let (began, limit) = (self.now, self.plan.config.repair_after + REPAIRED_WITHIN);
        let (mut quiet, mut last) = (0, String::new());
        while quiet < 12 {
            self.until(self.now + 100 * MS)?;
            let apart = || (!self.one_leader() || !self.equal()).then(|| "no agreement".to_owned());
            let lacking = unrepaired(&self.processes).or_else(apart);
            (quiet, last) = lacking.map_or((quiet + 1, last), |lacking| (0, lacking));
            if self.now > began + limit {
                return Err(Broken::new("I3", format!("{} s after rest, or just before, {last}", limit / SECOND)));
            }
        }
        self.totals.repaired_after = self.totals.repaired_after.max(self.now - began);
        Ok(())
    }

    /// The nodes that are part of the cluster, running or not.
    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|n| !self.processes[*n].gone).collect()
    }
    fn one_leader(&self) -> bool {
        self.led(&self.living())
    }
    /// Whether these nodes run, one of them leads, and all follow it.
    pub(crate) fn led(&self, group: &[usize]) -> bool {
        let mut seen = None;
        // Who takes over another's index is no member until it has.
        let waits = |p: &Process| p.member.as_ref().is_some_and(|m| !m.is_whole() && m.standing().1.is_none());
        group.iter().map(|n| &self.processes[*n]).filter(|p| !waits(p)).all(|p| {
            let Some(member) = &p.member else { return false };
            let (role, leader, epoch) = member.standing();
            let leads = leader == Some(p.info.node);
            let fits = (role == RoleName::Lead) == leads && (leads || role == RoleName::Follow);
            let view = (leader, epoch);
            fits && leader.is_some_and(|l| group.contains(&index(l))) && *seen.get_or_insert(view) == view
        })
    }
    /// All logs and indexes are the same and on their disks.
    fn agreed(&self) -> bool {
        self.equal() && self.processes.iter().all(|p| p.gone || p.disk.unwritten() == 0)
    }
    /// Whether all have logged and applied the same. Something may still be on its way to a disk: outcomes expire one by one.
    fn equal(&self) -> bool {
        let mut states = self.processes.iter().filter(|p| !p.gone).map(|p| &p.disk.shown.state);
        let Some(first) = states.clone().next() else { return true };
        states.all(|state| state.logged == first.logged && state.applied == first.logged)
    }
}
