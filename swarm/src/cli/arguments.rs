//! What commands are told: which cluster, its shape, its image. Flags win over the file; without a file, over what is
//! remembered; without that, over the defaults.

use crate::cluster::Cluster;
use crate::image::{Source, workspace};
use crate::name::Name;
use crate::progress::Progress;
use crate::state::{self, State};
use anyhow::{Context, Result, bail};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The cluster file, TOML; what was last asked for unless given
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The cluster's name
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    name: Option<Name>,
    /// Where keys and passwords of clusters are kept; a directory of the user's unless given
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// How it shall be; for clusters on one host.
#[derive(Debug, clap::Args)]
pub(super) struct Shape {
    /// How many nodes
    #[arg(long, value_name = "N")]
    nodes: Option<u16>,
    /// The first node's port for clients
    #[arg(long, value_name = "PORT")]
    ftp_port: Option<u16>,
    /// The first node's first port for data connections
    #[arg(long, value_name = "PORT")]
    passive_port: Option<u16>,
    /// Ports for data connections of each node
    #[arg(long, value_name = "N")]
    passive_per_node: Option<u16>,
    /// The engine: unix:///PATH, ssh://USER@HOST or tcp://HOST:PORT
    #[arg(long, value_name = "URL")]
    engine: Option<String>,
    /// The address at which clients reach the nodes
    #[arg(long, value_name = "IPV4")]
    address: Option<Ipv4Addr>,
    /// A label for everything that is made; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

/// Where the image comes from.
#[derive(Debug, clap::Args)]
pub(super) struct Build {
    /// The image of the nodes; the one that runs, or one built from this workspace, unless given
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// Build it with this profile of Cargo
    #[arg(long, value_name = "PROFILE", conflicts_with = "image")]
    profile: Option<String>,
    /// Build it with these features of the crate `node`
    #[arg(long, value_name = "FEATURES", value_delimiter = ',', conflicts_with = "image")]
    features: Vec<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is no KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Which {
    /// Where clusters are kept.
    pub(super) fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(state::default_directory)
    }
    /// The cluster that is meant, as it shall be.
    pub(super) fn cluster(&self, shape: Option<&Shape>) -> Result<Cluster> {
        let mut cluster = match &self.file {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                Cluster::parse(&text, &path.display().to_string())?
            }
            None => {
                let fresh = Cluster::default();
                let name = self.name.clone().unwrap_or_else(|| fresh.name.clone());
                let remembered = State::of(&self.state(), &name).cluster()?;
                remembered.unwrap_or(Cluster { name, ..fresh })
            }
        };
        if let Some(shape) = shape {
            shape.apply(&mut cluster)?;
        }
        cluster.check()?;
        Ok(cluster)
    }
    /// After a change of size that a file knows nothing of.
    pub(super) fn remind(&self, progress: &Progress) {
        if let Some(file) = &self.file {
            progress.note(&format!("{} still names the old number of nodes: change it", file.display()));
        }
    }
}

impl Shape {
    fn apply(&self, cluster: &mut Cluster) -> Result<()> {
        cluster.ftp_port = self.ftp_port.unwrap_or(cluster.ftp_port);
        cluster.passive_port = self.passive_port.unwrap_or(cluster.passive_port);
        cluster.passive_per_node = self.passive_per_node.unwrap_or(cluster.passive_per_node);
        cluster.labels.extend(self.labels.iter().cloned());
        let for_one = self.nodes.is_some() || self.engine.is_some() || self.address.is_some();
        match &mut cluster.hosts[..] {
            [host] => {
                host.nodes = self.nodes.unwrap_or(host.nodes);
                host.engine = self.engine.clone().unwrap_or_else(|| host.engine.clone());
                host.address = self.address.unwrap_or(host.address);
            }
            hosts if for_one => {
                bail!("the cluster has {} hosts: say nodes, engine and address of each in its file", hosts.len())
            }
            _ => {}
        }
        Ok(())
    }
}

impl Build {
    /// Whether something was said about building.
    pub(super) fn is_given(&self) -> bool {
        self.profile.is_some() || !self.features.is_empty()
    }
    /// What to compile.
    pub(super) fn source(&self) -> Result<Source> {
        let profile = self.profile.clone().unwrap_or_else(|| "release".to_owned());
        Ok(Source { workspace: workspace()?, profile, features: self.features.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct All {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        shape: Shape,
    }

    fn asked(dir: &std::path::Path, arguments: &[&str]) -> Result<Cluster> {
        let state = dir.to_str().unwrap();
        let all = All::parse_from([&["swarm", "--state", state], arguments].concat());
        all.which.cluster(Some(&all.shape))
    }

    #[test]
    fn flags_win_over_what_is_remembered_over_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = asked(dir.path(), &["--nodes", "3", "--label", "run=7"]).unwrap();
        assert_eq!((cluster.nodes().len(), cluster.labels["run"].as_str()), (3, "7"));
        let state = State::of(dir.path(), &cluster.name);
        let _hold = state.hold().unwrap();
        state.remember(&cluster).unwrap();
        let cluster = asked(dir.path(), &["--ftp-port", "3000"]).unwrap();
        assert_eq!((cluster.nodes().len(), cluster.ftp_port), (3, 3000));
        assert_eq!(asked(dir.path(), &["--name", "other"]).unwrap().nodes().len(), 5);
    }

    #[test]
    fn the_shape_of_several_hosts_is_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let host = |n: u8| format!("[[host]]\nname = \"h{n}\"\naddress = \"192.0.2.{n}\"\nnodes = 2\n");
        std::fs::write(&file, host(1) + &host(2)).unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(asked(dir.path(), &["--file", file]).unwrap().nodes().len(), 4);
        let refusal = asked(dir.path(), &["--file", file, "--nodes", "9"]).unwrap_err().to_string();
        assert!(refusal.contains("has 2 hosts"), "{refusal}");
    }
}
