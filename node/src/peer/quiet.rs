//! Keeps log lines of one kind about one address apart in time. It never decides anything but whether a line is written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses and kinds remembered; beyond, the oldest is forgotten.
const REMEMBERED: usize = 1024;

/// At most one line per address, kind and interval.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<BTreeMap<Matter, (Instant, u64)>>);

/// About whom, and what kind of line.
type Matter = (IpAddr, &'static str);

impl Quiet {
    /// Whether to write a line: then the number of lines left out since the last one, which was `every` ago at least.
    pub(crate) fn line(&self, now: Instant, address: IpAddr, kind: &'static str, every: Duration) -> Option<u64> {
        let mut last = self.0.lock().expect("no panic while held");
        if let Some((at, left_out)) = last.get_mut(&(address, kind)) {
            if now.duration_since(*at) < every {
                *left_out += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(left_out));
        }
        if last.len() >= REMEMBERED {
            let oldest = last.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| *key);
            oldest.and_then(|key| last.remove(&key));
        }
        last.insert((address, kind), (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_address_kind_and_interval() {
        let (quiet, every) = (Quiet::default(), Duration::from_secs(10));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Instant::now();
        assert_eq!(quiet.line(now, a, "tls", every), Some(0));
        assert_eq!(quiet.line(now, a, "tls", every), None);
        assert_eq!(quiet.line(now, a, "frame", every), Some(0));
        assert_eq!(quiet.line(now, b, "tls", every), Some(0));
        assert_eq!(quiet.line(now + every, a, "tls", every), Some(1));
    }
}
