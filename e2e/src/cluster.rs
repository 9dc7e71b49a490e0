//! A cluster as a story sees it: nodes by number from 0, which live, who leads, whether they agree, what is on their disks.

use crate::access::Variables;
use crate::client::{self, Client, Clients};
use crate::ensure;
use crate::place::{Containers, Place};
use crate::wait::wait_for;
use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::{join_all, try_join_all};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// For nodes to come up, or to agree again, on a machine that is busy with other things.
pub const AGREED: Duration = Duration::from_secs(90);
/// Copies of every file.
pub const COPIES: u64 = 3;

/// Records that a node may be behind while clients write.
const IN_FLIGHT: u64 = 20;

/// A running cluster.
pub struct Cluster {
    place: Place,
    clients: Clients,
    living: BTreeSet<usize>,
}

/// One file on the disks of all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// BLAKE3 of its bytes, as hex.
    pub hash: String,
    /// Nodes that hold it whole, and are named by the index.
    pub copies: u64,
}

impl Cluster {
    /// Starts all nodes of a place.
    pub async fn start(place: Place) -> Result<Self> {
        let trust = client::trust(&place.access().authority())?;
        let clients = Clients::new(place.addresses(), trust);
        let mut cluster = Self { place, clients, living: BTreeSet::new() };
        let started = async {
            for node in 0..cluster.len() {
                cluster.start_node(node).await?;
            }
            cluster.settle().await
        };
        match started.await {
            Ok(_) => Ok(cluster),
            Err(error) => Err(cluster.end_with(error).await),
        }
    }
    /// How many nodes.
    pub fn len(&self) -> usize {
        self.clients.addresses.len()
    }
    /// Never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What only containers can do.
    pub fn containers(&mut self) -> Result<&mut Containers> {
        match &mut self.place {
            Place::Containers(containers) => Ok(containers),
            Place::Processes(_) => bail!("these nodes are processes"),
        }
    }
    /// Where its clients go.
    pub fn clients(&self) -> Clients {
        self.clients.clone()
    }
    /// A client's session at a node.
    pub async fn session(&self, node: usize) -> Result<Client> {
        self.clients.session(node).await
    }
    /// Where nodes take other nodes.
    pub async fn between_nodes(&self, node: usize) -> Result<[std::net::SocketAddr; 2]> {
        self.place.between_nodes(node).await
    }

    /// Starts a stopped node.
    pub async fn start_node(&mut self, node: usize) -> Result<()> {
        self.place.start(node).await?;
        self.living.insert(node);
        Ok(())
    }
    /// SIGKILL.
    pub async fn kill(&mut self, node: usize) -> Result<()> {
        self.living.remove(&node);
        self.place.kill(node).await
    }
    /// SIGTERM, after which it must end by itself.
    pub async fn stop(&mut self, node: usize) -> Result<()> {
        self.living.remove(&node);
        self.place.stop(node).await
    }
    /// Empties a stopped node's disk.
    pub async fn wipe(&mut self, node: usize) -> Result<()> {
        self.place.wipe(node).await
    }
    /// Says that a node was started by other means.
    pub fn lives(&mut self, node: usize) {
        self.living.insert(node);
    }

