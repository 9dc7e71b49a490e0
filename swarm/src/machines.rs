//! Several machines played on one engine: containers with an engine inside, for tests of clusters over several hosts and
//! for chaos. Never used for clusters that hold somebody's files.

mod image;
mod root;

pub use image::{image, image_name};
pub use root::{linked, named};

use crate::cluster::Host;
use crate::engine::{Engine, unless_missing, words};
use crate::name::Name;
use crate::progress::Progress;
use crate::work::until;
use anyhow::{Context, Result, bail};
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions,
};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// For an engine inside to answer.
const START: Duration = Duration::from_secs(90);

/// Machines of one run. [`Machines::stop`] takes them away; leftovers carry the run's labels ([`crate::sweep`]).
#[derive(Debug)]
pub struct Machines {
    outer: Engine,
    all: Vec<Machine>,
    /// The directories of their sockets.
    _sockets: tempfile::TempDir,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its name, from `h1` on.
    pub name: Name,
    /// Its container on the outer engine.
    pub container: String,
    /// Where it is reached.
    pub address: Ipv4Addr,
    /// Its engine.
    pub engine: String,
}

impl Machine {
    /// As a host of a cluster.
    pub fn host(&self, nodes: u16) -> Host {
        Host { name: self.name.clone(), engine: self.engine.clone(), address: self.address, names: vec![], nodes }
    }
}

impl Machines {
    /// Starts `count` machines from [`image`]; the outer engine must be this machine's.
    pub async fn start(
        outer: &Engine,
        image: &str,
        count: usize,
        labels: &BTreeMap<String, String>,
        progress: &Progress,
    ) -> Result<Self> {
        let sockets = tempfile::Builder::new().prefix("trebol-").tempdir().context("no directory for sockets")?;
        let mut machines = Self { outer: outer.clone(), all: Vec::new(), _sockets: sockets };
        let started = machines.start_all(image, count, labels, progress).await;
        match started {
            Ok(()) => Ok(machines),
            Err(error) => {
                // What is left after this carries the run's labels.
                let _ = machines.stop().await;
                Err(error)
            }
        }
    }
    /// All of them.
    pub fn all(&self) -> &[Machine] {
        &self.all
    }
    /// The engine they are played on.
    pub fn outer(&self) -> &Engine {
        &self.outer
    }
    /// Cuts the power of one.
    pub async fn kill(&self, machine: &Machine) -> Result<()> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        let killed = self.outer.docker.kill_container(&machine.container, Some(options)).await;
        killed.map_err(|error| self.outer.failed("kill a machine", &error))
    }
    /// Switches one on again that was killed; returns when its engine answers.
    pub async fn start_again(&self, machine: &Machine) -> Result<()> {
        let started = self.outer.docker.start_container(&machine.container, None::<StartContainerOptions>).await;
        started.map_err(|error| self.outer.failed("start a machine", &error))?;
        let (now, before) = (self.address(&machine.container, &machine.name).await?, machine.address);
        if now != before {
            bail!("machine {} has come back as {now} and was {before}", machine.name);
        }
        answers(machine).await
    }
    /// Takes them away, with all that is in them.
    pub async fn stop(&mut self) -> Result<()> {
        for machine in std::mem::take(&mut self.all) {
            remove(&self.outer, &machine.container).await?;
        }
        Ok(())
    }

    async fn start_all(
        &mut self,
        image: &str,
        count: usize,
        labels: &BTreeMap<String, String>,
        progress: &Progress,
    ) -> Result<()> {
        let mut privileged = true;
        for number in 1..=count {
            progress.step(&format!("start machine {number} of {count}"));
            let name: Name = format!("h{number}").parse().context("fewer machines")?;
            let sockets = self._sockets.path().join(name.as_str());
            std::fs::create_dir(&sockets).context("no directory for a socket")?;
            let mut started = self.start_one(image, &name, &sockets, labels, privileged).await;
            if started.is_err() && privileged {
                privileged = false;
                started = self.start_one(image, &name, &sockets, labels, privileged).await;
            }
            self.all.push(started?);
        }
        for machine in &self.all {
            answers(machine).await?;
        }
        Ok(())
    }

    async fn address(&self, container: &str, name: &Name) -> Result<Ipv4Addr> {
        let seen = self.outer.docker.inspect_container(container, None::<InspectContainerOptions>).await;
        let seen = seen.map_err(|error| self.outer.failed("look at a machine", &error))?;
        let networks = seen.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let address = networks.into_values().find_map(|end| end.ip_address?.parse().ok());
        address.with_context(|| format!("machine {name} has no address"))
    }

    async fn start_one(
        &self,
        image: &str,
        name: &Name,
        sockets: &Path,
        labels: &BTreeMap<String, String>,
        privileged: bool,
    ) -> Result<Machine> {
        let docker = &self.outer.docker;
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            hostname: Some(name.to_string()),
            labels: Some(labels.clone().into_iter().collect::<HashMap<_, _>>()),
            host_config: Some(rights(sockets, privileged)),
            ..ContainerCreateBody::default()
        };
        let created = docker.create_container(Some(CreateContainerOptionsBuilder::default().build()), body).await;
        let container = created.map_err(|error| self.outer.failed("make a machine", &error))?.id;
        if let Err(error) = docker.start_container(&container, None::<StartContainerOptions>).await {
            remove(&self.outer, &container).await?;
            bail!("machine {name} does not start: {}", words(&error));
        }
        let address = self.address(&container, name).await?;
        let engine = format!("unix://{}/docker.sock", sockets.display());
        Ok(Machine { name: name.clone(), container, address, engine })
    }
}

/// Once the engine inside does.
async fn answers(machine: &Machine) -> Result<()> {
    let host = machine.host(0);
    let answers = until(START, async || Ok(Engine::connect(&host).await.ok())).await?;
    answers.map(drop).with_context(|| format!("the engine of machine {} does not start", machine.name))
}

async fn remove(outer: &Engine, container: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    let removed = unless_missing(outer.docker.remove_container(container, Some(options)).await);
    removed.map_err(|error| outer.failed("remove a machine", &error))
}

/// What an engine inside a container needs. Where containers may not be privileged (an engine that lacks a capability
/// itself cannot hand out all), everything but that capability is asked for by name.
fn rights(sockets: &Path, privileged: bool) -> HostConfig {
    let data = Mount { typ: Some(MountType::VOLUME), target: Some("/var/lib/docker".to_owned()), ..Mount::default() };
    let base = HostConfig {
        binds: Some(vec![format!("{}:/machine", sockets.display())]),
        mounts: Some(vec![data]),
        ..HostConfig::default()
    };
    if privileged {
        return HostConfig { privileged: Some(true), ..base };
    }
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    HostConfig {
        cap_add: words(&["ALL"]),
        cap_drop: words(&["SYS_RESOURCE"]),
        device_cgroup_rules: words(&["a *:* rwm"]),
        security_opt: words(&["seccomp=unconfined", "apparmor=unconfined"]),
        masked_paths: Some(vec![]),
        readonly_paths: Some(vec![]),
        ..base
    }
}
