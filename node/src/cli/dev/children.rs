//! The node processes of a `dev` cluster. Each has a pipe for stdin: when this process ends, however it ends, the pipe
//! does too, and so do they. Ctrl-C in a terminal does not reach them (own process groups): they are told one by one.

use super::layout::Layout;
use crate::cli::Failure;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// From SIGTERM to SIGKILL: longer than the nodes' drain of 10 s and all that follows it.
const GRACE: Duration = Duration::from_secs(25);

/// All of them. Dropped, they are killed.
#[derive(Debug)]
pub(super) struct Children {
    running: JoinSet<(Option<Pid>, String)>,
    pids: Vec<Pid>,
}

impl Children {
    /// Starts every node of the layout with this program. Their logs go to this process's stderr, or to files.
    pub(super) fn start(layout: &Layout, to_stderr: bool) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::runtime)?;
        let mut all = Self { running: JoinSet::new(), pids: Vec::new() };
        for node in &layout.nodes {
            let io = |error| Failure::Runtime(format!("cannot start {}: {error}", node.name));
            let mut command = Command::new(&program);
            command.arg("serve").arg("--config").arg(&node.settings).arg("--exit-on-stdin-eof");
            // What differs between nodes must not come from a variable, which would win.
            for name in &layout.own_variables {
                command.env_remove(name);
            }
            let log = if to_stderr { Stdio::inherit() } else { File::create(&node.log).map_err(io)?.into() };
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
            let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(io)?;
            let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
            all.pids.extend(pid);
            let log = (!to_stderr).then(|| node.log.clone());
            let name = node.name.clone();
            all.running.spawn(async move { (pid, describe(&name, log.as_deref(), end_of(&mut child).await)) });
        }
        Ok(all)
    }
    /// How many still run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }
    /// Waits until one ends; a sentence about it. For ever when none runs.
    pub(super) async fn next_end(&mut self) -> String {
        let Some(ended) = self.running.join_next().await else { return std::future::pending().await };
        match ended {
            Ok((pid, sentence)) => {
                // From now on the number may be another process's.
                self.pids.retain(|other| Some(*other) != pid);
                sentence
            }
            Err(error) => format!("a node was lost: {error}"),
        }
    }
    /// SIGTERM to all, and SIGKILL to those that are left after the grace.
    pub(super) async fn stop(mut self) {
        for pid in &self.pids {
            // One that has ended meanwhile is still a zombie: nobody has waited for it.
            let _ = kill_process(*pid, Signal::TERM);
        }
        let all = async { while self.running.join_next().await.is_some() {} };
        if timeout(GRACE, all).await.is_err() {
            eprintln!("trebol: {} nodes did not stop in {} s and are killed", self.running.len(), GRACE.as_secs());
            self.running.shutdown().await;
        }
    }
}

/// Waits without closing the child's stdin, which `Child::wait` would do.
async fn end_of(child: &mut Child) -> std::io::Result<ExitStatus> {
    let _stdin = child.stdin.take();
    child.wait().await
}

/// How a node ended, with the last line of its log if that is a file.
fn describe(name: &str, log: Option<&Path>, status: std::io::Result<ExitStatus>) -> String {
    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    let Some(log) = log else { return format!("{name} ended ({how})") };
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word in its log");
    format!("{name} ended ({how}): {last}; its log is {}", log.display())
}
