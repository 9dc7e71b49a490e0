//! Five nodes, one of them or some of them cut off: who can go on does, within bounds, and when all are together again
//! they agree and nothing acknowledged is missing. Times are printed.

use crate::cluster::Cluster;
use crate::control::Control;
use crate::ledger::{BEFORE, Ledger};
use crate::network::Network;
use crate::verify::{Surplus, all_whole};
use crate::wait::wait_for;
use crate::{NETWORKS, Outcome, Story, ensure};
use rustix::process::{Signal, kill_process};
use std::thread;
use std::time::Duration;
use tokio::time::Instant;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("partition::both_sides_write_and_all_of_it_is_there_after", &["ip", NETWORKS], two_and_three),
    ("partition::a_leader_alone_acknowledges_nothing", &["ip", NETWORKS], leader_alone),
    ("partition::a_cut_in_one_direction_stops_no_one_else", &["ip", NETWORKS], one_way),
    ("partition::a_node_comes_back_under_another_address", &["ip", NETWORKS], other_address),
    ("partition::a_leader_that_stood_still_says_nothing_stale", &["ip", NETWORKS], stood_still),
];

/// From the end of a cut to equal digests. The aim is 5 s.
const HEALED: Duration = Duration::from_secs(30);
/// From a cut to a new leader and its first acknowledged write.
const WRITES: Duration = Duration::from_secs(15);
/// For the leader to stand still: longer than every lease.
const STILL: Duration = Duration::from_secs(5);

fn two_and_three() -> Outcome {
    Network::run(|network, cluster| {
        let ledger = Ledger::default();
        let mut session = cluster.session(0)?;
        for path in ["/same", "/doomed-by-two", "/doomed-by-three", "/kept"] {
            ledger.put(&mut session, BEFORE, path, &content(BEFORE, path))?;
        }
        let leader = cluster.leader(None)?;
        // One side keeps the leader and loses most of the members, the other has to elect.
        let two = [leader, (leader + 1) % 5];
        let three: Vec<_> = (0..5).filter(|node| !two.contains(node)).collect();
        let cut = Instant::now();
        network.cut_off(&two)?;
        thread::scope(|scope| {
            let sides = [("two", "three", &two[..]), ("three", "two", &three)];
            let writers =
                sides.map(|(side, other, nodes)| scope.spawn(|| one_side(cluster, &ledger, cut, side, other, nodes)));
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "a writer panicked")?)
        })?;
        heal(network, cluster, "2 | 3")?;

        for node in [two[1], three[0]] {
            let lost = ledger.all_there(cluster, node)?;
            // Of three paths that both wrote one loses each; of a delete and a write, only the write can.
            ensure((3..=5).contains(&lost), || format!("{lost} writes lost a conflict"))?;
            let mut session = cluster.session(node)?;
            for directory in ["/made-by-both", "/made-by-two", "/made-by-three"] {
                session.expect(&format!("CWD {directory}"), 250)?;
            }
            let reply = session.put("/after", node.to_string().as_bytes())?;
            ensure(reply.code == 226, || reply.text)?;
        }
        all_in_all(cluster, &ledger)
    })
}

fn one_side(
    cluster: &Cluster,
    ledger: &Ledger,
    cut: Instant,
    side: &'static str,
    other: &str,
    nodes: &[usize],
) -> Outcome {
    for (number, node) in nodes.iter().enumerate() {
        let mut session = cluster.session(*node)?;
        let writer = format!("{side} {node}");
        let mut put = |path: &str| ledger.put(&mut session, side, path, &content(&writer, path));
        put("/same")?;
        if number == 0 {
            in_time(&format!("2 | 3: the first write on the side of {side}"), cut, WRITES)?;
        }
        put("/large")?;
        put(&format!("/only-{side}-{node}"))?;
    }
    let mut session = cluster.session(nodes[0])?;
    ledger.delete(&mut session, side, &format!("/doomed-by-{side}"))?;
    let path = format!("/doomed-by-{other}");
    ledger.put(&mut session, side, &path, &content(side, &path))?;
    for directory in ["/made-by-both".to_owned(), format!("/made-by-{side}")] {
        session.expect(&format!("MKD {directory}"), 257)?;
        let path = format!("{directory}/same");
        ledger.put(&mut session, side, &path, &content(side, &path))?;
    }
    let names = session.list("NLST /")?;
    ensure(!names.contains(&format!("only-{other}")), || format!("{side} sees across the cut: {names}"))
}

