//! The search for one order that explains a history: Wing and Gong's (1993) with Lowe's (2017) memory of what was tried, one
//! depth-first walk without recursion. At every point the operations that nobody waited for are candidates: those invoked
//! before the first response of one that has not taken effect yet. If none of them leads on, that response is a wall.
//!
//! Three cuts keep it small, and each is exact:
//! - A read that fits takes effect at once: it could be moved here from wherever it came later.
//! - Operations of unknown outcome come last, of those that do the same only the first, and see [`Memo`] for the rest.
//! - The model tells apart only what the history can (see [`crate::FileModel`]).

use crate::history::Operation;
use crate::memo::{Memo, Taken};
use crate::model::Model;
use std::cmp::Reverse;

/// Operations with an outcome that may be open at once.
const MOST_OPEN: usize = 128;

/// How much a check may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the model, and comparisons with what was tried.
    pub steps: u64,
    /// Configurations remembered; each takes about 100 bytes, and 8 more for 64 operations of unknown outcome.
    pub configurations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 20_000_000, configurations: 1_000_000 }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The answer.
    pub verdict: Verdict,
    /// What it cost, as [`Limits::steps`] counts.
    pub steps: u64,
}

/// Whether one order explains the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This one does: indices of all operations with an outcome, and of those without that it takes.
    Linearizable(Vec<usize>),
    /// None does.
    Broken(Blocked),
    /// Nobody knows: a limit was reached first. Never to be taken for an answer.
    GaveUp {
        /// Which limit, in words.
        limit: &'static str,
    },
}

/// How far an order can explain a history that none explains to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The operation that no order can place: the history up to its response has no explanation, up to any earlier
    /// response it has.
    pub operation: usize,
    /// The longest order of what else could be placed by then, as indices.
    pub order: Vec<usize>,
    /// The state this order leads to, in the model's words.
    pub state: String,
}

/// Whether one order of the operations explains what they showed, each taking effect between its invocation and its
/// response. Instants that are equal count as concurrent.
pub fn check<M: Model>(model: &M, operations: &[Operation<M::Op>], limits: Limits) -> Checked {
    match Search::new(model, operations, limits) {
        Some(search) => search.run(),
        None => Checked { verdict: Verdict::GaveUp { limit: "128 operations open at once" }, steps: 0 },
    }
}

/// An invocation or a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Call(usize),
    Return(usize),
}

/// What the search knows of an operation before it begins.
#[derive(Debug, Clone, Copy)]
struct Place {
    call: usize,
    /// `None` if its outcome is unknown.
    back: Option<usize>,
    /// With an outcome: its bit among those open with it. Else: its bit among all unknown ones.
    slot: usize,
    /// Unknown: an earlier one that does the same and goes first.
    after: Option<usize>,
}

/// One operation that took effect, and what can come next.
struct Frame<S> {
    /// `None` at the beginning.
    operation: Option<usize>,
    state: S,
    taken: Taken,
    /// Where its choices begin.
    choices: usize,
}

struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [Operation<M::Op>],
    limits: Limits,
    events: Vec<Event>,
    places: Vec<Place>,
    /// Events of operations that have not taken effect, a ring through `events.len()`.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Operations with an outcome that have not taken effect.
    left: usize,
    used: Vec<u64>,
    frames: Vec<Frame<M::State>>,
    choices: Vec<(usize, M::State)>,
    memo: Memo<M::State>,
    steps: u64,
    furthest: (u32, usize),
    blocked: Option<Blocked>,
}

impl<'a, M: Model> Search<'a, M> {
    /// `None` if too many operations are open at once.
    fn new(model: &'a M, operations: &'a [Operation<M::Op>], limits: Limits) -> Option<Self> {
        let events = events(operations);
        let places = places(model, operations, &events)?;
        let n = events.len();
        let unknown = operations.iter().filter(|o| o.returned.is_none()).count();
        Some(Self {
            model,
            operations,
            limits,
            places,
            next: (1..=n).chain([0]).collect(),
            previous: [n].into_iter().chain(0..n).collect(),
            left: operations.len() - unknown,
            used: vec![0; unknown.div_ceil(64)],
            frames: vec![],
            choices: vec![],
            memo: Memo::new(),
            steps: 0,
            furthest: (0, 0),
            blocked: None,
            events,
        })
    }
    fn run(mut self) -> Checked {
        let verdict = self.verdict();
        Checked { verdict, steps: self.steps + self.memo.compared }
    }
    fn verdict(&mut self) -> Verdict {
        let taken = Taken { until: self.wall(), open: 0 };
        self.enter(None, self.model.initial(), taken);
        while self.left > 0 {
            if self.steps + self.memo.compared > self.limits.steps {
                return Verdict::GaveUp { limit: "steps" };
            }
            if self.memo.kept() > self.limits.configurations {
                return Verdict::GaveUp { limit: "configurations" };
            }
            let Some(frame) = self.frames.last() else { break };
            let taken = frame.taken;
            if self.choices.len() > frame.choices
                && let Some((operation, state)) = self.choices.pop()
            {
                self.lift(operation);
                let taken = self.after(taken, operation);
                if self.memo.note(taken, state.clone(), &self.used) {
                    self.enter(Some(operation), state, taken);
                } else {
                    self.put_back(operation);
                }
            } else if let Some(operation) = self.frames.pop().and_then(|frame| frame.operation) {
                self.put_back(operation);
            }
        }
        if self.left == 0 {
            return Verdict::Linearizable(self.order());
        }
        Verdict::Broken(self.blocked.take().expect("an operation is left, and its response was a wall"))
    }
    fn order(&self) -> Vec<usize> {
        self.frames.iter().filter_map(|frame| frame.operation).collect()
    }

