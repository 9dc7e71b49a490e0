//! People who work all the while something is done to the cluster: they store files and read them elsewhere, and no operation
//! that was begun may fail.

use anyhow::{Result, anyhow, bail};
use e2e::{Clients, Cluster, Refused, content, ensure};
use futures_util::future::try_join_all;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

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

/// Does something to a cluster while people work in `directory`, which is new; then everything that they wrote is read.
pub(crate) async fn meanwhile(
    cluster: &mut Cluster,
    directory: &str,
    act: impl AsyncFnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    cluster.session(0).await?.make_directory(directory).await?;
    let (work, clients) = (Work::default(), cluster.clients());
    let people = try_join_all((0..CLIENTS).map(|client| person(&clients, (directory, client), &work)));
    let acted = async {
        let acted = act(cluster).await;
        work.over.set(true);
        acted
    };
    let (worked, acted) = tokio::join!(people, acted);
    worked?;
    acted?;
    println!("{directory}: {} operations, {} turned away", work.done.get(), work.turned_away.get());
    ensure(work.done.get() > 10 * CLIENTS, || format!("only {} operations", work.done.get()))?;
    let mut session = cluster.session(cluster.len() - 1).await?;
    for (path, bytes) in work.written.take() {
        ensure(session.get(&path).await? == bytes, || format!("{path} differs"))?;
    }
    Ok(())
}

/// Stores, and reads elsewhere, until it is over and then a few times more.
async fn person(clients: &Clients, (directory, client): (&str, usize), work: &Work) -> Result<()> {
    let (mut after, mut number) = (0, 0);
    while after < AFTER {
        after += usize::from(work.over.get());
        let path = format!("{directory}/{client}-{}", number % FILES);
        let bytes = content(&format!("{path} {number}"), 500 + (number % 3) * 90_000);
        operation(clients, client + number, work, async |session| session.try_put(&path, &bytes).await).await?;
        work.written.borrow_mut().insert(path.clone(), bytes.clone());
        let read = operation(clients, client + number + 1, work, async |session| session.try_get(&path).await).await?;
        ensure(read == bytes, || format!("{path} reads as something else"))?;
        number += 1;
    }
    Ok(())
}

/// One operation, at the first node from `first` on that takes clients: once all is over that is the first. Once begun it has
/// to succeed.
async fn operation<T>(
    clients: &Clients,
    first: usize,
    work: &Work,
    mut run: impl AsyncFnMut(&mut e2e::Client) -> Result<T, Refused>,
) -> Result<T> {
    let mut last = anyhow!("no node");
    for attempt in 0..TURNED_AWAY {
        let over = work.over.get();
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
            Err(Refused::Away(error)) if !over => {
                work.turned_away.set(work.turned_away.get() + 1);
                last = error;
            }
            Err(Refused::Away(error) | Refused::Failed(error)) => {
                return Err(
                    error.context(format!("an operation failed at node {node} after {} others", work.done.get()))
                );
            }
        }
    }
    bail!("no node takes clients: {last:#}")
}
