//! Sessions over files in a map: rules of login, encryption, names and listings.

use super::testing::{Front, LONG, plain};
use crate::cluster::Refusal;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn nothing_works_in_clear_text_where_tls_is_required() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    client.expect("USER ana", 530).await;
    client.expect("PASV", 530).await;
    client.expect("PBSZ 0", 503).await;
    let mut client = client.secure().await;
    client.expect("AUTH TLS", 503).await;
    client.expect("PROT P", 503).await;
    client.expect("USER ana", 331).await;
    client.expect("PASS clave", 230).await;
    for line in ["PASV", "EPSV", "STOR a", "LIST"] {
        client.expect(line, 521).await;
    }
    client.expect("PBSZ 0", 200).await;
    client.expect("PROT C", 534).await;
    client.expect("PROT P", 200).await;
    client.expect("EPSV", 229).await;
    // It would have to end TLS.
    client.expect("REIN", 502).await;
    client.expect("PWD", 257).await;
}

#[tokio::test]
async fn clear_text_behind_auth_is_refused() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    client.send(b"AUTH TLS\r\nUSER ana\r\n").await;
    client.replies(&[503, 0]).await;
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_are_answered_alike_and_the_third_closes() {
    let front = Front::start(plain).await;
    let mut answers = vec![];
    for user in ["ana", "nobody"] {
        let mut client = front.connect().await;
        client.expect("PASS x", 503).await;
        for _ in 0..2 {
            client.expect(&format!("USER {user}"), 331).await;
            answers.push(client.expect("PASS wrong", 530).await);
        }
        client.expect("USER ana", 331).await;
        client.expect("PASS wrong", 421).await;
        client.replies(&[0]).await;
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn an_address_that_goes_on_guessing_is_banned() {
    let front = Front::start(|config| {
        plain(config);
        config.max_failed_logins = 2;
    })
    .await;
    let mut client = front.connect().await;
    for _ in 0..2 {
        client.expect("USER ana", 331).await;
        client.expect("PASS wrong", 530).await;
    }
    client.expect("USER ana", 331).await;
    client.expect("PASS clave", 421).await;
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_told_421() {
    let front = Front::start(|config| config.max_sessions_per_address = 1).await;
    let _first = front.connect().await;
    let mut second = tokio::net::TcpStream::connect(front.address).await.unwrap();
    let mut text = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut second, &mut text);
    tokio::time::timeout(LONG, read).await.unwrap().unwrap();
    assert!(text.starts_with("421 "), "{text}");
}

#[tokio::test]
async fn mistakes_get_their_codes_and_the_session_goes_on() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    client.send(&[&[b'a'; 5000][..], b"\r\n"].concat()).await;
    client.replies(&[500]).await;
    client.send(b"STOR \xc3\x28\r\nMKD a\0b\r\nNONSENSE\r\n").await;
    client.replies(&[501, 501, 500]).await;
    for (line, code) in [
        ("CWD ..", 550),
        ("RNTO x", 503),
        ("STOR x", 425),
        ("APPE x", 425),
        ("RETR nothing", 550),
        ("DELE nothing", 550),
        ("REST 5", 350),
        ("STOR x", 554),
        ("EPSV 2", 522),
        ("EPSV ALL", 200),
        ("PASV", 503),
        ("NOOP", 200),
    ] {
        client.expect(line, code).await;
    }
    client.expect(&format!("MKD {}", "x".repeat(256)), 553).await;
    client.expect("QUIT", 221).await;
    client.replies(&[0]).await;
}

#[tokio::test]
async fn what_the_cluster_refuses_becomes_a_code() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    for (refusal, code) in [
        (Refusal::LockWait, 450),
        (Refusal::TooFewCopies, 452),
        (Refusal::NoLeader, 451),
        (Refusal::NoParent, 550),
        (Refusal::Stalled, 426),
    ] {
        *front.memory.refusal.lock().unwrap() = Some(refusal);
        client.expect("EPSV", 229).await;
        client.expect("STOR a", code).await;
        *front.memory.refusal.lock().unwrap() = Some(refusal);
        client.expect("MKD d", code).await;
    }
    assert_eq!(front.memory.file("/a"), None);
}

