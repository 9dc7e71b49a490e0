//! "A machine is lost with its disk; an empty one takes its place, and everything is on three disks again."

use crate::Story;
use anyhow::{Context, Result, bail};
use e2e::cluster::{AGREED, copies};
use e2e::{Cluster, Need, content, ensure, wait_for};

pub(crate) const STORY: Story =
    ("a_lost_replica_comes_back_empty_and_rejoins", Need::Nothing, |_, cluster| Box::pin(comes_back_empty(cluster)));

/// Enough for every node to have some.
const FILES: usize = 12;

fn file(number: usize) -> (String, Vec<u8>) {
    let path = format!("/rejoin/{number}");
    let bytes = content(&path, if number.is_multiple_of(2) { 200_000 } else { 2_000 });
    (path, bytes)
}

async fn comes_back_empty(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let mut session = cluster.session(leader).await?;
    session.make_directory("/rejoin").await?;
    for number in 0..FILES {
        let (path, bytes) = file(number);
        session.put(&path, &bytes).await?;
    }
    let status = cluster.three_copies().await?;
    // A follower with copies, as many as any.
    let had = (0..cluster.len()).filter(|node| *node != leader).map(|node| (copies(&status)[&name(node)], node));
    let (had, lost) = had.max().context("no follower")?;
    ensure(had > 0, || format!("no follower has a copy: {status}"))?;
    let old = status_of(cluster, leader, lost).await?["info"]["node"].clone();

    cluster.kill(lost).await?;
    // Meanwhile everything is there, and can be written.
    let reader = (0..cluster.len()).find(|node| ![leader, lost].contains(node)).context("no third node")?;
    all_readable(cluster, reader).await?;
    session.put("/rejoin/meanwhile", b"meanwhile").await?;
    cluster.wipe(lost).await?;
    cluster.start_node(lost).await?;
    wait_for("the old node to be down and the empty one to be there", AGREED, async || {
        let status = cluster.status(leader).await?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let of = |live: &str| members.iter().any(|m| m["info"]["name"] == name(lost).as_str() && m["liveness"] == live);
        ensure(of("alive") && of("down"), || status.to_string())
    })
    .await?;
    // Who it was does not come back.
    let old = old.as_str().context("no id")?;
    cluster.forget(leader, old).await?;
    cluster.settle().await?;
    cluster.three_copies().await?;
    all_readable(cluster, lost).await?;
    if status_of(cluster, leader, lost).await?["info"]["node"] == old {
        bail!("an empty disk has the id of the one that was lost");
    }
    let kept = cluster.on_disk().await?;
    for number in 0..FILES {
        let (path, bytes) = file(number);
        let hash = blake3::hash(&bytes).to_hex().to_string();
        ensure(kept.get(&path).is_some_and(|kept| kept.hash == hash), || format!("{path}: {:?}", kept.get(&path)))?;
    }
    Ok(())
}

fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

/// What one node says of another.
async fn status_of(cluster: &Cluster, node: usize, of: usize) -> Result<serde_json::Value> {
    let status = cluster.status(node).await?;
    let members = status["members"].as_array().context("no members")?;
    let member = members.iter().find(|member| member["info"]["name"] == name(of).as_str());
    Ok(member.with_context(|| format!("{} is not in {status}", name(of)))?.clone())
}

async fn all_readable(cluster: &Cluster, node: usize) -> Result<()> {
    let mut session = cluster.session(node).await?;
    for number in 0..FILES {
        let (path, bytes) = file(number);
        ensure(session.get(&path).await? == bytes, || format!("{path} differs at node {node}"))?;
    }
    Ok(())
}
