//! What every test needs: the image, a directory for state, free ports, the command itself, and FTP clients; and that
//! nothing is left when a test is over, however it ends.

use crate::{Outcome, ensure};
use anyhow::{Context, Result};
use libtest_mimic::Failed;
use serde_json::Value;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use swarm::engine::{Engine, membership};
use swarm::observed::Membership;
use swarm::{Cluster, Host, Progress, Source, sweep};
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Ports of a test: so many from its first one on.
const PORTS: u16 = 200;

/// What the nodes are compiled with.
pub(crate) const PROFILE: &str = "dev";
/// For a cluster to mend itself: machines start, containers do, copies are made.
const LATE: Duration = Duration::from_secs(240);

/// What is shared.
pub(crate) struct Bed {
    pub(crate) runtime: Runtime,
    pub(crate) engine: Engine,
    /// Of the nodes, built from this workspace with the profile for development.
    pub(crate) image: String,
    dir: tempfile::TempDir,
    next: AtomicU16,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A cluster that is taken down at the end, whatever happens before.
pub(crate) struct Brought<'a> {
    bed: &'a Bed,
    pub(crate) arguments: Vec<String>,
}

/// How clients log in.
pub(crate) struct Access {
    pub(crate) nodes: Vec<(String, String)>,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) ca: PathBuf,
}

fn local_host() -> Host {
    Host::local("h1".parse().expect("a name"), 1)
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no runtime")
}

/// Asked once, before the first test.
static ENGINE: OnceLock<Result<(), String>> = OnceLock::new();

/// Whether there is an engine that is in no swarm, and the clients; else the reason.
pub(crate) fn engine() -> Result<(), String> {
    ENGINE.get_or_init(look_for_engine).clone()
}

