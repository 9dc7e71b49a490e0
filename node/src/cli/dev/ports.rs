//! Ports for a cluster on loopback. They lie below the range of outgoing connections (ip(7), ip_local_port_range): a port
//! from that range may be taken while its node is down, and a node that redials it could even connect to itself.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

/// The first FTP port tried.
const FTP: u16 = 2121;
/// Where the others are looked for, unless outgoing connections begin below the end.
const LOW: u16 = 10_000;
const HIGH: u16 = 32_000;

/// Ports of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Ports {
    /// Clients.
    pub(super) ftp: u16,
    /// Peers: coordination.
    pub(super) peer: u16,
    /// Peers: file bytes.
    pub(super) raw: u16,
}

/// Ports for `count` nodes, those of the last run where they are free. The peer ports rise from node to node, so that
/// the last node has the highest rank.
pub(super) fn choose(count: u16, last: &[Ports]) -> Result<Vec<Ports>, String> {
    let peers = match last.get(..usize::from(count)) {
        Some(last) if last.iter().all(|ports| is_free(ports.peer) && is_free(ports.raw)) => {
            last.iter().map(|ports| (ports.peer, ports.raw)).collect()
        }
        _ => block(count)?,
    };
    let taken = |port: u16| peers.iter().any(|(peer, raw)| [*peer, *raw].contains(&port));
    let mut chosen: Vec<Ports> = Vec::new();
    for (index, (peer, raw)) in (0..count).zip(peers.iter().copied()) {
        let usual = FTP + index;
        let ftp = match is_free(usual) {
            true => usual,
            false => search(|port| !taken(port) && !chosen.iter().any(|c| c.ftp == port) && is_free(port))?,
        };
        chosen.push(Ports { ftp, peer, raw });
    }
    Ok(chosen)
}

/// Free ports in a row, two a node.
fn block(count: u16) -> Result<Vec<(u16, u16)>, String> {
    let first = search(|first| (first..first + 2 * count).all(is_free))?;
    Ok((0..count).map(|index| (first + 2 * index, first + 2 * index + 1)).collect())
}

/// The first port that fits, from a random one on: clusters that start at once do not get in each other's way.
fn search(fits: impl Fn(u16) -> bool) -> Result<u16, String> {
    let high = outgoing_from().map_or(HIGH, |from| from.saturating_sub(200).clamp(LOW + 1, HIGH));
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let (span, start) = (high - LOW, u16::from_le_bytes(random));
    let mut candidates = (0..span).map(|step| LOW + (start % span + step) % span);
    candidates.find(|port| fits(*port)).ok_or_else(|| format!("no free ports between {LOW} and {high}"))
}

/// Where the system's ports for outgoing connections begin.
fn outgoing_from() -> Option<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_kept_between_runs_and_given_up_when_taken() {
        let first = choose(3, &[]).unwrap();
        let peers = |ports: &[Ports]| ports.iter().map(|p| (p.peer, p.raw)).collect::<Vec<_>>();
        assert!(peers(&first).is_sorted());
        assert_eq!(peers(&choose(3, &first).unwrap()), peers(&first));
        assert_eq!(peers(&choose(2, &first).unwrap()), peers(&first[..2]));
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first[1].raw)).unwrap();
        let other = choose(3, &first).unwrap();
        assert!(!peers(&other).contains(&(first[1].peer, first[1].raw)));
        drop(taken);
    }

    #[test]
    fn a_taken_ftp_port_is_replaced() {
        // Another process may have it as well: either way it is taken.
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, FTP));
        let ports = choose(2, &[]).unwrap();
        assert_ne!(ports[0].ftp, FTP);
        assert_ne!(ports[0].ftp, ports[1].ftp);
    }
}
