//! Against a name server of our own: a UDP socket that knows just enough of RFC 1035.

use super::*;
use crate::peer::StaticSeeds;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What a name has: IPv4 addresses, IPv6 addresses. `None` for a kind stays without an answer.
type Zone = Arc<Mutex<BTreeMap<&'static str, (Option<Vec<[u8; 4]>>, Option<Vec<[u8; 16]>>)>>>;

struct Server {
    address: SocketAddr,
    zone: Zone,
    _task: JoinSet<()>,
}

async fn server() -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, zone) = (socket.local_addr().unwrap(), Zone::default());
    let mut task = JoinSet::new();
    let known = zone.clone();
    task.spawn(async move {
        let mut question = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            if let Some(answer) = answer(&question[..length], &known) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    Server { address, zone, _task: task }
}

/// The answer to a question, a NXDOMAIN for what is not known; `None` to say nothing.
fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (mut at, mut name) = (12, String::new());
    while question[at] != 0 {
        let label = &question[at + 1..at + 1 + usize::from(question[at])];
        name = if name.is_empty() { name } else { name + "." } + &String::from_utf8_lossy(label).to_lowercase();
        at += 1 + label.len();
    }
    let (kind, end) = (question[at + 2], at + 5);
    let zone = zone.lock().unwrap();
    let found: Vec<Vec<u8>> = match zone.get(name.as_str()) {
        None => return Some(message(question, end, 3, kind, &[])),
        Some((four, _)) if kind == 1 => four.as_ref()?.iter().map(|ip| ip.to_vec()).collect(),
        Some((_, six)) => six.as_ref()?.iter().map(|ip| ip.to_vec()).collect(),
    };
    Some(message(question, end, 0, kind, &found))
}

fn message(question: &[u8], end: usize, code: u8, kind: u8, data: &[Vec<u8>]) -> Vec<u8> {
    let mut out = [&question[..2], &[0x84, 0x80 | code, 0, 1, 0, data.len() as u8, 0, 0, 0, 0]].concat();
    out.extend(&question[12..end]);
    for ip in data {
        // The name by reference, its class, ten minutes.
        out.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 2, 88, 0, ip.len() as u8]);
        out.extend(ip);
    }
    out
}

fn all(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn both_kinds_of_addresses_are_found_and_nothing_is_kept() {
    let server = server().await;
    let v6 = "fd00::7".parse::<std::net::Ipv6Addr>().unwrap().octets();
    server.zone.lock().unwrap().insert("tasks.trebol", (Some(vec![[10, 0, 0, 2], [10, 0, 0, 1]]), Some(vec![v6])));
    let names = DnsNames::at(&["tasks.trebol:2123"], server.address);
    assert_eq!(names.addresses().await, all(&["10.0.0.1:2123", "10.0.0.2:2123", "[fd00::7]:2123"]));
    // The answer was good for ten minutes.
    server.zone.lock().unwrap().insert("tasks.trebol", (Some(vec![[10, 0, 0, 3]]), Some(vec![])));
    assert_eq!(names.addresses().await, all(&["10.0.0.3:2123"]));
}

#[tokio::test]
async fn silence_about_one_kind_hides_the_other_for_no_longer_than_a_lookup() {
    let server = server().await;
    server.zone.lock().unwrap().insert("tasks.trebol", (Some(vec![[10, 0, 0, 1]]), None));
    let names = DnsNames::at(&["tasks.trebol:2123"], server.address);
    let began = Instant::now();
    assert_eq!(names.addresses().await, all(&["10.0.0.1:2123"]));
    assert!(began.elapsed() < LOOKUP * 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn name_that_comes_and_goes_is_said_once_each() {
    let server = server().await;
    let names = DnsNames::at(&["tasks.trebol:2123"], server.address);
    assert_eq!(names.addresses().await, []);
    assert!(!names.said.would_say("tasks.trebol", true), "said already");
    assert!(names.said.would_say("tasks.trebol", false));
    server.zone.lock().unwrap().insert("tasks.trebol", (Some(vec![[10, 0, 0, 1]]), Some(vec![])));
    assert_eq!(names.addresses().await.len(), 1);
    assert!(names.said.would_say("tasks.trebol", true));
}

#[tokio::test]
async fn names_and_seeds_go_together() {
    let server = server().await;
    server.zone.lock().unwrap().insert("tasks.trebol", (Some(vec![[10, 0, 0, 1]]), Some(vec![])));
    let seeds = StaticSeeds::new(vec!["127.0.0.1:7".into()]);
    let both = (seeds, DnsNames::at(&["tasks.trebol:2123"], server.address));
    assert_eq!(both.addresses().await, all(&["10.0.0.1:2123", "127.0.0.1:7"]));
}

#[test]
fn names_have_a_port_and_are_no_addresses() {
    assert_eq!(name_and_port("tasks.trebol:2123"), Some(("tasks.trebol", 2123)));
    for wrong in ["tasks.trebol", ":2123", "10.0.0.1:2123", "[::1]:2123", "a:0", "a:x", "a b:1", "dns:tasks:1"] {
        assert_eq!(name_and_port(wrong), None, "{wrong}");
    }
}
