//! Keeps log lines about one address apart in time. It never decides anything but whether a line is written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses remembered; beyond, the oldest is forgotten.
const ADDRESSES: usize = 1024;

/// At most one line per address and interval.
#[derive(Debug)]
pub(crate) struct Quiet {
    every: Duration,
    last: Mutex<BTreeMap<IpAddr, (Instant, u64)>>,
}

impl Quiet {
    /// One line per address in `every`.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, last: Mutex::default() }
    }
    /// Whether to write a line about `address`: then the number of lines left out since the last one.
    pub(crate) fn line(&self, now: Instant, address: IpAddr) -> Option<u64> {
        let mut last = self.last.lock().expect("no panic while held");
        if let Some((at, left_out)) = last.get_mut(&address) {
            if now.duration_since(*at) < self.every {
                *left_out += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(left_out));
        }
        if last.len() >= ADDRESSES {
            let oldest = last.iter().min_by_key(|(_, (at, _))| *at).map(|(address, _)| *address);
            oldest.and_then(|address| last.remove(&address));
        }
        last.insert(address, (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_address_and_interval() {
        let quiet = Quiet::new(Duration::from_secs(10));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Instant::now();
        assert_eq!(quiet.line(now, a), Some(0));
        assert_eq!(quiet.line(now, a), None);
        assert_eq!(quiet.line(now, b), Some(0));
        assert_eq!(quiet.line(now + Duration::from_secs(10), a), Some(1));
    }
}
