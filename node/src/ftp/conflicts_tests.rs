//! Sessions in the view of conflicts, over files in a map: what is shown there, and how conflicts are settled.

use super::testing::{Client, Front, plain};

/// How the `seq`-th record is named.
fn lost(name: &str, seq: u64) -> String {
    format!("{name}.20251124T120000,{seq:06}Z-3-0000000000009f86-{seq}.unknown")
}

async fn lines(client: &mut Client, command: &str) -> Vec<String> {
    let text = String::from_utf8(client.fetch(command, false).await).unwrap();
    text.split_terminator("\r\n").map(str::to_owned).collect()
}

/// Losers of `/d/f` (two), `/d/sub/a b.txt`, `/g` and `/leo/h`.
async fn front() -> Front {
    let front = Front::start(plain).await;
    for dir in ["/d", "/d/sub", "/leo"] {
        front.memory.put(dir, None);
    }
    front.memory.put("/d/f", Some(b"won"));
    for (path, seq, bytes) in
        [("/d/f", 1, "lost"), ("/d/f", 2, "lost too"), ("/d/sub/a b.txt", 3, "x"), ("/g", 4, "y"), ("/leo/h", 5, "z")]
    {
        front.memory.lose(path, seq, bytes.as_bytes());
    }
    front
}

#[tokio::test]
async fn the_view_is_shown_while_there_is_something_in_it_and_can_always_be_entered() {
    let front = Front::start(plain).await;
    let mut client = front.login("ana", false).await;
    assert!(lines(&mut client, "NLST").await.is_empty());
    client.expect("CWD .conflicts", 250).await;
    assert!(lines(&mut client, "LIST").await.is_empty());
    client.expect("CWD sub", 550).await;
    client.expect("CDUP", 250).await;
    front.memory.lose("/g", 4, b"y");
    assert_eq!(lines(&mut client, "NLST").await, [".conflicts"]);
    assert_eq!(lines(&mut client, "NLST .conf*").await, [".conflicts"]);
    assert!(lines(&mut client, "NLST x*").await.is_empty());
    assert!(client.expect("STAT /", 213).await.contains("dr-xr-xr-x"));
    let facts = lines(&mut client, "MLSD").await;
    assert_eq!(facts[1..], ["type=dir;perm=el; .conflicts"]);
    // A user sees what is in the home only, and what a home itself lost is not in it.
    front.memory.put("/leo", None);
    front.memory.lose("/leo", 6, b"y");
    let mut leo = front.login("leo", false).await;
    assert!(lines(&mut leo, "NLST").await.is_empty());
    assert!(leo.expect("SITE CONFLICTS", 200).await.contains("No conflicts."));
    leo.expect(&format!("RETR ../.conflicts/{}", lost("g", 4)), 550).await;
}

#[tokio::test]
async fn losers_are_listed_and_read_like_files() {
    let front = front().await;
    let mut client = front.login("ana", false).await;
    client.expect("CWD /.conflicts/d", 250).await;
    let names = ["f".to_owned(), "f".to_owned()].iter().zip(1..).map(|(n, seq)| lost(n, seq)).collect::<Vec<_>>();
    assert_eq!(lines(&mut client, "NLST").await, [names.clone(), vec!["sub".to_owned()]].concat());
    let long = lines(&mut client, "LIST").await;
    assert!(long[0].starts_with("-r--r--r-- ") && long[2].starts_with("dr-xr-xr-x "), "{long:?}");
    assert_eq!(lines(&mut client, &format!("LIST {}", names[1])).await.len(), 1);
    assert_eq!(lines(&mut client, "NLST f.*2.unknown").await, names[1..]);
    let facts = lines(&mut client, "MLSD").await;
    assert_eq!(facts[..2], ["type=cdir;perm=el; .", "type=pdir;perm=el; .."]);
    assert_eq!(facts[3], format!("type=file;size=8;modify=20251124120000;perm=dfr; {}", names[1]));
    assert_eq!(client.expect(&format!("SIZE {}", names[1]), 213).await, "213 8");
    assert_eq!(client.expect(&format!("MDTM {}", names[1]), 213).await, "213 20251124120000");
    let facts = client.expect(&format!("MLST {}", names[0]), 250).await;
    assert!(facts.contains(&format!("size=4;modify=20251124120000;perm=dfr; /.conflicts/d/{}", names[0])), "{facts}");
    assert!(client.expect("MLST sub", 250).await.contains("type=dir;perm=el; /.conflicts/d/sub"));
    assert_eq!(client.fetch(&format!("RETR {}", names[1]), false).await, b"lost too");
    client.expect("REST 5", 350).await;
    assert_eq!(client.fetch(&format!("RETR {}", names[1]), false).await, b"too");
    assert_eq!(client.fetch(&format!("RETR sub/{}", lost("a b.txt", 3)), false).await, b"x");
    client.expect("EPSV", 229).await;
    // Of the file but not of it: another place, another side, zeros in front, and the name alone.
    for name in ["f".to_owned(), lost("f", 3), lost("g", 1), names[0].replace("-3-", "-03-"), names[0].clone() + "x"] {
        client.expect(&format!("RETR {name}"), 550).await;
        client.expect(&format!("SIZE {name}"), 550).await;
    }
    client.expect("RETR sub", 550).await;
    client.expect(&format!("CWD {}", names[0]), 550).await;
    // Who may only read sees what that user may do.
    let mut eva = front.login("eva", false).await;
    assert!(eva.expect(&format!("MLST /.conflicts/{}", lost("g", 4)), 250).await.contains("perm=r;"));
    for verb in ["DELE", "RNFR"] {
        eva.expect(&format!("{verb} /.conflicts/{}", lost("g", 4)), 550).await;
    }
}

