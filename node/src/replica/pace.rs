//! Spends bytes at a rate: what goes on in the background leaves disk and network to clients. It never looks at the bytes.

use std::sync::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What may be made up for, so that one alone reaches the rate though its bytes have to be read and written as well.
const SLACK: Duration = Duration::from_millis(50);

/// Bytes a second, for one who spends them.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u64,
    next: Instant,
}

impl Pace {
    /// Bytes a second, not 0.
    pub(super) fn new(rate: u64) -> Self {
        Self { rate, next: Instant::now() }
    }
    /// Waits until so many may have been read. Time that was lost is not made up for.
    pub(super) async fn spend(&mut self, bytes: u64) {
        sleep_until(self.due(Instant::now(), bytes)).await;
    }
    /// When so many more may be moved; what was not spent before `since` is lost.
    fn due(&mut self, since: Instant, bytes: u64) -> Instant {
        let micros = bytes.saturating_mul(1_000_000) / self.rate;
        self.next = self.next.max(since) + Duration::from_micros(micros);
        self.next
    }
}

/// The same for many at once: each gets its turn after what the others asked for before it, so nobody starves.
#[derive(Debug)]
pub(crate) struct SharedPace(Option<Mutex<Pace>>);

impl SharedPace {
    /// Bytes a second of all together, 0 for no bound.
    pub(super) fn new(rate: u64) -> Self {
        Self((rate > 0).then(|| Mutex::new(Pace::new(rate))))
    }
    /// Waits until so many more may be moved.
    pub(super) async fn spend(&self, bytes: u64) {
        if let Some(due) = self.due(Instant::now(), bytes) {
            sleep_until(due).await;
        }
    }
    fn due(&self, now: Instant, bytes: u64) -> Option<Instant> {
        let since = now.checked_sub(SLACK).unwrap_or(now);
        self.0.as_ref().map(|pace| pace.lock().expect("no panic while held").due(since, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_share_a_rate_and_none_starves() {
        let now = Instant::now();
        let pace = SharedPace(Some(Mutex::new(Pace { rate: 1000, next: now })));
        // One asks for its next piece when it has the last, as they all do; the other wants less.
        let (mut few, mut many) = (now, now);
        for _ in 0..5 {
            many = pace.due(many, 100).unwrap();
            few = pace.due(few, 100).unwrap();
        }
        assert_eq!(few, now + Duration::from_secs(1), "who wants less waits for its share alone");
        for _ in 0..10 {
            many = pace.due(many, 100).unwrap();
        }
        assert_eq!(many, now + Duration::from_secs(2), "2,000 bytes in all");
    }

    #[test]
    fn without_a_bound_nobody_waits_and_lost_time_is_not_made_up_for() {
        let now = Instant::now();
        assert_eq!(SharedPace::new(0).due(now, u64::MAX), None);
        let later = now + Duration::from_secs(60);
        assert_eq!(SharedPace::new(1000).due(later, 1000), Some(later + Duration::from_secs(1) - SLACK));
    }
}
