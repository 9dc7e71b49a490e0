//! How long nobody can write after the leader dies: SIGKILL to the leader, over and over, while a writer at every other
//! node stores small files. The gap is the longest time around a kill in which no write at all was acknowledged.

use crate::Outcome;
use crate::client::{Login, Session};
use crate::nodes::Nodes;
use crate::work::LONGEST_LATENCY;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Bytes of a file.
const SIZE: u64 = 10_000;
/// Bytes of a file that is stored beside them.
const LARGE: u64 = 64 << 20;
/// Acknowledged writes before a kill.
const BEFORE: usize = 50;
/// Writes begun after the gap that end the look at one kill.
const AFTER: usize = 50;
/// Longest wait for the next acknowledgement.
const LONGEST: Duration = Duration::from_secs(60);

/// Kills so many leaders, while so many sessions `beside` the writers store large files; hands out the gaps in microseconds,
/// and how many large files were stored.
pub(crate) async fn run(
    nodes: &mut Nodes,
    logins: &[Login],
    kills: usize,
    beside: usize,
) -> Outcome<(Histogram<u64>, u64)> {
    let mut gaps = Histogram::new_with_max(LONGEST_LATENCY, 3)?;
    let moved = Arc::new(AtomicU64::new(0));
    for kill in 0..kills {
        let leader = nodes.settled_leader().await?;
        let gap = one_kill(nodes, logins, leader, (beside, &moved)).await?;
        println!("kill {:2} of {}: no write for {:.3} s", kill + 1, nodes.all[leader].name, gap.as_secs_f64());
        gaps.record(u64::try_from(gap.as_micros())?)?;
        nodes.restart(leader).await?;
    }
    nodes.settled_leader().await?;
    Ok((gaps, moved.load(Ordering::Relaxed)))
}

async fn one_kill(
    nodes: &Nodes,
    logins: &[Login],
    leader: usize,
    (beside, moved): (usize, &Arc<AtomicU64>),
) -> Outcome<Duration> {
    let writing = Arc::new(AtomicBool::new(true));
    let (acknowledged, mut acknowledgements) = mpsc::channel(1024);
    let mut writers = JoinSet::new();
    for (node, login) in logins.iter().enumerate().filter(|(node, _)| *node != leader) {
        let session = Session::open(login).await?;
        writers.spawn(write(session, node, writing.clone(), acknowledged.clone()));
    }
    drop(acknowledged);
    let living: Vec<&Login> = logins.iter().enumerate().filter(|(n, _)| *n != leader).map(|(_, login)| login).collect();
    for number in 0..beside {
        let session = Session::open(living[number % living.len()]).await?;
        writers.spawn(store_large(session, number, writing.clone(), moved.clone()));
    }
    let (mut last, mut gap, mut left) = (Instant::now(), Duration::ZERO, BEFORE);
    let mut killed = None;
    while left > 0 {
        let (began, ended) = timeout(LONGEST, acknowledgements.recv()).await?.ok_or("the writers ended")?;
        match killed {
            None => left -= 1,
            Some(at) => {
                gap = gap.max(ended.saturating_duration_since(last));
                // Only what began after the kill and needed a leader shows that there is one.
                left -= usize::from(began > at);
            }
        }
        last = last.max(ended);
        if left == 0 && killed.is_none() {
            nodes.kill(leader)?;
            killed = Some(Instant::now());
            left = AFTER;
        }
    }
    writing.store(false, Ordering::Relaxed);
    // Whoever waits to tell of one more write is not kept.
    drop(acknowledgements);
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(gap)
}

/// Stores large files until told to stop, and counts them.
async fn store_large(
    mut session: Session,
    number: usize,
    writing: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
) -> Outcome<()> {
    while writing.load(Ordering::Relaxed) {
        session.put(&format!("/beside-{number}"), LARGE).await?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Stores files until told to stop; tells when each began and was acknowledged. A refusal is an error: clients of a node
/// that lives do not notice a death but as a wait.
async fn write(
    mut session: Session,
    node: usize,
    writing: Arc<AtomicBool>,
    acknowledged: mpsc::Sender<(Instant, Instant)>,
) -> Outcome<()> {
    let mut number = 0_u64;
    while writing.load(Ordering::Relaxed) {
        let began = Instant::now();
        session.put(&format!("/failover-{node}-{}", number % 1000), SIZE).await?;
        number += 1;
        if acknowledged.send((began, Instant::now())).await.is_err() {
            break;
        }
    }
    Ok(())
}
