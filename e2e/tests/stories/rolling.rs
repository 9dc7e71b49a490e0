//! "All nodes are replaced by another version, one by one, while people work, and no operation fails."

use crate::Story;
use anyhow::{Result, anyhow, bail};
use e2e::{Clients, Cluster, Need, Refused, content, ensure};
use futures_util::future::try_join_all;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

pub(crate) const STORY: Story =
    ("a_rolling_update_under_load_fails_no_operation", Need::Containers, |_, cluster| Box::pin(rolling(cluster)));

/// Clients that work all the while.
const CLIENTS: usize = 3;
/// Operations of each after the last node is replaced, so that it has taken some.
const AFTER: usize = 3;
/// Nodes that one operation may be turned away from: more than all of them, twice.
const TURNED_AWAY: usize = 12;
/// Files that each client writes again and again.
const FILES: usize = 4;

/// What clients have done so far.
#[derive(Default)]
struct Work {
    over: Cell<bool>,
    done: Cell<usize>,
    turned_away: Cell<usize>,
    /// The last bytes of every path.
    written: RefCell<BTreeMap<String, Vec<u8>>>,
}

async fn rolling(cluster: &mut Cluster) -> Result<()> {
    cluster.session(0).await?.make_directory("/rolling").await?;
    let (work, clients) = (Work::default(), cluster.clients());
    let people = try_join_all((0..CLIENTS).map(|client| person(&clients, client, &work)));
    let update = async {
        let updated = replace_all(cluster).await;
        work.over.set(true);
        updated
    };
    let (worked, updated) = tokio::join!(people, update);
    worked?;
    updated?;
    println!("rolling update: {} operations, {} turned away", work.done.get(), work.turned_away.get());
    ensure(work.done.get() > 10 * CLIENTS, || format!("only {} operations", work.done.get()))?;
    let mut session = cluster.session(cluster.len() - 1).await?;
    for (path, bytes) in work.written.take() {
        ensure(session.get(&path).await? == bytes, || format!("{path} differs"))?;
    }
    Ok(())
}

/// The lowest rank first, so that leadership moves once; each only when all the others are whole.
async fn replace_all(cluster: &mut Cluster) -> Result<()> {
    for node in (0..cluster.len()).rev() {
        cluster.stop(node).await?;
        cluster.containers()?.replace(node, ("TREBOL_LOG", "info,node=debug")).await?;
        cluster.lives(node);
        cluster.settle_under_load().await?;
    }
    Ok(())
}

/// Stores, and reads elsewhere, until it is over and then a few times more.
async fn person(clients: &Clients, client: usize, work: &Work) -> Result<()> {
    let (mut after, mut number) = (0, 0);
    while after < AFTER {
        after += usize::from(work.over.get());
        let path = format!("/rolling/{client}-{}", number % FILES);
        let bytes = content(&format!("{path} {number}"), 500 + (number % 3) * 90_000);
        operation(clients, client + number, work, async |session| session.try_put(&path, &bytes).await).await?;
        work.written.borrow_mut().insert(path.clone(), bytes.clone());
        let read = operation(clients, client + number + 1, work, async |session| session.try_get(&path).await).await?;
        ensure(read == bytes, || format!("{path} reads as something else"))?;
        number += 1;
    }
    Ok(())
}

/// One operation, at the first node from `first` on that takes clients. Once begun it has to succeed.
async fn operation<T>(
    clients: &Clients,
    first: usize,
    work: &Work,
    mut run: impl AsyncFnMut(&mut e2e::Client) -> Result<T, Refused>,
) -> Result<T> {
    let mut last = anyhow!("no node");
    for attempt in 0..TURNED_AWAY {
        let node = (first + attempt) % clients.addresses.len();
        let ran = match clients.try_session(node).await {
            Ok(mut session) => run(&mut session).await,
            Err(refused) => Err(refused),
        };
        match ran {
            Ok(done) => {
                work.done.set(work.done.get() + 1);
                return Ok(done);
            }
            Err(Refused::Away(error)) => {
                work.turned_away.set(work.turned_away.get() + 1);
                last = error;
            }
            Err(Refused::Failed(error)) => {
                return Err(
                    error.context(format!("an operation failed at node {node} after {} others", work.done.get()))
                );
            }
        }
    }
    bail!("no node takes clients: {last:#}")
}
