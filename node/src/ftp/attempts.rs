//! Failed logins per address: each answer takes longer than the last, and who goes on is banned for a while. The table is
//! bounded; it forgets the oldest first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses remembered.
const ADDRESSES: usize = 4096;
/// Longest delay of an answer.
const DELAY_MAX: Duration = Duration::from_secs(8);

/// Failures of every address.
#[derive(Debug)]
pub(crate) struct Attempts {
    table: Mutex<BTreeMap<IpAddr, (u32, Instant)>>,
    max: u32,
    ban: Duration,
    delay: Duration,
}

impl Attempts {
    /// `max` failures without a pause of `ban` are a ban for `ban`; the first is answered after `delay`.
    pub(crate) fn new(max: u32, ban: Duration, delay: Duration) -> Self {
        Self { table: Mutex::default(), max, ban, delay }
    }
    /// Whether an address is banned.
    pub(crate) fn is_banned(&self, now: Instant, address: IpAddr) -> bool {
        let table = self.table.lock().expect("no panic while held");
        table.get(&address).is_some_and(|(n, last)| *n >= self.max && now.duration_since(*last) < self.ban)
    }
    /// Counts a failure; how long its answer is to wait.
    pub(crate) fn failed(&self, now: Instant, address: IpAddr) -> Duration {
        let mut table = self.table.lock().expect("no panic while held");
        if table.len() >= ADDRESSES && !table.contains_key(&address) {
            let oldest = table.iter().min_by_key(|(_, (_, last))| *last).map(|(address, _)| *address);
            oldest.and_then(|address| table.remove(&address));
        }
        let (n, last) = table.entry(address).or_insert((0, now));
        if now.duration_since(*last) >= self.ban {
            *n = 0;
        }
        *n = n.saturating_add(1);
        *last = now;
        let doublings = (*n - 1).min(16);
        self.delay.saturating_mul(1 << doublings).min(DELAY_MAX)
    }
    /// A login from there succeeded.
    pub(crate) fn succeeded(&self, address: IpAddr) {
        self.table.lock().expect("no panic while held").remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn delays_grow_until_the_ban_and_a_pause_forgives() {
        let attempts = Attempts::new(3, MINUTE, Duration::from_millis(100));
        let (now, here, there) = (Instant::now(), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let delays: Vec<u128> = (0..3).map(|_| attempts.failed(now, here).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400]);
        assert!(attempts.is_banned(now, here) && !attempts.is_banned(now, there));
        assert!(!attempts.is_banned(now + MINUTE, here));
        assert_eq!(attempts.failed(now + MINUTE, here).as_millis(), 100);
        for _ in 0..40 {
            assert!(attempts.failed(now + MINUTE, here) <= DELAY_MAX);
        }
    }

    #[test]
    fn a_login_that_succeeds_clears_the_count_and_the_table_is_bounded() {
        let attempts = Attempts::new(1, MINUTE, Duration::ZERO);
        let now = Instant::now();
        for n in 0..5000u32 {
            attempts.failed(now, IpAddr::from(n.to_be_bytes()));
        }
        assert_eq!(attempts.table.lock().unwrap().len(), ADDRESSES);
        let last = IpAddr::from(4999u32.to_be_bytes());
        assert!(attempts.is_banned(now, last));
        attempts.succeeded(last);
        assert!(!attempts.is_banned(now, last));
    }
}
