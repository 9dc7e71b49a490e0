//! Links between a dialler and an acceptor, over real sockets on loopback.

use super::link::{LeftOut, LinkEvent, Outgoing, Packet, kind};
use super::testing::{Authority, boots, info};
use super::{Discovery, FRAME_MAX, Greeter, Identity, Port, StaticSeeds, acceptor, dialler, encode};
use crate::cluster::{Epoch, Message, NodeId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// The links of one node, without a driver.
struct Node {
    address: SocketAddr,
    events: mpsc::Receiver<LinkEvent>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

fn greeter(n: u128, address: SocketAddr, ca: &Authority) -> Arc<Greeter> {
    let info = info(n, &address.to_string());
    Greeter::new(Identity { cluster: "test".into(), info, boot: boots(&[n as u64]) }, ca.tls("test"))
}

async fn bind(address: SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(16).unwrap()
}

impl Node {
    async fn start(n: u128, ca: &Authority, seeds: &[SocketAddr]) -> Self {
        Self::start_on(n, ca, seeds, "127.0.0.1:0".parse().unwrap()).await
    }
    async fn start_on(n: u128, ca: &Authority, seeds: &[SocketAddr], address: SocketAddr) -> Self {
        let listener = bind(address).await;
        let address = listener.local_addr().unwrap();
        let greeter = greeter(n, address, ca);
        let (events_in, events) = mpsc::channel(64);
        let (heard, hearing) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let seeds = StaticSeeds::new(seeds.iter().map(ToString::to_string).collect());
        let dialler = dialler::Dialler::new(greeter.clone(), seeds, &[], hearing, events_in.clone(), stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(dialler.run());
        tasks.spawn(acceptor::accept_peers(listener, greeter, events_in, heard, stop.clone()));
        Self { address, events, stop, tasks }
    }
    /// The next event that `pick` takes.
    async fn wait<T>(&mut self, mut pick: impl FnMut(LinkEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(10), found).await.expect("comes in time")
    }
    async fn up(&mut self, n: u128) -> Outgoing {
        self.wait(|e| if let LinkEvent::Up(info, out) = e { (info.node == NodeId(n)).then_some(out) } else { None })
            .await
    }
    async fn down(&mut self, n: u128) {
        self.wait(|e| matches!(e, LinkEvent::Down(node) if node == NodeId(n)).then_some(())).await;
    }
    async fn message(&mut self) -> (NodeId, Message) {
        self.wait(|e| if let LinkEvent::Received(from, message) = e { Some((from, message)) } else { None }).await
    }
    async fn end(mut self) -> SocketAddr {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.address
    }
}

fn release(n: u64) -> Message {
    Message::Release { epoch: Epoch(n, 0) }
}

#[tokio::test]
async fn one_seed_is_enough_for_links_both_ways() {
    let ca = Authority::new();
    let mut a = Node::start(1, &ca, &[]).await;
    let mut b = Node::start(2, &ca, &[a.address]).await;
    let to_a = b.up(1).await;
    let to_b = a.up(2).await; // a was called, and calls back
    for n in 0..1000 {
        to_a.send(release(n));
    }
    for n in 0..1000 {
        assert_eq!(a.message().await, (NodeId(2), release(n)));
    }
    to_b.send(Message::Election);
    assert_eq!(b.message().await, (NodeId(1), Message::Election));
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn death_is_told_and_the_port_that_refuses_and_the_return() {
    let ca = Authority::new();
    let a = Node::start(1, &ca, &[]).await;
    let mut b = Node::start(2, &ca, &[a.address]).await;
    let link = b.up(1).await;
    let address = a.end().await;
    b.down(1).await;
    drop(link);
    b.wait(|e| matches!(e, LinkEvent::PortRefused(NodeId(1))).then_some(())).await;
    let mut a = Node::start_on(1, &ca, &[], address).await;
    let link = b.up(1).await;
    link.send(Message::Answer);
    assert_eq!(a.message().await, (NodeId(2), Message::Answer));
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn several_addresses_of_one_node_make_one_link_that_stays() {
    let ca = Authority::new();
    let mut a = Node::start(1, &ca, &[]).await;
    // The same listener by two names: loopback is a whole network.
    let other = bind("127.0.0.2:0".parse().unwrap()).await;
    let alias = other.local_addr().unwrap();
    let target = a.address;
    let mut relay = JoinSet::new();
    relay.spawn(async move {
        let mut pairs = JoinSet::new();
        while let Ok((mut from, _)) = other.accept().await {
            let mut to = tokio::net::TcpStream::connect(target).await.unwrap();
            pairs.spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await.is_ok() });
        }
    });
    let mut b = Node::start(2, &ca, &[a.address, alias]).await;
    let link = b.up(1).await;
    // Long enough for the second call, and for a link it would have broken to be reported.
    let surprise = timeout(Duration::from_millis(1500), async {
        b.wait(|e| matches!(e, LinkEvent::Down(_) | LinkEvent::Up(..)).then_some(())).await;
    });
    assert!(surprise.await.is_err(), "the link stays");
    link.send(Message::Answer);
    assert_eq!(a.message().await.1, Message::Answer);
    relay.shutdown().await;
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn own_address_makes_no_link() {
    let ca = Authority::new();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut a = Node::start_on(1, &ca, &[address], address).await;
    let mut b = Node::start(2, &ca, &[address]).await;
    b.up(1).await;
    let node = a.wait(|e| if let LinkEvent::Up(info, _) = e { Some(info.node) } else { None }).await;
    assert_eq!(node, NodeId(2), "itself it has met before, and ignored");
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn peer_that_reads_nothing_loses_the_link_not_the_senders_memory() {
    let ca = Authority::new();
    // A peer that greets and then reads nothing.
    let listener = bind("127.0.0.1:0".parse().unwrap()).await;
    let address = listener.local_addr().unwrap();
    let silent = greeter(1, address, &ca);
    let mut b = Node::start(2, &ca, &[address]).await;
    let (tcp, from) = listener.accept().await.unwrap();
    let greeted = silent.accept(tcp, from, Port::Rpc).await.unwrap();
    let link = b.up(1).await;
    // More than socket buffers hold, and the queue on top of it.
    let big = Message::Coordinator { epoch: Epoch(1, 1), members: vec![NodeId(u128::MAX); 4000] };
    let full = async {
        loop {
            for _ in 0..1000 {
                link.send(big.clone());
            }
            tokio::task::yield_now().await;
            if let Ok(LinkEvent::Down(node)) = b.events.try_recv() {
                return node;
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(10), full).await.expect("the link ends"), NodeId(1));
    drop(greeted);
    b.end().await;
}

#[tokio::test]
async fn heartbeat_goes_first() {
    let (out, mut queues) = super::link::queues(CancellationToken::new());
    let info = Box::default();
    out.send(Message::Answer);
    out.send(Message::Heartbeat { sent: 1, echo: 0, info });
    let first = queues.next().await;
    assert!(matches!(first, Some(Packet::Message(Message::Heartbeat { .. }))), "{first:?}");
    assert_eq!(queues.next().await, Some(Packet::Message(Message::Answer)));
}

#[test]
fn messages_left_out_are_counted_and_told_of_by_name_once_a_minute() {
    let (mut left_out, now) = (LeftOut::default(), Instant::now());
    let told = [0, 1, 59, 60, 61].map(|s| left_out.line(now + Duration::from_secs(s)));
    assert_eq!(told, [Some(1), None, None, Some(3), None]);
    for (message, name) in [(release(1), "Release"), (Message::Election, "Election")] {
        assert_eq!(kind(&Packet::Message(message)), name);
    }
    assert_eq!(kind(&Packet::Ping), "Ping");
}

#[tokio::test]
async fn frame_over_the_limit_closes_the_connection() {
    let ca = Authority::new();
    let a = Node::start(1, &ca, &[]).await;
    let b = greeter(2, "127.0.0.1:1".parse().unwrap(), &ca);
    let mut greeted = b.dial(a.address, Port::Rpc).await.unwrap();
    let mut bytes = Vec::new();
    encode(&Packet::Ping, &mut bytes).unwrap();
    bytes.extend_from_slice(&(FRAME_MAX as u32 + 1).to_be_bytes());
    greeted.stream.write_all(&bytes).await.unwrap();
    greeted.stream.flush().await.unwrap();
    let mut rest = Vec::new();
    let read = greeted.stream.read_to_end(&mut rest);
    let _ = timeout(Duration::from_secs(5), read).await.expect("is closed at once");
    assert!(rest.is_empty());
    a.end().await;
}

/// Discovery that names nobody.
struct Nobody;
impl Discovery for Nobody {
    async fn addresses(&self) -> Vec<SocketAddr> {
        vec![]
    }
}

#[tokio::test]
async fn peers_met_before_are_called_without_discovery() {
    let ca = Authority::new();
    let a = Node::start(1, &ca, &[]).await;
    let (events_in, mut events) = mpsc::channel(64);
    let (_heard, hearing) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let met = [info(1, &a.address.to_string())];
    let me = greeter(2, "127.0.0.1:1".parse().unwrap(), &ca);
    let mut tasks = JoinSet::new();
    tasks.spawn(dialler::Dialler::new(me, Nobody, &met, hearing, events_in, stop.clone()).run());
    let event = timeout(Duration::from_secs(5), events.recv()).await.expect("in time");
    assert!(matches!(event, Some(LinkEvent::Up(ref info, _)) if info.node == NodeId(1)), "{event:?}");
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    a.end().await;
}
