//! A cluster of real processes in a temporary directory: started with `trebol dev`, or node by node, its nodes killed and
//! restarted by process id. Whatever happens, dropping it kills what it started and nothing else.

use crate::control::{self, Control};
use crate::wait::wait_for;
use crate::{Outcome, ensure};
use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

/// The program under test.
pub(crate) const TREBOL: &str = env!("CARGO_BIN_EXE_trebol");
/// The FTP ports that `dev` prefers.
const USUAL_PORTS: Range<u16> = 2121..2126;
/// For a cluster to come up, or to agree again, on a machine that is busy with other things.
pub(crate) const START: Duration = Duration::from_secs(60);
/// For a process to end: longer than the drain of 25 s.
pub(crate) const STOP: Duration = Duration::from_secs(40);

/// One node: a child of `dev` or, later perhaps, of ours.
pub(crate) struct Node {
    /// As `dev` names it.
    pub(crate) name: String,
    /// Where clients connect.
    pub(crate) ftp: SocketAddr,
    /// Its process.
    pub(crate) pid: Pid,
    /// Its data directory.
    pub(crate) data: PathBuf,
    /// How it was started.
    pub(crate) arguments: Vec<OsString>,
    ours: Option<(Child, ChildStdin)>,
}

impl Node {
    /// SIGKILL.
    pub(crate) fn strike(&self) -> Outcome {
        Ok(kill_process(self.pid, Signal::KILL)?)
    }
}

/// A running cluster.
pub(crate) struct Cluster {
    /// All of it lies below this directory.
    directory: TempDir,
    dev: Option<Child>,
    /// Settings of all nodes, as variables.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The nodes, in the order `dev` names them.
    pub(crate) nodes: Vec<Node>,
    /// The demo user.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: String,
    /// What clients verify servers with.
    pub(crate) ca: PathBuf,
}

impl Cluster {
    /// Five nodes with default settings but for `environment`; up, with a leader.
    pub(crate) fn start(environment: &[(&'static str, &str)]) -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("trebol-").tempdir()?;
        Self::start_in(directory, environment)
    }

    /// The same in a directory that may hold the data of an earlier run.
    pub(crate) fn start_in(directory: TempDir, environment: &[(&'static str, &str)]) -> Outcome<Self> {
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let log = File::options().create(true).append(true).open(directory.path().join("log"))?;
        // Held while dev looks for ports: from its usual ones another cluster on this machine could take that of a node
        // that is dead for a moment.
        let _usual: Vec<_> = USUAL_PORTS.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).collect();
        let mut dev = Command::new(TREBOL)
            .args(["dev", "--json", "--nodes", "5", "--data"])
            .arg(directory.path().join("dev"))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let lines = read_lines(&mut dev)?;
        let mut cluster = Self::empty(directory);
        (cluster.environment, cluster.dev) = (environment, Some(dev));
        match cluster.learn(&lines) {
            Ok(()) => Ok(cluster),
            Err(failed) => Err(cluster.keep(failed)),
        }
    }

    /// No node yet, and no user.
    pub(crate) fn empty(directory: TempDir) -> Self {
        Self {
            directory,
            dev: None,
            environment: Vec::new(),
            nodes: Vec::new(),
            user: String::new(),
            password: String::new(),
            ca: PathBuf::new(),
        }
    }

    /// Starts one more node, with a command line of the test's own.
    pub(crate) fn launch(&mut self, name: &str, ftp: SocketAddr, arguments: Vec<OsString>) -> Outcome {
        let data = data_directory(&arguments)?;
        let (child, input) = self.spawn(&arguments, &[])?;
        let (name, pid) = (name.to_owned(), Pid::from_child(&child));
        self.nodes.push(Node { name, ftp, pid, data, arguments, ours: Some((child, input)) });
        Ok(())
    }

    /// Reads what `dev` prints until the line with the user, which is the last.
    fn learn(&mut self, lines: &mpsc::Receiver<String>) -> Outcome {
        while self.user.is_empty() {
            let line = lines.recv_timeout(START).map_err(|_| "dev did not come up")?;
            let said: Value = serde_json::from_str(&line).map_err(|error| format!("dev printed {line:?}: {error}"))?;
            let text = |key: &str| said[key].as_str().map(str::to_owned).ok_or(format!("no {key} in {line}"));
            if said.get("node").is_some() {
                let pid = said["pid"].as_i64().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
                let pid = pid.ok_or_else(|| format!("no pid in {line}"))?;
                let arguments = arguments(pid)?;
                let data = data_directory(&arguments)?;
                let (name, ftp) = (text("node")?, text("ftp")?.parse()?);
                self.nodes.push(Node { name, ftp, pid, data, arguments, ours: None });
            } else {
                (self.user, self.password, self.ca) = (text("user")?, text("password")?, text("ca")?.into());
            }
        }
        ensure(self.nodes.len() == 5, || format!("{} nodes", self.nodes.len()))
    }

    /// A directory for the test's own files, gone with the cluster.
    pub(crate) fn scratch(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The settings file of a node.
    pub(crate) fn settings(&self, node: usize) -> Outcome<PathBuf> {
        Ok(option(&self.nodes[node].arguments, "--config").ok_or("the node was not started with --config")?)
    }

    /// What all nodes logged.
    pub(crate) fn log(&self) -> Outcome<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.directory.path().join("log"))?).into_owned())
    }