    /// What a node says of itself and the cluster.
    pub async fn status(&self, node: usize) -> Result<Value> {
        let said = self.place.ask(node, &["status", "--json"]).await?;
        Ok(serde_json::from_str(said.stdout_if_ok()?)?)
    }
    /// `trebol forget`, told to a node.
    pub async fn forget(&self, node: usize, name: &str) -> Result<()> {
        self.place.ask(node, &["forget", name]).await?.stdout_if_ok().map(drop)
    }
    /// The node that leads, as soon as those that live have one.
    pub async fn leader(&self) -> Result<usize> {
        wait_for("a leader", AGREED, async || {
            for node in self.living.iter().copied() {
                let status = self.status(node).await?;
                if status["leader"].is_string() && status["leader"] == status["node"] {
                    return Ok(node);
                }
            }
            bail!("no living node leads")
        })
        .await
    }
    /// What all nodes say, if they say the same: one leader, all alive, nobody behind, equal indexes.
    pub async fn agreed(&self) -> Result<Value> {
        let said = try_join_all(self.living.iter().map(|node| self.status(*node))).await?;
        for status in &said {
            let members = status["members"].as_array().context("no members")?;
            let calm = |member: &Value| member["liveness"] == "alive" && member["behind"] == 0;
            let same = ["leader", "files", "digest"].iter().all(|field| status[*field] == said[0][*field]);
            let whole = members.len() == self.living.len() && members.iter().all(calm);
            ensure(same && whole && status["leader"].is_string(), || format!("{status}\nbeside {}", said[0]))?;
        }
        said.into_iter().next().context("no node lives")
    }
    /// Starts who is down, and waits until all agree and no copy is missing or one too many.
    pub async fn settle(&mut self) -> Result<Value> {
        for node in (0..self.len()).filter(|node| !self.living.contains(node)).collect::<Vec<_>>() {
            self.start_node(node).await?;
        }
        wait_for("all nodes to agree", AGREED, async || {
            let status = self.agreed().await?;
            ensure(status["missing_copies"] == 0, || format!("{status}"))?;
            Ok(status)
        })
        .await
    }
    /// Waits, while clients write, until all living nodes are members that follow one leader, hardly behind, and no copy is
    /// missing for long.
    pub async fn settle_under_load(&self) -> Result<()> {
        wait_for("all nodes to be members again", AGREED, async || {
            let said = try_join_all(self.living.iter().map(|node| self.status(*node))).await?;
            for status in &said {
                let members = status["members"].as_array().context("no members")?;
                let calm = |member: &Value| {
                    member["liveness"] == "alive"
                        && member["behind"].as_u64().is_some_and(|records| records <= IN_FLIGHT)
                };
                let whole = members.len() == self.living.len() && members.iter().all(calm);
                let led = status["leader"].is_string() && status["leader"] == said[0]["leader"];
                ensure(whole && led && status["missing_copies"] == 0, || status.to_string())?;
            }
            Ok(())
        })
        .await
    }
    /// Waits until there are exactly three copies of every visible file, as the index has it.
    pub async fn three_copies(&self) -> Result<Value> {
        wait_for("exactly three copies of every file", AGREED, async || {
            let status = self.agreed().await?;
            let copies = copies(&status);
            let files = status["files"].as_u64().unwrap_or_default();
            ensure(status["missing_copies"] == 0 && copies.values().sum::<u64>() == files * COPIES, || {
                format!("{files} files with copies {copies:?}: {status}")
            })?;
            Ok(status)
        })
        .await
    }
    /// Stops all nodes, reads every byte on their disks, starts them again: every version by its path, losers of conflicts
    /// by more than that. Fails unless each is whole on exactly three.
    pub async fn on_disk(&mut self) -> Result<BTreeMap<String, Kept>> {
        for node in self.living.clone().into_iter().rev() {
            self.stop(node).await?;
        }
        let said = try_join_all((0..self.len()).map(|node| self.place.verify(node))).await?;
        let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
        for (node, said) in said.iter().enumerate() {
            let rows = said.stdout_if_ok().with_context(|| format!("verify of node {node}"))?;
            for row in rows.lines() {
                let row: Value = serde_json::from_str(row).with_context(|| format!("verify prints {row:?}"))?;
                let Some(path) = row["path"].as_str() else { continue };
                ensure(row["ok"] == true, || format!("node {node}: {row}"))?;
                let loser = row["loser"] == true;
                let key = if loser { format!("{path} (loser {})", row["position"]) } else { path.to_owned() };
                let kept = kept.entry(key).or_insert_with(|| Kept { hash: String::new(), copies: 0 });
                if let Some(hash) = row["hash"].as_str() {
                    hash.clone_into(&mut kept.hash);
                }
                kept.copies += u64::from(row["holds"] == true && row["listed"] == true);
            }
        }
        let odd: Vec<_> = kept.iter().filter(|(_, kept)| kept.copies != COPIES).take(5).collect();
        ensure(odd.is_empty(), || format!("not whole on {COPIES} disks: {odd:?}"))?;
        self.settle().await?;
        Ok(kept)
    }

    /// Ends a story that failed: the error with the end of each node's log, and nothing is left.
    pub async fn end_with(self, error: anyhow::Error) -> anyhow::Error {
        let logs = join_all((0..self.len()).map(|node| self.place.log(node))).await;
        let logs = logs.iter().enumerate().map(|(node, log)| format!("\n--- node {node}\n{log}")).collect::<String>();
        let left = self.clear().await.err().map(|error| format!("\nand then: {error:#}")).unwrap_or_default();
        anyhow!("{error:#}{logs}{left}")
    }
    /// Takes everything away.
    pub async fn clear(self) -> Result<()> {
        self.place.clear().await
    }
}

/// Copies that shall be on each node, by its name.
pub fn copies(status: &Value) -> BTreeMap<String, u64> {
    let members = status["members"].as_array().into_iter().flatten();
    let copies = |member: &Value| {
        Some((member["info"]["name"].as_str()?.to_owned(), member["copies"].as_u64().unwrap_or_default()))
    };
    members.filter_map(copies).collect()
}

/// Settings beside the usual ones; one without a value takes a usual one away.
pub fn settings(more: &[(&str, &str)]) -> Variables {
    more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
