//! "Half of the nodes run the next version; the rest follow, and then all go back, while people work: no operation fails, and
//! what the next version knew and this one does not is still there when it returns."

use crate::Story;
use crate::work::meanwhile;
use anyhow::{Context, Result};
use e2e::{Bed, Cluster, Need, content, ensure};

pub(crate) const STORY: Story =
    ("the_next_version_comes_and_goes_and_nothing_is_lost", Need::Containers, |bed, cluster| {
        Box::pin(comes_and_goes(bed, cluster))
    });

/// What the next version says of a file, and this one does not: its new field.
const MODE: &str = "UNIX.mode=0640;";
/// Its new operation.
const CHANGE_MODE: &str = "SITE CHMOD 640";
const FILE: &str = "/versions";

async fn comes_and_goes(bed: &Bed, cluster: &mut Cluster) -> Result<()> {
    let (next, today) = (bed.next_image().await?, cluster.containers()?.image().to_owned());
    let last = cluster.len() - 1;
    let before = protocol(cluster, 0).await?;
    let mut bytes = content(FILE, 100_000);
    let mut session = cluster.session(last).await?;
    session.put(FILE, &bytes).await?;
    let unknown = session.reply(&format!("{CHANGE_MODE} {FILE}")).await?;
    ensure(unknown.0 == 504, || format!("this version answers {unknown:?}"))?;

    // Forward. The leader comes last: until then it is of this version, and the others ask nothing of it that it does not know.
    meanwhile(cluster, "/forward", async |cluster| {
        for node in (0..=last).rev() {
            replace(cluster, node, &next).await?;
            let changed = cluster.session(last).await?.reply(&format!("{CHANGE_MODE} {FILE}")).await?;
            let led = protocol(cluster, cluster.leader().await?).await?;
            let expected = if led == before { 450 } else { 200 };
            ensure(changed.0 == expected, || format!("beside {} of the next version: {changed:?}", last - node + 1))?;
        }
        Ok(())
    })
    .await?;
    ensure(protocol(cluster, 0).await? == before + 1, || "no newer protocol".to_owned())?;
    for node in 0..=last {
        shows_mode(cluster, node, true).await?;
    }

    // Back. Nodes of this version carry what they do not know, also into the next version of the file.
    meanwhile(cluster, "/back", async |cluster| {
        for node in (0..=last).rev() {
            replace(cluster, node, &today).await?;
        }
        Ok(())
    })
    .await?;
    ensure(protocol(cluster, 0).await? == before, || "still the newer protocol".to_owned())?;
    let more = content("more", 5_000);
    cluster.session(0).await?.append(FILE, &more).await?;
    bytes.extend(more);
    shows_mode(cluster, last, false).await?;

    // A node of the next version finds it again.
    replace(cluster, last, &next).await?;
    shows_mode(cluster, last, true).await?;
    for node in 0..=last {
        ensure(cluster.session(node).await?.get(FILE).await? == bytes, || format!("{FILE} differs at node {node}"))?;
    }
    // The disks are read by this version.
    replace(cluster, last, &today).await?;
    cluster.three_copies().await?;
    let kept = cluster.on_disk().await?;
    let hash = &kept.get(FILE).context("no such file on the disks")?.hash;
    println!("versions: {} files on three disks each, {FILE} {hash}", kept.len());
    Ok(())
}

/// Another image on the same disk; returns when all are whole.
async fn replace(cluster: &mut Cluster, node: usize, image: &str) -> Result<()> {
    cluster.stop(node).await?;
    cluster.containers()?.replace_image(node, image).await?;
    cluster.lives(node);
    cluster.settle_under_load().await
}

/// The version of the protocol that a node speaks.
async fn protocol(cluster: &Cluster, node: usize) -> Result<u64> {
    let status = cluster.status(node).await?;
    let member = status["members"].as_array().into_iter().flatten().find(|m| m["info"]["node"] == status["node"]);
    member.and_then(|m| m["protocol"].as_u64()).with_context(|| format!("no protocol: {status}"))
}

/// Whether the mode of the file is shown at a node must be as said.
async fn shows_mode(cluster: &Cluster, node: usize, shown: bool) -> Result<()> {
    let facts = cluster.session(node).await?.reply(&format!("MLST {FILE}")).await?;
    ensure(facts.0 == 250 && facts.1.contains(MODE) == shown, || format!("node {node} shows {facts:?}"))
}
