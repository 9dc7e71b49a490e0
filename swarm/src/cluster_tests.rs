//! What a cluster file may say, and the sentence for what it may not.

use super::*;

fn refusal(text: &str) -> String {
    format!("{:#}", Cluster::parse(text, "c.toml").unwrap_err())
}

/// Hosts `h1`, `h2` … with so many nodes each.
fn hosts(nodes: &[u16]) -> String {
    let host = |(at, nodes): (usize, &u16)| {
        let n = at + 1;
        format!("[[host]]\nname = \"h{n}\"\naddress = \"192.0.2.{n}\"\nnodes = {nodes}\n")
    };
    nodes.iter().enumerate().map(host).collect()
}

#[test]
fn nothing_said_is_five_nodes_on_this_machine() {
    let cluster = Cluster::parse("", "c.toml").unwrap();
    assert_eq!(cluster, Cluster::default());
    let names: Vec<String> = cluster.nodes().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["h1-1", "h1-2", "h1-3", "h1-4", "h1-5"]);
    assert_eq!((cluster.name.as_str(), cluster.users[0].name.as_str(), cluster.drain_s()), ("trebol", "demo", 25));
}

#[test]
fn what_is_written_is_read_again() {
    let text = format!("image = \"x:1\"\nzones = 2\n[settings.node]\ndrain_s = 5\n{}", hosts(&[3, 2]));
    let cluster = Cluster::parse(&text, "c.toml").unwrap();
    assert_eq!(cluster.drain_s(), 5);
    let again = Cluster::parse(&toml::to_string(&cluster).unwrap(), "again").unwrap();
    assert_eq!(again, cluster);
}

#[test]
fn ranks_fall_over_the_hosts_and_scaling_moves_none() {
    let small = Cluster::parse(&hosts(&[3, 2]), "c.toml").unwrap();
    let names: Vec<String> = small.nodes().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["h1-1", "h2-1", "h1-2", "h2-2", "h1-3"]);
    let large = Cluster::parse(&hosts(&[9, 9, 9]), "c.toml").unwrap();
    for node in small.nodes() {
        assert_eq!(small.priority(&node), large.priority(&node));
        assert_eq!(small.passive_ports(&node), large.passive_ports(&node));
    }
}

#[test]
fn ports_follow_each_other_on_a_host() {
    let cluster = Cluster::default();
    let nodes = cluster.nodes();
    let ftp: Vec<u16> = nodes.iter().map(|node| cluster.ftp_port(node)).collect();
    assert_eq!(ftp, [2121, 2122, 2123, 2124, 2125]);
    assert_eq!(cluster.passive_ports(&nodes[1]), 21_008..=21_015);
}

#[test]
fn mistakes_name_their_place() {
    assert!(refusal("nodes = 5\n").starts_with("c.toml, line 1: unknown field `nodes`"));
    assert!(refusal("\n[[host]]\nname = \"H1\"\nnodes = 1\n").contains("lower-case letters"));
    assert!(refusal("zones = 2\n").contains("only 1 host has nodes"));
    assert!(refusal(&hosts(&[0, 0])).contains("no host is to have a node"));
    assert!(refusal(&hosts(&[51])).contains("50 is the most"));
    assert!(
        refusal("[[host]]\nname = \"a\"\nnodes = 1\n[[host]]\nname = \"a\"\nnodes = 1\n")
            .contains("cannot reach it at 127")
    );
    assert!(refusal(&hosts(&[1, 1]).replace("h2", "h1")).contains("named twice"));
    assert!(refusal("[[host]]\nname = \"a\"\nnodes = 1\nengine = \"here\"\n").contains("is no engine"));
    assert!(refusal("[[user]]\nname = \"a\"\npassword = \"secret\"\n").contains("trebol passwd"));
    assert!(refusal("[[user]]\nname = \"a\"\n[[user]]\nname = \"a\"\n").contains("twice"));
}

#[test]
fn ports_that_cannot_be_are_refused() {
    assert!(refusal("ftp_port = 0\n").contains("must not be 0"));
    assert!(refusal("ftp_port = 65533\n").contains("beyond 65535"));
    assert!(refusal("ftp_port = 21010\n").contains("overlap"));
    assert!(refusal("ftp_port = 2375\n").contains("2377 is one of Swarm's own"));
}

#[test]
fn settings_are_those_of_the_nodes() {
    let cluster =
        Cluster::parse("[settings.core]\nrepair_after_s = 9\n[settings.node]\nlog_json = true\n", "c").unwrap();
    let variables = cluster.variables().unwrap();
    assert_eq!(variables["TREBOL_CORE_REPAIR_AFTER_S"], "9");
    assert_eq!(variables["TREBOL_LOG_JSON"], "true");
    assert!(refusal("[settings.core]\nrepair_after = 9\n").contains("no such setting"));
    assert!(refusal("[settings.core]\nrepair_after_s = \"soon\"\n").contains("not a whole number"));
    assert!(refusal("[settings.node]\nzone = \"z\"\n").contains("cannot be set"));
    assert!(refusal("[settings]\ncore = 1\n").contains("[settings.core]"));
}

#[test]
fn what_is_at_risk_is_said() {
    let risks = |nodes: &[u16]| Cluster::parse(&hosts(nodes), "c.toml").unwrap().risks().join("; ");
    assert!(risks(&[1]).contains("one copy") && risks(&[1]).contains("one host"));
    assert!(risks(&[2]).contains("refused"));
    assert!(risks(&[2, 2]).contains("no host has three"));
    assert!(risks(&[5]).contains("one host"));
    assert_eq!(risks(&[3, 2]), "");
    assert!(risks(&[3, 1]).starts_with("four nodes") && !risks(&[3, 1]).contains("no host"));
}
