//! SIGTERM: whoever stores a file may finish, nobody new comes in, load balancers hear of it at once, and the process ends in
//! time. A second signal, or the end of the drain, cuts, and clients are told even then.

use crate::cluster::{Cluster, START};
use crate::control::Control;
use crate::ops::{OPEN, admin, greeting, page};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("shutdown::an_upload_finishes_and_nobody_new_comes_in", &[], || finishes(false)),
    ("shutdown::of_the_leader_is_no_error_for_its_clients", &[], || finishes(true)),
    ("shutdown::a_second_signal_cuts", &[], || cut(Cutter::Signal)),
    ("shutdown::the_end_of_the_drain_cuts", &[], || cut(Cutter::Time)),
];

/// Bytes of an upload, of which half are sent before the signal.
const SIZE: usize = 6_000_000;
/// Setting of the nodes here: longer than an upload needs, shorter than a test may take.
const DRAIN: Duration = Duration::from_secs(15);
/// What ending takes at most where nothing has to be waited for.
const QUICK: Duration = Duration::from_secs(12);

fn content() -> Vec<u8> {
    (0..SIZE).map(|n| u8::try_from(n % 251).expect("a byte")).collect()
}

/// A node of ours with an admin port, that has just come up.
fn restarted(cluster: &mut Cluster, node: usize, drain: Duration) -> Outcome<SocketAddr> {
    cluster.settle()?;
    cluster.terminate(node)?;
    std::fs::remove_file(cluster.nodes[node].data.join("endpoints.json"))?;
    cluster.restart_with(node, &[OPEN, ("TREBOL_DRAIN_S", &drain.as_secs().to_string())])?;
    let address = wait_for("the admin port", START, || Ok(admin(&cluster.nodes[node].data)?.ok_or("closed")?))?;
    cluster.settle()?;
    wait_for("the node to be ready", START, || {
        let (code, text) = page(address, "/readyz")?;
        ensure(code == 200, || format!("{code} {text}"))
    })?;
    Ok(address)
}

fn finishes(of_leader: bool) -> Outcome {
    Cluster::run(&[], |cluster| {
        let node = if of_leader { cluster.leader(None)? } else { follower(cluster)? };
        let shown = restarted(cluster, node, DRAIN)?;
        if of_leader {
            wait_for("the node to lead again", START, || {
                ensure(cluster.leader(None)? == node, || "not yet".to_owned())
            })?;
        }
        let (ftp, pid) = (cluster.nodes[node].ftp, cluster.nodes[node].pid);
        let mut idle = cluster.session(node)?;
        let mut busy = cluster.session(node)?;
        let mut data = busy.transfer("STOR /late")?;
        let bytes = content();
        data.write_all(&bytes[..SIZE / 2])?;

        terminate(pid)?;
        let began = Instant::now();
        farewell(&mut idle)?;
        for _ in 0..3 {
            let told = greeting(ftp)?;
            ensure(told.starts_with("421 ") && told.contains("shutting down"), || format!("told {told:?}"))?;
        }
        let (code, text) = page(shown, "/readyz")?;
        ensure(code == 503 && text == "the node is shutting down\n", || format!("{code} {text}"))?;
        ensure(page(shown, "/healthz")?.0 == 200, || "it is not healthy while it drains".to_owned())?;
        let (_, figures) = page(shown, "/metrics")?;
        ensure(figures.contains("\ntrebol_transfers_open{direction=\"in\"} 1\n"), || figures.clone())?;

        if of_leader {
            let (other, left) = ((node + 1) % 5, cluster.status(node)?["node"].clone());
            wait_for("another node to lead while this one drains", START, || {
                let leader = cluster.status(other)?["leader"].clone();
                ensure(leader.is_string() && leader != left, || format!("{leader} leads"))
            })?;
            let reply = cluster.session(other)?.put("/meanwhile", b"led by another")?;
            ensure(reply.code == 226, || reply.text)?;
        }
        data.write_all(&bytes[SIZE / 2..])?;
        data.close()?;
        let reply = busy.reply()?;
        ensure(reply.code == 226, || format!("the upload ended with {}", reply.text))?;
        farewell(&mut busy)?;
        let status = cluster.exit(node)?;
        let took = began.elapsed();
        ensure(status.code() == Some(0) && took < DRAIN, || format!("{status} after {took:?}"))?;
        let other = (node + 1) % 5;
        let mut session = cluster.session(other)?;
        ensure(session.get("/late")? == bytes, || "/late differs".to_owned())
    })
}

/// What cuts a transfer that stands still.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cutter {
    Signal,
    Time,
}

fn cut(by: Cutter) -> Outcome {
    Cluster::run(&[], |cluster| {
        let node = follower(cluster)?;
        cluster.session(0)?.put("/kept", b"as it was")?;
        let drain = if by == Cutter::Time { Duration::from_secs(2) } else { DRAIN };
        restarted(cluster, node, drain)?;
        let pid = cluster.nodes[node].pid;
        let mut busy = cluster.session(node)?;
        let mut data = busy.transfer("STOR /kept")?;
        data.write_all(&content()[..SIZE / 2])?;
        data.flush()?;
        let mut idle = cluster.session(node)?;
        terminate(pid)?;
        let began = Instant::now();
        farewell(&mut idle)?;
        if by == Cutter::Signal {
            let told = greeting(cluster.nodes[node].ftp)?;
            ensure(told.starts_with("421 "), || format!("told {told:?}"))?;
            terminate(pid)?;
        }
        farewell(&mut busy)?;
        let status = cluster.exit(node)?;
        let took = began.elapsed();
        ensure(status.code() == Some(0) && took < QUICK, || format!("{status} after {took:?}"))?;
        let early = by == Cutter::Time && took < drain;
        ensure(!early, || format!("it drained for {took:?} only"))?;
        let mut session = cluster.session((node + 1) % 5)?;
        ensure(session.get("/kept")? == b"as it was", || "half an upload shows".to_owned())
    })
}

fn follower(cluster: &Cluster) -> Outcome<usize> {
    let leader = cluster.leader(None)?;
    Ok((0..5).find(|node| *node != leader).ok_or("no follower")?)
}

/// SIGTERM, without waiting.
fn terminate(pid: Pid) -> Outcome {
    Ok(kill_process(pid, Signal::TERM)?)
}

/// 421 and the end of the connection.
fn farewell(control: &mut Control) -> Outcome {
    let reply = control.reply()?;
    ensure(reply.code == 421, || format!("told {}", reply.text))?;
    control.ends()
}
