//! Asks a running node: `trebol …` inside its container, through the engine. The image has no shell, so a command is its
//! words. Of the node's answers only what this crate needs is read: versions may differ.

use crate::engine::Engine;
use anyhow::{Context, Result, anyhow, bail};
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use futures_util::StreamExt;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// For a command to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest output, in bytes.
const OUTPUT_MAX: usize = 4 << 20;

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: i64,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// The cluster as one node sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct View {
    /// Whom the node follows.
    pub leader: Option<String>,
    /// All it knows, itself included.
    pub members: Vec<Member>,
    /// Visible files.
    pub files: u64,
    /// Copies that are missing.
    pub missing_copies: u64,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    /// What it tells of itself.
    pub info: MemberInfo,
    /// `alive`, `suspect`, `down`.
    pub liveness: String,
    /// Records it has not got yet.
    pub behind: u64,
    /// `no`, `under_way`, `done`.
    #[serde(default)]
    pub draining: String,
    /// Copies that shall be on it.
    #[serde(default)]
    pub copies: u64,
}

/// The part of a member's own words that matters here.
#[derive(Debug, Clone, Deserialize)]
pub struct MemberInfo {
    /// Its id.
    pub node: String,
    /// Its name, that of [`crate::name::NodeName`].
    pub name: String,
}

impl Member {
    /// Whether its copies move away, or have moved.
    pub fn is_drained(&self) -> bool {
        !matches!(self.draining.as_str(), "" | "no")
    }
}

/// Runs a command in a container, and waits for it.
pub async fn exec(engine: &Engine, container: &str, command: &[&str]) -> Result<Output> {
    let failed = |error| engine.failed(&format!("run {}", command.join(" ")), &error);
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        ..CreateExecOptions::default()
    };
    let run = async {
        let id = engine.docker.create_exec(container, options).await.map_err(failed)?.id;
        let started = engine.docker.start_exec(&id, None).await.map_err(failed)?;
        let StartExecResults::Attached { mut output, .. } = started else { bail!("the command runs unattended") };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(piece) = output.next().await {
            match piece.map_err(failed)? {
                LogOutput::StdErr { message } => stderr.extend_from_slice(&message),
                other => stdout.extend_from_slice(&other.into_bytes()),
            }
            if stdout.len() + stderr.len() > OUTPUT_MAX {
                bail!("host {}: {} prints more than {OUTPUT_MAX} bytes", engine.host, command.join(" "));
            }
        }
        let ended = engine.docker.inspect_exec(&id).await.map_err(failed)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { code: ended.exit_code.unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) })
    };
    let late = || format!("host {}: {} does not end", engine.host, command.join(" "));
    timeout(PATIENCE, run).await.with_context(late)?
}

/// What the node in a container says of its cluster.
pub async fn view(engine: &Engine, container: &str) -> Result<View> {
    let output = exec(engine, container, &["trebol", "status", "--json"]).await?;
    output.stdout_if_ok()?.parse()
}

impl Output {
    /// What was printed, if all went well; else the complaint.
    pub fn stdout_if_ok(&self) -> Result<&str> {
        if self.code == 0 {
            return Ok(&self.stdout);
        }
        let words = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        Err(anyhow!("{}", words.trim().trim_start_matches("trebol: ")))
    }
}

impl std::str::FromStr for View {
    type Err = anyhow::Error;
    fn from_str(json: &str) -> Result<Self> {
        serde_json::from_str(json)
            .context("the node's status is not understood: is its version too far from this one's?")
    }
}

impl View {
    /// The member of that name that is not down, if there is one.
    pub fn member(&self, name: &str) -> Option<&Member> {
        let of_name = || self.members.iter().filter(|member| member.info.name == name);
        of_name().find(|member| member.liveness != "down").or_else(|| of_name().next())
    }
    /// The leader's name.
    pub fn leader_name(&self) -> Option<&str> {
        let leader = self.leader.as_ref()?;
        self.members.iter().find(|member| member.info.node == *leader).map(|member| member.info.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::cluster::{
        Digest, DiskReport, Draining, Epoch, Liveness, MemberStatus, NodeId, PeerInfo, Rank, RoleName, Status,
    };

    #[test]
    fn a_status_of_this_version_is_understood() {
        let info = PeerInfo {
            node: NodeId(7),
            rank: Rank { priority: 0, address: "10.0.0.1:2123".parse().unwrap(), node: NodeId(7) },
            raw: "10.0.0.1:2124".parse().unwrap(),
            ftp: "10.0.0.1:21".to_owned(),
            name: "h1-1".to_owned(),
            zone: "h1".to_owned(),
        };
        let member = MemberStatus {
            info,
            liveness: Liveness::Alive,
            role: RoleName::Lead,
            behind: 3,
            disk: DiskReport::default(),
            clock_ahead: 0,
            draining: Draining::UnderWay,
            copies: 5,
            leaving: false,
            protocol: 5,
        };
        let status = Status {
            node: NodeId(7),
            role: RoleName::Lead,
            leader: Some(NodeId(7)),
            epoch: Epoch::default(),
            members: vec![member],
            digest: Digest::default(),
            files: 2,
            missing_copies: 1,
            applied: 0,
        };
        let view: View = serde_json::to_string(&status).unwrap().parse().unwrap();
        let member = view.member("h1-1").unwrap();
        assert_eq!((member.liveness.as_str(), member.draining.as_str()), ("alive", "under_way"));
        assert_eq!((member.behind, member.copies, view.files, view.missing_copies), (3, 5, 2, 1));
        assert_eq!(view.leader_name(), Some("h1-1"));
    }
}
