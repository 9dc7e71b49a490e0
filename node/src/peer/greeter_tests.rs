//! Who gets in and who does not, over real TLS on loopback.

use super::*;
use crate::peer::testing::{Authority, boots, info};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

fn greeter(n: u128, cluster: &str, chain: &[u64], tls: PeerTls) -> Arc<Greeter> {
    let identity = Identity { cluster: cluster.into(), info: info(n, "127.0.0.1:1"), boot: boots(chain) };
    Greeter::new(identity, tls)
}

/// Both ends of one attempt: what the dialler got, what the acceptor got.
async fn meet(dialler: &Greeter, acceptor: Arc<Greeter>) -> (Result<Greeted, GreetError>, Result<Greeted, GreetError>) {
    meet_on(dialler, Port::Rpc, acceptor, Port::Rpc).await
}
async fn meet_on(
    dialler: &Greeter,
    said: Port,
    acceptor: Arc<Greeter>,
    is: Port,
) -> (Result<Greeted, GreetError>, Result<Greeted, GreetError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let (tcp, from) = listener.accept().await.unwrap();
        acceptor.accept(tcp, from, is).await
    });
    let dialled = dialler.dial(address, said).await;
    (dialled, accepting.join_next().await.unwrap().unwrap())
}

#[tokio::test]
async fn peers_of_one_cluster_meet_and_can_speak() {
    let ca = Authority::new();
    let a = greeter(1, "test", &[1], ca.tls("test"));
    let b = greeter(2, "test", &[2], ca.tls("test"));
    let (to_b, to_a) = meet(&a, b).await;
    let (mut to_b, mut to_a) = (to_b.unwrap(), to_a.unwrap());
    assert_eq!((to_b.info.node, to_a.info.node), (NodeId(2), NodeId(1)));
    to_b.stream.write_all(b"hello").await.unwrap();
    to_b.stream.flush().await.unwrap();
    let mut bytes = [0; 5];
    to_a.stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");
}

#[tokio::test]
async fn certificate_of_another_ca_gets_nothing() {
    let (ca, other) = (Authority::new(), Authority::new());
    // The stranger believes in the cluster's CA, so that it is the acceptor who has to refuse.
    let stranger = greeter(1, "test", &[1], other.tls_trusting("test", &ca));
    let (dialled, accepted) = meet(&stranger, greeter(2, "test", &[2], ca.tls("test"))).await;
    assert!(matches!(accepted, Err(GreetError::Tls(_))), "{accepted:?}");
    assert!(dialled.is_err());
    // And the other way round: nobody speaks to a listener with another CA's certificate.
    let a = greeter(1, "test", &[1], ca.tls("test"));
    let (dialled, accepted) = meet(&a, greeter(2, "test", &[2], other.tls_trusting("test", &ca))).await;
    assert!(matches!(dialled, Err(GreetError::Tls(_))), "{dialled:?}");
    assert!(accepted.is_err());
}

#[tokio::test]
async fn certificate_of_another_cluster_gets_nothing() {
    let ca = Authority::new();
    // Dials as a "test" node would, but its certificate names another cluster of the same CA.
    let stranger = greeter(1, "test", &[1], ca.tls_named("test", "other"));
    let (dialled, accepted) = meet(&stranger, greeter(2, "test", &[2], ca.tls("test"))).await;
    assert!(matches!(accepted, Err(GreetError::Tls(_))), "{accepted:?}");
    assert!(dialled.is_err());
}

#[tokio::test]
async fn no_certificate_gets_nothing() {
    let ca = Authority::new();
    let b = greeter(2, "test", &[2], ca.tls("test"));
    let (dialled, accepted) = meet(&greeter(1, "test", &[1], PeerTls::insecure()), b.clone()).await;
    assert!(dialled.is_err() && accepted.is_err());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let (tcp, from) = listener.accept().await.unwrap();
        b.accept(tcp, from, Port::Rpc).await.err()
    });
    let mut tls = ca.connect_without_certificate("test", address).await;
    let mut bytes = Vec::new();
    // The handshake ends for the client before the server has judged: it is the first read that tells.
    let _ = tls.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty());
    assert!(matches!(accepting.join_next().await, Some(Ok(Some(GreetError::Tls(_))))));
}

