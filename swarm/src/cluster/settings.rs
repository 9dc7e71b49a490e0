//! The nodes' own settings in a cluster file, as variables of their containers. Names and values are judged by the table
//! in `node::config`; what this crate decides itself cannot be set.

use super::Cluster;
use anyhow::{Result, bail};
use node::config::{SETTINGS, Setting};
use std::collections::BTreeMap;

/// What depends on the container, its ports and its secrets.
const OWN: [(&str, &[&str]); 3] = [
    ("node", &["data", "cluster", "name", "zone", "priority"]),
    ("ftp", &["listen", "passive_ports", "passive_address", "advertise", "tls_certificate", "tls_key", "users"]),
    ("peer", &["listen", "raw_listen", "advertise", "seeds", "discover", "ca", "certificate", "key", "insecure_peers"]),
];
/// As in [`node::config`]; a container is given more ([`crate::spec`]).
const DRAIN_S: u64 = 25;

impl Cluster {
    /// The settings as variables: `TREBOL_CORE_REPAIR_AFTER_S`, `30`.
    pub fn variables(&self) -> Result<BTreeMap<String, String>> {
        let mut variables = BTreeMap::new();
        for (section, keys) in &self.settings {
            let Some(keys) = keys.as_table() else {
                bail!("settings.{section}: write it as a table, [settings.{section}]");
            };
            for (key, value) in keys {
                let setting = setting(section, key)?;
                let text = text(value);
                if let Err(expected) = (setting.parse)(&text) {
                    bail!("settings.{section}.{key}: {expected}");
                }
                variables.insert(setting.variable(), text);
            }
        }
        Ok(variables)
    }
    /// How long a node may take to end its running transfers, in seconds.
    pub fn drain_s(&self) -> u64 {
        let given = self.settings.get("node").and_then(|node| node.get("drain_s")).map(text);
        given.and_then(|seconds| seconds.parse().ok()).unwrap_or(DRAIN_S)
    }
}

fn setting(section: &str, key: &str) -> Result<&'static Setting> {
    if OWN.iter().any(|(own, keys)| *own == section && keys.contains(&key)) {
        bail!("settings.{section}.{key}: a node in a container gets that from its cluster, it cannot be set");
    }
    match SETTINGS.iter().find(|setting| setting.section == section && setting.key == key) {
        Some(setting) => Ok(setting),
        None => bail!("settings.{section}.{key}: there is no such setting; `trebol serve --help` shows all"),
    }
}

/// As it would stand in a variable.
fn text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
