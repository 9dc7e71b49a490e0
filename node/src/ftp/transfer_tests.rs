//! Transfers over files in a map: whole ones, cut ones, stopped ones, and the control connection beside them.

use super::testing::{Client, Front, LONG, plain};
use socket2::SockRef;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Bytes that no buffer holds at once.
fn large() -> Vec<u8> {
    (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test]
async fn bytes_come_back_as_they_went_plain_and_with_tls() {
    let front = Front::start(plain).await;
    for tls in [false, true] {
        let mut client = front.login("ana", tls).await;
        for bytes in [vec![], b"x".to_vec(), large()] {
            let (code, text) = client.store("f", &bytes, tls).await;
            assert_eq!(code, 226, "{text}");
            assert!(text.contains("3 copies"), "{text}");
            assert!(client.fetch("RETR f", tls).await == bytes);
        }
        client.expect("REST 4999990", 350).await;
        assert_eq!(client.fetch("RETR f", tls).await, &large()[4_999_990..]);
        client.expect("REST 5000001", 350).await;
        client.expect("EPSV", 229).await;
        client.expect("RETR f", 554).await;
    }
}

#[tokio::test]
async fn bytes_go_to_the_end_of_what_is_there_or_to_where_rest_says() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    for (file, rest, command, there) in [
        (None, None, "APPE f", "bytes"),
        (Some("some "), None, "APPE f", "some bytes"),
        (Some("some of"), Some(5), "STOR f", "some bytes"),
        (Some("some "), Some(5), "STOR f", "some bytes"),
        (Some("some "), Some(0), "STOR f", "bytes"),
    ] {
        let _ = client.command("DELE f").await;
        if let Some(file) = file {
            front.memory.put("/f", Some(file.as_bytes()));
        }
        if let Some(rest) = rest {
            client.expect(&format!("REST {rest}"), 350).await;
        }
        assert_eq!(client.give(command, b"bytes", false).await.1.0, 226, "{command} {rest:?}");
        assert_eq!(front.memory.file("/f").as_deref(), Some(there.as_bytes()), "{command} {rest:?}");
    }
    front.memory.put("/d", None);
    for (rest, command, code) in [(6, "STOR f", 554), (1, "STOR none", 554), (1, "STOR d", 550), (1, "APPE f", 504)] {
        client.expect(&format!("REST {rest}"), 350).await;
        client.expect(command, code).await;
    }
    client.expect("APPE d", 550).await;
    client.expect("REST 1", 350).await;
    client.expect("TYPE A", 200).await;
    client.expect("STOR f", 504).await;
}

#[tokio::test]
async fn unique_names_are_said_and_are_unique() {
    let front = Front::start(plain).await;
    let mut client = front.login("leo", false).await;
    let mut names = vec![];
    for (command, begins) in [("STOU", "/file."), ("STOU", "/file."), ("STOU a b", "/a b.")] {
        let (begun, (code, _)) = client.give(command, b"x", false).await;
        let name = begun.strip_prefix("150 FILE: ").unwrap_or_else(|| panic!("{begun}")).to_owned();
        assert!(code == 226 && name.starts_with(begins), "{name}");
        assert_eq!(front.memory.file(&format!("/leo{name}")).as_deref(), Some(&b"x"[..]));
        assert!(!names.contains(&name));
        names.push(name);
    }
}

#[tokio::test]
async fn texts_are_converted_in_type_a() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    client.expect("TYPE A", 200).await;
    assert_eq!(client.store("t", b"a\r\nb\rc\r\n", false).await.0, 226);
    assert_eq!(front.memory.file("/t").as_deref(), Some(&b"a\nb\rc\n"[..]));
    assert_eq!(client.fetch("RETR t", false).await, b"a\r\nb\rc\r\n");
}

async fn cut(client: &mut Client) {
    client.replies(&[426]).await;
    client.expect("NOOP", 200).await;
}

#[tokio::test]
async fn a_cut_upload_leaves_the_old_version() {
    let front = Front::start(plain).await;
    front.memory.put("/f", Some(b"old"));

    let mut client = front.login("ana", false).await;
    let mut data = client.data().await;
    client.expect("STOR f", 150).await;
    data.write_all(b"half").await.unwrap();
    SockRef::from(&data).set_linger(Some(Duration::ZERO)).unwrap();
    drop(data);
    cut(&mut client).await;

    // With TLS, a FIN without close_notify is as bad as a reset.
    let mut client = front.login("ana", true).await;
    let data = client.data().await;
    client.expect("STOR f", 150).await;
    let mut data = client.secure_data(data).await;
    data.write_all(b"half").await.unwrap();
    data.flush().await.unwrap();
    let (mut tcp, _) = data.into_inner();
    tcp.shutdown().await.unwrap();
    cut(&mut client).await;
    assert_eq!(front.memory.file("/f").as_deref(), Some(&b"old"[..]));
}

#[tokio::test]
async fn a_data_connection_that_never_comes_or_stalls_or_speaks_no_tls_ends_only_its_transfer() {
    let front = Front::start(|config| {
        plain(config);
        config.accept_timeout = Duration::from_millis(200);
        config.stall_timeout = Duration::from_millis(200);
    })
    .await;
    front.memory.put("/f", Some(b"old"));
    let mut client = front.login("ana", true).await;
    client.expect("EPSV", 229).await;
    client.expect("STOR f", 150).await;
    client.replies(&[425]).await;

    let mut data = client.data().await;
    client.expect("STOR f", 150).await;
    data.write_all(b"this is no TLS at all").await.unwrap();
    client.replies(&[522]).await;

    let data = client.data().await;
    client.expect("STOR f", 150).await;
    let _stalls = client.secure_data(data).await;
    cut(&mut client).await;
    assert_eq!(front.memory.file("/f").as_deref(), Some(&b"old"[..]));
}

