//! Nodes on machines of their own, as far as the network is concerned: a network namespace each, with a wire into the
//! bridge of one more, where the test and its clients are (ip-netns(8)). Packets between two nodes can be lost in one
//! direction or both; those of clients never are. Names carry the test's process id; dropping it removes them all,
//! and what a test left that was killed, the next one removes.

use crate::cluster::{Cluster, START, TREBOL};
use crate::wait::wait_for;
use crate::{Outcome, ensure};
use node::pki::{Authority, Issued};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Nodes of a cluster.
const NODES: usize = 5;
/// The cluster's name.
const CLUSTER: &str = "apart";
/// Its user.
const USER: &str = "demo";
/// The user's password.
const PASSWORD: &str = "5 nodes, 1 bridge";
/// Where `ip` keeps namespaces by name.
const NAMED: &str = "/run/netns";
/// A locally administered address that no machine has: what is sent there is lost without a word, as on a cut wire.
const NOWHERE: &str = "02:00:00:00:00:00";
/// Networks made by this process.
static MADE: AtomicUsize = AtomicUsize::new(0);
/// What others left was looked for.
static LEFT: Once = Once::new();

/// The network of one test.
pub(crate) struct Network {
    /// The bridge's namespace, then one a node; those that were made so far.
    spaces: Vec<String>,
    /// Where each node is now.
    addresses: Vec<Ipv4Addr>,
}

/// Whether this process may make namespaces and run something in them: with root's rights, outside most containers.
pub(crate) fn may_divide() -> bool {
    let mut network = Network { spaces: Vec::new(), addresses: Vec::new() };
    let ran = network.space("try").and_then(|space| ip(&["netns", "exec", &space, "true"]));
    ran.is_ok()
}

impl Network {
    /// Runs a test on a fresh cluster of five nodes that have met; keeps its files when it fails.
    pub(crate) fn run(test: impl FnOnce(&mut Self, &mut Cluster) -> Outcome + Send) -> Outcome {
        Self::run_with(&[], test)
    }

    /// The same with other settings, as variables of the nodes' environment.
    pub(crate) fn run_with(
        environment: &[(&'static str, &str)],
        test: impl FnOnce(&mut Self, &mut Cluster) -> Outcome + Send,
    ) -> Outcome {
        let mut network = Self::make()?;
        let hub = File::open(Path::new(NAMED).join(&network.spaces[0]))?;
        thread::scope(|scope| {
            let test = scope.spawn(|| {
                enter(&hub)?;
                network.cluster(environment)?.try_out(|cluster| {
                    // What is taken over may lack copies, and is not repaired by those who take it over.
                    match std::env::var_os(crate::scale::KEPT) {
                        Some(_) => drop(wait_for("all nodes to agree", START, || cluster.agreed())?),
                        None => drop(cluster.settle()?),
                    }
                    test(&mut network, cluster)
                })
            });
            test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn make() -> Outcome<Self> {
        LEFT.call_once(remove_left);
        let mut network = Self { spaces: Vec::new(), addresses: Vec::new() };
        let hub = network.space("hub")?;
        ip(&["-n", &hub, "link", "add", "hub", "type", "bridge"])?;
        ip(&["-n", &hub, "address", "add", "10.77.0.1/24", "dev", "hub"])?;
        ip(&["-n", &hub, "link", "set", "hub", "up"])?;
        for number in 1..=NODES {
            let (space, port) = (network.space(&format!("n{number}"))?, format!("port{number}"));
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "wire", "netns", &space])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "hub", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "link", "set", "wire", "up"])?;
            network.addresses.push(Ipv4Addr::UNSPECIFIED);
            network.move_to(number - 1, number.try_into()?)?;
        }
        Ok(network)
    }

    fn space(&mut self, name: &str) -> Outcome<String> {
        let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let name = format!("trebol-{process}-{made}-{name}");
        ip(&["netns", "add", &name])?;
        self.spaces.push(name.clone());
        Ok(name)
    }

    /// Gives a node another address: the `number`th of the network. Its process must be down.
    pub(crate) fn move_to(&mut self, node: usize, number: u8) -> Outcome<SocketAddr> {
        let address = Ipv4Addr::new(10, 77, 0, number + 10);
        ip(&["-n", &self.spaces[node + 1], "address", "flush", "dev", "wire"])?;
        ip(&["-n", &self.spaces[node + 1], "address", "add", &format!("{address}/24"), "dev", "wire"])?;
        self.addresses[node] = address;
        Ok((address, 21).into())
    }

    /// From now on, what `from` sends to `to` is lost.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) -> Outcome {
        let (space, address) = (&self.spaces[from + 1], self.addresses[to].to_string());
        ip(&["-n", space, "neighbour", "replace", &address, "lladdr", NOWHERE, "dev", "wire", "nud", "permanent"])
    }

