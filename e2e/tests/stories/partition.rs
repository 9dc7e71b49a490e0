//! "The network is cut in two, both sides go on, and afterwards the last writer's version is there; what lost can be read."

use crate::Story;
use anyhow::{Context, Result};
use e2e::cluster::AGREED;
use e2e::{Client, Cluster, Need, content, ensure, wait_for};

pub(crate) const STORY: Story =
    ("both_sides_of_a_partition_write_and_the_loser_stays_readable", Need::Network, |_, cluster| {
        Box::pin(both_sides(cluster))
    });

/// In `/.conflicts`, names are those of their paths and then some.
const CONFLICTS: &str = "/.conflicts/partition";

async fn both_sides(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    // One side keeps the leader and loses most nodes, the other has to elect.
    let few = [leader, (leader + 1) % cluster.len()];
    let many: Vec<usize> = (0..cluster.len()).filter(|node| !few.contains(node)).collect();
    let mut session = cluster.session(leader).await?;
    session.make_directory("/partition").await?;
    session.put("/partition/same", b"before").await?;
    cluster.settle().await?;

    let cut = cluster.containers()?.cut_off(&few).await?;
    let written = write(cluster, few[1], many[0]).await;
    cluster.containers()?.heal(cut).await?;
    let (loser, winner) = written?;
    wait_for("all nodes to agree after the cut", AGREED, async || cluster.agreed().await).await?;

    for node in 0..cluster.len() {
        let mut session = cluster.session(node).await?;
        ensure(session.get("/partition/same").await? == winner, || format!("not the last writer's at node {node}"))?;
        let losers = losers(&mut session).await?;
        ensure(losers == [loser.clone()], || format!("{} losers at node {node}", losers.len()))?;
        for side in ["few", "many"] {
            let path = format!("/partition/only-{side}");
            ensure(session.get(&path).await? == content(side, 1000), || format!("{path} differs at node {node}"))?;
        }
        let names = session.names("/partition").await?;
        ensure(names.len() == 3, || format!("{names:?} at node {node}"))?;
    }
    cluster.settle().await.map(drop)
}

/// Both sides write the same path, the many last; what loses, and what wins.
async fn write(cluster: &Cluster, few: usize, many: usize) -> Result<(Vec<u8>, Vec<u8>)> {
    let (loser, winner) = (content("few writes", 150_000), content("many write", 90_000));
    let mut at_few = cluster.session(few).await?;
    at_few.put("/partition/same", &loser).await?;
    at_few.put("/partition/only-few", &content("few", 1000)).await?;
    let mut at_many = cluster.session(many).await?;
    let before = at_many.get("/partition/same").await?;
    ensure(before == b"before", || format!("the other side's {} bytes came through the cut", before.len()))?;
    at_many.put("/partition/same", &winner).await?;
    at_many.put("/partition/only-many", &content("many", 1000)).await?;
    let names = at_few.names("/partition").await?;
    ensure(!names.contains(&"only-many".to_owned()), || format!("a name came through the cut: {names:?}"))?;
    let own = at_few.get("/partition/same").await?;
    ensure(own == loser, || "one side does not read what it wrote".to_owned())?;
    Ok((loser, winner))
}

/// The bytes of all that lost at `/partition/same`.
async fn losers(session: &mut Client) -> Result<Vec<Vec<u8>>> {
    let names = session.names(CONFLICTS).await.context("no losers are shown")?;
    let mut losers = Vec::new();
    for name in names.iter().filter(|name| name.starts_with("same.")) {
        losers.push(session.get(&format!("{CONFLICTS}/{name}")).await?);
    }
    Ok(losers)
}
