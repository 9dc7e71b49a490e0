//! How a front ends: who is turned away, who may finish, who is cut; and what of all this is counted.

use super::testing::{Client, Front, LONG, plain};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// For what must not take as long as the drain.
const SOON: Duration = Duration::from_secs(10);

/// Never cancelled.
fn never() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test]
async fn a_stop_ends_idle_sessions_and_lets_transfers_finish() {
    let front = Front::start(plain).await;
    let mut idle = front.login("ana", false).await;
    let mut busy = front.login("ana", false).await;
    let mut data = busy.data().await;
    busy.expect("STOR f", 150).await;
    let (memory, tasks, never) = (front.memory.clone(), front.tasks, never());
    let finish = async {
        idle.replies(&[421, 0]).await;
        data.write_all(b"late").await.unwrap();
        drop(data);
        busy.replies(&[226, 421, 0]).await;
    };
    tokio::join!(tasks.stop(LONG, &never), finish);
    assert_eq!(memory.file("/f").as_deref(), Some(&b"late"[..]));
}

#[tokio::test]
async fn from_a_stop_on_new_clients_are_told_421_until_the_last_session_ends() {
    let front = Front::start(plain).await;
    let mut busy = front.login("ana", false).await;
    let mut data = busy.data().await;
    busy.expect("STOR f", 150).await;
    let mut idle = front.login("ana", false).await;
    let Front { address, meter, tasks, connector, .. } = front;
    let never = never();
    let clients = async {
        idle.replies(&[421, 0]).await;
        for _ in 0..3 {
            let mut late = Client::over(TcpStream::connect(address).await.unwrap(), &connector);
            let (code, text) = late.reply().await;
            assert!(code == 421 && text.contains("shutting down"), "{text}");
            late.replies(&[0]).await;
        }
        data.write_all(b"late").await.unwrap();
        drop(data);
        busy.replies(&[226, 421, 0]).await;
    };
    tokio::join!(tasks.stop(LONG, &never), clients);
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed in the end");
    assert!(meter.shows("trebol_sessions_refused_total{reason=\"stopping\"} 3"));
    assert!(meter.shows("trebol_sessions_open 0"));
}

#[tokio::test]
async fn commands_that_wait_behind_a_transfer_are_not_begun_after_a_stop() {
    let front = Front::start(plain).await;
    front.memory.put("/kept", Some(b"as it was"));
    let mut busy = front.login("ana", false).await;
    let mut data = busy.data().await;
    busy.expect("STOR f", 150).await;
    busy.send(b"DELE kept\r\nSTAT\r\n").await;
    // STAT is answered during the transfer: what came before it waits by now.
    busy.replies(&[211]).await;
    let mut idle = front.login("ana", false).await;
    let (memory, tasks, never) = (front.memory.clone(), front.tasks, never());
    let finish = async {
        idle.replies(&[421, 0]).await;
        data.shutdown().await.unwrap();
        busy.replies(&[226, 421, 0]).await;
    };
    tokio::join!(tasks.stop(LONG, &never), finish);
    assert!(memory.file("/kept").is_some());
}

#[tokio::test]
async fn what_has_not_ended_in_time_is_cut_and_told_so() {
    for by_word in [false, true] {
        let front = Front::start(plain).await;
        let mut busy = front.login("ana", false).await;
        let mut data = busy.data().await;
        busy.expect("STOR f", 150).await;
        data.write_all(b"half").await.unwrap();
        let (memory, meter, tasks) = (front.memory.clone(), front.meter.clone(), front.tasks);
        let now = CancellationToken::new();
        if by_word {
            now.cancel();
        }
        let drain = if by_word { LONG } else { Duration::from_millis(100) };
        let (stopped, ()) = tokio::join!(timeout(SOON, tasks.stop(drain, &now)), busy.replies(&[421, 0]));
        stopped.expect("nothing more is waited for");
        assert!(memory.file("/f").is_none(), "half a file shows");
        assert!(meter.shows("trebol_transfers_open{direction=\"in\"} 0"));
    }
}

#[tokio::test]
async fn a_handshake_that_stands_still_is_not_waited_for() {
    let front = Front::start(|_| {}).await;
    let mut half = front.connect().await;
    half.expect("AUTH TLS", 234).await;
    timeout(SOON, front.tasks.stop(LONG, &never())).await.expect("it is no transfer");
}

#[tokio::test]
async fn sessions_transfers_and_bytes_are_counted_and_who_says_nothing_is_no_session() {
    let front = Front::start(plain).await;
    let meter = &front.meter;
    // As a health check does.
    drop(front.connect().await);
    let mut client = front.login("ana", false).await;
    assert!(meter.shows("trebol_sessions_total 1"));
    assert_eq!(client.store("f", b"12345", false).await.0, 226);
    assert_eq!(client.fetch("RETR f", false).await, b"12345");
    client.expect("EPSV", 229).await;
    client.expect("RETR missing", 550).await;
    // A listing is no transfer of a file.
    client.fetch("NLST", false).await;
    for line in [
        "trebol_transfers_total{verb=\"STOR\",result=\"done\"} 1",
        "trebol_transfers_total{verb=\"RETR\",result=\"done\"} 1",
        "trebol_transfers_total{verb=\"RETR\",result=\"failed\"} 1",
        "trebol_transfer_bytes_total{direction=\"in\"} 5",
        "trebol_transfer_bytes_total{direction=\"out\"} 5",
        "trebol_transfer_duration_seconds_count{verb=\"STOR\"} 1",
        "trebol_transfer_duration_seconds_count{verb=\"RETR\"} 1",
        "trebol_transfers_open{direction=\"out\"} 0",
    ] {
        assert!(meter.shows(line), "no {line}");
    }
}
