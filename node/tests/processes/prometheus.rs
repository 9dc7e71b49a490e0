//! Metrics, judged by a real Prometheus that scrapes them: all that is promised is there, and what happens to the cluster
//! shows. Here, nothing is read from a node's own pages but their names.

use crate::clients::Running;
use crate::cluster::Cluster;
use crate::ops::{OPEN, open_port, page};
use crate::verify::blobs;
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("prometheus::scrapes_what_moves", &["prometheus"], scraped),
    ("prometheus::sees_the_leader_die_and_copies_made_anew", &["prometheus"], leader_dies),
];

/// For Prometheus to have scraped again.
const SCRAPED: Duration = Duration::from_secs(60);
/// What every node shows from its start, by what an operator asks.
const PROMISED: [(&str, &[&str]); 10] = [
    ("sessions", &["sessions_open", "sessions_total", "sessions_refused_total"]),
    ("transfers", &["transfers_open", "transfers_total"]),
    ("bytes", &["transfer_bytes_total", "replica_bytes_total"]),
    ("latencies", &["transfer_duration_seconds_bucket", "commit_duration_seconds_bucket"]),
    ("elections", &["takeovers_total", "leader_changes_total", "leader_losses_total", "is_leader", "has_leader"]),
    ("epoch", &["epoch"]),
    ("watermarks behind", &["member_records_behind", "log_records", "records_applied_total"]),
    ("copies missing", &["copies_missing", "copies_held"]),
    (
        "repair and scrub",
        &[
            "copies_fetched_total",
            "compactions_total",
            "scrub_rounds_total",
            "scrub_copies_total",
            "scrub_bytes_total",
            "scrub_bad_total",
            "scrub_healed_total",
            "copies_bad",
            "copies_incurable",
        ],
    ),
    ("disk", &["disk_used_bytes", "disk_free_bytes", "disk_healthy"]),
];
/// Files of the story in which the leader dies, each of another length.
const FILES: usize = 12;
/// Bytes of the first of them: too many for the database.
const LENGTH: usize = 100_000;

/// A running Prometheus.
struct Prometheus {
    address: SocketAddr,
    _process: Running,
}

impl Prometheus {
    /// Scrapes these every second.
    fn start(place: &Path, targets: &[SocketAddr]) -> Outcome<Self> {
        let config = place.join("prometheus.yml");
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n- job_name: trebol\n  \
             static_configs: [ {{ targets: [ {} ] }} ]\n",
            targets.join(", ")
        );
        fs::write(&config, text)?;
        // Free until a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", place.join("data").display()));
        command.arg(format!("--web.listen-address={address}")).current_dir(place);
        let process = Running::start_logged(&mut command, fs::File::create(place.join("log"))?)?;
        Ok(Self { address, _process: process })
    }
    /// The one number that an expression comes to.
    fn value(&self, expression: &str) -> Outcome<f64> {
        let result = self.query(expression)?;
        let value = result[0]["value"][1].as_str().ok_or_else(|| format!("{expression} comes to nothing"))?;
        Ok(value.parse()?)
    }
    fn query(&self, expression: &str) -> Outcome<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (code, text) = page(self.address, &format!("/api/v1/query?query={encoded}"))?;
        ensure(code == 200, || format!("{expression}: {code} {text}"))?;
        Ok(serde_json::from_str::<Value>(&text)?["data"]["result"].take())
    }
    /// Waits until an expression comes to what is wanted.
    fn await_value(&self, expression: &str, wanted: impl Fn(f64) -> bool) -> Outcome<f64> {
        wait_for(expression, SCRAPED, || {
            let value = self.value(expression)?;
            ensure(wanted(value), || format!("it is {value}"))?;
            Ok(value)
        })
    }
}

