//! The text of `/metrics` (OpenMetrics 1.0): what was counted, and what the node's status says at that moment, so that no
//! figure is kept twice. Labels name nodes, states and verbs, never paths or users. It asks nobody anything.

use super::NodeStatus;
use crate::cluster::{Liveness, MemberStatus, RoleName};
use crate::meter::Meter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::Duration;

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything there is to show.
pub(super) fn text(meter: &Meter, status: Option<NodeStatus>) -> String {
    let mut registry = Registry::with_prefix("trebol");
    registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    meter.register(&mut registry);
    if let Some(status) = status {
        registry.register_collector(Box::new(Figures(status)));
    }
    let mut text = String::new();
    encode(&mut text, &registry).expect("every figure fits, and a string takes all of them");
    text
}

/// What a status says.
#[derive(Debug)]
struct Figures(NodeStatus);

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let (Self(status), mut page) = (self, Page(encoder));
        cluster(&mut page, status)?;
        disk(&mut page, status)
    }
}

fn cluster(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let cluster = &status.cluster;
    let leads = cluster.role == RoleName::Lead;
    page.gauge("is_leader", "1 while this node leads.", leads.into())?;
    page.gauge("has_leader", "1 while this node follows a leader, or leads.", cluster.leader.is_some().into())?;
    page.gauge("epoch", "The counter of the epoch that this node has promised to.", cluster.epoch.0)?;
    let states = [("alive", Liveness::Alive), ("suspect", Liveness::Suspect), ("down", Liveness::Down)];
    let count = |state| cluster.members.iter().filter(|member| member.liveness == state).count() as u64;
    let states = states.map(|(name, state)| ([("state", name)], count(state)));
    page.gauges("members", "Nodes that this one knows, itself included, by how they look from here.", states)?;
    let behind = cluster.members.iter().filter(|member| member.info.node != cluster.node).map(|member| {
        let labels = [("node", member.info.node.to_string()), ("name", member.info.name.clone())];
        (labels, member.behind)
    });
    page.gauges("member_records_behind", "Records in this node's log that another one lacks.", behind)?;
    page.gauge("log_records", "Records in this node's log.", status.log_records)?;
    page.counter("records_applied", "Records that this node's index has taken in.", cluster.applied)?;
    page.gauge("files", "Files that clients see.", cluster.files)?;
    page.gauge("copies_missing", "Copies that these files lack, judged by live nodes.", cluster.missing_copies)?;
    page.gauge("conflict_losers", "Versions that lost to another side of a partition.", status.conflicts)
}

fn disk(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    if let Some(MemberStatus { disk, copies, clock_ahead, .. }) = own(status) {
        page.gauge("copies_held", "Files that clients see with a copy on this node.", *copies)?;
        page.gauge("disk_used_bytes", "Bytes of files on this node's disk.", disk.used)?;
        page.gauge("disk_free_bytes", "Bytes that are free on its file system.", disk.free)?;
        page.gauge("disk_healthy", "0 while writes to this node's disk fail or stall.", disk.healthy.into())?;
        let help = "How far the clock is ahead of other nodes', where that bars this one from leading.";
        page.seconds("clock_ahead_seconds", help, *clock_ahead)?;
    }
    let scrub = &status.scrub;
    page.counter("scrub_rounds", "How often all copies on this node were read again.", scrub.rounds)?;
    page.counter("scrub_copies", "Copies that were read again.", scrub.blobs)?;
    page.counter("scrub_bytes", "Their bytes.", scrub.bytes)?;
    page.counter("scrub_bad", "Copies that were found bad.", scrub.bad)?;
    page.counter("scrub_healed", "Bad copies that good ones have replaced.", scrub.healed)?;
    page.gauge("copies_bad", "Copies on this node that are known to be bad now.", scrub.condemned)?;
    let help = "Of these, copies of which no node gave a good one when asked last.";
    page.gauge("copies_incurable", help, scrub.incurable)
}

fn own(status: &NodeStatus) -> Option<&MemberStatus> {
    status.cluster.members.iter().find(|member| member.info.node == status.cluster.node)
}