    /// The first response of an operation that has not taken effect, or the end.
    fn wall(&self) -> u32 {
        let mut at = self.next[self.events.len()];
        while let Some(Event::Call(_)) = self.events.get(at) {
            at = self.next[at];
        }
        at as u32
    }
    /// What has taken effect once `operation` has, too, which was lifted.
    fn after(&self, taken: Taken, operation: usize) -> Taken {
        let place = self.places[operation];
        if place.back.is_none() {
            return taken;
        }
        let (until, mut open) = (self.wall(), taken.open | (1 << place.slot));
        for event in &self.events[taken.until as usize..until as usize] {
            if let Event::Return(operation) = event {
                open &= !(1 << self.places[*operation].slot);
            }
        }
        Taken { until, open }
    }

    /// Goes on from a configuration: finds its choices, the best last.
    fn enter(&mut self, operation: Option<usize>, state: M::State, taken: Taken) {
        let first = self.choices.len();
        let mut at = self.next[self.events.len()];
        while let Some(Event::Call(candidate)) = self.events.get(at).copied() {
            at = self.next[at];
            let place = self.places[candidate];
            if place.after.is_some_and(|twin| !self.is_used(twin)) {
                continue;
            }
            self.steps += 1;
            let Some(then) = self.model.step(&state, &self.operations[candidate].op) else { continue };
            let nothing_new = then == state;
            if nothing_new && place.back.is_none() {
                continue;
            }
            let settled = nothing_new && self.model.observes(&self.operations[candidate].op);
            if settled {
                self.choices.truncate(first);
            }
            self.choices.push((candidate, then));
            if settled {
                break;
            }
        }
        let places = &self.places;
        self.choices[first..].sort_by_key(|(o, _)| Reverse((places[*o].back.unwrap_or(usize::MAX), places[*o].call)));
        self.frames.push(Frame { operation, state, taken, choices: first });
        self.look_how_far(taken.until);
    }
    /// Remembers the order that explains most.
    fn look_how_far(&mut self, until: u32) {
        let Some(Event::Return(operation)) = self.events.get(until as usize).copied() else { return };
        let far = (until, self.frames.len());
        if self.blocked.is_none() || far > self.furthest {
            self.furthest = far;
            let state = self.frames.last().map(|frame| format!("{:?}", frame.state)).unwrap_or_default();
            self.blocked = Some(Blocked { operation, order: self.order(), state });
        }
    }

    fn is_used(&self, unknown: usize) -> bool {
        let slot = self.places[unknown].slot;
        self.used[slot / 64] & (1 << (slot % 64)) != 0
    }
    /// Takes an operation's events out of the ring.
    fn lift(&mut self, operation: usize) {
        let Place { call, back, slot, .. } = self.places[operation];
        for at in [Some(call), back].into_iter().flatten() {
            let (previous, next) = (self.previous[at], self.next[at]);
            (self.next[previous], self.previous[next]) = (next, previous);
        }
        match back {
            Some(_) => self.left -= 1,
            None => self.used[slot / 64] |= 1 << (slot % 64),
        }
    }
    /// Undoes the last [`Search::lift`].
    fn put_back(&mut self, operation: usize) {
        let Place { call, back, slot, .. } = self.places[operation];
        for at in [back, Some(call)].into_iter().flatten() {
            let (previous, next) = (self.previous[at], self.next[at]);
            (self.next[previous], self.previous[next]) = (at, at);
        }
        match back {
            Some(_) => self.left += 1,
            None => self.used[slot / 64] &= !(1 << (slot % 64)),
        }
    }
}

/// All invocations and responses in order of time, invocations first where it is equal.
fn events<O>(operations: &[Operation<O>]) -> Vec<Event> {
    let calls = operations.iter().enumerate().map(|(n, o)| (o.invoked, 0, n, Event::Call(n)));
    let returns = operations.iter().enumerate().filter_map(|(n, o)| Some((o.returned?, 1, n, Event::Return(n))));
    let mut events: Vec<_> = calls.chain(returns).collect();
    events.sort_by_key(|(time, kind, n, _)| (*time, *kind, *n));
    events.into_iter().map(|(.., event)| event).collect()
}

fn places<M: Model>(model: &M, operations: &[Operation<M::Op>], events: &[Event]) -> Option<Vec<Place>> {
    let mut places = vec![Place { call: 0, back: None, slot: 0, after: None }; operations.len()];
    let mut open = 0_u128;
    let mut unknown: Vec<usize> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        match *event {
            Event::Call(n) if operations[n].returned.is_some() => {
                let slot = open.trailing_ones() as usize;
                if slot == MOST_OPEN {
                    return None;
                }
                open |= 1 << slot;
                places[n] = Place { call: at, back: None, slot, after: None };
            }
            Event::Call(n) => {
                let after = unknown.iter().rev().find(|u| model.alike(&operations[**u].op, &operations[n].op));
                places[n] = Place { call: at, back: None, slot: unknown.len(), after: after.copied() };
                unknown.push(n);
            }
            Event::Return(n) => {
                open &= !(1 << places[n].slot);
                places[n].back = Some(at);
            }
        }
    }
    Some(places)
}