fn scraped() -> Outcome {
    Cluster::run(&[OPEN], |cluster| {
        cluster.settle()?;
        let targets = (0..5).map(|node| open_port(cluster, node)).collect::<Outcome<Vec<_>>>()?;
        let place = cluster.scratch("prometheus")?;
        let prometheus = Prometheus::start(&place, &targets)?;
        prometheus.await_value("sum(up)", |up| up == 5.0)?;
        prometheus.await_value("sum(trebol_is_leader)", |leaders| leaders == 1.0)?;
        for (expression, wanted) in [
            ("sum(trebol_has_leader)", 5.0),
            ("sum(trebol_members{state=\"alive\"})", 25.0),
            ("max(trebol_member_records_behind)", 0.0),
            ("sum(trebol_copies_missing)", 0.0),
            ("min(trebol_disk_healthy)", 1.0),
            ("sum(trebol_transfers_total)", 0.0),
            ("sum(trebol_transfer_bytes_total)", 0.0),
            ("sum(trebol_sessions_open)", 0.0),
            ("count(trebol_leader_changes_total > 0)", 5.0),
        ] {
            prometheus.await_value(expression, |value| value == wanted)?;
        }
        prometheus.await_value("sum(trebol_takeovers_total)", |takeovers| takeovers >= 1.0)?;

        // What is on the page is what Prometheus has: every sample, of every family.
        let (_, text) = page(targets[0], "/metrics")?;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let shown: BTreeSet<String> =
            samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect();
        let expression = format!("group by (__name__) ({{instance=\"{}\"}})", targets[0]);
        let names = prometheus.query(&expression)?;
        let names = names.as_array().ok_or("no names")?.iter().filter_map(|one| one["metric"]["__name__"].as_str());
        let taken: BTreeSet<String> = names.map(str::to_owned).collect();
        let lost: Vec<_> = shown.difference(&taken).collect();
        ensure(lost.is_empty(), || format!("of {} names these were not taken: {lost:?}", shown.len()))?;
        for (what, name) in PROMISED.into_iter().flat_map(|(what, names)| names.iter().map(move |name| (what, name))) {
            let by_node = format!("count(count by (instance) (trebol_{name}))");
            let nodes = prometheus.value(&by_node).unwrap_or_default();
            ensure(nodes == 5.0, || format!("{what}: {nodes} nodes of 5 show trebol_{name}"))?;
        }

        let bytes = vec![7; 3_000_000];
        let mut session = cluster.session(1)?;
        ensure(session.put("/large", &bytes)?.code == 226, || "STOR failed".to_owned())?;
        ensure(session.get("/large")? == bytes, || "RETR differs".to_owned())?;
        let (moved, copies) = (3_000_000.0, 3.0);
        for (expression, wanted) in [
            ("sum(trebol_transfers_total{verb=\"STOR\",result=\"done\"})", 1.0),
            ("sum(trebol_transfers_total{verb=\"RETR\",result=\"done\"})", 1.0),
            ("sum(trebol_transfer_bytes_total{direction=\"in\"})", moved),
            ("sum(trebol_transfer_bytes_total{direction=\"out\"})", moved),
            ("sum(trebol_transfer_duration_seconds_count)", 2.0),
            ("sum(trebol_commit_duration_seconds_count)", 1.0),
            ("max(trebol_files)", 1.0),
            ("sum(trebol_copies_held)", copies),
            ("sum(trebol_sessions_open)", 1.0),
            ("sum(trebol_sessions_total)", 1.0),
        ] {
            prometheus.await_value(expression, |value| value == wanted)?;
        }
        let out = "sum(trebol_replica_bytes_total{direction=\"out\"})";
        let sent = prometheus.await_value(out, |sent| sent >= 2.0 * moved)?;
        prometheus.await_value("sum(trebol_replica_bytes_total{direction=\"in\"})", |came| came == sent)?;
        prometheus.await_value("sum(trebol_disk_used_bytes)", |used| used >= copies * moved)?;
        no_complaints(&place)
    })
}

/// Fails unless Prometheus liked all that it scraped.
fn no_complaints(place: &Path) -> Outcome {
    let log = fs::read_to_string(place.join("log"))?;
    let complaints: Vec<_> = log.lines().filter(|line| !line.to_lowercase().contains("level=info")).collect();
    ensure(complaints.is_empty(), || format!("Prometheus complains:\n{}", complaints.join("\n")))
}