/// Writes one metric after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        gauge(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(labels, value)| gauge(value).encode(family.encode_family(&labels)?))
    }
    fn seconds(&mut self, name: &str, help: &str, micros: u64) -> fmt::Result {
        let seconds = Duration::from_micros(micros).as_secs_f64();
        ConstGauge::new(seconds).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Endpoints;
    use crate::cluster::{Digest, DiskReport, Draining, Epoch, NodeId, PeerInfo, Status};
    use crate::peer::testing::info;
    use crate::store::Integrity;

    fn member(node: u128, name: &str, liveness: Liveness) -> MemberStatus {
        MemberStatus {
            info: PeerInfo { name: name.to_owned(), ..info(node, "127.0.0.1:1") },
            liveness,
            role: RoleName::Follow,
            behind: node as u64,
            disk: DiskReport { used: 10, free: u64::MAX, healthy: false },
            clock_ahead: 1_500_000,
            draining: Draining::No,
            copies: 4,
            leaving: false,
            protocol: 5,
        }
    }

    fn status() -> NodeStatus {
        let any = "127.0.0.1:1".parse().unwrap();
        NodeStatus {
            name: "n1".to_owned(),
            pid: 1,
            endpoints: Endpoints { ftp: any, peer: any, raw: any, admin: None },
            conflicts: 2,
            scrub: Integrity { rounds: 3, blobs: 5, bytes: 100, bad: 2, healed: 1, condemned: 1, incurable: 1 },
            log_records: 9,
            cluster: Status {
                node: NodeId(1),
                role: RoleName::Lead,
                leader: Some(NodeId(1)),
                epoch: Epoch(7, 1),
                members: vec![
                    member(1, "n1", Liveness::Alive),
                    member(2, "a\"b\\c\nd", Liveness::Down),
                    member(3, "n3", Liveness::Alive),
                ],
                digest: Digest::default(),
                files: 6,
                missing_copies: 8,
                applied: 70,
            },
        }
    }

    #[test]
    fn what_the_status_says_is_shown_under_names_of_the_convention() {
        let text = text(&Meter::default(), Some(status()));
        let id = |n: u128| NodeId(n).to_string();
        let lines = [
            format!("trebol_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
            "# TYPE trebol_is_leader gauge".to_owned(),
            "trebol_is_leader 1".to_owned(),
            "trebol_has_leader 1".to_owned(),
            "trebol_epoch 7".to_owned(),
            "trebol_members{state=\"alive\"} 2".to_owned(),
            "trebol_members{state=\"suspect\"} 0".to_owned(),
            "trebol_members{state=\"down\"} 1".to_owned(),
            format!("trebol_member_records_behind{{node=\"{}\",name=\"n3\"}} 3", id(3)),
            format!("trebol_member_records_behind{{node=\"{}\",name=\"a\\\"b\\\\c\\nd\"}} 2", id(2)),
            "trebol_log_records 9".to_owned(),
            "# TYPE trebol_records_applied counter".to_owned(),
            "trebol_records_applied_total 70".to_owned(),
            "trebol_files 6".to_owned(),
            "trebol_copies_missing 8".to_owned(),
            "trebol_conflict_losers 2".to_owned(),
            "trebol_copies_held 4".to_owned(),
            "trebol_disk_used_bytes 10".to_owned(),
            format!("trebol_disk_free_bytes {}", i64::MAX),
            "trebol_disk_healthy 0".to_owned(),
            "trebol_clock_ahead_seconds 1.5".to_owned(),
            "trebol_scrub_bytes_total 100".to_owned(),
            "trebol_copies_incurable 1".to_owned(),
            "# EOF".to_owned(),
        ];
        for line in lines {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(!text.contains(&format!("node=\"{}\"", id(1))), "a node is not behind itself");
    }

    #[test]
    fn every_family_is_described_once_and_by_whole_sentences() {
        let text = text(&Meter::default(), Some(status()));
        let help: Vec<&str> = text.lines().filter(|line| line.starts_with("# HELP ")).collect();
        let mut names: Vec<&str> = help.iter().filter_map(|line| line.split(' ').nth(2)).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
        for line in help {
            assert!(line.ends_with('.') && !line.ends_with(".."), "{line}");
        }
    }
}
