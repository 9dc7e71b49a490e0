//! What operators and their machines ask of a node: whether it listens, whether it is ready, what it counts, whether its settings
//! are any good. Metrics are judged by a real Prometheus that scrapes them.

use crate::clients::{Running, run};
use crate::cluster::{Cluster, START, STOP, TREBOL, trebol};
use crate::control::{Control, trust};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use rustix::process::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("ops::the_admin_port_is_closed_by_default", &[], closed),
    ("ops::a_node_is_ready_once_it_follows_or_leads", &[], ready),
    ("ops::a_node_that_waits_for_its_directory_is_healthy", &[], healthy),
    ("ops::status_by_http_is_that_of_the_command", &[], same_status),
];

/// Opens the admin port of every node, wherever there is one.
pub(crate) const OPEN: (&str, &str) = ("TREBOL_ADMIN_LISTEN", "127.0.0.1:0");
/// Longest wait for a page.
const PAGE: Duration = Duration::from_secs(20);
/// Probes of one story: more than any swarm makes in a minute.
const PROBES: usize = 20;

/// Where a node's admin port is, if it is open.
pub(crate) fn admin(data: &Path) -> Outcome<Option<SocketAddr>> {
    let said: Value = serde_json::from_slice(&fs::read(data.join("endpoints.json"))?)?;
    Ok(said["admin"].as_str().map(str::parse).transpose()?)
}

/// A page: its code and its text.
pub(crate) fn page(address: SocketAddr, path: &str) -> Outcome<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PAGE)?;
    stream.set_read_timeout(Some(PAGE))?;
    // HTTP/1.0: the page ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP: {response:?}"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| format!("no code: {head}"))?;
    Ok((code, body.to_owned()))
}

/// Port 2125 of a node of this cluster.
pub(crate) fn open_port(cluster: &Cluster, node: usize) -> Outcome<SocketAddr> {
    Ok(admin(&cluster.nodes[node].data)?.ok_or("the admin port is closed")?)
}

/// TCP ports on which a process listens.
fn listening(pid: Pid) -> Outcome<usize> {
    let mut own = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))? {
        // A descriptor may be closed meanwhile.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        own.extend(target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned));
    }
    let mut count = 0;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        let fields = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        // 0A is LISTEN (proc(5)).
        count +=
            fields.filter(|f| f.get(3) == Some(&"0A") && f.get(9).is_some_and(|inode| own.contains(*inode))).count();
    }
    Ok(count)
}

fn closed() -> Outcome {
    Cluster::run(&[], |cluster| {
        for node in &cluster.nodes {
            let ports = listening(node.pid)?;
            ensure(ports == 3, || format!("{} listens on {ports} ports, not 3", node.name))?;
            ensure(admin(&node.data)?.is_none(), || format!("{} names an admin port", node.name))?;
        }
        cluster.terminate(0)?;
        cluster.restart_with(0, &[OPEN])?;
        wait_for("the admin port", START, || open_port(cluster, 0))?;
        let ports = listening(cluster.nodes[0].pid)?;
        ensure(ports == 4, || format!("with the admin port it listens on {ports}, not 4"))
    })
}

fn same_status() -> Outcome {
    Cluster::run(&[OPEN], |cluster| {
        cluster.settle()?;
        let address = open_port(cluster, 1)?;
        // Of a cluster at rest; but for what changes by itself.
        wait_for("two equal answers", START, || {
            let (code, text) = page(address, "/status")?;
            let (mut by_http, mut by_command) = (serde_json::from_str::<Value>(&text)?, cluster.status(1)?);
            for status in [&mut by_http, &mut by_command] {
                status["scrub"].take();
                for member in status["members"].as_array_mut().ok_or("no members")? {
                    member["disk"].take();
                }
            }
            ensure(code == 200 && by_http == by_command, || format!("{code}\n{by_http}\nis not\n{by_command}"))
        })
    })
}

fn ready() -> Outcome {
    Cluster::run(&[OPEN], |cluster| {
        for node in 0..5 {
            let address = open_port(cluster, node)?;
            wait_for("every node to be ready", START, || {
                let (code, text) = page(address, "/readyz")?;
                ensure(code == 200 && text == "ready\n", || format!("{code} {text}"))
            })?;
        }
        // One alone has no leader until it has waited for the others.
        (0..5).try_for_each(|node| cluster.terminate(node))?;
        let place = cluster.nodes[0].data.join("endpoints.json");
        fs::remove_file(&place)?;
        cluster.restart(0)?;
        let address = wait_for("the admin port", START, || open_port(cluster, 0))?;
        let (mut leaderless, mut unhealthy) = (0, 0);
        wait_for("a node alone to lead", START, || {
            unhealthy += usize::from(page(address, "/healthz").is_ok_and(|(code, _)| code != 200));
            let (code, text) = page(address, "/readyz")?;
            leaderless += usize::from(code == 503 && text == "this node has no leader\n");
            ensure(code == 200, || format!("{code} {text}"))
        })?;
        ensure(leaderless > 0, || "it was ready without a leader".to_owned())?;
        ensure(unhealthy == 0, || format!("it was not healthy {unhealthy} times"))
    })
}