/// A copy rots, then the leader dies and clients write on: all of that, and how it heals, is seen by Prometheus alone.
fn leader_dies() -> Outcome {
    // Copies are missed once a node is down, which is after 5 s: a while before they are made anew.
    let environment = [
        OPEN,
        ("TREBOL_CORE_REPAIR_AFTER_S", "15"),
        ("TREBOL_REPLICA_SCRUB_REST_S", "1"),
        ("TREBOL_REPLICA_SCRUB_MIB_S", "64"),
    ];
    Cluster::run(&environment, |cluster| {
        cluster.settle()?;
        let leader = cluster.leader(None)?;
        let targets = (0..5).map(|node| open_port(cluster, node)).collect::<Outcome<Vec<_>>>()?;
        let place = cluster.scratch("prometheus")?;
        let prometheus = Prometheus::start(&place, &targets)?;
        // The node that a client is connected to gets a copy: the leader has one of each.
        put(cluster, leader, 0..FILES)?;
        let seen = |expression: &str, least: f64| prometheus.await_value(expression, |value| value >= least);
        prometheus.await_value("sum(up)", |up| up == 5.0)?;
        prometheus.await_value("sum(trebol_copies_held)", |held| held == 3.0 * FILES as f64)?;
        // One round may have begun before there was anything to read.
        seen("min(trebol_scrub_rounds_total)", 2.0)?;
        seen("sum(trebol_scrub_copies_total)", 3.0 * FILES as f64)?;
        seen("sum(trebol_scrub_bytes_total)", 3.0 * (FILES * LENGTH) as f64)?;
        prometheus.await_value("sum(trebol_scrub_bad_total)", |bad| bad == 0.0)?;
        let rotten = blobs(cluster, leader, LENGTH)?.pop().ok_or("the leader has no copy of the first file")?;
        OpenOptions::new().write(true).open(rotten)?.write_all_at(b"rot", 1000)?;
        seen("sum(trebol_scrub_bad_total)", 1.0)?;
        seen("sum(trebol_scrub_healed_total)", 1.0)?;

        let living = format!("{{instance!=\"{}\"}}", targets[leader]);
        let on = |metric: &str, how: &str| format!("{how}(trebol_{metric}{living})");
        let fetched = format!("sum(trebol_copies_fetched_total{{instance!=\"{}\",result=\"done\"}})", targets[leader]);
        let figures = [
            on("epoch", "max"),
            on("takeovers_total", "sum"),
            on("leader_changes_total", "sum"),
            on("leader_losses_total", "sum"),
            on("records_applied_total", "min"),
            fetched.clone(),
        ];
        let before = figures.iter().map(|figure| prometheus.value(figure)).collect::<Outcome<Vec<_>>>()?;
        prometheus.await_value("max(trebol_member_records_behind)", |behind| behind == 0.0)?;
        prometheus.await_value("max(trebol_copies_missing)", |missing| missing == 0.0)?;

        cluster.kill(leader)?;
        let front = (leader + 1) % 5;
        put(cluster, front, FILES..2 * FILES)?;
        // A new epoch, taken over once, followed by four; what was written since is in each index.
        let rises = [1.0, 1.0, 4.0, 1.0, FILES as f64];
        for ((figure, before), rise) in figures.iter().zip(&before).zip(rises) {
            seen(figure, before + rise)?;
        }
        prometheus.await_value("sum(up)", |up| up == 4.0)?;
        // Each of those that live sees it down, and that its log lacks what was written since.
        let name = &cluster.nodes[leader].name;
        seen(&format!("count(trebol_members{{instance!=\"{}\",state=\"down\"}} == 1)", targets[leader]), 4.0)?;
        seen(&format!("min(trebol_member_records_behind{{name=\"{name}\"}})"), FILES as f64)?;
        // It had a copy of each old file; asked of all that was scraped, for it may have been made anew by now.
        seen(&format!("min(max_over_time(trebol_copies_missing{living}[5m]))"), FILES as f64)?;
        let made = seen(&fetched, before[5] + FILES as f64)?;
        prometheus.await_value(&on("copies_missing", "max"), |missing| missing == 0.0)?;
        prometheus.await_value(&on("copies_held", "sum"), |held| held == 6.0 * FILES as f64)?;
        println!("prometheus: the leader died, {} copies were made anew and {} files written", made - before[5], FILES);

        cluster.restart(leader)?;
        cluster.settle()?;
        // Its port is another one now; the others say that it is there and has everything.
        let alive = format!("sum(trebol_members{{instance!=\"{}\",state=\"alive\"}})", targets[leader]);
        prometheus.await_value(&alive, |alive| alive == 20.0)?;
        prometheus.await_value(&on("member_records_behind", "max"), |behind| behind == 0.0)?;
        no_complaints(&place)
    })
}

fn put(cluster: &Cluster, node: usize, numbers: Range<usize>) -> Outcome {
    let mut session = cluster.session(node)?;
    for n in numbers {
        let reply = session.put(&format!("/file-{n}"), &vec![n as u8; LENGTH + n])?;
        ensure(reply.code == 226, || reply.text)?;
    }
    Ok(())
}
