//! `trebol status`: what a running node says of itself and its cluster.

use super::{DATA, Failure, dev, dev_directory, print, small_runtime};
use crate::admin::{AskError, ID_DIGITS, NodeStatus, ask};
use crate::cluster::{Draining, Liveness, MemberStatus, NodeId, RoleName};
use crate::store::Integrity;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Show the cluster as a node on this machine sees it
#[derive(Debug, clap::Args)]
pub(super) struct StatusOf {
    /// The node's data directory, or that of `trebol dev`; the usual ones unless given
    #[arg(long, env = "TREBOL_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl StatusOf {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let status = small_runtime()?.block_on(self.find()).map_err(Failure::runtime)?;
        let json = || serde_json::to_string(&status).map(|json| json + "\n").map_err(Failure::runtime);
        print(&if self.json { json()? } else { table(&status) })
    }

    async fn find(&self) -> Result<NodeStatus, AskError> {
        if let Some(dir) = &self.data {
            return find_live(dir).await;
        }
        match find_live(Path::new(DATA)).await {
            Err(error @ AskError::NotRunning(_)) => find_live(&dev_directory()).await.map_err(|_| error),
            answered => answered,
        }
    }
}

/// The first node that answers: the one in `dir` itself, or one below it as `trebol dev` lays them out.
async fn find_live(dir: &Path) -> Result<NodeStatus, AskError> {
    Ok(find_running(dir).await?.1)
}

/// The same, with its directory.
pub(super) async fn find_running(dir: &Path) -> Result<(PathBuf, NodeStatus), AskError> {
    let mut first = match ask(dir).await {
        Err(error @ AskError::NotRunning(_)) => error,
        answered => return Ok((dir.to_owned(), answered?)),
    };
    for node in dev::node_directories(dir) {
        match ask(&node).await {
            Ok(status) => return Ok((node, status)),
            Err(AskError::NotRunning(_)) => {}
            Err(error) => first = error,
        }
    }
    Err(first)
}

/// For people.
fn table(status: &NodeStatus) -> String {
    let cluster = &status.cluster;
    let name = |node: NodeId| {
        let member = cluster.members.iter().find(|member| member.info.node == node);
        member.map_or_else(|| node.to_string(), |member| member.info.name.clone())
    };
    let leader = cluster.leader.map_or_else(|| "none: writes wait".to_owned(), name);
    let mut text = format!(
        "node    {} ({}), {}\nleader  {leader}\nepoch   {}\nfiles   {}, {} copies missing, {} losers of conflicts\n\
         index   {}\nscrub   {}\n\n",
        status.name,
        cluster.node,
        role(cluster.role),
        cluster.epoch.0,
        cluster.files,
        cluster.missing_copies,
        status.conflicts,
        cluster.digest,
        scrub(&status.scrub),
    );
    let mut rows = vec![
        ["NODE", "ID", "STATE", "ROLE", "FTP", "ZONE", "BEHIND", "COPIES", "USED", "FREE", "DISK", "CLOCK", "PROTOCOL"]
            .map(str::to_owned),
    ];
    for member in &cluster.members {
        rows.push([
            member.info.name.clone(),
            format!("{:.ID_DIGITS$}", member.info.node.to_string()),
            state(member),
            role(member.role).to_owned(),
            member.info.ftp.clone(),
            member.info.zone.clone(),
            member.behind.to_string(),
            member.copies.to_string(),
            bytes(member.disk.used),
            bytes(member.disk.free),
            if member.disk.healthy { "ok" } else { "failing" }.to_owned(),
            clock(member.clock_ahead),
            protocol(member.protocol),
        ]);
    }
    text.push_str(&columns(&rows));
    text
}

/// What reading the copies on the node's disk again has come to.
fn scrub(of: &Integrity) -> String {
    let Integrity { rounds, blobs, bad, healed, condemned, incurable, .. } = of;
    let open = if *condemned == 0 {
        String::new()
    } else {
        format!(", bad now {condemned}, of them without a good copy elsewhere {incurable}")
    };
    format!("rounds {rounds}, copies read {blobs} ({}), bad {bad}, healed {healed}{open}", bytes(of.bytes))
}

/// Rows with columns as wide as their widest cell.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Whether it is there, and what becomes of its copies.
fn state(member: &MemberStatus) -> String {
    let liveness = match member.liveness {
        Liveness::Down => "down",
        Liveness::Suspect => "suspect",
        Liveness::Alive if member.leaving => "leaving",
        Liveness::Alive => "alive",
    };
    match member.draining {
        Draining::No => liveness.to_owned(),
        Draining::UnderWay => format!("{liveness}, draining"),
        Draining::Done => format!("{liveness}, drained"),
    }
}

/// A role in a word.
pub(super) fn role(role: RoleName) -> &'static str {
    match role {
        RoleName::Follow => "follower",
        RoleName::Elect | RoleName::Collect => "electing",
        RoleName::Lead => "leader",
    }
}

/// A clock that may lead is "ok"; else how many microseconds it is ahead.
fn clock(ahead: u64) -> String {
    if ahead == 0 { "ok".to_owned() } else { format!("{}.{} s ahead", ahead / 1_000_000, ahead / 100_000 % 10) }
}

/// The version it speaks; of one that was not heard since it or this node started none is known.
fn protocol(version: u32) -> String {
    if version == 0 { "unknown".to_owned() } else { version.to_string() }
}

/// Bytes with a binary unit, three digits at least.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 10_240 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count >> 10, 0);
    while value >= 10_240 && unit + 1 < UNITS.len() {
        value >>= 10;
        unit += 1;
    }
    format!("{value} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a    bb\nccc  d\n");
    }

    #[test]
    fn bad_copies_are_named_only_while_there_are_any() {
        let whole = Integrity { rounds: 2, blobs: 5, bytes: 20 << 10, bad: 1, healed: 1, ..Integrity::default() };
        assert_eq!(scrub(&whole), "rounds 2, copies read 5 (20 KiB), bad 1, healed 1");
        let rotten = Integrity { bad: 3, condemned: 2, incurable: 1, ..whole };
        assert!(scrub(&rotten).ends_with("bad 3, healed 1, bad now 2, of them without a good copy elsewhere 1"));
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([bytes(0), bytes(10_239), bytes(10_240), bytes(80 << 30)], ["0 B", "10239 B", "10 KiB", "80 GiB"]);
    }

    #[tokio::test]
    async fn nobody_running_is_said_with_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let error = find_live(dir.path()).await.unwrap_err().to_string();
        assert!(error.starts_with("no node runs in ") && error.contains("--data"), "{error}");
    }
}