#[tokio::test]
async fn a_home_is_the_root_of_its_user_and_is_made_at_the_first_login() {
    let front = Front::start(plain).await;
    front.memory.put("/secret", Some(b"x"));
    let mut client = front.login("leo", false).await;
    assert!(client.expect("PWD", 257).await.contains("\"/\""));
    client.expect("CWD ..", 550).await;
    client.expect("SIZE /secret", 550).await;
    client.expect("SIZE ../secret", 550).await;
    client.expect("RMD /", 550).await;
    assert!(client.expect("MKD a \"b", 257).await.contains("\"/a \"\"b\""));
    assert_eq!(client.store("/a \"b/f", b"hello", false).await.0, 226);
    assert_eq!(front.memory.file("/leo/a \"b/f").as_deref(), Some(&b"hello"[..]));
    let listing = String::from_utf8(client.fetch("MLSD", false).await).unwrap();
    assert!(listing.contains("type=cdir;") && !listing.contains("type=pdir;"), "{listing}");
    assert!(client.expect("MLST /a \"b/f", 250).await.contains("; /a \"b/f"));
}

#[tokio::test]
async fn who_may_only_read_changes_nothing() {
    let front = Front::start(plain).await;
    front.memory.put("/f", Some(b"x"));
    let mut client = front.login("eva", false).await;
    client.expect("EPSV", 229).await;
    for line in ["STOR f", "DELE f", "MKD d", "RMD d", "RNFR f"] {
        client.expect(line, 550).await;
    }
    assert_eq!(client.fetch("RETR f", false).await, b"x");
}

#[tokio::test]
async fn rest_is_for_one_transfer_even_if_that_is_refused() {
    let front = Front::start(plain).await;
    front.memory.put("/f", Some(b"12345"));
    let mut client = front.login("eva", false).await;
    for refused in ["STOR f", "STOR ../..", "RETR ../..", "RETR nothing"] {
        client.expect("REST 3", 350).await;
        client.expect(refused, 550).await;
        assert_eq!(client.fetch("RETR f", false).await, b"12345", "{refused}");
    }
}

#[tokio::test]
async fn listings_take_flags_and_globs_and_go_over_pages() {
    let front = Front::start(plain).await;
    front.memory.put("/d", None);
    front.memory.put("/d/sub", None);
    for n in 0..1300 {
        front.memory.put(&format!("/d/f {n:04}"), Some(b"12345"));
    }
    let mut client = front.login("ana", false).await;
    let lines = |bytes: Vec<u8>| -> Vec<String> {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.is_empty() || text.ends_with("\r\n"));
        text.split_terminator("\r\n").map(str::to_owned).collect()
    };
    let long = lines(client.fetch("LIST -la /d", false).await);
    assert_eq!(long.len(), 1301);
    assert!(long[0].starts_with("-rw") && long[0].ends_with(" f 0000") && long[1300].starts_with('d'), "{long:?}");
    assert_eq!(lines(client.fetch("NLST /d/f*99", false).await).len(), 13);
    assert_eq!(lines(client.fetch("NLST /d/none*", false).await).len(), 0);
    client.expect("CWD d", 250).await;
    assert_eq!(lines(client.fetch("NLST", false).await)[7], "f 0007");
    assert_eq!(lines(client.fetch("LIST f 0003", false).await).len(), 1);
    let facts = lines(client.fetch("MLSD", false).await);
    assert_eq!(facts.len(), 1303);
    assert!(facts[0].starts_with("type=cdir;") && facts[1].starts_with("type=pdir;"), "{:?}", &facts[..2]);
    assert_eq!(facts[2], "type=file;size=5;modify=20251124120000;perm=dfrw; f 0000");
    client.expect("EPSV", 229).await;
    client.expect("MLSD f 0003", 501).await;
    client.expect("LIST none", 550).await;
    assert!(client.expect("STAT f 000*", 213).await.lines().count() == 12);
    let more = "... and more";
    let exact = client.expect("STAT f 0*", 213).await;
    assert!(exact.lines().count() == 1002 && !exact.contains(more));
    let cut = client.expect("STAT /d", 213).await;
    assert!(cut.lines().count() == 1003 && cut.contains(more));
}