fn leader_alone() -> Outcome {
    Network::run(|network, cluster| {
        let ledger = Ledger::default();
        let leader = cluster.leader(None)?;
        let others: Vec<_> = (0..5).filter(|node| *node != leader).collect();
        let mut alone = cluster.session(leader)?;
        // The node that takes a file keeps a copy.
        ledger.put(&mut alone, BEFORE, "/kept", &content(BEFORE, "/kept"))?;
        let cut = Instant::now();
        network.cut_off(&[leader])?;
        thread::scope(|scope| -> Outcome {
            let writer = scope.spawn(|| -> Outcome {
                for path in ["/at-once", "/later"] {
                    let code = ledger.try_put(&mut alone, "alone", path, &content("alone", path))?;
                    ensure(code != 226, || format!("a leader alone acknowledged {path}"))?;
                    println!("leader alone: answered {code} {:.1} s after the cut", cut.elapsed().as_secs_f32());
                }
                let bytes = alone.get("/kept")?;
                ensure(bytes == content(BEFORE, "/kept"), || "/kept has other bytes on the node alone".to_owned())
            });
            for (number, node) in others.iter().enumerate() {
                let mut session = cluster.session(*node)?;
                ledger.put(&mut session, "four", &format!("/four-{node}"), &content("four", "/four"))?;
                if number == 0 {
                    in_time("leader alone: the first write of the others", cut, WRITES)?;
                }
            }
            writer.join().map_err(|_| "the writer panicked")?
        })?;
        heal(network, cluster, "leader alone")?;
        all_in_all(cluster, &ledger)
    })
}

fn one_way() -> Outcome {
    Network::run(|network, cluster| {
        let ledger = Ledger::default();
        let leader = cluster.leader(None)?;
        // The next in rank: it would take over if it took the leader for dead.
        let next = (leader + 4) % 5;
        for (what, from, to) in [("leader-to-follower", leader, next), ("follower-to-leader", next, leader)] {
            let cut = Instant::now();
            network.cut_one_way(from, to)?;
            for (number, node) in (0..5).filter(|node| ![leader, next].contains(node)).enumerate() {
                let mut session = cluster.session(node)?;
                // Twice: at first the cut may not have been noticed.
                for time in ["first", "second"] {
                    let path = format!("/{what}-{node}-{time}");
                    ledger.put(&mut session, "others", &path, &content("others", &path))?;
                }
                if number == 0 {
                    in_time(&format!("one-way cut, {what}: two writes of others"), cut, WRITES)?;
                }
            }
            wait_for("the leader to notice", WRITES, || {
                let status = cluster.status(leader)?;
                let peer = status["members"].as_array().and_then(|members| members.get(next)).ok_or("no members")?;
                ensure(peer["liveness"] != "alive", || format!("{peer}"))
            })?;
            // Two nodes that do not hear each other are no pair; who has no leader waits for one.
            let (mut leads, mut waits) = (cluster.session(leader)?, cluster.session(next)?);
            let (waiting, leading) = (format!("/{what}-waits"), format!("/{what}-leads"));
            thread::scope(|scope| -> Outcome {
                let writer = scope.spawn(|| ledger.put(&mut waits, "ends", &waiting, &content("ends", &waiting)));
                ledger.put(&mut leads, "ends", &leading, &content("ends", &leading))?;
                heal(network, cluster, &format!("one-way cut, {what}"))?;
                writer.join().map_err(|_| "the writer panicked")?
            })?;
        }
        all_in_all(cluster, &ledger)
    })
}

