//! "Who listens between the nodes learns nothing": neither names nor bytes of files. That the ear hears at all is shown by
//! the same files on a cluster whose nodes do not encrypt.

use crate::Story;
use anyhow::Result;
use e2e::cluster::{AGREED, settings};
use e2e::place::Heard;
use e2e::{Bed, Cluster, Need, ensure, wait_for};

pub(crate) const STORY: Story =
    ("between_nodes_no_name_and_no_byte_of_a_file_is_in_clear", Need::Network, |bed, cluster| {
        Box::pin(nothing_in_clear(bed, cluster))
    });

/// Nodes that do not encrypt what they tell each other; they refuse to have certificates for it.
const IN_CLEAR: [(&str, &str); 4] = [
    ("TREBOL_INSECURE_PEERS", "true"),
    ("TREBOL_PEER_CA", ""),
    ("TREBOL_PEER_CERTIFICATE", ""),
    ("TREBOL_PEER_KEY", ""),
];
/// In names of files.
const NAME: &str = "QUADRIFOLIUM-NAME";
/// In files.
const BYTES: &str = "QUADRIFOLIUM-BYTES";
/// Of each kind: one that goes along in the database, one that is a file of its own.
const LENGTHS: [usize; 2] = [20_000, 400_000];
/// Files of each length: a name may by chance be cut by the end of a segment.
const FILES: usize = 4;

async fn nothing_in_clear(bed: &Bed, cluster: &mut Cluster) -> Result<()> {
    let secret = heard(cluster, BYTES).await?;
    ensure(secret.found == 0, || format!("bytes of files are in clear: {secret:?}"))?;
    let secret = heard(cluster, NAME).await?;
    ensure(secret.found == 0, || format!("names of files are in clear: {secret:?}"))?;

    let mut open = bed.own_cluster(3, &settings(&IN_CLEAR)).await?;
    let told = async {
        let bytes = heard(&mut open, BYTES).await?;
        let names = heard(&mut open, NAME).await?;
        println!("in clear: {bytes:?} and {names:?}; encrypted: {secret:?}");
        ensure(bytes.found > 0 && names.found > 0, || format!("the ear is deaf: {bytes:?}, {names:?}"))
    };
    match told.await {
        Ok(()) => open.clear().await,
        Err(error) => Err(open.end_with(error).await),
    }
}

/// Stores files through a follower, whose network is listened to: bytes go from it to the replicas, names to the leader.
async fn heard(cluster: &mut Cluster, text: &str) -> Result<Heard> {
    let front = (cluster.leader().await? + 1) % cluster.len();
    let ear = cluster.containers()?.listen(front, &[text]).await?;
    let mut session = cluster.session(front).await?;
    let mut sent = 0;
    for length in LENGTHS {
        let bytes: Vec<u8> = BYTES.bytes().cycle().take(length).collect();
        for number in 0..FILES {
            session.put(&format!("/{NAME}-{text}-{length}-{number}"), &bytes).await?;
            sent += length as u64;
        }
    }
    // Two of the three copies at least went over the wire; of so much the kernel may have had to leave something out.
    let heard = wait_for("the ear to have heard every file", AGREED, async || {
        let heard = ear.heard().await?;
        ensure(heard.raw >= sent && heard.control > 0, || format!("{heard:?} of {sent} bytes"))?;
        Ok(heard)
    });
    let heard = heard.await?;
    ear.stop().await?;
    Ok(heard)
}