/// `trebol healthcheck` with these arguments: its exit code, and what it said.
fn healthcheck(arguments: &[&str]) -> Outcome<(Option<i32>, String)> {
    let (status, said) = trebol(&[&["healthcheck"][..], arguments].concat(), &[])?;
    Ok((status.code(), said))
}

fn healthy() -> Outcome {
    Cluster::run(&[OPEN], |cluster| {
        let data = cluster.nodes[0].data.to_str().ok_or("no text")?.to_owned();
        let settings = cluster.settings(0)?.to_str().ok_or("no text")?.to_owned();
        let address = open_port(cluster, 0)?;
        for arguments in [["--data", &data], ["--config", &settings]] {
            for _ in 0..PROBES {
                let (code, said) = healthcheck(&arguments)?;
                ensure(code == Some(0) && said.is_empty(), || format!("{arguments:?}: {code:?} {said}"))?;
            }
        }
        let (_, figures) = page(address, "/metrics")?;
        ensure(figures.contains("\ntrebol_sessions_total 0\n"), || "a probe counts as a session".to_owned())?;
        ensure(!cluster.log()?.contains("session{"), || "a probe is logged".to_owned())?;

        // A second process on the directory: it listens, and has not joined.
        let ftp = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let shown = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (code, said) = healthcheck(&["--config", &settings, "--ftp-listen", &ftp.to_string()])?;
        ensure(code == Some(1), || format!("healthy before it runs: {said}"))?;
        let mut second = Command::new(TREBOL);
        let (listen, panel) = (format!("--ftp-listen={ftp}"), format!("--admin-listen={shown}"));
        second.args(["serve", "--config", &settings, "--peer-listen=127.0.0.1:0", "--peer-raw-listen=127.0.0.1:0"]);
        second.args([&listen, &panel]);
        let log = fs::File::create(cluster.scratch("second")?.join("log"))?;
        let mut second = Running::start_logged(second.stdin(Stdio::null()), log)?;
        wait_for("the second process to be healthy", START, || {
            let (code, said) = healthcheck(&["--config", &settings, &listen])?;
            ensure(code == Some(0), || said)
        })?;
        ensure(page(shown, "/healthz")?.0 == 200, || "/healthz".to_owned())?;
        let (code, text) = page(shown, "/readyz")?;
        ensure(code == 503 && text.contains("data directory"), || format!("{code} {text}"))?;
        let told = wait_for("clients to be turned away", START, || {
            let told = greeting(ftp)?;
            ensure(told.starts_with("421 "), || told.clone())?;
            Ok(told)
        })?;
        ensure(told.contains("starting"), || told)?;

        cluster.kill(0)?;
        wait_for("the second process to be ready", STOP, || {
            let (code, text) = page(shown, "/readyz")?;
            ensure(code == 200, || format!("{code} {text}"))
        })?;
        Control::connect(ftp, &trust(&cluster.ca)?)?;
        second.terminate(STOP)?;
        let (code, said) = healthcheck(&["--config", &settings, &listen])?;
        ensure(code == Some(1) && said.lines().count() == 1, || format!("of a dead node: {code:?} {said}"))?;
        let (code, said) = healthcheck(&["--ftp-listen=here"])?;
        ensure(code == Some(1) && said.contains("--ftp-listen"), || format!("of no address: {code:?} {said}"))
    })
}

/// What a client is told before it says anything, where the server then closes.
pub(crate) fn greeting(address: SocketAddr) -> Outcome<String> {
    let mut stream = TcpStream::connect_timeout(&address, PAGE)?;
    stream.set_read_timeout(Some(PAGE))?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told)
}

/// Runs `trebol config check`: how it ended, and both streams.
pub(crate) fn config_check(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome<crate::clients::Ran> {
    let mut command = Command::new(TREBOL);
    run(command.args(["config", "check"]).args(arguments).envs(environment.iter().copied()), STOP)
}
