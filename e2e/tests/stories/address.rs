//! "A node restarts with another address, and is the same node."

use crate::Story;
use anyhow::Result;
use e2e::{Cluster, Need, content, ensure};
use serde_json::Value;

pub(crate) const STORY: Story =
    ("a_node_restarted_with_a_new_address_is_the_same_node", Need::Containers, |_, cluster| {
        Box::pin(another_address(cluster))
    });

async fn another_address(cluster: &mut Cluster) -> Result<()> {
    let (moved, other, path) = (2, 3, "/address");
    let bytes = content(path, 300_000);
    cluster.session(moved).await?.put(path, &bytes).await?;
    let before = cluster.three_copies().await?;
    let old = cluster.containers()?.address(moved).await?;

    cluster.stop(moved).await?;
    cluster.session(other).await?.put("/address-missed", b"missed").await?;
    let keeper = cluster.containers()?.move_away(moved).await?;
    cluster.lives(moved);
    let new = cluster.containers()?.address(moved).await?;
    ensure(new != old, || format!("node {moved} has its old address {old}"))?;
    let after = cluster.settle().await?;
    drop(keeper);

    let name = format!("n{}", moved + 1);
    let (was, is) = (member(&before, &name), member(&after, &name));
    ensure(was["info"]["node"] == is["info"]["node"], || format!("another node: {was} and {is}"))?;
    let address = is["info"]["rank"]["address"].as_str().unwrap_or_default();
    ensure(address.starts_with(&format!("{new}:")), || format!("the others have {address} for {new}"))?;
    let mut session = cluster.session(moved).await?;
    ensure(session.get(path).await? == bytes, || "its file differs".to_owned())?;
    ensure(session.get("/address-missed").await? == b"missed", || "what it missed differs".to_owned())?;
    session.put("/address-later", b"later").await?;
    ensure(cluster.session(other).await?.get("/address-later").await? == b"later", || "it differs".to_owned())?;
    cluster.three_copies().await.map(drop)
}

fn member<'a>(status: &'a Value, name: &str) -> &'a Value {
    let members = status["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().find(|member| member["info"]["name"] == name).unwrap_or(&Value::Null)
}
