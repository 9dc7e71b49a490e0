//! "The next version comes node by node and goes again while people work: no operation fails, and what it knew and this one
//! does not is still there when it returns."

use crate::Story;
use crate::work::meanwhile;
use anyhow::{Context, Result, bail};
use e2e::{Bed, Cluster, Need, content, ensure};

pub(crate) const STORY: Story =
    ("the_next_version_comes_and_goes_and_nothing_is_lost", Need::Containers, |bed, cluster| {
        Box::pin(comes_and_goes(bed, cluster))
    });

/// Its new operation gives a file its new field.
const FILE: &str = "/versions";
/// The modes that the file gets: the last one while this version is on its way back.
const MODES: [&str; 2] = ["0640", "0600"];
/// Changes of leader that one question may meet.
const LEADERS: usize = 10;

async fn comes_and_goes(bed: &Bed, cluster: &mut Cluster) -> Result<()> {
    let (next, today) = (bed.next_image().await?, cluster.containers()?.image().to_owned());
    let last = cluster.len() - 1;
    let before = protocol(cluster, 0).await?;
    let mut bytes = content(FILE, 100_000);
    let mut session = cluster.session(last).await?;
    session.put(FILE, &bytes).await?;
    let unknown = session.reply(&format!("SITE CHMOD {} {FILE}", MODES[0])).await?;
    ensure(unknown.0 == 504, || format!("this version answers {unknown:?}"))?;

    // Forward. The leader comes last: until then it is of this version, and the others ask nothing of it that it does not know.
    let mut refused = 0;
    meanwhile(cluster, "/forward", async |cluster| {
        for node in (0..=last).rev() {
            replace(cluster, node, &next).await?;
            match change_mode(cluster, last, MODES[0]).await? {
                (led, 450, text) if led == before && text.contains("being updated") => refused += 1,
                (led, 200, _) if led > before => {}
                other => bail!("beside {} of the next version: {other:?}", last - node + 1),
            }
        }
        Ok(())
    })
    .await?;
    ensure(refused > 0, || "no leader of this version was asked".to_owned())?;
    for node in 0..=last {
        ensure(protocol(cluster, node).await? == before + 1, || format!("node {node} speaks no newer protocol"))?;
        shows_mode(cluster, node, Some(MODES[0])).await?;
    }

    // Back. Nodes of this version take what they do not know from their leader, and carry it into the next version of the file.
    meanwhile(cluster, "/back", async |cluster| {
        for node in (0..=last).rev() {
            replace(cluster, node, &today).await?;
            if node == last {
                let changed = change_mode(cluster, 0, MODES[1]).await?;
                ensure(changed.1 == 200, || format!("the last leader of the next version: {changed:?}"))?;
            }
        }
        Ok(())
    })
    .await?;
    let more = content("more", 5_000);
    cluster.session(0).await?.append(FILE, &more).await?;
    bytes.extend(more);
    for node in 0..=last {
        ensure(protocol(cluster, node).await? == before, || format!("node {node} speaks another protocol"))?;
        shows_mode(cluster, node, None).await?;
        ensure(cluster.session(node).await?.get(FILE).await? == bytes, || format!("{FILE} differs at node {node}"))?;
    }

    // Each has it again once it is of the next version.
    for node in (0..=last).rev() {
        replace(cluster, node, &next).await?;
        shows_mode(cluster, node, Some(MODES[1])).await?;
    }
    // The disks are read by this version.
    cluster.three_copies().await?;
    let kept = cluster.on_disk().await?;
    kept.get(FILE).with_context(|| format!("{FILE} is on no disk"))?;
    println!("versions: {} files, whole on three disks each", kept.len());
    Ok(())
}

/// Another image on the same disk; returns when all are whole.
async fn replace(cluster: &mut Cluster, node: usize, image: &str) -> Result<()> {
    cluster.stop(node).await?;
    cluster.containers()?.replace_image(node, image).await?;
    cluster.lives(node);
    cluster.settle_under_load().await
}

/// Asks a node to change the mode; under one leader, whose version comes first.
async fn change_mode(cluster: &Cluster, node: usize, mode: &str) -> Result<(u64, u32, String)> {
    for _ in 0..LEADERS {
        let leader = cluster.leader().await?;
        let (code, text) = cluster.session(node).await?.reply(&format!("SITE CHMOD {mode} {FILE}")).await?;
        let led = protocol(cluster, leader).await?;
        if cluster.leader().await? == leader && code != 451 {
            return Ok((led, code, text));
        }
    }
    bail!("the leader changed {LEADERS} times")
}

/// The version of the protocol that a node speaks.
async fn protocol(cluster: &Cluster, node: usize) -> Result<u64> {
    let status = cluster.status(node).await?;
    let member = status["members"].as_array().into_iter().flatten().find(|m| m["info"]["node"] == status["node"]);
    member.and_then(|m| m["protocol"].as_u64()).with_context(|| format!("no protocol: {status}"))
}

/// The mode that a node shows, if its version knows any.
async fn shows_mode(cluster: &Cluster, node: usize, mode: Option<&str>) -> Result<()> {
    let (code, text) = cluster.session(node).await?.reply(&format!("MLST {FILE}")).await?;
    let shown = mode.map_or(!text.contains("UNIX.mode"), |mode| text.contains(&format!("UNIX.mode={mode};")));
    ensure(code == 250 && shown, || format!("node {node} shows {text:?}"))
}