#[tokio::test]
async fn the_control_connection_is_read_during_transfers() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    let mut data = client.data().await;
    client.expect("STOR f", 150).await;
    data.write_all(b"12345").await.unwrap();
    let deadline = tokio::time::Instant::now() + LONG;
    while !client.expect("STAT", 211).await.contains("5 bytes") {
        assert!(tokio::time::Instant::now() < deadline);
    }
    client.expect("NOOP", 200).await;
    client.send(b"PWD\r\nNOOP\r\nQUIT\r\n").await;
    drop(data);
    client.replies(&[226, 257, 200, 221, 0]).await;
    assert_eq!(front.memory.file("/f").as_deref(), Some(&b"12345"[..]));
}

#[tokio::test]
async fn more_commands_than_can_wait_end_the_session_and_its_transfer() {
    let front = Front::start(plain).await;
    front.memory.put("/f", Some(b"old"));
    let mut client = front.login("ana", false).await;
    let mut data = client.data().await;
    client.expect("STOR f", 150).await;
    data.write_all(b"half").await.unwrap();
    client.send(&b"PWD\r\n".repeat(16)).await;
    client.expect("STAT", 211).await;
    client.expect("PWD", 421).await;
    client.replies(&[0]).await;
    drop(data);
    assert_eq!(front.memory.file("/f").as_deref(), Some(&b"old"[..]));
}

#[tokio::test]
async fn abor_stops_transfers_both_ways() {
    let front = Front::start(plain).await;
    front.memory.put("/f", Some(b"old"));
    front.memory.put("/large", Some(&vec![7; 64 * 1024 * 1024]));
    for tls in [false, true] {
        let mut client = front.login("ana", tls).await;
        client.expect("ABOR", 226).await;
        let data = client.data().await;
        client.expect("STOR f", 150).await;
        // Interrupt Process and Synch first, as ftp(1) and lftp do.
        client.send(b"\xff\xf4\xff\xf2ABOR\r\n").await;
        client.replies(&[426, 226]).await;
        drop(data);

        let data = client.data().await;
        client.expect("RETR large", 150).await;
        let mut bytes = vec![0; 100_000];
        if tls {
            let mut data = client.secure_data(data).await;
            timeout(LONG, data.read_exact(&mut bytes)).await.unwrap().unwrap();
            client.expect("ABOR", 426).await;
            // No close_notify: a client can tell that it is not the whole file.
            assert!(timeout(LONG, data.read_to_end(&mut bytes)).await.unwrap().is_err());
        } else {
            let mut data = data;
            timeout(LONG, data.read_exact(&mut bytes)).await.unwrap().unwrap();
            client.expect("ABOR", 426).await;
        }
        client.replies(&[226]).await;
        assert_eq!(client.fetch("RETR f", tls).await, b"old");
    }
}

#[tokio::test]
async fn abor_after_the_last_byte_of_an_upload_waits_for_its_outcome() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    front.memory.commits.forget_permits(1000);
    let mut data = client.data().await;
    client.expect("STOR f", 150).await;
    data.write_all(b"new").await.unwrap();
    data.shutdown().await.unwrap();
    // The server ends its side once it has seen the end of ours: then ABOR is too late.
    assert_eq!(timeout(LONG, data.read(&mut [0])).await.unwrap().unwrap(), 0);
    client.send(b"PWD\r\nABOR\r\nABOR\r\n").await;
    client.expect("STAT", 211).await;
    front.memory.commits.add_permits(1);
    client.replies(&[226, 257, 226, 226]).await;
    client.expect("NOOP", 200).await;
    assert_eq!(front.memory.file("/f").as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_upload_along() {
    let front = Front::start(plain).await;
    front.memory.put("/f", Some(b"old"));
    let mut client = front.login("ana", false).await;
    let mut data = client.data().await;
    client.expect("STOR f", 150).await;
    data.write_all(b"half").await.unwrap();
    drop(client);
    let ended = timeout(LONG, data.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    assert_eq!(front.memory.file("/f").as_deref(), Some(&b"old"[..]));
}

#[tokio::test]
async fn strangers_are_turned_away_from_passive_ports() {
    let front = Front::start(plain).await;
    front.memory.put("/f", Some(b"mine"));
    let mut client = front.login("ana", false).await;
    let text = client.expect("PASV", 227).await;
    let numbers: Vec<u16> =
        text[text.find('(').unwrap() + 1..text.find(')').unwrap()].split(',').map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers[..4], [127, 0, 0, 1]);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], numbers[4] * 256 + numbers[5]));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stranger = socket.connect(address).await.unwrap();
    let mut data = TcpStream::connect(address).await.unwrap();
    client.expect("RETR f", 150).await;
    let mut bytes = vec![];
    timeout(LONG, data.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(bytes, b"mine");
    client.replies(&[226]).await;
    let mut nothing = vec![];
    let _ = timeout(LONG, stranger.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn passive_ports_stay_in_their_range_and_are_released() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let front = Front::start(|config| {
        plain(config);
        config.passive_ports = Some(free..=free);
    })
    .await;
    let mut first = front.login("ana", false).await;
    assert!(first.expect("EPSV", 229).await.contains(&format!("|||{free}|")));
    let mut second = front.login("ana", false).await;
    second.expect("EPSV", 425).await;
    for _ in 0..3 {
        assert_eq!(first.store("f", b"x", false).await.0, 226);
    }
    second.expect("EPSV", 229).await;
}