    /// An encrypted session of the demo user at a node.
    pub(crate) fn session(&self, node: usize) -> Outcome<Control> {
        let mut control = Control::connect(self.nodes[node].ftp, &control::trust(&self.ca)?)?;
        control.secure()?;
        control.log_in(&self.user, &self.password)?;
        Ok(control)
    }

    /// `trebol status --json` at one node.
    pub(crate) fn status(&self, node: usize) -> Outcome<Value> {
        let data = &self.nodes[node].data;
        let output = Command::new(TREBOL).args(["status", "--json", "--data"]).arg(data).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure(output.status.success(), || format!("status failed: {said}"))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The index of the node that leads, in the eyes of the lowest living node but `except`.
    pub(crate) fn leader(&self, except: Option<usize>) -> Outcome<usize> {
        wait_for("a leader", START, || {
            let living = (0..self.nodes.len()).find(|node| Some(*node) != except && alive(self.nodes[*node].pid));
            let status = self.status(living.ok_or("no node lives")?)?;
            let leader = status["leader"].as_str().ok_or_else(|| Failed::from("no leader yet"))?.to_owned();
            let led = |node: usize| Ok::<_, Failed>(self.status(node)?["node"].as_str() == Some(&leader));
            let candidates = (0..self.nodes.len()).filter(|node| Some(*node) != except && alive(self.nodes[*node].pid));
            for node in candidates {
                if led(node)? {
                    return Ok(node);
                }
            }
            Err(Failed::from("its leader is none of those that live"))
        })
    }

    /// SIGKILL, and wait until the process is gone.
    pub(crate) fn kill(&mut self, node: usize) -> Outcome {
        self.nodes[node].strike()?;
        self.await_end(node)
    }

    /// SIGTERM, and wait until the process is gone.
    pub(crate) fn terminate(&mut self, node: usize) -> Outcome {
        kill_process(self.nodes[node].pid, Signal::TERM)?;
        self.await_end(node)
    }

    /// Waits until a node that was told to end, or killed, is gone.
    pub(crate) fn await_end(&mut self, node: usize) -> Outcome {
        let node = &mut self.nodes[node];
        wait_for(&format!("the end of {}", node.name), STOP, || {
            // A child of ours stays until it is asked for; one of dev's is asked for by dev.
            if let Some((child, _)) = &mut node.ours {
                child.try_wait()?;
            }
            ensure(!alive(node.pid), || format!("process {} lives", node.pid.as_raw_nonzero()))
        })
    }

    /// Waits for the end of a node that this test started: how it ended.
    pub(crate) fn exit(&mut self, node: usize) -> Outcome<ExitStatus> {
        let node = &mut self.nodes[node];
        let (child, _) = node.ours.as_mut().ok_or("dev started it")?;
        wait_for(&format!("the end of {}", node.name), STOP, || child.try_wait()?.ok_or_else(|| "it lives".into()))
    }

    /// Starts a dead node again with the command line it had.
    pub(crate) fn restart(&mut self, node: usize) -> Outcome {
        self.restart_with(node, &[])
    }

    /// The same with more settings.
    pub(crate) fn restart_with(&mut self, node: usize, more: &[(&str, &str)]) -> Outcome {
        let (child, input) = self.spawn(&self.nodes[node].arguments, more)?;
        let node = &mut self.nodes[node];
        node.pid = Pid::from_child(&child);
        node.ours = Some((child, input));
        Ok(())
    }

    fn spawn(&self, arguments: &[OsString], more: &[(&str, &str)]) -> Outcome<(Child, ChildStdin)> {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        // A node started by dev ends when its input does: ours stays open until we drop it.
        let mut child = Command::new(&arguments[0])
            .args(&arguments[1..])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(more.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        Ok((child, input))
    }

    /// Waits until every living node follows one leader and nobody is behind or lacks copies.
    pub(crate) fn settle(&self) -> Outcome<Value> {
        wait_for("all nodes to agree", START, || {
            let status = self.agreed()?;
            ensure(status["missing_copies"] == 0, || format!("{status}"))?;
            Ok(status)
        })
    }

    /// What every living node says, if they all say the same: one leader, all alive, nobody behind, equal indexes.
    pub(crate) fn agreed(&self) -> Outcome<Value> {
        let mut last = Value::Null;
        for node in (0..self.nodes.len()).filter(|node| alive(self.nodes[*node].pid)) {
            let status = self.status(node)?;
            let members = status["members"].as_array().ok_or("no members")?;
            let calm = |member: &Value| member["liveness"] == "alive" && member["behind"] == 0;
            let same =
                last.is_null() || ["leader", "files", "digest"].into_iter().all(|field| last[field] == status[field]);
            let settled = members.len() == self.nodes.len() && members.iter().all(calm);
            ensure(same && settled && status["leader"].is_string(), || format!("{status}\nafter {last}"))?;
            last = status;
        }
        Ok(last)
    }

    /// Ends everything as Ctrl-C does, and waits for it.
    pub(crate) fn stop(&mut self) -> Outcome {
        for node in self.nodes.iter().filter(|node| node.ours.is_some() && alive(node.pid)) {
            kill_process(node.pid, Signal::TERM)?;
        }
        if let Some(dev) = &mut self.dev {
            if dev.try_wait()?.is_none() {
                kill_process(Pid::from_child(dev), Signal::TERM)?;
            }
            wait_for("the end of dev", STOP, || dev.try_wait()?.ok_or_else(|| Failed::from("it lives")))?;
        }
        (0..self.nodes.len()).try_for_each(|node| self.await_end(node))
    }

    /// Leaves the directory on the disk and says in the failure where it is.
    fn keep(mut self, failed: Failed) -> Failed {
        self.directory.disable_cleanup(true);
        let place = self.directory.path().display();
        let log = self.log().unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        let why = failed.message().unwrap_or_default();
        format!("{why}\nthe nodes' data and log are in {place}; the log ends with\n{last}").into()
    }

    /// Runs a test on a fresh cluster; keeps its files when it fails.
    pub(crate) fn run(environment: &[(&'static str, &str)], test: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        Self::start(environment)?.try_out(test)
    }

    /// Runs a test on this cluster; keeps its files when it fails.
    pub(crate) fn try_out(mut self, test: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        test(&mut self).map_err(|failed| self.keep(failed))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(dev) = &mut self.dev {
            let _ = dev.kill();
        }
        for node in &mut self.nodes {
            // Ids are reused only after the parent asked: dev is not asked for before this loop is done.
            if alive(node.pid) {
                let _ = kill_process(node.pid, Signal::KILL);
            }
            if let Some((child, _)) = &mut node.ours {
                let _ = child.wait();
            }
        }
        if let Some(dev) = &mut self.dev {
            let _ = dev.wait();
        }
    }
}

/// Runs `trebol` to its end and hands out exit code and what it said on both streams.
pub(crate) fn trebol(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome<(ExitStatus, String)> {
    let mut command = Command::new(TREBOL);
    command.args(arguments).envs(environment.iter().copied());
    let ran = crate::clients::run(&mut command, STOP)?;
    Ok((ran.status, format!("{}{}", ran.stdout, ran.stderr)))
}

/// Whether a process runs; one that waits to be asked for its exit code does not.
pub(crate) fn alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn arguments(pid: Pid) -> Outcome<Vec<OsString>> {
    let text = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))?;
    let mut arguments: Vec<_> = text.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect();
    arguments.pop();
    ensure(arguments.len() > 1, || format!("{arguments:?} is no command line of a node"))?;
    Ok(arguments)
}

/// The value of an option of a command line, as `--name value` or `--name=value`.
fn option(arguments: &[OsString], name: &str) -> Option<PathBuf> {
    let joined = format!("{name}=");
    let at = arguments.iter().position(|argument| argument == name);
    let apart = at.and_then(|at| arguments.get(at + 1)).map(PathBuf::from);
    apart.or_else(|| arguments.iter().find_map(|argument| argument.to_str()?.strip_prefix(&joined).map(PathBuf::from)))
}

fn data_directory(arguments: &[OsString]) -> Outcome<PathBuf> {
    if let Some(data) = option(arguments, "--data") {
        return Ok(data);
    }
    let file = option(arguments, "--config").ok_or_else(|| format!("neither --data nor --config in {arguments:?}"))?;
    let settings: toml::Table = fs::read_to_string(&file)?.parse()?;
    let data = settings.get("node").and_then(|node| node.get("data")).and_then(toml::Value::as_str);
    Ok(file.parent().unwrap_or(Path::new("")).join(data.ok_or("no node.data in the settings of a node")?))
}

/// The lines of a child's output, read on a thread of their own so that waiting for one has a bound.
fn read_lines(child: &mut Child) -> Outcome<mpsc::Receiver<String>> {
    let output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let (sender, receiver) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        // Later lines, if any, are read too, or the child would block.
        output.lines().map_while(Result::ok).for_each(|line| drop(sender.try_send(line)));
    });
    Ok(receiver)
}
