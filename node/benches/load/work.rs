//! The loads: many small files, few large ones, up and down. Each is bounded in count and in time; a failed transfer ends
//! the load with an error, so a rate is always that of work done.

use crate::Outcome;
use crate::client::{BLOCK, Login, Session};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What to do, and how much of it at most.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Stores rather than fetches.
    pub(crate) put: bool,
    /// Bytes of a file.
    pub(crate) size: u64,
    /// Sessions at once.
    pub(crate) sessions: usize,
    /// Files in all.
    pub(crate) files: u64,
    /// No transfer begins after this.
    pub(crate) longest: Duration,
    /// What files are called; a number follows.
    pub(crate) prefix: String,
}

/// What came of it.
pub(crate) struct Measured {
    /// Files moved whole.
    pub(crate) files: u64,
    /// From the first to the end of the last.
    pub(crate) took: Duration,
    /// Microseconds a file.
    pub(crate) latency: Histogram<u64>,
}

/// Microseconds that a latency can be: an hour.
pub(crate) const LONGEST_LATENCY: u64 = 3_600_000_000;

/// Runs a load over sessions spread over `logins`.
pub(crate) async fn run(load: &Load, logins: &[Login]) -> Outcome<Measured> {
    let next = Arc::new(AtomicU64::new(0));
    let mut sessions = Vec::new();
    for number in 0..load.sessions {
        sessions.push(Session::open(&logins[number % logins.len()]).await?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for session in sessions {
        tasks.spawn(one_session(load.clone(), session, next.clone(), began));
    }
    let mut measured =
        Measured { files: 0, took: Duration::ZERO, latency: Histogram::new_with_max(LONGEST_LATENCY, 3)? };
    while let Some(ended) = tasks.join_next().await {
        let latency = ended??;
        measured.files += latency.len();
        measured.latency.add(latency)?;
    }
    measured.took = began.elapsed();
    Ok(measured)
}

async fn one_session(
    load: Load,
    mut session: Session,
    next: Arc<AtomicU64>,
    began: Instant,
) -> Outcome<Histogram<u64>> {
    let mut latency = Histogram::new_with_max(LONGEST_LATENCY, 3)?;
    let mut block = vec![0; BLOCK];
    while began.elapsed() < load.longest {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.files {
            break;
        }
        let path = format!("{}{number}", load.prefix);
        let start = Instant::now();
        if load.put {
            session.put(&path, load.size).await?;
        } else {
            let got = session.get(&path, &mut block).await?;
            if got != load.size {
                return Err(format!("{path} has {got} bytes of {}", load.size).into());
            }
        }
        latency.record(u64::try_from(start.elapsed().as_micros())?)?;
    }
    Ok(latency)
}

/// Deletes what a load left.
pub(crate) async fn clean(load: &Load, files: u64, login: &Login) -> Outcome<()> {
    let mut session = Session::open(login).await?;
    for number in 0..files {
        session.delete(&format!("{}{number}", load.prefix)).await?;
    }
    Ok(())
}
