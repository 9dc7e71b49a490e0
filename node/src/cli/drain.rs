//! `trebol drain`: a node is emptied before it is taken away.

use super::status::find_running;
use super::{DATA, Failure, print, small_runtime};
use crate::admin::{AskError, NodeStatus, ask, drain};
use crate::cluster::{Draining, Liveness, MemberStatus, NodeId};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_secs(1);
/// Looks for which a node that was asked may be away (it restarts, perhaps), or not know yet of what it was asked.
const PATIENCE: u32 = 60;
/// Nodes that have to be there for the copies of one that is drained.
const NEEDED: usize = 3;

/// Have a node's copies move to others, before it is taken away
///
/// It goes on serving, and takes new copies only while fewer than three others could. Prints how many copies are left until
/// none is: then it may be stopped, and forgotten. Ctrl-C ends the printing, not the draining.
#[derive(Debug, clap::Args)]
pub(super) struct Drain {
    /// Its name, its id, or how its id begins, as `trebol status` shows them; of two with one name, the one that is up
    node: String,
    /// Take it back: it may keep and take copies again
    #[arg(long)]
    cancel: bool,
    /// Do not wait until it is empty
    #[arg(long, conflicts_with = "cancel")]
    detach: bool,
    /// The data directory of a node that is up; the usual one unless given
    #[arg(long, env = "TREBOL_DATA", value_name = "DIR", default_value = DATA)]
    data: PathBuf,
}

impl Drain {
    pub(super) fn run(self) -> Result<(), Failure> {
        small_runtime()?.block_on(self.order())
    }

    async fn order(self) -> Result<(), Failure> {
        let (dir, _) = find_running(&self.data).await.map_err(Failure::runtime)?;
        let node = drain(&dir, self.node, !self.cancel).await.map_err(Failure::runtime)?;
        if self.cancel {
            return print(&format!("{node} may keep and take copies again\n"));
        }
        if self.detach {
            return print(&format!("{node} is being drained: `trebol status` shows how many copies it has\n"));
        }
        watch(&dir, node).await
    }
}

