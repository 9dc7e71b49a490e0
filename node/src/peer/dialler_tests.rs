//! What the dialler makes of addresses, without calling any.

use super::super::testing::{Authority, boots, info};
use super::super::{Identity, StaticSeeds};
use super::*;

struct Case {
    dialler: Dialler<StaticSeeds>,
    heard: mpsc::Sender<Heard>,
    events: mpsc::Receiver<LinkEvent>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Case {
    fn new(met: &[PeerInfo]) -> Self {
        let me = Identity { cluster: "test".into(), info: info(9, "127.0.0.1:9"), boot: boots(&[9]) };
        let (events_in, events) = mpsc::channel(8);
        let (heard, hearing) = mpsc::channel(8);
        let greeter = Greeter::new(me, Authority::new().tls("test"));
        let stop = CancellationToken::new();
        let dialler = Dialler::new(greeter, StaticSeeds::new(vec![]), met, hearing, events_in, stop);
        Self { dialler, heard, events }
    }
    /// A call of `address` found nothing there; returns whose death that proves.
    async fn refused(&mut self, address: &str) -> Option<NodeId> {
        let error = GreetError::Connect(std::io::ErrorKind::ConnectionRefused.into());
        self.dialler.failed(at(address), &error, Instant::now()).await.unwrap();
        match self.events.try_recv() {
            Ok(LinkEvent::PortRefused(node)) => Some(node),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }
}

#[tokio::test]
async fn refusal_proves_a_death_only_where_the_latest_hello_came_from() {
    let mut case = Case::new(&[info(1, "127.0.0.1:1")]);
    assert_eq!(case.refused("127.0.0.1:1").await, None, "it may have moved while this node was down");
    case.dialler.meet(&info(1, "127.0.0.1:1"), vec![]);
    assert_eq!(case.refused("127.0.0.1:1").await, Some(NodeId(1)));
    // The Hello waits still when the refusal is looked at.
    case.heard.send(Heard { info: info(1, "127.0.0.1:2"), peers: vec![] }).await.unwrap();
    assert_eq!(case.refused("127.0.0.1:1").await, None, "it lives elsewhere");
    assert_eq!(case.refused("127.0.0.1:2").await, Some(NodeId(1)));
    case.dialler.meet(&info(2, "127.0.0.1:1"), vec![]);
    assert_eq!(case.refused("127.0.0.1:1").await, Some(NodeId(2)), "the address has passed on");
}

#[tokio::test]
async fn full_table_gives_up_the_address_that_failed_for_longest_and_no_seed_or_home() {
    let mut case = Case::new(&[info(1, "127.0.0.1:1")]);
    case.dialler.learn(at("127.0.0.2:1"), None, Word::Discovery);
    case.dialler.meet(&info(2, "127.0.0.2:2"), vec![]);
    case.dialler.meet(&info(3, "127.0.0.2:3"), vec![]);
    for port in 1..=u16::try_from(TARGETS).unwrap() {
        case.dialler.learn(SocketAddr::from(([127, 0, 0, 3], port)), None, Word::Hearsay);
    }
    assert_eq!(case.dialler.targets.len(), TARGETS);
    case.dialler.learn(at("127.0.0.9:1"), None, Word::Hearsay);
    assert!(!case.dialler.targets.contains_key(&at("127.0.0.9:1")), "none has failed yet");

    case.dialler.meet(&info(3, "127.0.0.3:5"), vec![]); // moved
    for address in ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.2:2", "127.0.0.3:7", "127.0.0.2:3"] {
        case.refused(address).await;
    }
    case.refused("127.0.0.3:7").await; // fails again, and since then no longer than before
    for (new, gone) in [("127.0.0.9:1", "127.0.0.3:7"), ("127.0.0.9:2", "127.0.0.2:3")] {
        assert!(case.dialler.targets.contains_key(&at(gone)));
        case.dialler.learn(at(new), None, Word::Hearsay);
        assert!(case.dialler.targets.contains_key(&at(new)) && !case.dialler.targets.contains_key(&at(gone)));
    }
    case.dialler.learn(at("127.0.0.9:3"), None, Word::Hearsay);
    assert!(!case.dialler.targets.contains_key(&at("127.0.0.9:3")), "no other may go");
    assert_eq!(case.dialler.targets.len(), TARGETS);
}

#[tokio::test]
async fn a_node_that_was_removed_for_good_is_called_no_more() {
    let mut case = Case::new(&[info(1, "127.0.0.1:1")]);
    case.dialler.meet(&info(2, "127.0.0.1:2"), vec![]);
    case.dialler.meet(&info(3, "127.0.0.1:3"), vec![]);
    case.dialler.meet(&info(4, "127.0.0.1:4"), vec![]);
    case.dialler.learn(at("127.0.0.1:3"), None, Word::Discovery);
    [1, 2, 3].into_iter().for_each(|node| case.dialler.greeter.refuse(NodeId(node)));
    case.dialler.forget_strangers(&[at("127.0.0.1:3")]);
    let left: Vec<_> = case.dialler.targets.keys().copied().collect();
    assert_eq!(left, [at("127.0.0.1:3"), at("127.0.0.1:4")], "a seed stays: another node may come to live there");
}
