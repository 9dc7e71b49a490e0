//! Nodes of the cluster, by their certificates, that do not behave: what they send is refused, one clear line in the log
//! of whoever they spoke to says so however often they try, and the cluster goes on.

use crate::clients::Running;
use crate::cluster::{Cluster, START, TREBOL};
use crate::strangers::{cluster_name, encrypted, peer_ports, said};
use crate::verify::{Surplus, all_whole};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use node::cluster::PROTOCOL;
use node::cluster::{Epoch, Marks, Message};
use node::peer::{FRAME_MAX, encode};
use node::pki::Issued;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("bad_peers::garbage_and_forged_epochs_change_nothing", &[], garbage),
    ("bad_peers::what_breaks_the_rules_of_the_raw_port_stores_nothing", &[], raw_garbage),
    ("bad_peers::a_copied_data_directory_is_refused", &[], copied_directory),
    ("bad_peers::a_clock_a_day_ahead_neither_leads_nor_harms", &[], clock_ahead),
];

/// How often a bad peer tries.
const TRIES: usize = 3;
/// A counter that no cluster comes to.
const ABSURD: u64 = 1 << 60;

/// A dead node's certificate and papers, in our hands.
struct Impostor {
    files: Issued,
    address: SocketAddr,
    hello: Value,
}

impl Impostor {
    /// Kills the node and takes what it spoke with, to speak to node 0.
    fn of(cluster: &mut Cluster, node: usize) -> Outcome<Self> {
        let status = cluster.settle()?;
        let listener = cluster.status(0)?;
        cluster.kill(node)?;
        let (data, name) = (cluster.nodes[node].data.clone(), cluster.nodes[node].name.clone());
        let pki = cluster.ca.parent().ok_or("no directory of certificates")?;
        let files =
            Issued { certificate: pki.join(format!("{name}-peer.pem")), key: pki.join(format!("{name}-peer.key")) };
        let members = status["members"].as_array().ok_or("no members")?;
        let info = members.iter().map(|member| &member["info"]).find(|info| info["name"] == *name);
        let identity: Value = serde_json::from_slice(&fs::read(data.join("identity.json"))?)?;
        let hello = json!({
            "protocol": PROTOCOL,
            "cluster": cluster_name(cluster)?,
            "port": "rpc",
            "info": info.ok_or("no such member")?,
            "boot": identity["boots"],
        });
        let [(_, address), _] = peer_ports(&listener)?;
        Ok(Self { files, address, hello })
    }

    /// Says these bytes in place of a Hello, and hears the answer to its end.
    fn opens_with(&self, bytes: &[u8]) -> Outcome<Vec<u8>> {
        said(encrypted(self.address, Some(&self.files))?, bytes)
    }

    /// The Hello with something else in one field.
    fn hello_with(&self, field: &str, value: Value) -> Outcome<Vec<u8>> {
        let mut hello = self.hello.clone();
        hello[field] = value;
        frame(&hello)
    }

    /// Says Hello, is welcome, says these bytes, and hears an answer that contains `expected`, or none when that is empty.
    fn asks(&self, words: &[&[u8]], expected: &str) -> Outcome {
        let mut wire = encrypted(self.address, Some(&self.files))?;
        wire.write_all(&frame(&self.hello)?)?;
        let mut length = [0; 4];
        wire.read_exact(&mut length)?;
        let mut welcome = vec![0; u32::from_be_bytes(length).try_into()?];
        wire.read_exact(&mut welcome)?;
        // It may be refused before all of it is said.
        let spoke = words.iter().try_for_each(|part| wire.write_all(part)).and_then(|()| wire.flush());
        if spoke.is_ok() {
            wire.conn.send_close_notify();
            let _ = wire.flush();
        }
        let got = said(wire, b"")?;
        let text = String::from_utf8_lossy(&got).into_owned();
        ensure(if expected.is_empty() { got.is_empty() } else { text.contains(expected) }, || {
            format!(
                "{:?}… was answered {text:?}, not {expected:?}",
                String::from_utf8_lossy(&words[0][5..40.min(words[0].len())])
            )
        })
    }

    /// Says Hello, is welcome, and says these bytes; hears nothing but the end, if there is one.
    fn goes_on_with(&self, bytes: &[u8], ends: bool) -> Outcome {
        let mut wire = encrypted(self.address, Some(&self.files))?;
        wire.write_all(&frame(&self.hello)?)?;
        let mut length = [0; 4];
        wire.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length).try_into()?];
        wire.read_exact(&mut answer)?;
        ensure(answer[1..].starts_with(br#"{"welcome""#), || String::from_utf8_lossy(&answer).into_owned())?;
        if ends {
            let got = said(wire, bytes)?;
            return ensure(got.is_empty(), || format!("answered with {} bytes", got.len()));
        }
        wire.write_all(bytes)?;
        Ok(wire.flush()?)
    }
}

fn frame(value: &Value) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes)?;
    Ok(bytes)
}

fn packet(message: Message) -> Outcome<Vec<u8>> {
    frame(&json!({ "message": message }))
}

