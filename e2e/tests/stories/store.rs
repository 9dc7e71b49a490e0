//! "What I store through one node I read through any other, and it lies on exactly three disks."

use crate::Story;
use anyhow::Result;
use e2e::cluster::COPIES;
use e2e::{Cluster, Need, content, ensure};

pub(crate) const STORY: Story = ("store_here_read_there_with_exactly_three_copies", Need::Nothing, |_, cluster| {
    Box::pin(store_here_read_there(cluster))
});

/// In the database, and as files of their own.
const LENGTHS: [usize; 4] = [0, 13, 60_000, 3_000_000];

async fn store_here_read_there(cluster: &mut Cluster) -> Result<()> {
    cluster.session(0).await?.make_directory("/store").await?;
    for (node, length) in LENGTHS.into_iter().enumerate() {
        let path = format!("/store/{length}");
        cluster.session(node).await?.put(&path, &content(&path, length)).await?;
    }
    readable(cluster).await?;
    cluster.three_copies().await?;

    let kept = cluster.on_disk().await?;
    for length in LENGTHS {
        let path = format!("/store/{length}");
        let hash = blake3::hash(&content(&path, length)).to_hex().to_string();
        let of = kept.get(&path);
        ensure(of.is_some_and(|kept| kept.hash == hash && kept.copies == COPIES), || format!("{path}: {of:?}"))?;
    }
    // All five nodes were stopped in between.
    readable(cluster).await
}

async fn readable(cluster: &Cluster) -> Result<()> {
    for node in 0..cluster.len() {
        let mut session = cluster.session(node).await?;
        for length in LENGTHS {
            let path = format!("/store/{length}");
            ensure(session.get(&path).await? == content(&path, length), || format!("{path} differs at node {node}"))?;
        }
    }
    Ok(())
}
