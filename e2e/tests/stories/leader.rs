//! "The leader dies while I upload, and my client does not notice."

use crate::Story;
use anyhow::Result;
use e2e::{Cluster, Need, content, ensure};

pub(crate) const STORY: Story =
    ("a_leader_lost_during_an_upload_is_no_error", Need::Nothing, |_, cluster| Box::pin(leader_lost(cluster)));

/// Of the upload that is open, and of the one that was about to be committed.
const LENGTH: usize = 6_000_000;

async fn leader_lost(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let (front, reader) = ((leader + 1) % cluster.len(), (leader + 2) % cluster.len());
    let mut session = cluster.session(front).await?;
    session.make_directory("/leader").await?;
    session.put("/leader/replaced", b"old").await?;
    let (bytes, path) = (content("leader", LENGTH), "/leader/replaced");

    let mut upload = session.begin(path).await?;
    upload.send(&bytes[..LENGTH / 2]).await?;
    cluster.kill(leader).await?;
    // Until it is there as a whole, the old one is, on any node.
    let old = cluster.session(reader).await?.get(path).await?;
    ensure(old == b"old", || format!("half an upload shows: {} bytes", old.len()))?;
    upload.send(&bytes[LENGTH / 2..]).await?;
    upload.finish().await?;

    let next = cluster.leader().await?;
    ensure(next != leader, || "the dead node leads".to_owned())?;
    for node in [front, reader] {
        ensure(cluster.session(node).await?.get(path).await? == bytes, || format!("it differs at node {node}"))?;
    }
    // The same session goes on.
    session.put("/leader/next", b"next").await?;
    cluster.settle().await?;
    ensure(cluster.session(leader).await?.get(path).await? == bytes, || {
        "it differs at the node that was dead".to_owned()
    })?;
    cluster.three_copies().await.map(drop)
}