fn other_address() -> Outcome {
    Network::run(|network, cluster| {
        let ledger = Ledger::default();
        let leader = cluster.leader(None)?;
        let moved = (leader + 1) % 5;
        ledger.put(&mut cluster.session(moved)?, BEFORE, "/kept", &content(BEFORE, "/kept"))?;
        cluster.terminate(moved)?;
        ledger.put(&mut cluster.session(leader)?, BEFORE, "/missed", &content(BEFORE, "/missed"))?;
        cluster.nodes[moved].ftp = network.move_to(moved, 200)?;
        let started = Instant::now();
        cluster.restart(moved)?;
        let status = wait_for("all nodes to agree", HEALED, || cluster.agreed())?;
        in_time("another address: equal digests", started, HEALED)?;
        ensure(status["members"].as_array().map(Vec::len) == Some(5), || format!("{status}"))?;
        // Rank follows the address (specification 4.1), and this is the highest.
        let leads = wait_for("the highest address to lead", HEALED, || {
            let leader = cluster.leader(None)?;
            ensure(leader == moved, || format!("node {leader} leads"))
        });
        in_time("another address: it leads", started, HEALED).and(leads)?;
        ledger.put(&mut cluster.session(moved)?, BEFORE, "/later", &content(BEFORE, "/later"))?;
        all_in_all(cluster, &ledger)
    })
}

fn stood_still() -> Outcome {
    Network::run(|_, cluster| {
        let ledger = Ledger::default();
        let leader = cluster.leader(None)?;
        let other = (leader + 1) % 5;
        let mut zombie = cluster.session(leader)?;
        ledger.put(&mut zombie, BEFORE, "/changed", b"old")?;
        let pid = cluster.nodes[leader].pid;
        let stopped = Instant::now();
        kill_process(pid, Signal::STOP)?;
        // Whatever fails in between, the process must not stay as it is.
        let meanwhile = changed_meanwhile(cluster, &ledger, other, stopped, &mut zombie);
        kill_process(pid, Signal::CONT)?;
        let healed = Instant::now();
        meanwhile?;
        let (size, made) = (zombie.reply()?, zombie.reply()?);
        ensure(size.text == "213 9", || format!("after it stood still the old leader said {}", size.text))?;
        wait_for("all nodes to agree", HEALED, || cluster.agreed())?;
        in_time("leader stood still: equal digests", healed, HEALED)?;
        if made.code == 257 {
            (0..5).try_for_each(|node| cluster.session(node)?.expect("CWD /late", 250).map(drop))?;
        }
        all_in_all(cluster, &ledger)
    })
}

/// The others replace a file; only then the one that stands still is asked for it, and to make a directory.
fn changed_meanwhile(
    cluster: &Cluster,
    ledger: &Ledger,
    other: usize,
    stopped: Instant,
    zombie: &mut Control,
) -> Outcome {
    ledger.put(&mut cluster.session(other)?, BEFORE, "/changed", b"new bytes")?;
    in_time("leader stood still: the first write of the others", stopped, STILL)?;
    zombie.send(b"SIZE /changed\r\nMKD /late\r\n")?;
    let still = || ensure(stopped.elapsed() >= STILL, || "not yet".to_owned());
    wait_for("the leader to have stood still", 2 * STILL, still)
}

/// Ends a cut and waits until all nodes say the same.
fn heal(network: &Network, cluster: &Cluster, what: &str) -> Outcome {
    let healed = Instant::now();
    network.heal()?;
    wait_for("all nodes to agree", HEALED, || cluster.agreed())?;
    in_time(&format!("{what}: healed to equal digests"), healed, HEALED)
}

/// Fails unless all nodes show and keep what was acknowledged, and what was written among two gets its third copy: asked,
/// and then stopped and verified.
fn all_in_all(cluster: &mut Cluster, ledger: &Ledger) -> Outcome {
    (0..5).try_for_each(|node| ledger.all_there(cluster, node).map(drop))?;
    let asked = Instant::now();
    cluster.settle()?;
    println!("no copies missing after {:.1} s more", asked.elapsed().as_secs_f32());
    all_whole(cluster, Surplus::AfterDeath).map(drop)
}

/// Prints how long something took, and fails if that was longer than `bound`.
fn in_time(what: &str, since: Instant, bound: Duration) -> Outcome {
    let took = since.elapsed();
    println!("{what} in {:.1} s", took.as_secs_f32());
    ensure(took <= bound, || format!("{what} in {:.1} s, {} s are allowed", took.as_secs_f32(), bound.as_secs()))
}

/// Bytes that only this writer writes to this path; those of `/large` do not fit into a database.
fn content(writer: &str, path: &str) -> Vec<u8> {
    let mut bytes = vec![0; if path == "/large" { 300_000 } else { 2000 }];
    blake3::Hasher::new().update(format!("{writer} {path}").as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
