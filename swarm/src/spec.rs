//! One storage node as a Swarm service: one replica, pinned to its host by a label, with its own volume and its own ports
//! on that host; discovery by an alias that all share, in round-robin DNS. Pure: what goes in decides what comes out.
//!
//! A pinned service is what keeps a node and its disk together: Swarm starts replacements of replicated tasks elsewhere,
//! with empty volumes.

use crate::name::{self, NodeName};
use crate::wanted::{CA, USERS, Wanted, ftp_role, peer_role};
use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum, EndpointSpec,
    EndpointSpecModeEnum, HealthConfig, Mount, MountType, MountVolumeOptions, NetworkAttachmentConfig, ServiceSpec,
    ServiceSpecMode, ServiceSpecModeReplicated, ServiceSpecUpdateConfig, ServiceSpecUpdateConfigFailureActionEnum,
    ServiceSpecUpdateConfigOrderEnum, TaskSpec, TaskSpecContainerSpec, TaskSpecContainerSpecFile,
    TaskSpecContainerSpecSecrets, TaskSpecPlacement, TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};
use std::collections::{BTreeMap, HashMap};

/// As in images/node/Dockerfile.
const DATA: &str = "/var/lib/trebol";
/// As in images/node/Dockerfile.
const USER: &str = "65532";
/// Where clients connect inside the container.
const FTP: u16 = 21;
/// Where nodes coordinate.
const PEER: u16 = 2123;
/// From the end of the drain to SIGKILL, in seconds.
const AFTER_DRAIN_S: u64 = 15;
/// From SIGTERM to SIGKILL at least, in seconds.
const GRACE_S: u64 = 35;
const SECOND: i64 = 1_000_000_000;

/// The service of one node. `ids` are those of secrets by name; where one is missing the service cannot be created.
pub fn service(wanted: &Wanted, node: &NodeName, ids: &BTreeMap<String, String>) -> ServiceSpec {
    let cluster = &wanted.cluster;
    let labels: HashMap<String, String> = labels(wanted, Some(node)).into_iter().collect();
    let attachment = NetworkAttachmentConfig {
        target: Some(name::network(&cluster.name)),
        aliases: Some(vec![name::alias(&cluster.name)]),
        driver_opts: None,
    };
    let task = TaskSpec {
        container_spec: Some(container(wanted, node, ids, labels.clone())),
        placement: Some(TaskSpecPlacement {
            constraints: Some(vec![format!("node.labels.{} == {}", name::host_label(&cluster.name), node.host)]),
            ..TaskSpecPlacement::default()
        }),
        restart_policy: Some(TaskSpecRestartPolicy {
            condition: Some(TaskSpecRestartPolicyConditionEnum::ANY),
            delay: Some(SECOND),
            ..TaskSpecRestartPolicy::default()
        }),
        networks: Some(vec![attachment]),
        ..TaskSpec::default()
    };
    ServiceSpec {
        name: Some(name::service(&cluster.name, node)),
        labels: Some(labels),
        task_template: Some(task),
        mode: Some(ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated { replicas: Some(1) }),
            ..ServiceSpecMode::default()
        }),
        // The old process gives the volume back before the new one asks for it.
        update_config: Some(ServiceSpecUpdateConfig {
            parallelism: Some(1),
            order: Some(ServiceSpecUpdateConfigOrderEnum::STOP_FIRST),
            failure_action: Some(ServiceSpecUpdateConfigFailureActionEnum::PAUSE),
            monitor: Some(SECOND),
            ..ServiceSpecUpdateConfig::default()
        }),
        endpoint_spec: Some(EndpointSpec { mode: Some(EndpointSpecModeEnum::DNSRR), ports: Some(ports(wanted, node)) }),
        ..ServiceSpec::default()
    }
}

/// What a service is made from, as a short text: equal for equal services, whatever the ids of their secrets.
pub fn fingerprint(service: &ServiceSpec) -> String {
    // Through a value: its maps are sorted, those of the models are not.
    let value = serde_json::to_value(service).expect("a service is plain data");
    blake3::hash(value.to_string().as_bytes()).to_hex()[..16].to_owned()
}

/// The labels of what is made for a cluster, or for one of its nodes.
pub fn labels(wanted: &Wanted, node: Option<&NodeName>) -> BTreeMap<String, String> {
    let mut labels = wanted.cluster.labels.clone();
    labels.insert(name::CLUSTER.to_owned(), wanted.cluster.name.to_string());
    labels.extend(node.map(|node| (name::NODE.to_owned(), node.to_string())));
    labels
}