fn look_for_engine() -> Result<(), String> {
    for client in ["curl", "lftp"] {
        let found = Command::new(client).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.map_err(|_| format!("{client} is not installed"))?;
    }
    let runtime = runtime().map_err(|error| error.to_string())?;
    let in_swarm = runtime.block_on(async {
        let engine = Engine::connect(&local_host()).await?;
        // That of a run that died is none.
        sweep::sweep(&engine).await.context("what dead runs left cannot be removed")?;
        engine.info().await.map(|info| membership(&info).map_or(true, |part| part != Membership::Outside))
    });
    match in_swarm {
        Ok(false) => Ok(()),
        Ok(true) => Err("this machine's engine is in a swarm, and the tests begin one".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    }
}

async fn build(engine: &Engine) -> Result<String> {
    let source = Source { profile: PROFILE.to_owned(), ..Source::release()? };
    swarm::image::from_source(&source, engine, &sweep::labels(), &Progress::silent()).await
}

impl Bed {
    /// Removes what dead runs left, and builds the image.
    pub(crate) fn make() -> Result<Self> {
        let runtime = runtime()?;
        let (engine, image) = runtime.block_on(async {
            let engine = Engine::connect(&local_host()).await?;
            sweep::sweep(&engine).await.context("what dead runs left cannot be removed")?;
            let image = build(&engine).await?;
            anyhow::Ok((engine, image))
        })?;
        let dir = tempfile::tempdir()?;
        Ok(Self { runtime, engine, image, dir, next: AtomicU16::new(22_000) })
    }
    /// Makes the image anew, after a test that has removed it.
    pub(crate) fn image_again(&self) -> Outcome {
        let image = self.runtime.block_on(build(&self.engine))?;
        ensure(image == self.image, || format!("{image} is not {}", self.image))
    }
    /// Removes the images. What cannot be removed now is swept by the next run.
    pub(crate) fn clear(&self) {
        for image in [&self.image, &swarm::machines::image_name()] {
            let _ = self.runtime.block_on(swarm::image::remove(&self.engine, image));
        }
    }
    /// A directory of this run.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
    /// The first of some ports that nobody listens on now.
    pub(crate) fn ports(&self) -> u16 {
        loop {
            let first = self.next.fetch_add(PORTS, Ordering::Relaxed);
            assert!(first < 32_000, "no free ports");
            if (first..first + 64).all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()) {
                return first;
            }
        }
    }
    /// A name for a cluster of this process.
    pub(crate) fn name(&self, what: &str) -> String {
        sweep::named(what)
    }
    /// `swarm` with the arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
        command.args(arguments).stdin(Stdio::null());
        command
    }
    /// Runs `swarm` to its end.
    pub(crate) fn swarm(&self, arguments: &[&str]) -> Outcome<Ran> {
        let output = self.command(arguments).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Ok(Ran { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
    /// A cluster's file, and the guard that takes the cluster down. `extra` begins with keys, before any table.
    pub(crate) fn cluster(&self, what: &str, extra: &str, hosts: &[Host]) -> Outcome<Brought<'_>> {
        let first = self.ports();
        let mut cluster = Cluster::parse(&format!("name = \"{}\"\n{extra}", self.name(what)), "the test's cluster")
            .map_err(|error| format!("{error:#}"))?;
        (cluster.ftp_port, cluster.passive_port, cluster.passive_per_node) = (first, first + 10, 4);
        cluster.labels = sweep::labels();
        if !hosts.is_empty() {
            cluster.hosts = hosts.to_vec();
        }
        let file = self.dir().join(format!("{what}.toml"));
        std::fs::write(&file, toml::to_string(&cluster)?)?;
        let text = |path: &Path| path.display().to_string();
        let arguments = ["--state".to_owned(), text(self.dir()), "--file".to_owned(), text(&file)].to_vec();
        Ok(Brought { bed: self, arguments })
    }
    /// What an engine still has of this run beside images and the machines that are played, and whether it is in a swarm.
    pub(crate) fn left(&self, engine: &Engine) -> Outcome<Vec<String>> {
        self.runtime.block_on(async {
            let mut there = sweep::there(engine).await?;
            there.retain(|(thing, labels)| {
                let machine = thing.starts_with("container") && !labels.contains_key(swarm::name::CLUSTER);
                let ours = labels.get(sweep::RUN).is_some_and(|run| *run == sweep::this_run());
                ours && !machine && !thing.starts_with("image")
            });
            let mut left: Vec<String> = there.into_iter().map(|(thing, _)| thing).collect();
            if engine.docker.inspect_swarm().await.is_ok() {
                left.push("a swarm".to_owned());
            }
            Ok(left)
        })
    }
    /// Whether an engine has an image.
    pub(crate) fn has(&self, engine: &Engine, image: &str) -> bool {
        self.runtime.block_on(engine.docker.inspect_image(image)).is_ok()
    }
}

/// Refused with one sentence, which holds these words; beside it stand warnings of what is at risk.
pub(crate) fn refused(ran: &Ran, words: &str) -> Outcome {
    let lines = ran.stderr.lines().filter(|line| !line.contains("at risk")).count();
    ensure(ran.code == 1 && lines == 1 && ran.stderr.contains(words), || {
        format!("not one sentence with {words:?}: {}: {}", ran.code, ran.stderr)
    })
}

impl Brought<'_> {
    /// `swarm COMMAND … --state … --file …`, which must succeed; what it printed.
    pub(crate) fn run(&self, command: &[&str]) -> Outcome<String> {
        let ran = self.try_run(command)?;
        ensure(ran.code == 0, || {
            format!("swarm {} exits with {}: {}{}", command.join(" "), ran.code, ran.stderr, ran.stdout)
        })?;
        Ok(ran.stdout)
    }
    /// The same, however it ends.
    pub(crate) fn try_run(&self, command: &[&str]) -> Outcome<Ran> {
        self.bed.swarm(&self.all(command))
    }
    /// The arguments of a command about this cluster.
    pub(crate) fn all<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        command.iter().copied().chain(self.arguments.iter().map(String::as_str)).collect()
    }
    /// `up`, with the image that was built; how many changes, and how to log in.
    pub(crate) fn up(&self) -> Outcome<(u64, Access)> {
        let json = self.run(&["up", "--json", "--image", &self.bed.image])?;
        let value: Value = serde_json::from_str(&json)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let nodes = value["nodes"].as_array().cloned().unwrap_or_default();
        let access = Access {
            nodes: nodes.iter().map(|node| (text(&node["node"]), text(&node["ftp"]))).collect(),
            user: text(&value["users"][0]["user"]),
            password: text(&value["users"][0]["password"]),
            ca: text(&value["ca"]).into(),
        };
        Ok((value["changes"].as_u64().unwrap_or(u64::MAX), access))
    }
    /// `status --json`, whatever it finds.
    pub(crate) fn status(&self) -> Outcome<Value> {
        let ran = self.try_run(&["status", "--json"])?;
        serde_json::from_str(&ran.stdout).map_err(|_| Failed::from(ran.stderr))
    }
    /// Waits until `status` says what is wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Outcome<Value> {
        let end = Instant::now() + LATE;
        loop {
            // Each look takes its time: it starts a program, which asks engines and nodes.
            let seen = self.status();
            if seen.as_ref().is_ok_and(&wanted) {
                return seen;
            }
            ensure(Instant::now() < end, || format!("waited {} s for {what}: {seen:?}", LATE.as_secs()))?;
        }
    }
    /// `status --json`, which must find nothing wrong.
    pub(crate) fn well(&self) -> Outcome<Value> {
        Ok(serde_json::from_str(&self.run(&["status", "--json"])?)?)
    }
}

