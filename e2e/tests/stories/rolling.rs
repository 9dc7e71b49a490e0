//! "All nodes are replaced, one by one, while people work, and no operation fails."

use crate::Story;
use crate::work::meanwhile;
use anyhow::Result;
use e2e::{Cluster, Need};

pub(crate) const STORY: Story =
    ("a_rolling_update_under_load_fails_no_operation", Need::Containers, |_, cluster| Box::pin(rolling(cluster)));

async fn rolling(cluster: &mut Cluster) -> Result<()> {
    meanwhile(cluster, "/rolling", replace_all).await
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
