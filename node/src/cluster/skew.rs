//! How far a node's wall clock is ahead of its peers', judged from their heartbeats. Stamps of a clock that is ahead win
//! every conflict, so such a node does not lead, and takes new files last; one that is behind is harmless, for a hybrid logical
//! clock catches up with all it sees (Kulkarni et al., 2014). Records are merged whatever their stamps. It corrects no clock.

use super::io::Event;
use super::member::{Cx, Member};
use super::types::Micros;

/// Readings in one window. Two windows are looked at: half a minute, longer than pauses that are nobody's fault.
const WINDOW: u32 = 64;
/// A monotonic clock this much behind what was expected is another one: its process has started again.
const RESTARTED: i128 = 10_000_000;

/// What one peer's heartbeats told of its clocks. In microseconds, wide enough for whatever a peer may say.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// Its monotonic clock less ours, the greatest in this window and in the one before: that of the heartbeat that was
    /// under way for the shortest time (Mills, 1991).
    newer: Option<i128>,
    older: Option<i128>,
    taken: u32,
    /// Its wall clock less its monotonic one: shows at once when its wall clock jumps.
    wall: i128,
}

impl Readings {
    /// Takes the sender's clocks out of a heartbeat that came at `mono`.
    pub(super) fn take(&mut self, mono: Micros, sent: Micros, wall: Micros) {
        let apart = i128::from(sent) - i128::from(mono);
        if self.apart().is_some_and(|known| apart + RESTARTED < known) {
            *self = Self::default();
        }
        self.wall = i128::from(wall) - i128::from(sent);
        self.newer = self.newer.max(Some(apart));
        self.taken += 1;
        if self.taken == WINDOW {
            (self.older, self.newer, self.taken) = (self.newer, None, 0);
        }
    }
    /// Its wall clock less our monotonic one; `None` while nothing is known. What a heartbeat took on its way makes it less.
    pub(super) fn wall(&self) -> Option<i128> {
        self.apart().map(|apart| apart + self.wall)
    }
    fn apart(&self) -> Option<i128> {
        self.newer.max(self.older)
    }
}

/// How far `mine` is ahead of the middle one of all clocks, `mine` among them; 0 when it is not. With an even number of
/// clocks the slower of the two in the middle counts. So a minority of wrong clocks, fast or slow, bars nobody, of two
/// the faster one gives way, and always somebody is left who may lead.
pub(super) fn ahead(mine: i128, peers: impl Iterator<Item = i128>) -> Micros {
    let mut all: Vec<i128> = peers.chain([mine]).collect();
    all.sort_unstable();
    let middle = all[(all.len() - 1) / 2];
    Micros::try_from((mine - middle).max(0)).unwrap_or(Micros::MAX)
}

impl Member {
    /// Looks at all clocks; a node that was barred has to be well within the bound before it may lead again.
    pub(super) fn judge_clock(&mut self, cx: Cx<'_>) {
        let mine = i128::from(cx.now.wall) - i128::from(cx.mono());
        let peers = self.peers.all_linked(cx.mono()).filter_map(|(_, peer, _)| peer.readings.wall());
        let ahead = ahead(mine, peers);
        let was = self.clock_ahead;
        let bound = if was == 0 { self.config.clock_bound } else { self.config.clock_bound / 2 };
        self.clock_ahead = if ahead > bound { ahead } else { 0 };
        if (self.clock_ahead == 0) != (was == 0) {
            self.event(Event::ClockAhead { by: self.clock_ahead });
        }
    }

    /// Whether this node may lead: with a disk that works and a clock that others can believe.
    pub(super) fn could_lead(&self) -> bool {
        self.is_fit() && self.clock_ahead == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MS;
    use proptest::prelude::*;

    const DAY: i128 = 86_400_000_000;
    const NOON: Micros = 1_700_000_000_000_000;

    #[test]
    fn one_wrong_clock_bars_nobody_but_its_owner_if_it_is_ahead() {
        let right = [0, 1000, -1000];
        assert_eq!(ahead(0, right.into_iter().chain([DAY])), 0);
        assert_eq!(ahead(0, right.into_iter().chain([-DAY])), 0);
        assert_eq!(ahead(DAY, right.into_iter()), u64::try_from(DAY).unwrap());
        assert_eq!(ahead(-DAY, right.into_iter()), 0, "behind is harmless");
    }

    #[test]
    fn alone_nobody_is_ahead_and_of_two_the_slower_leads() {
        assert_eq!(ahead(DAY, std::iter::empty()), 0);
        assert_eq!(ahead(DAY, [0].into_iter()), u64::try_from(DAY).unwrap());
        assert_eq!(ahead(0, [DAY].into_iter()), 0);
    }

    #[test]
    fn delays_and_pauses_do_not_look_like_a_clock_ahead() {
        let mut peer = Readings::default();
        for beat in 0..20 {
            let sent = 7_000 * MS + beat * 250 * MS;
            peer.take(sent - 6_000 * MS + 2 * MS, sent, NOON + sent);
        }
        // This process stood still for five seconds: what came meanwhile is all taken now.
        for beat in 20..40 {
            let sent = 7_000 * MS + beat * 250 * MS;
            peer.take(16_000 * MS, sent, NOON + sent);
        }
        let wall = peer.wall().unwrap();
        assert_eq!(wall, i128::from(NOON + 6_000 * MS - 2 * MS));
    }

    #[test]
    fn jump_of_a_wall_clock_and_restart_are_seen_at_once() {
        let mut peer = Readings::default();
        peer.take(1000 * MS, 9_000_000 * MS, NOON);
        let before = peer.wall().unwrap();
        peer.take(1250 * MS, 9_000_250 * MS, NOON + 250 * MS - 2_000 * MS);
        assert_eq!(peer.wall().unwrap(), before - i128::from(2_000 * MS));
        peer.take(1500 * MS, 100 * MS, NOON + 500 * MS);
        assert_eq!(peer.wall().unwrap(), before, "another monotonic clock, the same time");
    }

    proptest! {
        #[test]
        fn whoever_may_lead_is_always_among_them(clocks in prop::collection::vec(-DAY..DAY, 1..9)) {
            let late = |at: usize| {
                let others = clocks.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, c)| *c);
                ahead(clocks[at], others)
            };
            prop_assert!((0..clocks.len()).filter(|at| late(*at) == 0).count() * 2 >= clocks.len());
        }
        #[test]
        fn nothing_a_peer_says_overflows(beats in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..9)) {
            let mut peer = Readings::default();
            for (mono, sent, wall) in beats {
                peer.take(mono, sent, wall);
            }
            ahead(i128::from(u64::MAX), peer.wall().into_iter());
        }
    }
}
