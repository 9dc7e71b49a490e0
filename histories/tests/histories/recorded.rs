//! Histories of a real register: clients work at once, every operation takes effect at one instant between its invocation
//! and its response. Such a history is linearizable by construction.

use crate::rng::Rng;
use histories::{Act, Operation, Seeing, Seen, Time};

pub(crate) type Op = Operation<Seeing<u64>>;

/// What is recorded.
pub(crate) struct Recipe {
    pub(crate) seed: u64,
    pub(crate) operations: usize,
    pub(crate) clients: usize,
    /// Operations in a hundred whose response nobody hears.
    pub(crate) unknown: u64,
    /// An operation that is answered and has no effect: a bug to be found.
    pub(crate) lost: Option<usize>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self { seed: 1, operations: 1000, clients: 8, unknown: 0, lost: None }
    }
}

/// An operation before it ran: which, and when it is invoked, takes effect and returns.
struct Planned {
    dice: u64,
    invoked: Time,
    effect: Time,
    returned: Time,
    unknown: bool,
}

pub(crate) fn record(recipe: &Recipe) -> Vec<Op> {
    let mut rng = Rng(recipe.seed);
    let mut free = vec![0; recipe.clients];
    let mut planned: Vec<Planned> = (0..recipe.operations)
        .map(|_| {
            let client = (0..free.len()).min_by_key(|c| free[*c]).expect("there are clients");
            let invoked = free[client] + 1 + rng.below(30);
            let effect = invoked + rng.below(40);
            let returned = effect + rng.below(40);
            free[client] = returned;
            Planned { dice: rng.below(100), invoked, effect, returned, unknown: rng.chance(recipe.unknown) }
        })
        .collect();
    planned.sort_by_key(|p| p.invoked);
    let mut order: Vec<usize> = (0..planned.len()).collect();
    order.sort_by_key(|n| (planned[*n].effect, *n));
    let mut file: Option<Vec<u64>> = None;
    let mut ran: Vec<Option<Op>> = planned.iter().map(|_| None).collect();
    for n in order {
        let p = &planned[n];
        let skipped = recipe.lost == Some(n) || (p.unknown && rng.chance(50));
        let op = take_effect(&mut file, p.dice, n as u64, skipped);
        let changes = op.changes();
        let returned = (!p.unknown).then_some(p.returned);
        if changes || returned.is_some() {
            ran[n] = Some(Operation { op, invoked: p.invoked, returned });
        }
    }
    ran.into_iter().flatten().collect()
}

fn take_effect(file: &mut Option<Vec<u64>>, dice: u64, piece: u64, skipped: bool) -> Seeing<u64> {
    let before = file.clone();
    let op = match (dice, &before) {
        (0..=77, Some(content)) => Act::Read.seeing(Seen::Content(content.clone())),
        (0..=77, None) => Act::Read.seeing(Seen::Absent),
        (78..=84, _) => {
            *file = Some(vec![piece]);
            Act::Put(vec![piece]).seeing(Seen::Nothing)
        }
        (85..=86, None) => {
            *file = Some(vec![piece]);
            Act::Put(vec![piece]).seeing(Seen::Absent)
        }
        (85..=86, Some(_)) => Act::Read.seeing(Seen::Present),
        (87..=96, _) => {
            file.get_or_insert_default().push(piece);
            Act::Append(piece).seeing(Seen::Nothing)
        }
        (_, Some(_)) => {
            *file = None;
            Act::Delete.seeing(Seen::Present)
        }
        (_, None) => Act::Read.seeing(Seen::Absent),
    };
    if skipped {
        *file = before;
    }
    op
}