fn container(
    wanted: &Wanted,
    node: &NodeName,
    ids: &BTreeMap<String, String>,
    labels: HashMap<String, String>,
) -> TaskSpecContainerSpec {
    let cluster = &wanted.cluster;
    let volume = Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name::service(&cluster.name, node)),
        target: Some(DATA.to_owned()),
        volume_options: Some(MountVolumeOptions { labels: Some(labels.clone()), ..MountVolumeOptions::default() }),
        ..Mount::default()
    };
    let secrets = [
        (CA.to_owned(), "ca.pem"),
        (USERS.to_owned(), "users.toml"),
        (peer_role(node), "peer.pem"),
        (ftp_role(&node.host), "ftp.pem"),
    ];
    let secrets = secrets.into_iter().filter_map(|(role, file)| {
        let name = wanted.secrets.get(&role)?;
        Some(secret(name, ids.get(name).cloned().unwrap_or_default(), file))
    });
    let grace = (cluster.drain_s() + AFTER_DRAIN_S).max(GRACE_S);
    TaskSpecContainerSpec {
        image: Some(wanted.image.clone()),
        hostname: Some(node.to_string()),
        env: Some(variables(wanted, node).into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        mounts: Some(vec![volume]),
        secrets: Some(secrets.collect()),
        labels: Some(labels),
        read_only: Some(true),
        capability_drop: Some(vec!["ALL".to_owned()]),
        // A node listens on port 21 without any capability. Engines allow that by default, except where users are remapped.
        sysctls: Some(HashMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())])),
        stop_signal: Some("SIGTERM".to_owned()),
        stop_grace_period: Some(i64::try_from(grace).unwrap_or(i64::MAX / SECOND).saturating_mul(SECOND)),
        health_check: Some(health()),
        ..TaskSpecContainerSpec::default()
    }
}

/// The image's own check, more often while the node starts where the engine can (25 and newer).
fn health() -> HealthConfig {
    HealthConfig {
        test: Some(["CMD", "trebol", "healthcheck"].map(str::to_owned).to_vec()),
        interval: Some(3 * SECOND),
        timeout: Some(5 * SECOND),
        retries: Some(5),
        start_period: Some(60 * SECOND),
        start_interval: Some(SECOND),
    }
}

fn secret(name: &str, id: String, file: &str) -> TaskSpecContainerSpecSecrets {
    TaskSpecContainerSpecSecrets {
        secret_id: Some(id),
        secret_name: Some(name.to_owned()),
        file: Some(TaskSpecContainerSpecFile {
            name: Some(file.to_owned()),
            uid: Some(USER.to_owned()),
            gid: Some(USER.to_owned()),
            mode: Some(0o400),
        }),
    }
}

/// Everything that `trebol serve` is told.
fn variables(wanted: &Wanted, node: &NodeName) -> BTreeMap<String, String> {
    let cluster = &wanted.cluster;
    let host = cluster.hosts.iter().find(|host| host.name == node.host).expect("a node's host is among the hosts");
    let passive = cluster.passive_ports(node);
    let own = [
        ("CLUSTER", cluster.name.to_string()),
        ("NAME", node.to_string()),
        ("ZONE", node.host.to_string()),
        ("PRIORITY", cluster.priority(node).to_string()),
        ("LOG", cluster.log.clone()),
        ("FTP_LISTEN", format!("0.0.0.0:{FTP}")),
        ("FTP_PASSIVE_PORTS", format!("{}-{}", passive.start(), passive.end())),
        ("FTP_PASSIVE_ADDRESS", host.address.to_string()),
        ("FTP_ADVERTISE", format!("{}:{}", host.address, cluster.ftp_port(node))),
        ("FTP_TLS_CERTIFICATE", "/run/secrets/ftp.pem".to_owned()),
        ("FTP_TLS_KEY", "/run/secrets/ftp.pem".to_owned()),
        ("FTP_USERS", "/run/secrets/users.toml".to_owned()),
        ("PEER_DISCOVER", format!("{}:{PEER}", name::alias(&cluster.name))),
        ("PEER_CA", "/run/secrets/ca.pem".to_owned()),
        ("PEER_CERTIFICATE", "/run/secrets/peer.pem".to_owned()),
        ("PEER_KEY", "/run/secrets/peer.pem".to_owned()),
    ];
    let mut variables: BTreeMap<String, String> =
        own.into_iter().map(|(name, value)| (format!("TREBOL_{name}"), value)).collect();
    if cluster.nodes().len() == 1 {
        // The operator's word, as in `trebol dev --nodes 1`: a single node has nobody to keep a second copy.
        variables.insert("TREBOL_CORE_MIN_COPIES".to_owned(), "1".to_owned());
    }
    variables.extend(cluster.variables().expect("checked"));
    variables
}

