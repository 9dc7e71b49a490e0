//! Nodes as processes on loopback, where there is no engine. They end when this process does, however it ends: their stdin
//! does, too.

use super::{free_ports, tail};
use crate::access::{Access, Variables, set};
use crate::wait::within;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use swarm::ask::Output;
use tokio::process::{Child, Command};

/// For a process to end: longer than the drain of 25 s.
const END: Duration = Duration::from_secs(40);
/// For a command to end.
const COMMAND: Duration = Duration::from_secs(60);

/// All nodes.
pub struct Processes {
    trebol: PathBuf,
    access: Access,
    nodes: Vec<Process>,
}

struct Process {
    data: PathBuf,
    /// Of clients; the next two are those of peers.
    port: u16,
    variables: Variables,
    /// Its child, while it runs.
    child: Option<Child>,
}

impl Processes {
    /// So many nodes with these settings beside the usual ones, not yet started.
    pub fn make(trebol: &Path, access: Access, count: usize, more: &Variables) -> Result<Self> {
        let ports = (0..count).map(|_| free_ports()).collect::<Result<Vec<u16>>>()?;
        let loopback = |port: u16| format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let seeds: Vec<String> = ports.iter().map(|port| loopback(port + 1)).collect();
        let mut nodes = Vec::new();
        for (number, port) in ports.iter().copied().enumerate() {
            let (name, files) = (format!("n{}", number + 1), access.files(&format!("n{}", number + 1))?);
            let data = access.directory().join("data").join(&name);
            let mut variables = access.variables(&name, number, |file| files[file].display().to_string());
            let own = [
                ("DATA", data.display().to_string()),
                ("FTP_LISTEN", loopback(port)),
                ("FTP_PASSIVE_PORTS", "0".to_owned()),
                ("PEER_LISTEN", loopback(port + 1)),
                ("PEER_RAW_LISTEN", loopback(port + 2)),
                ("PEER_SEEDS", seeds.join(",")),
            ];
            variables.extend(own.map(|(setting, value)| (format!("TREBOL_{setting}"), value)));
            set(&mut variables, more);
            nodes.push(Process { data, port, variables, child: None });
        }
        Ok(Self { trebol: trebol.to_owned(), access, nodes })
    }
    pub(super) fn access(&self) -> &Access {
        &self.access
    }
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| (Ipv4Addr::LOCALHOST, node.port).into()).collect()
    }
    pub(super) fn between_nodes(&self, node: usize) -> [SocketAddr; 2] {
        [1, 2].map(|more| (Ipv4Addr::LOCALHOST, self.nodes[node].port + more).into())
    }
    pub(super) fn start(&mut self, node: usize) -> Result<()> {
        let log = self.log_file(node);
        let node = &mut self.nodes[node];
        std::fs::create_dir_all(&node.data)?;
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&self.trebol);
        command.args(["serve", "--exit-on-stdin-eof"]).envs(&node.variables).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        node.child = Some(command.spawn().context("cannot start a node")?);
        Ok(())
    }
    pub(super) async fn kill(&mut self, node: usize) -> Result<()> {
        let child = self.nodes[node].child.take();
        Ok(child.context("the node does not run")?.kill().await?)
    }
    pub(super) async fn stop(&mut self, node: usize) -> Result<()> {
        let mut child = self.nodes[node].child.take().context("the node does not run")?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("the node has ended")?;
        kill_process(pid, Signal::TERM)?;
        // Its stdin must not end before it does: that would end it, too.
        let input = child.stdin.take();
        let status = within("the end of a node", END, async { Ok(child.wait().await?) }).await?;
        drop(input);
        if status.success() { Ok(()) } else { bail!("after SIGTERM a node ended with {status}") }
    }
    pub(super) fn wipe(&mut self, node: usize) -> Result<()> {
        Ok(std::fs::remove_dir_all(&self.nodes[node].data)?)
    }
    pub(super) async fn ask(&self, node: usize, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.trebol);
        command.args(arguments).env("TREBOL_DATA", &self.nodes[node].data).stdin(Stdio::null()).kill_on_drop(true);
        let output = within("a command of trebol", COMMAND, async { Ok(command.output().await?) }).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1).into();
        Ok(Output { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
    pub(super) async fn verify(&self, node: usize) -> Result<Output> {
        let data = self.nodes[node].data.display().to_string();
        self.ask(node, &["verify", "--json", "--data", &data]).await
    }
    pub(super) fn log(&self, node: usize) -> String {
        tail(&std::fs::read(self.log_file(node)).unwrap_or_default())
    }
    fn log_file(&self, node: usize) -> PathBuf {
        self.access.directory().join(format!("n{}.log", node + 1))
    }
}
