//! Failed logins per address: each answer takes longer than the last, and who goes on is banned for a while. The table is
//! bounded; it forgets the oldest first. Names are kept as hashes: a mistyped one may be a password.
//!
//! An IPv6 client is its /64: that is what one subscriber has, with more addresses in it than any table (RFC 6177). A login
//! that succeeds clears that user's failures and nobody else's, or one account would do to guess the passwords of all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses remembered.
const ADDRESSES: usize = 4096;
/// Users remembered of each address; failures of more than these are cleared by time alone.
const USERS: usize = 16;
/// Longest delay of an answer.
const DELAY_MAX: Duration = Duration::from_secs(8);

/// Failures of every address.
#[derive(Debug)]
pub(crate) struct Attempts {
    table: Mutex<BTreeMap<IpAddr, Failures>>,
    max: u32,
    ban: Duration,
    delay: Duration,
}

/// Failures of one address.
#[derive(Debug)]
struct Failures {
    /// All of them, those of users that are not remembered too.
    all: u32,
    users: BTreeMap<[u8; 32], u32>,
    last: Instant,
}

impl Attempts {
    /// `max` failures without a pause of `ban` are a ban for `ban`; the first is answered after `delay`.
    pub(crate) fn new(max: u32, ban: Duration, delay: Duration) -> Self {
        Self { table: Mutex::default(), max, ban, delay }
    }
    /// Whether an address is banned.
    pub(crate) fn is_banned(&self, now: Instant, address: IpAddr) -> bool {
        let table = self.table.lock().expect("no panic while held");
        table.get(&origin(address)).is_some_and(|f| f.all >= self.max && now.duration_since(f.last) < self.ban)
    }
    /// Counts a failure to log in as `user`; how long its answer is to wait.
    pub(crate) fn failed(&self, now: Instant, address: IpAddr, user: &str) -> Duration {
        let address = origin(address);
        let mut table = self.table.lock().expect("no panic while held");
        if table.len() >= ADDRESSES && !table.contains_key(&address) {
            let oldest = table.iter().min_by_key(|(_, f)| f.last).map(|(address, _)| *address);
            oldest.and_then(|address| table.remove(&address));
        }
        let failures = table.entry(address).or_insert_with(|| Failures { all: 0, users: BTreeMap::new(), last: now });
        if now.duration_since(failures.last) >= self.ban {
            failures.all = 0;
            failures.users.clear();
        }
        failures.all = failures.all.saturating_add(1);
        failures.last = now;
        let user = *blake3::hash(user.as_bytes()).as_bytes();
        if failures.users.len() < USERS || failures.users.contains_key(&user) {
            let count = failures.users.entry(user).or_insert(0);
            *count = count.saturating_add(1);
        }
        let doublings = (failures.all - 1).min(16);
        self.delay.saturating_mul(1 << doublings).min(DELAY_MAX)
    }
    /// A login as `user` from there succeeded: its own failures were typing errors.
    pub(crate) fn succeeded(&self, address: IpAddr, user: &str) {
        let address = origin(address);
        let mut table = self.table.lock().expect("no panic while held");
        let Some(failures) = table.get_mut(&address) else { return };
        let own = failures.users.remove(blake3::hash(user.as_bytes()).as_bytes()).unwrap_or(0);
        failures.all = failures.all.saturating_sub(own);
        if failures.all == 0 {
            table.remove(&address);
        }
    }
}

/// Whom an address stands for.
fn origin(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
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
        let delays: Vec<u128> = (0..3).map(|_| attempts.failed(now, here, "ana").as_millis()).collect();
        assert_eq!(delays, [100, 200, 400]);
        assert!(attempts.is_banned(now, here) && !attempts.is_banned(now, there));
        assert!(!attempts.is_banned(now + MINUTE, here));
        assert_eq!(attempts.failed(now + MINUTE, here, "ana").as_millis(), 100);
        for _ in 0..40 {
            assert!(attempts.failed(now + MINUTE, here, "ana") <= DELAY_MAX);
        }
    }

    #[test]
    fn a_login_that_succeeds_clears_the_count_and_the_table_is_bounded() {
        let attempts = Attempts::new(1, MINUTE, Duration::ZERO);
        let now = Instant::now();
        for n in 0..5000u32 {
            attempts.failed(now, IpAddr::from(n.to_be_bytes()), "ana");
        }
        assert_eq!(attempts.table.lock().unwrap().len(), ADDRESSES);
        let last = IpAddr::from(4999u32.to_be_bytes());
        assert!(attempts.is_banned(now, last));
        attempts.succeeded(last, "ana");
        assert!(!attempts.is_banned(now, last));
    }

    #[test]
    fn a_login_that_succeeds_forgives_nothing_of_other_users() {
        let attempts = Attempts::new(3, MINUTE, Duration::ZERO);
        let (now, here) = (Instant::now(), IpAddr::from([10, 0, 0, 1]));
        for n in 0..2 {
            attempts.failed(now, here, "victim");
            attempts.failed(now, here, "own");
            attempts.succeeded(here, "own");
            assert!(!attempts.is_banned(now, here), "{n}");
        }
        attempts.failed(now, here, "victim");
        attempts.succeeded(here, "own");
        assert!(attempts.is_banned(now, here));
        // However many names are tried, few are kept, and all count.
        let there = IpAddr::from([10, 0, 0, 2]);
        for n in 0..100 {
            attempts.failed(now, there, &n.to_string());
        }
        assert_eq!(attempts.table.lock().unwrap()[&there].users.len(), USERS);
        assert_eq!(attempts.table.lock().unwrap()[&there].all, 100);
    }

    #[test]
    fn an_ipv6_client_is_its_whole_network() {
        let attempts = Attempts::new(1, MINUTE, Duration::ZERO);
        let now = Instant::now();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        attempts.failed(now, address("2001:db8:0:1::1"), "ana");
        assert!(attempts.is_banned(now, address("2001:db8:0:1:ffff::2")));
        assert!(!attempts.is_banned(now, address("2001:db8:0:2::1")));
    }
}
