//! "Who is not let in changes nothing": not on the port for clients, encrypted or not, and not on those between nodes.

use crate::Story;
use anyhow::Result;
use e2e::client::expect;
use e2e::{Client, Cluster, Need, content, ensure, within};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const STORY: Story =
    ("an_unauthenticated_client_changes_nothing", Need::Nothing, |_, cluster| Box::pin(changes_nothing(cluster)));

/// Whatever reads or changes something; the file is there.
const WANTED: [&str; 16] = [
    "STOR /strangers/kept",
    "STOU",
    "APPE /strangers/kept",
    "DELE /strangers/kept",
    "MKD /strangers/new",
    "RMD /strangers",
    "RNFR /strangers/kept",
    "RNTO /strangers/moved",
    "RETR /strangers/kept",
    "SIZE /strangers/kept",
    "MDTM /strangers/kept",
    "NLST /",
    "MLST /strangers/kept",
    "CWD /strangers",
    "EPSV",
    "SITE CONFLICTS",
];
/// Longest wait for a refusal.
const REFUSAL: Duration = Duration::from_secs(30);

async fn changes_nothing(cluster: &mut Cluster) -> Result<()> {
    let (path, bytes) = ("/strangers/kept", content("kept", 100_000));
    let mut owner = cluster.session(1).await?;
    owner.make_directory("/strangers").await?;
    owner.put(path, &bytes).await?;
    let before = cluster.settle().await?;

    let clients = cluster.clients();
    refused(clients.stranger_in_clear(0).await?, "in clear").await?;
    refused(clients.stranger(0).await?, "encrypted").await?;
    // With the right name and password, but in clear: neither is listened to.
    let mut clear = clients.stranger_in_clear(0).await?;
    expect("USER in clear", clear.code("USER demo").await?, 530)?;
    let mut wrong = clients.stranger(0).await?;
    expect("USER", wrong.code("USER demo").await?, 331)?;
    expect("PASS with a wrong password", wrong.code("PASS wrong").await?, 530)?;
    refused(wrong, "with a wrong password").await?;

    for address in cluster.between_nodes(0).await? {
        let said = said(address).await?;
        // To whom does not speak TLS the refusal itself is in clear: one fatal alert (RFC 8446, section 6).
        let alert = said.is_empty() || matches!(said[..], [0x15, 3, _, 0, 2, 2, _]);
        ensure(alert, || format!("a stranger at {address} is told {} bytes", said.len()))?;
    }

    let after = cluster.settle().await?;
    for field in ["digest", "files", "conflicts"] {
        ensure(before[field] == after[field], || format!("{field} was {} and is {}", before[field], after[field]))?;
    }
    let members = after["members"].as_array().map_or(0, Vec::len);
    ensure(members == cluster.len(), || format!("{members} members"))?;
    ensure(cluster.session(2).await?.get(path).await? == bytes, || "the file differs".to_owned())
}

async fn refused(mut stranger: Client, how: &str) -> Result<()> {
    for line in WANTED {
        let code = stranger.code(line).await?;
        ensure(code == 530, || format!("{line} of a stranger, {how}, was answered {code}"))?;
    }
    Ok(())
}

/// What a node says, on a port between nodes, to words in clear.
async fn said(address: SocketAddr) -> Result<Vec<u8>> {
    within(&format!("a refusal at {address}"), REFUSAL, async {
        let mut wire = TcpStream::connect(address).await?;
        let words = br#"{"protocol":5,"cluster":"stories"}"#;
        let mut frame = u32::try_from(words.len())?.to_be_bytes().to_vec();
        frame.extend(words);
        let mut said = Vec::new();
        // A reset is a refusal, too.
        let _ = wire.write_all(&frame).await;
        let _ = wire.read_to_end(&mut said).await;
        Ok(said)
    })
    .await
}