#[tokio::test]
async fn wrong_cluster_port_version_and_own_address_are_told() {
    let plain = PeerTls::insecure;
    let b = greeter(2, "test", &[2], plain());
    let (dialled, accepted) = meet(&greeter(1, "other", &[1], plain()), b.clone()).await;
    assert!(matches!(dialled, Err(GreetError::Refused(HelloRefusal::WrongCluster))), "{dialled:?}");
    assert!(matches!(accepted, Err(GreetError::Refuses(HelloRefusal::WrongCluster))));

    let (dialled, _) = meet_on(&greeter(1, "test", &[1], plain()), Port::Raw, b.clone(), Port::Rpc).await;
    assert!(matches!(dialled, Err(GreetError::Refused(HelloRefusal::WrongPort))), "{dialled:?}");

    let (dialled, accepted) = meet(&b, b.clone()).await;
    assert!(dialled.unwrap_err().is_own() && accepted.unwrap_err().is_own());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, from) = listener.accept().await.unwrap();
    write_frame(&mut tcp, &serde_json::json!({"protocol": PROTOCOL + 1, "all": "new"})).await.unwrap();
    assert!(b.accept(accepted, from, Port::Rpc).await.is_err());
    let reply: Reply = read_frame(&mut tcp, &mut Vec::new(), HELLO_MAX).await.unwrap().unwrap();
    assert_eq!(reply, Reply::Refused(HelloRefusal::NewerProtocol { ours: PROTOCOL }));

    // A newer one that still speaks this version is welcome, and told which that is.
    let mut hello = b.hello(Port::Rpc);
    hello.info = info(3, "127.0.0.1:3");
    (hello.boot, hello.protocol, hello.oldest) = (boots(&[3]), PROTOCOL + 1, Some(PROTOCOL));
    let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, from) = listener.accept().await.unwrap();
    write_frame(&mut tcp, &hello).await.unwrap();
    assert!(b.accept(accepted, from, Port::Rpc).await.is_ok());
    let reply: Reply = read_frame(&mut tcp, &mut Vec::new(), HELLO_MAX).await.unwrap().unwrap();
    let Reply::Welcome(welcome) = reply else { panic!("{reply:?}") };
    assert_eq!(welcome.protocol, PROTOCOL);
    // And this node as the one that calls.
    let newer = Hello { oldest: Some(PROTOCOL + 1), ..hello };
    let refusal = b.admit(&newer, Port::Rpc, None).unwrap_err();
    assert_eq!(refusal, HelloRefusal::NewerProtocol { ours: PROTOCOL });
    let older = Hello { protocol: OLDEST - 1, oldest: None, ..newer };
    let refusal = b.admit(&older, Port::Rpc, None).unwrap_err();
    assert_eq!(refusal, HelloRefusal::OlderProtocol { oldest: OLDEST });
}

#[tokio::test]
async fn copied_directory_and_other_key_are_refused_while_the_first_is_connected() {
    let ca = Authority::new();
    let b = greeter(2, "test", &[2], ca.tls("test"));
    let tls = ca.tls("test");
    let first = greeter(1, "test", &[1, 5], tls.clone());
    let (kept, kept_too) = meet(&first, b.clone()).await;

    let copy = greeter(1, "test", &[1, 6], tls.clone());
    let (dialled, _) = meet(&copy, b.clone()).await;
    assert!(matches!(dialled, Err(GreetError::Refused(HelloRefusal::DuplicateNode))), "{dialled:?}");

    let thief = greeter(1, "test", &[1, 5, 7], ca.tls("test"));
    let (dialled, _) = meet(&thief, b.clone()).await;
    assert!(matches!(dialled, Err(GreetError::Refused(HelloRefusal::OtherKey))), "{dialled:?}");

    let restarted = greeter(1, "test", &[1, 5, 8], tls);
    let (dialled, _) = meet(&restarted, b.clone()).await;
    assert!(matches!(dialled, Err(GreetError::Refused(HelloRefusal::OlderStart))), "{dialled:?}");

    drop((kept, kept_too));
    assert!(meet(&restarted, b.clone()).await.1.is_ok());
    let (dialled, _) = meet(&copy, b.clone()).await;
    assert!(matches!(dialled, Err(GreetError::Refused(HelloRefusal::DuplicateNode))), "{dialled:?}");
    // Once nobody holds the id, a renewed key is as good as any: the CA signed it.
    let renewed = greeter(1, "test", &[1, 5, 8, 9], ca.tls("test"));
    assert!(meet(&renewed, b).await.1.is_ok());
}

#[tokio::test]
async fn boots_that_no_node_can_have_are_not_believed() {
    let b = greeter(2, "test", &[2], PeerTls::insecure());
    for (count, recent) in [(u64::MAX, vec![7; 64]), (1 << 32, vec![7; 64]), (0, vec![]), (5, vec![]), (2, vec![1])] {
        let identity = Identity {
            cluster: "test".into(),
            info: info(1, "127.0.0.1:1"),
            boot: BootChain { count, recent: recent.clone() },
        };
        let stranger = Greeter::new(identity, PeerTls::insecure());
        let (dialled, accepted) = meet(&stranger, b.clone()).await;
        assert!(
            matches!(dialled, Err(GreetError::Refused(HelloRefusal::Malformed))),
            "{count} {recent:?}: {dialled:?}"
        );
        assert!(accepted.is_err());
        let (dialled, _) = meet(&b, stranger).await;
        assert!(matches!(dialled, Err(GreetError::Refuses(HelloRefusal::Malformed))), "{dialled:?}");
    }
    let (dialled, _) = meet(&greeter(1, "test", &[1, 5], PeerTls::insecure()), b).await;
    assert!(dialled.is_ok(), "nothing is held against the real one: {dialled:?}");
}