impl Drop for Brought<'_> {
    fn drop(&mut self) {
        // The image is shared, and `down --volumes` would take it away: a test that wants to see that says so itself.
        if let Ok(ran) = self.bed.swarm(&self.all(&["down", "--volumes", "--keep-images"]))
            && ran.code != 0
        {
            eprintln!("down: {}", ran.stderr);
        }
    }
}

impl Access {
    /// The nodes of a host.
    pub(crate) fn on(&self, host: &str) -> Vec<usize> {
        let of_host =
            |(_, (name, _)): &(usize, &(String, String))| name.rsplit_once('-').is_some_and(|(of, _)| of == host);
        self.nodes.iter().enumerate().filter(of_host).map(|(number, _)| number).collect()
    }
    /// Stores a file through a node with curl.
    pub(crate) fn curl_put(&self, node: usize, file: &Path, name: &str) -> Outcome {
        let url = format!("ftp://{}/{name}", self.nodes[node].1);
        self.curl(&["-T".to_owned(), file.display().to_string(), url]).map(drop)
    }
    /// Fetches a file through a node with curl.
    pub(crate) fn curl_get(&self, node: usize, name: &str) -> Outcome<Vec<u8>> {
        self.curl(&[format!("ftp://{}/{name}", self.nodes[node].1)])
    }
    /// Deletes a file through a node with curl.
    pub(crate) fn curl_delete(&self, node: usize, name: &str) -> Outcome {
        let url = format!("ftp://{}/", self.nodes[node].1);
        self.curl(&["--quote".to_owned(), format!("DELE {name}"), "--head".to_owned(), url]).map(drop)
    }
    fn curl(&self, arguments: &[String]) -> Outcome<Vec<u8>> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--ssl-reqd", "--max-time", "60", "--cacert"]).arg(&self.ca);
        let output = curl.arg("--user").arg(format!("{}:{}", self.user, self.password)).args(arguments).output()?;
        ensure(output.status.success(), || format!("curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(output.stdout)
    }
    /// Runs lftp's commands on a node.
    pub(crate) fn lftp(&self, node: usize, commands: &str) -> Outcome {
        let set = "set ftp:ssl-force true; set ftp:ssl-protect-data true; set net:max-retries 2; set net:timeout 20; \
                   set cmd:fail-exit true; set ssl:ca-file";
        let script = format!("{set} {}; {commands}; bye", self.ca.display());
        let mut lftp = Command::new("lftp");
        lftp.args(["-u", &format!("{},{}", self.user, self.password), "-e", &script]);
        let output = lftp.arg(format!("ftp://{}", self.nodes[node].1)).stdin(Stdio::null()).output()?;
        ensure(output.status.success(), || format!("lftp {commands}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