/// Ports in host mode are single numbers: what PASV tells is what is published.
fn ports(wanted: &Wanted, node: &NodeName) -> Vec<EndpointPortConfig> {
    let port = |inside: u16, outside: u16| EndpointPortConfig {
        protocol: Some(EndpointPortConfigProtocolEnum::TCP),
        target_port: Some(inside.into()),
        published_port: Some(outside.into()),
        publish_mode: Some(EndpointPortConfigPublishModeEnum::HOST),
        ..EndpointPortConfig::default()
    };
    let clients = std::iter::once(port(FTP, wanted.cluster.ftp_port(node)));
    clients.chain(wanted.cluster.passive_ports(node).map(|data| port(data, data))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;

    fn wanted(text: &str) -> Wanted {
        Wanted::new(Cluster::parse(text, "c.toml").unwrap(), "image:1".to_owned(), &BTreeMap::new())
    }
    fn first(wanted: &Wanted) -> NodeName {
        wanted.cluster.nodes()[0].clone()
    }

    #[test]
    fn variables_are_fit_to_serve() {
        for text in ["", "[[host]]\nname = \"h1\"\nnodes = 1\n", "[settings.core]\nrepair_after_s = 7\n"] {
            let wanted = wanted(text);
            let node = first(&wanted);
            let settings = node::config::load(None, variables(&wanted, &node), &[]).unwrap();
            assert_eq!(settings.check(), Ok(()));
            assert_eq!(settings.ftp.passive_address, Some([127, 0, 0, 1].into()));
            assert_eq!(settings.core.min_copies, if wanted.cluster.nodes().len() == 1 { 1 } else { 2 });
            assert_eq!(settings.core.repair_after_s, if text.contains("repair") { 7 } else { 60 });
        }
    }

    #[test]
    fn a_node_keeps_its_place_its_volume_and_its_ports() {
        let wanted = wanted("name = \"demo\"\n");
        let node: NodeName = "h1-2".parse().unwrap();
        let service = service(&wanted, &node, &BTreeMap::new());
        let task = service.task_template.unwrap();
        assert_eq!(task.placement.unwrap().constraints.unwrap(), ["node.labels.trebol.host.demo == h1"]);
        let container = task.container_spec.unwrap();
        assert_eq!(container.mounts.unwrap()[0].source.as_deref(), Some("demo-h1-2"));
        assert!(container.stop_grace_period.unwrap() >= 35 * SECOND);
        let ports = service.endpoint_spec.unwrap().ports.unwrap();
        let published: Vec<i64> = ports.iter().filter_map(|port| port.published_port).collect();
        assert_eq!(published, [2122, 21_008, 21_009, 21_010, 21_011, 21_012, 21_013, 21_014, 21_015]);
        assert!(ports[1..].iter().all(|port| port.target_port == port.published_port));
    }

    #[test]
    fn the_fingerprint_tells_what_matters() {
        let base = wanted("");
        let node = first(&base);
        let print = base.fingerprint(&node);
        assert_eq!(wanted("").fingerprint(&node), print);
        let ids = base.secrets.values().map(|name| (name.clone(), "some-id".to_owned())).collect();
        assert_eq!(service(&base, &node, &ids).name, service(&base, &node, &BTreeMap::new()).name);
        assert_ne!(wanted("log = \"debug\"\n").fingerprint(&node), print);
        let mut other = base.clone();
        other.image = "image:2".to_owned();
        assert_ne!(other.fingerprint(&node), print);
        let mut users = base.clone();
        users.secrets.insert(USERS.to_owned(), "trebol-users-1".to_owned());
        assert_ne!(users.fingerprint(&node), print);
        let more = wanted("[[host]]\nname = \"h1\"\nnodes = 9\n");
        assert_eq!(more.fingerprint(&node), print, "scaling restarts nobody");
    }
}