/// Says how many copies are left, whenever that changes, until none is.
async fn watch(dir: &Path, node: NodeId) -> Result<(), Failure> {
    let (mut told, mut seen, mut in_vain) = (String::new(), false, 0);
    loop {
        let line = match ask(dir).await {
            Ok(status) => match progress(&status, node) {
                Progress::Empty(sentence) => return print(&sentence),
                Progress::Left(sentence) => {
                    (seen, in_vain) = (true, 0);
                    sentence
                }
                Progress::NotDrained(sentence) if seen || in_vain >= PATIENCE => {
                    return Err(Failure::Runtime(sentence));
                }
                // The node that was asked has not got the record yet.
                Progress::NotDrained(_) => String::new(),
            },
            Err(AskError::Silent(_) | AskError::NotRunning(_)) if in_vain < PATIENCE => String::new(),
            Err(error) => return Err(Failure::runtime(error)),
        };
        in_vain += u32::from(line.is_empty());
        if !line.is_empty() && line != told {
            print(&line)?;
            told = line;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How far it is, in a sentence.
#[derive(Debug, PartialEq)]
enum Progress {
    Empty(String),
    Left(String),
    NotDrained(String),
}

fn progress(status: &NodeStatus, node: NodeId) -> Progress {
    let members = &status.cluster.members;
    let Some(member) = members.iter().find(|m| m.info.node == node) else {
        return Progress::NotDrained(format!("{node} is no node of this cluster any more"));
    };
    let name = &member.info.name;
    let takes = |m: &&MemberStatus| m.liveness == Liveness::Alive && m.draining == Draining::No;
    let (others, left) = (members.iter().filter(takes).count(), member.copies);
    match member.draining {
        Draining::No => Progress::NotDrained(format!("{name} is not drained any more: somebody took it back")),
        Draining::Done => Progress::Empty(format!(
            "{name} is empty: no file is to be on it any more. Stop it, and once `trebol status` shows it as down: \
             trebol forget {name}\n"
        )),
        Draining::UnderWay if member.liveness != Liveness::Alive => {
            Progress::Left(format!("{name}: {left} copies left; it is not there, so nobody knows what else it has\n"))
        }
        Draining::UnderWay if others < NEEDED => Progress::Left(format!(
            "{name}: {left} copies left, and {others} other nodes to take them, of {NEEDED} that it takes: waiting for \
             more\n"
        )),
        Draining::UnderWay => Progress::Left(format!("{name}: {left} copies left\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Endpoints;
    use crate::cluster::{Digest, DiskReport, Epoch, PeerInfo, RoleName, Status};
    use crate::peer::testing::info;
    use crate::store::Integrity;

    const ON_ITS_WAY: NodeId = NodeId(1);

    /// Five nodes, the first of which has seven copies and is being drained.
    fn status() -> NodeStatus {
        let member = |n: u128| MemberStatus {
            info: PeerInfo { name: format!("n{n}"), ..info(n, "127.0.0.1:1") },
            liveness: Liveness::Alive,
            role: RoleName::Follow,
            behind: 0,
            disk: DiskReport { used: 0, free: 1, healthy: true },
            clock_ahead: 0,
            draining: if NodeId(n) == ON_ITS_WAY { Draining::UnderWay } else { Draining::No },
            copies: 7,
            leaving: false,
            protocol: 1,
        };
        let any = "127.0.0.1:1".parse().unwrap();
        let cluster = Status {
            node: NodeId(2),
            role: RoleName::Lead,
            leader: Some(NodeId(2)),
            epoch: Epoch(1, 1),
            members: (1..=5).map(member).collect(),
            digest: Digest::default(),
            files: 7,
            missing_copies: 0,
            applied: 0,
        };
        NodeStatus {
            name: "n2".to_owned(),
            pid: 1,
            endpoints: Endpoints { ftp: any, peer: any, raw: any, admin: None },
            conflicts: 0,
            scrub: Integrity::default(),
            log_records: 0,
            cluster,
        }
    }
    /// What is said once `change` was made to all members.
    fn said(change: impl Fn(&mut MemberStatus)) -> Progress {
        let mut status = status();
        status.cluster.members.iter_mut().for_each(change);
        progress(&status, ON_ITS_WAY)
    }
    fn left(sentence: &str) -> Progress {
        Progress::Left(format!("n1: {sentence}\n"))
    }

    #[test]
    fn copies_that_are_left_are_counted_down() {
        assert_eq!(said(|_| ()), left("7 copies left"));
        assert_eq!(said(|m| m.copies = 1), left("1 copies left"));
        // None in the index is not yet empty: records may be on their way.
        assert_eq!(said(|m| m.copies = 0), left("0 copies left"));
    }

    #[test]
    fn what_it_waits_for_is_said() {
        let few = "7 copies left, and 2 other nodes to take them, of 3 that it takes: waiting for more";
        assert_eq!(said(|m| m.liveness = if m.info.node.0 > 3 { Liveness::Down } else { m.liveness }), left(few));
        assert_eq!(said(|m| m.draining = if m.info.node.0 > 3 { Draining::Done } else { m.draining }), left(few));
        let away = "7 copies left; it is not there, so nobody knows what else it has";
        let gone =
            |m: &mut MemberStatus| m.liveness = if m.info.node == ON_ITS_WAY { Liveness::Down } else { m.liveness };
        assert_eq!(said(gone), left(away));
    }

    #[test]
    fn it_ends_with_an_empty_node_or_with_one_that_is_not_drained() {
        let Progress::Empty(sentence) = said(|m| m.draining = Draining::Done) else { panic!("not empty") };
        assert!(sentence.starts_with("n1 is empty") && sentence.ends_with("trebol forget n1\n"), "{sentence}");
        assert!(matches!(said(|m| m.draining = Draining::No), Progress::NotDrained(_)));
        assert!(matches!(progress(&status(), NodeId(9)), Progress::NotDrained(_)), "it was forgotten");
    }
}
