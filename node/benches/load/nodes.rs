//! A cluster of the benchmark's own: `trebol dev` in a temporary directory, its nodes' memory, their deaths by SIGKILL and
//! their returns. Ends with the value that holds it.

use crate::{Outcome, processor};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// For a cluster to come up, and for a node to return.
const START: Duration = Duration::from_secs(120);
/// Between two looks at a status.
const LOOK: Duration = Duration::from_millis(100);

/// One node.
pub(crate) struct Node {
    /// As `dev` names it.
    pub(crate) name: String,
    /// Where clients connect.
    pub(crate) ftp: SocketAddr,
    pid: Pid,
    arguments: Vec<String>,
    data: PathBuf,
    /// Set once it was restarted here.
    ours: Option<Child>,
}

/// A running cluster.
pub(crate) struct Nodes {
    directory: TempDir,
    dev: Child,
    /// The nodes.
    pub(crate) all: Vec<Node>,
    /// The demo user.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: String,
    // Kept so that dev's later lines have somewhere to go.
    lines: Lines<BufReader<ChildStdout>>,
}

/// In clear as well: both are measured.
const ENVIRONMENT: (&str, &str) = ("TREBOL_FTP_REQUIRE_TLS", "false");

impl Nodes {
    /// Starts so many nodes and waits for their leader.
    pub(crate) async fn start(count: usize) -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("trebol-load-").tempdir()?;
        let log = fs::File::create(directory.path().join("log"))?;
        // Held while dev looks for ports: from its usual ones another cluster on this machine could take that of a node
        // that is dead for a moment.
        let _usual: Vec<_> = (2121..2171).filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).collect();
        let mut dev = Command::new(env!("CARGO_BIN_EXE_trebol"));
        dev.args(["dev", "--json", "--nodes", &count.to_string(), "--data"]).arg(directory.path().join("dev"));
        dev.env(ENVIRONMENT.0, ENVIRONMENT.1).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut dev = dev.kill_on_drop(true).spawn()?;
        let lines = BufReader::new(dev.stdout.take().ok_or("no output")?).lines();
        let (user, password) = (String::new(), String::new());
        let mut nodes = Self { directory, dev, all: Vec::new(), user, password, lines };
        while nodes.user.is_empty() {
            let line = timeout(START, nodes.lines.next_line()).await??.ok_or("dev ended before it was up")?;
            let said: Value = serde_json::from_str(&line)?;
            let text = |key: &str| said[key].as_str().map(str::to_owned).ok_or(format!("no {key} in {line}"));
            if said.get("node").is_some() {
                let pid = said["pid"].as_i64().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).ok_or("no pid")?;
                let arguments = command_line(pid)?;
                let data = data_directory(&arguments)?;
                let (name, ftp) = (text("node")?, text("ftp")?.parse()?);
                nodes.all.push(Node { name, ftp, pid, arguments, data, ours: None });
            } else {
                (nodes.user, nodes.password) = (text("user")?, text("password")?);
            }
        }
        Ok(nodes)
    }

    /// Resident memory of each node now and at its highest, in MiB.
    pub(crate) fn memory(&self) -> Outcome<Vec<(String, u64, u64)>> {
        let of = |node: &Node| {
            let status = fs::read_to_string(format!("/proc/{}/status", node.pid.as_raw_nonzero()))?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
            };
            Ok((node.name.clone(), field("VmRSS:"), field("VmHWM:")))
        };
        self.all.iter().map(of).collect()
    }

    /// Seconds of processor time that each node has used since it started.
    pub(crate) fn processor(&self) -> Outcome<Vec<f64>> {
        self.all.iter().map(|node| processor::of_process(node.pid.as_raw_nonzero().get())).collect()
    }

    /// The index of the leader, once all nodes are up to date under it.
    pub(crate) async fn settled_leader(&self) -> Outcome<usize> {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            match self.look().await {
                Ok(leader) => return Ok(leader),
                Err(error) if began.elapsed() > START => {
                    return Err(format!("the cluster does not settle: {error}").into());
                }
                Err(_) => {}
            }
        }
    }

    async fn look(&self) -> Outcome<usize> {
        let mut leader = None;
        for (index, node) in self.all.iter().enumerate() {
            let mut status = Command::new(env!("CARGO_BIN_EXE_trebol"));
            let output = status.args(["status", "--json", "--data"]).arg(&node.data).output().await?;
            let said: Value = serde_json::from_slice(&output.stdout)?;
            let members = said["members"].as_array().ok_or("no members")?;
            let calm = members.iter().all(|member| member["liveness"] == "alive" && member["behind"] == 0);
            if members.len() != self.all.len() || !calm || said["leader"].is_null() {
                return Err(said.to_string().into());
            }
            if said["leader"] == said["node"] {
                leader = Some(index);
            }
        }
        leader.ok_or_else(|| "nobody leads".into())
    }

    /// Has a node give away all its copies, and take none from now on.
    pub(crate) async fn drain(&self, node: usize) -> Outcome<()> {
        let others = self.all.len() - 1;
        if others < 3 {
            return Err(format!("{others} other nodes cannot take three copies").into());
        }
        let mut drain = Command::new(env!("CARGO_BIN_EXE_trebol"));
        drain.args(["drain", &self.all[node].name, "--data"]).arg(&self.all[node].data).kill_on_drop(true);
        let ran = timeout(START, drain.output()).await??;
        if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into()) }
    }

    /// Fails if a node has a large file on its disk: what was meant to be proxied was not.
    pub(crate) fn holds_nothing(&self, node: usize) -> Outcome<()> {
        for directory in fs::read_dir(self.all[node].data.join("blobs"))? {
            if fs::read_dir(directory?.path())?.next().is_some() {
                return Err(format!("{} has files of its own", self.all[node].name).into());
            }
        }
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, node: usize) -> Outcome<()> {
        Ok(kill_process(self.all[node].pid, Signal::KILL)?)
    }

    /// Starts a killed node again.
    pub(crate) async fn restart(&mut self, node: usize) -> Outcome<()> {
        let log = fs::File::options().append(true).open(self.directory.path().join("log"))?;
        let node = &mut self.all[node];
        if let Some(mut ended) = node.ours.take() {
            ended.wait().await?;
        }
        let mut command = Command::new(&node.arguments[0]);
        command.args(&node.arguments[1..]).env(ENVIRONMENT.0, ENVIRONMENT.1);
        // A node that dev started ends when its input does: ours stays open as long as the child is held.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let child = command.spawn()?;
        node.pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).ok_or("it ended at once")?;
        node.ours = Some(child);
        Ok(())
    }

    /// Ends all, as Ctrl-C would.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        let dev = self.dev.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).ok_or("dev has ended")?;
        kill_process(dev, Signal::TERM)?;
        timeout(START, self.dev.wait()).await??;
        Ok(())
    }
}

fn command_line(pid: Pid) -> Outcome<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))?;
    Ok(text.trim_end_matches('\0').split('\0').map(str::to_owned).collect())
}

fn data_directory(arguments: &[String]) -> Outcome<PathBuf> {
    let value = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    if let Some(data) = value("--data") {
        return Ok(data.into());
    }
    let settings: toml::Table = fs::read_to_string(value("--config").ok_or("no --config")?)?.parse()?;
    let data = settings.get("node").and_then(|node| node.get("data")).and_then(toml::Value::as_str);
    Ok(data.ok_or("no node.data")?.into())
}