#[tokio::test]
async fn names_of_any_kind_are_listed_and_read() {
    let front = front().await;
    let long = ["x".repeat(255), "x".repeat(254) + "y", "ñ".repeat(127)];
    let odd = ["-la", "it's \"so\"", " lead and trail ", "~", "*?", &lost("f", 1), &format!("x~{}", "0".repeat(32))];
    for (seq, name) in (1..).zip(long.iter().map(String::as_str).chain(odd)) {
        front.memory.lose(&format!("/leo/in/{name}"), seq, format!("bytes of {name}").as_bytes());
    }
    let mut client = front.login("leo", false).await;
    client.expect("CWD /.conflicts/in", 250).await;
    let names = lines(&mut client, "NLST").await;
    assert_eq!(names.len(), long.len() + odd.len());
    let mut read = vec![];
    for name in &names {
        assert!(name.len() <= 255, "{name}");
        let bytes = client.fetch(&format!("RETR ./{name}"), false).await;
        read.push(String::from_utf8(bytes).unwrap().strip_prefix("bytes of ").unwrap().to_owned());
    }
    read.sort();
    let mut all: Vec<String> = long.into_iter().chain(odd.map(str::to_owned)).collect();
    all.sort();
    assert_eq!(read, all);
}

#[tokio::test]
async fn nothing_is_made_in_the_view() {
    let front = front().await;
    let mut client = front.login("ana", false).await;
    let loser = format!("/.conflicts/{}", lost("g", 4));
    client.expect("EPSV", 229).await;
    for line in [
        "STOR /.conflicts/new",
        "STOR /.conflicts",
        &format!("STOR {loser}"),
        "MKD /.conflicts/new",
        "MKD /.conflicts",
        "RMD /.conflicts",
        "RMD /.conflicts/d",
        "DELE /.conflicts/d",
        "RNFR /.conflicts/d",
    ] {
        client.expect(line, 553).await;
    }
    client.expect("RNFR /d/f", 350).await;
    client.expect("RNTO /.conflicts/f", 553).await;
    client.expect("DELE /.conflicts/nothing", 550).await;
    #[cfg(not(feature = "next-protocol"))]
    client.expect("SITE CHMOD 644 /.conflicts", 504).await;
    assert_eq!(front.memory.file("/d/f").as_deref(), Some(&b"won"[..]));
}

#[tokio::test]
async fn a_loser_is_dropped_by_dele_and_brought_back_by_a_rename() {
    let front = front().await;
    let mut client = front.login("ana", false).await;
    client.expect("CWD /.conflicts/d", 250).await;
    client.expect(&format!("DELE {}", lost("f", 1)), 250).await;
    client.expect(&format!("DELE {}", lost("f", 1)), 550).await;
    assert_eq!(front.memory.file("/d/f").as_deref(), Some(&b"won"[..]), "the version that is seen stays");
    client.expect(&format!("RNFR {}", lost("f", 2)), 350).await;
    client.expect("RNTO /d/f", 250).await;
    assert_eq!(front.memory.file("/d/f").as_deref(), Some(&b"lost too"[..]));
    let mut leo = front.login("leo", false).await;
    leo.expect(&format!("RNFR /.conflicts/{}", lost("h", 5)), 350).await;
    leo.expect("RNTO i", 250).await;
    assert_eq!(front.memory.file("/leo/i").as_deref(), Some(&b"z"[..]));
    assert!(lines(&mut leo, "NLST .conf*").await.is_empty(), "the last one is settled");
}

#[tokio::test]
async fn site_conflicts_names_path_size_time_and_where_to_read_it() {
    let front = front().await;
    let mut client = front.login("ana", false).await;
    assert!(client.expect("SITE HELP", 214).await.contains("CONFLICTS"));
    let all = client.expect("site conflicts", 200).await;
    assert!(all.starts_with("200-") && all.ends_with("\n200 5 losers of conflicts."), "{all}");
    let line = |path: &str, size: u64, view: &str| {
        format!(" \"{path}\" size={size};modify=20251124120000; \"/.conflicts{view}\"")
    };
    let f = line("/d/f", 4, &format!("/d/{}", lost("f", 1)));
    assert!(all.lines().any(|l| l == f), "{all}");
    let one = client.expect("SITE CONFLICTS d/f", 200).await;
    assert_eq!((one.lines().count(), one.lines().nth(1)), (4, Some(&*f)));
    client.expect("CWD /.conflicts/d", 250).await;
    let below = client.expect("SITE CONFLICTS sub", 200).await;
    assert!(below.contains(&line("/d/sub/a b.txt", 1, &format!("/d/sub/{}", lost("a b.txt", 3)))), "{below}");
    assert!(client.expect("SITE CONFLICTS /none", 200).await.ends_with("200 No conflicts."));
    // As seen from a home.
    let mut leo = front.login("leo", false).await;
    let seen = leo.expect("SITE CONFLICTS", 200).await;
    assert!(seen.contains(&line("/h", 1, &format!("/{}", lost("h", 5)))) && seen.lines().count() == 3, "{seen}");
    leo.expect("SITE CONFLICTS ..", 550).await;
    for n in 0..1100 {
        front.memory.lose(&format!("/leo/{n}"), n, b"x");
    }
    let cut = leo.expect("SITE CONFLICTS", 200).await;
    let end = "200 1000 losers of conflicts, and 101 more that are left out: list /.conflicts.";
    assert!(cut.lines().count() == 1002 && cut.ends_with(end), "{}", cut.lines().last().unwrap());
    assert_eq!(lines(&mut leo, "NLST .conflicts").await.len(), 1101, "over pages");
}