    /// From now on, nothing passes between these nodes and the others.
    pub(crate) fn cut_off(&self, side: &[usize]) -> Outcome {
        for a in side {
            for b in (0..NODES).filter(|b| !side.contains(b)) {
                self.cut_one_way(*a, b)?;
                self.cut_one_way(b, *a)?;
            }
        }
        Ok(())
    }

    /// Everything passes again.
    pub(crate) fn heal(&self) -> Outcome {
        let flush = |space| ip(&["-n", space, "neighbour", "flush", "dev", "wire", "nud", "permanent"]);
        self.spaces[1..].iter().try_for_each(|space| flush(space))
    }

    /// Bytes that nodes ever sent to one another and to clients.
    pub(crate) fn bytes(&self) -> Outcome<u64> {
        let sent = |space: &String| -> Outcome<u64> {
            let arguments = ["-n", space, "-s", "-j", "link", "show", "dev", "wire"];
            let said = Command::new("ip").args(arguments).stdin(Stdio::null()).output()?;
            let links: serde_json::Value = serde_json::from_slice(&said.stdout)?;
            Ok(links[0]["stats64"]["tx"]["bytes"].as_u64().ok_or_else(|| format!("no counters in {links}"))?)
        };
        self.spaces[1..].iter().map(sent).sum()
    }

    /// From now on, bytes to and from the ports of each node are counted.
    pub(crate) fn count(&self) -> Outcome {
        for space in &self.spaces[1..] {
            let rules = |port: u16| {
                format!(
                    "add rule inet count out tcp dport {port} counter\nadd rule inet count out tcp sport {port} counter\n"
                )
            };
            let script = format!(
                "add table inet count\ndelete table inet count\nadd table inet count\n\
                 add chain inet count out {{ type filter hook output priority 0; }}\n{}{}",
                rules(2123),
                rules(2124)
            );
            nft(space, &["-f", "-"], &script)?;
        }
        Ok(())
    }

    /// Bytes of packets that nodes sent to and from this port of theirs since then.
    pub(crate) fn counted(&self, port: u16) -> Outcome<u64> {
        let mut bytes = 0;
        for space in &self.spaces[1..] {
            let said = nft(space, &["list", "table", "inet", "count"], "")?;
            for line in said.lines().filter(|line| line.contains(&format!("port {port} "))) {
                let count = line.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
                bytes += count.ok_or_else(|| format!("no counter in {line:?}"))?;
            }
        }
        Ok(bytes)
    }