fn garbage() -> Outcome {
    Cluster::run(&[], |cluster| {
        let victim = cluster.leader(None)?;
        ensure(victim != 0, || "node 0 leads: it has the lowest address".to_owned())?;
        let impostor = Impostor::of(cluster, victim)?;
        let too_long = u32::try_from(FRAME_MAX + 1)?.to_be_bytes();
        let epoch = |status: &Value| status["epoch"][0].as_u64().ok_or_else(|| format!("no epoch: {status}"));
        for _ in 0..TRIES {
            impostor.opens_with(b"GET / HTTP/1.1\r\n\r\n")?;
            let refusal = impostor.opens_with(&impostor.hello_with("protocol", json!(PROTOCOL + 1))?)?;
            let newer = format!(r#"{{"refused":{{"reason":"newer_protocol","ours":{PROTOCOL}}}}}"#);
            ensure(refusal.get(5..) == Some(newer.as_bytes()), || format!("a newer protocol got {refusal:?}"))?;
            impostor.opens_with(&impostor.hello_with("cluster", json!("other"))?)?;
            impostor.goes_on_with(&too_long, true)?;
            impostor.goes_on_with(b"\x00\x00\x00\x08\x01garbage", true)?;
            for counter in [ABSURD, u64::MAX] {
                let (epoch, marks) = (Epoch(counter, 7), Marks::of(Epoch(counter, 7), 9));
                impostor.goes_on_with(&packet(Message::Collect { epoch, marks: marks.clone() })?, false)?;
                impostor.goes_on_with(&packet(Message::Coordinator { epoch, members: vec![] })?, false)?;
                impostor.goes_on_with(&packet(Message::Pull { marks, collecting: Some(epoch) })?, false)?;
            }
            // An old epoch is what every late message has: it is refused without a line.
            let (epoch, marks) = (Epoch(0, 1), Marks::default());
            impostor.goes_on_with(&packet(Message::Collect { epoch, marks })?, false)?;
        }
        let lines = [
            ("no Hello: frame of", 1),
            ("its protocol is newer than version", 1),
            ("it belongs to another cluster", 1),
            ("peer's connection closed", 1),
            ("a peer names an epoch that no cluster can have come to", 1),
        ];
        each_said_so(cluster, &lines)?;
        serves(cluster, 0)?;
        each_said_so(cluster, &lines)?;
        let counter = epoch(&cluster.status(0)?)?;
        ensure(counter < 100, || format!("the cluster is in epoch {counter}"))
    })
}

/// A blob's name that nobody has.
fn nobodys(op: u8) -> Value {
    json!({ "op": format!("{op:032x}"), "token": { "epoch": [1, 7], "n": 1 } })
}

/// A body as the raw port wants it: one chunk, its end, and a hash.
fn body(bytes: &[u8], hash: &[u8; 32]) -> Outcome<Vec<u8>> {
    let length = u32::try_from(bytes.len())?.to_be_bytes();
    Ok([&length[..], bytes, &[0; 4], hash].concat())
}

/// Less and more than announced, other bytes than their hash says, what is not there, and what is no request: each is
/// refused, told of once, and leaves nothing.
fn raw_garbage() -> Outcome {
    Cluster::run(&[], |cluster| {
        let reply = cluster.session(0)?.put("/before", &vec![7; 400_000])?;
        ensure(reply.code == 226, || reply.text)?;
        let mut impostor = Impostor::of(cluster, 4)?;
        let [_, (_, address)] = peer_ports(&cluster.status(0)?)?;
        (impostor.address, impostor.hello["port"]) = (address, json!("raw"));
        let before = blobs_of(cluster, 0)?;
        let (bytes, right) = (vec![1; 5000], *blake3::hash(&vec![1; 5000]).as_bytes());
        let small = |op| frame(&json!({ "put_small": { "blob": nobodys(op) } }));
        let large = |op| frame(&json!({ "put_large": { "blob": nobodys(op) } }));
        for _ in 0..TRIES {
            impostor.asks(&[&small(1)?, &body(&bytes, &[9; 32])?], r#"{"failed":"damaged"}"#)?;
            impostor.asks(&[&large(2)?, &body(&bytes, &[9; 32])?], r#"{"failed":"damaged"}"#)?;
            // Announced as 5,000 bytes, and cut.
            impostor.asks(&[&large(3)?, &body(&bytes, &right)?[..3000]], r#""ready""#)?;
            impostor.asks(&[&small(4)?, &body(&bytes, &right)?[..3000]], "")?;
            // More than a chunk may be, and more than a small file may be.
            impostor.asks(&[&small(5)?, &u32::MAX.to_be_bytes()], "")?;
            let too_much = [vec![0, 2, 0, 0], vec![1; 2 << 16], vec![0, 2, 0, 0], vec![1; 2 << 16]].concat();
            impostor.asks(&[&small(6)?, &too_much, &too_much, &too_much], "")?;
            let get = json!({ "get": { "blob": nobodys(7), "offset": 0, "length": 5 } });
            impostor.asks(&[&frame(&get)?], r#"{"failed":"not_here"}"#)?;
            impostor.asks(&[&frame(&json!({ "put_nothing": {} }))?], "")?;
            impostor.asks(&[b"GET / HTTP/1.1\r\n\r\n"], "")?;
        }
        let lines = [
            ("peer's connection closed", 1),
            ("the bytes are not those of the hash", 1),
            (": closed in the middle", 1),
            ("it does not have these bytes", 1),
            // One for each of these kinds, and none besides.
            ("a peer broke off", 1),
            ("a peer's request failed", 2),
        ];
        each_said_so(cluster, &lines)?;
        let staged = fs::read_dir(cluster.nodes[0].data.join("staging"))?.count();
        ensure(staged == 0 && blobs_of(cluster, 0)? == before, || format!("{staged} files staged, or a blob more"))?;
        serves(cluster, 0)?;
        cluster.restart(4)?;
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::AfterDeath)?;
        ensure(kept.len() == 2, || format!("{kept:?}"))
    })
}

/// The names of a node's blob files.
fn blobs_of(cluster: &Cluster, node: usize) -> Outcome<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for directory in fs::read_dir(cluster.nodes[node].data.join("blobs"))? {
        for file in fs::read_dir(directory?.path())? {
            names.insert(file?.file_name());
        }
    }
    Ok(names)
}

fn copied_directory() -> Outcome {
    Cluster::run(&[], |cluster| {
        let original = 2;
        cluster.settle()?;
        cluster.terminate(original)?;
        let (scratch, data) = (cluster.scratch("copy")?, cluster.nodes[original].data.clone());
        copy(&data, &scratch.join("data"))?;
        cluster.restart(original)?;
        cluster.settle()?;
        let log = scratch.join("log");
        let _copy = Running::start_logged(
            Command::new(TREBOL)
                .args(["serve", "--ftp-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"])
                .args(["--peer-raw-listen", "127.0.0.1:0", "--name", "copy", "--data"])
                .arg(scratch.join("data"))
                .arg("--config")
                .arg(cluster.settings(original)?),
            File::create(&log)?,
        )?;
        let sentence = "another node goes by its id: its data directory is a copy";
        // All five are called, the original too.
        each_said_so(cluster, &[(sentence, 5)])?;
        serves(cluster, original)?;
        each_said_so(cluster, &[(sentence, 5)])?;
        let status = cluster.settle()?;
        let names: Vec<_> = status["members"].as_array().into_iter().flatten().map(|m| &m["info"]["name"]).collect();
        ensure(names.len() == 5 && !names.contains(&&json!("copy")), || format!("members are {names:?}"))?;
        let log = fs::read_to_string(log)?;
        ensure(log.matches(sentence).count() == 1, || format!("the copy said:\n{log}"))
    })
}

fn clock_ahead() -> Outcome {
    Cluster::run(&[], |cluster| {
        let ahead = cluster.leader(None)?;
        cluster.terminate(ahead)?;
        cluster.restart_with(ahead, &[("TREBOL_CLOCK_OFFSET_MS", "86400000")])?;
        let line = [("this node's clock is ahead of its peers'", 1)];
        each_said_so(cluster, &line)?;
        let status = cluster.settle()?;
        let members = status["members"].as_array().ok_or("no members")?;
        let of = |member: &Value| member["clock_ahead"].as_u64().unwrap_or_default();
        let day = 86_400_000_000;
        ensure(of(&members[ahead]).abs_diff(day) < 60_000_000, || format!("{}", members[ahead]))?;
        ensure(members.iter().filter(|member| of(member) > 0).count() == 1, || format!("{status}"))?;
        // It has the highest address, and would lead.
        let leader = cluster.leader(None)?;
        ensure(leader != ahead, || "the node whose clock is a day ahead leads".to_owned())?;
        serves(cluster, ahead)?;
        each_said_so(cluster, &line)
    })
}

/// Waits until each sentence is in the log of all nodes so often, and fails if one is there more often.
fn each_said_so(cluster: &Cluster, sentences: &[(&str, usize)]) -> Outcome {
    for (sentence, expected) in sentences {
        let said = wait_for("a line in the log", START, || {
            let log = cluster.log()?;
            let said = log.lines().filter(|line| line.contains(sentence)).count();
            ensure(said >= *expected, || format!("{said} times {sentence:?}"))?;
            Ok(said)
        })?;
        ensure(said == *expected, || format!("{said} lines say {sentence:?}, {expected} should"))?;
    }
    Ok(())
}

/// A file goes in at one node and comes out at another.
fn serves(cluster: &Cluster, node: usize) -> Outcome {
    let reply = cluster.session(node)?.put("/after", b"as before")?;
    ensure(reply.code == 226, || reply.text)?;
    let bytes = cluster.session(1)?.get("/after")?;
    ensure(bytes == b"as before", || format!("/after has {} other bytes", bytes.len()))
}

/// A directory with everything below it that is a file; sockets are not.
fn copy(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