#[tokio::test]
async fn files_are_renamed_and_deleted_and_known_by_size_and_time() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    front.memory.put("/f", Some(b"12345"));
    assert_eq!(client.expect("SIZE f", 213).await, "213 5");
    assert_eq!(client.expect("MDTM f", 213).await, "213 20251124120000");
    client.expect("TYPE A", 200).await;
    client.expect("SIZE f", 550).await;
    client.expect("RNFR f", 350).await;
    client.expect("RNTO g", 250).await;
    client.expect("RNFR g", 350).await;
    client.expect("NOOP", 200).await;
    client.expect("RNTO h", 503).await;
    client.expect("DELE g", 250).await;
    assert_eq!(front.memory.file("/g"), None);
}

#[tokio::test]
async fn directories_are_renamed_with_all_that_is_in_them() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    front.memory.put("/d", None);
    front.memory.put("/d/f", Some(b"12345"));
    front.memory.put("/e", None);
    client.expect("RNFR d", 350).await;
    assert_eq!(client.expect("RNTO e/x", 250).await, "250 Renamed.");
    assert_eq!(front.memory.file("/e/x/f").as_deref(), Some(&b"12345"[..]));
    client.expect("CWD /d", 550).await;
    for (from, to, code) in [("e", "e/x/y", 553), ("e/x", "/e", 550), ("e", "/", 550)] {
        client.expect(&format!("RNFR {from}"), 350).await;
        client.expect(&format!("RNTO {to}"), code).await;
    }
    client.expect("RNFR nothing", 550).await;
    assert_eq!(client.expect("RNFR /", 550).await, "550 This is the root directory.");
    client.expect("RNTO x", 503).await;
    // A home is the root of whoever lives there.
    let mut client = front.login("leo", false).await;
    client.expect("MKD d", 257).await;
    client.expect("RNFR .", 550).await;
    client.expect("RNFR d", 350).await;
    client.expect("RNTO /", 550).await;
    assert!(client.expect("MLST d", 250).await.contains("type=dir"));
}

#[tokio::test]
async fn sessions_that_say_nothing_are_ended() {
    let front = Front::start(|config| {
        plain(config);
        config.login_timeout = Duration::from_millis(50);
        config.idle_timeout = Duration::from_millis(100);
    })
    .await;
    let mut silent = front.connect().await;
    silent.replies(&[421, 0]).await;
}

#[tokio::test]
async fn talking_does_not_put_the_time_for_the_login_off() {
    let front = Front::start(|config| {
        plain(config);
        config.login_timeout = Duration::from_millis(100);
    })
    .await;
    let (mut from, mut to) = tokio::net::TcpStream::connect(front.address).await.unwrap().into_split();
    let flood = async {
        let lines = b"NOOP\r\n".repeat(10_000);
        while to.write_all(&lines).await.is_ok() {}
    };
    let read = async {
        let mut bytes = vec![0; 64 * 1024];
        // Until the end, or the reset that unread lines cause.
        while from.read(&mut bytes).await.unwrap_or(0) > 0 {}
    };
    tokio::time::timeout(LONG, async { tokio::join!(flood, read) }).await.expect("the session ends");
}

#[tokio::test]
async fn who_logs_in_again_has_the_whole_time_for_it() {
    let login_timeout = Duration::from_millis(500);
    let front = Front::start(|config| {
        plain(config);
        config.login_timeout = login_timeout;
    })
    .await;
    let connected = tokio::time::Instant::now();
    let mut client = front.login("ana", false).await;
    // Longer than the time for a first login.
    while connected.elapsed() <= login_timeout {
        client.expect("NOOP", 200).await;
    }
    client.expect("USER ana", 331).await;
    client.expect("PASS clave", 230).await;
    client.expect("REIN", 220).await;
    client.expect("NOOP", 200).await;
    client.replies(&[421, 0]).await;
}

#[tokio::test]
async fn nothing_is_read_from_an_index_that_is_behind_its_leader() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    client.expect("SIZE f", 550).await;
    front.memory.behind.store(true, std::sync::atomic::Ordering::Relaxed);
    client.expect("SIZE f", 451).await;
    client.expect("MLST /", 451).await;
    front.memory.behind.store(false, std::sync::atomic::Ordering::Relaxed);
    client.expect("SIZE f", 550).await;
}

#[tokio::test]
async fn a_session_ends_with_the_cluster_beneath_it() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    front.memory.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
    client.expect("SIZE f", 421).await;
    client.replies(&[0]).await;
}