    /// Five nodes with default settings but for `environment`, and the ports that a node has by default.
    fn cluster(&self, environment: &[(&'static str, &str)]) -> Outcome<Cluster> {
        let mut cluster = Cluster::empty(tempfile::Builder::new().prefix("trebol-").tempdir()?);
        cluster.environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let directory = cluster.scratch("nodes")?;
        let authority = Authority::open(&directory.join("pki"), CLUSTER)?;
        (cluster.user, cluster.password, cluster.ca) = (USER.into(), PASSWORD.into(), authority.certificate());
        fs::write(
            directory.join("users.toml"),
            format!("[[user]]\nname = \"{USER}\"\npassword = \"{}\"\nhome = \"/\"\n", password_hash()?),
        )?;
        for (node, address) in self.addresses.iter().enumerate() {
            let name = format!("n{}", node + 1);
            let settings = directory.join(format!("{name}.toml"));
            match std::env::var_os(crate::scale::KEPT) {
                Some(kept) => fs::rename(Path::new(&kept).join("nodes").join(&name), directory.join(&name))?,
                None => fs::create_dir(directory.join(&name))?,
            }
            fs::write(&settings, self.settings(&directory, &name, &authority)?)?;
            let start = ["ip", "netns", "exec", &self.spaces[node + 1], TREBOL, "serve", "--exit-on-stdin-eof"];
            let mut arguments: Vec<_> = start.map(Into::into).into();
            arguments.extend(["--config".into(), settings.into()]);
            cluster.launch(&name, (*address, 21).into(), arguments)?;
        }
        Ok(cluster)
    }

    fn settings(&self, directory: &Path, name: &str, authority: &Authority) -> Outcome<String> {
        let seeds: Vec<_> = self.addresses.iter().map(|address| format!("{address}:2123")).collect();
        let (peer, ftp) = (authority.peer(name, CLUSTER)?, authority.ftp_on_loopback()?);
        let pair = |Issued { certificate, key }: &Issued, kind: &str| {
            format!("{kind}certificate = {certificate:?}\n{kind}key = {key:?}\n")
        };
        let (data, users, ca) = (directory.join(name), directory.join("users.toml"), authority.certificate());
        Ok(format!(
            "[node]\ndata = {data:?}\ncluster = \"{CLUSTER}\"\nname = \"{name}\"\nzone = \"{name}\"\ndrain_s = 10\n\
             [ftp]\nusers = {users:?}\n{}[peer]\nseeds = {seeds:?}\nca = {ca:?}\n{}",
            pair(&ftp, "tls_"),
            pair(&peer, ""),
        ))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in &self.spaces {
            if let Err(failed) = ip(&["netns", "delete", space]) {
                eprintln!("{}", failed.message().unwrap_or_default());
            }
        }
    }
}

/// Removes the namespaces of test processes that are no more. One that cannot be removed is in nobody's way.
fn remove_left() {
    let entries = fs::read_dir(NAMED).into_iter().flatten().flatten();
    for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        let left = maker(&name).is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists());
        if left && let Err(failed) = ip(&["netns", "delete", &name]) {
            eprintln!("{}", failed.message().unwrap_or_default());
        }
    }
}

/// The process that made a namespace, if its name is one of ours: see [`Network::space`].
fn maker(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix("trebol-")?.splitn(3, '-');
    let (process, made, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let nodes = (1..=NODES).map(|number| format!("n{number}"));
    let ours = ["hub", "try"].map(str::to_owned).into_iter().chain(nodes).any(|known| known == rest);
    made.parse::<usize>().ok().filter(|_| ours)?;
    process.parse().ok()
}

/// From now on this thread, and what it starts, is in that namespace.
fn enter(space: &File) -> Outcome {
    Ok(move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn ip(arguments: &[&str]) -> Outcome {
    let ran = Command::new("ip").args(arguments).stdin(Stdio::null()).output()?;
    ensure(ran.status.success(), || {
        format!("ip {} ended with {}: {}", arguments.join(" "), ran.status, String::from_utf8_lossy(&ran.stderr))
    })
}

/// nftables(8) in a namespace: what it prints.
fn nft(space: &str, arguments: &[&str], input: &str) -> Outcome<String> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space, "nft"]).args(arguments);
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    running.stdin.take().ok_or("no input")?.write_all(input.as_bytes())?;
    let ran = running.wait_with_output()?;
    ensure(ran.status.success(), || format!("nft in {space}: {}", String::from_utf8_lossy(&ran.stderr)))?;
    Ok(String::from_utf8(ran.stdout)?)
}

fn password_hash() -> Outcome<String> {
    let mut command = Command::new(TREBOL);
    let mut running = command.arg("passwd").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    running.stdin.take().ok_or("no input")?.write_all(PASSWORD.as_bytes())?;
    let ran = running.wait_with_output()?;
    ensure(ran.status.success(), || format!("passwd ended with {}", ran.status))?;
    Ok(String::from_utf8(ran.stdout)?.trim().to_owned())
}
