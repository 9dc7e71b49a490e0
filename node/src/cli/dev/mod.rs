//! `trebol dev`: a whole cluster on this machine, one `trebol serve` process a node, for trying out and for tests. Keeps
//! its data between runs. Never restarts a node that died, never listens beyond loopback.

mod children;
mod layout;
mod ports;
mod ready;

pub(super) use layout::node_directories;

use super::{Failure, status};
use children::Children;
use layout::Layout;
use ready::Node;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Until all nodes follow one leader.
const READY: Duration = Duration::from_secs(30);

/// Run a cluster of several nodes on this machine
///
/// Makes certificates and a demo user, starts the nodes on loopback ports, prints how to reach them. Ctrl-C stops them all.
#[derive(Debug, clap::Args)]
pub(super) struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    nodes: u16,
    /// Where the cluster is kept; a directory of the user's unless given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// One JSON object a line: {"node","ftp","pid","role"} each, then {"user","password","ca"}; the nodes' logs on stderr
    #[arg(long)]
    json: bool,
}

impl Dev {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let dir = self.data.clone().unwrap_or_else(super::dev_directory);
        let layout = Layout::prepare(&dir, self.nodes)?;
        let risk = at_risk(self.nodes);
        eprintln!("trebol: the cluster is kept in {}{risk}", layout.dir.display());
        super::small_runtime()?.block_on(self.until_told(&layout))
    }

    async fn until_told(&self, layout: &Layout) -> Result<(), Failure> {
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::runtime)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(Failure::runtime)?;
        let mut children = Children::start(layout, self.json)?;
        let work = async {
            let nodes = tokio::select! {
                nodes = ready::wait(layout, READY) => nodes.map_err(Failure::Runtime),
                sentence = children.next_end() => Err(Failure::Runtime(sentence)),
            }?;
            self.print(layout, &nodes).map_err(|error| Failure::Runtime(format!("cannot print: {error}")))?;
            while children.running() > 0 {
                eprintln!("trebol: {}", children.next_end().await);
            }
            Err(Failure::Runtime("no node runs any more".to_owned()))
        };
        let result = tokio::select! {
            result = work => result,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = hangup.recv() => Ok(()),
        };
        let stopping = children.stop();
        tokio::select! {
            () = stopping => {}
            // A second Ctrl-C: dropped children are killed.
            _ = interrupt.recv() => {}
        }
        result
    }

    fn print(&self, layout: &Layout, nodes: &[Node]) -> std::io::Result<()> {
        let ca = layout.ca.display();
        let mut out = std::io::stdout().lock();
        if self.json {
            for node in nodes {
                serde_json::to_writer(&mut out, node)?;
                writeln!(out)?;
            }
            let access = serde_json::json!({ "user": layout.user, "password": layout.password, "ca": layout.ca });
            writeln!(out, "{access}")?;
            return out.flush();
        }
        let mut rows = vec![["NODE", "FTP", "PID", "ROLE"].map(str::to_owned)];
        rows.extend(nodes.iter().map(|n| [n.node.clone(), n.ftp.to_string(), n.pid.to_string(), n.role.to_owned()]));
        write!(out, "{}", status::columns(&rows))?;
        let (user, password) = (&layout.user, &layout.password);
        let port = |index: usize| nodes[index % nodes.len()].ftp.port();
        writeln!(out, "\nuser {user}, password {password}\n\nStore a file on one node, fetch it from another:")?;
        let curl = format!("curl --ssl-reqd --cacert '{ca}' -u {user}:{password}");
        writeln!(out, "  {curl} -T FILE ftp://localhost:{}/", port(0))?;
        writeln!(out, "  {curl} -O ftp://localhost:{}/FILE", port(3))?;
        let lftp = "set ftp:ssl-force true; set ssl:ca-file";
        writeln!(out, "  lftp -u {user},{password} -e \"{lftp} '{ca}'\" ftp://localhost:{}", port(1))?;
        writeln!(out, "\nSee it, in another terminal: trebol status --data '{}'", layout.dir.display())?;
        writeln!(out, "Ctrl-C stops all nodes; the files stay.")?;
        out.flush()
    }
}

/// What a small cluster cannot do.
fn at_risk(nodes: u16) -> &'static str {
    match nodes {
        1 => "; one node keeps one copy: files are lost with it",
        2 => "; two nodes keep two copies, and writes are refused while one is down",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_clusters_say_what_is_at_risk() {
        assert!(at_risk(1).contains("one copy") && at_risk(2).contains("refused") && at_risk(3).is_empty());
    }
}
