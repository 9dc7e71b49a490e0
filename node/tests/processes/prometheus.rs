//! Metrics, judged by a real Prometheus that scrapes them: all that is promised is there, and what happens to the cluster
//! shows. Here, nothing is read from a node's own pages but their names.

use crate::clients::Running;
use crate::cluster::Cluster;
use crate::ops::{OPEN, open_port, page};
use crate::wait::wait_for;
use crate::{Outcome, Story, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[("prometheus::scrapes_what_moves", &["prometheus"], scraped)];

/// For Prometheus to have scraped again.
const SCRAPED: Duration = Duration::from_secs(60);

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
        ensure(shown.len() > 40 && lost.is_empty(), || {
            format!("of {} names these were not taken: {lost:?}", shown.len())
        })?;

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
        let log = fs::read_to_string(place.join("log"))?;
        let complaints: Vec<_> = log.lines().filter(|line| !line.to_lowercase().contains("level=info")).collect();
        ensure(complaints.is_empty(), || format!("Prometheus complains:\n{}", complaints.join("\n")))
    })
}
