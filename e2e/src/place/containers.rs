//! Nodes in containers, as people run them: an image `FROM scratch`, one named volume each, clients through published ports
//! on loopback, discovery by one alias in the engine's own DNS. Two networks: clients come in over one, nodes meet on the
//! other; so nodes can be cut off from each other while clients reach all of them.
//!
//! testcontainers makes the containers; bollard does what it cannot: aliases, signals, a second start.

use super::{free_ports, labels, tail};
use crate::access::{Access, Variables, set};
use crate::bed::stopping;
use crate::tools::Tools;
use crate::wait::{wait_for, within};
use anyhow::{Context, Result, anyhow, bail};
use bollard::models::{
    EndpointSettings, HostConfig, NetworkConnectRequest, NetworkCreateRequest, PortBinding, VolumeCreateRequest,
};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use swarm::ask::{self, Output};
use swarm::engine::{Engine, unless_missing};
use swarm::sweep;
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::core::{Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

/// As in images/node/Dockerfile.
const DATA: &str = "/var/lib/trebol";
/// Where a node's certificates are.
const FILES: &str = "/etc/trebol";
/// Where clients connect inside.
const FTP: u16 = 21;
/// The name that stands for all nodes.
const ALIAS: &str = "nodes";
/// Data connections of a node at once.
const PASSIVE: u16 = 8;
/// For a container to start.
const START: Duration = Duration::from_secs(60);
/// For a node to end: longer than the drain of 25 s.
const END: Duration = Duration::from_secs(40);
/// Clusters made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A container of ours.
pub(super) type Container = ContainerAsync<GenericImage>;

/// All nodes.
pub struct Containers {
    pub(super) engine: Engine,
    pub(super) tools: Option<Tools>,
    image: String,
    access: Access,
    /// Begins the names of all that this cluster has on the engine.
    name: String,
    nodes: Vec<Contained>,
}

struct Contained {
    name: String,
    /// Of clients; the next ones are those of data connections.
    port: u16,
    variables: Variables,
    image: String,
    /// There from the first start on, running or not.
    container: Option<Container>,
}

impl Containers {
    /// Networks and volumes of so many nodes with these settings beside the usual ones; none is started.
    pub async fn make(
        engine: &Engine,
        (image, tools): (&str, Option<Tools>),
        access: Access,
        count: usize,
        more: &Variables,
    ) -> Result<Self> {
        let name = format!("{}-{}", sweep::named("trebol-e2e"), MADE.fetch_add(1, Ordering::Relaxed));
        let mut place =
            Self { engine: engine.clone(), tools, image: image.to_owned(), access, name, nodes: Vec::new() };
        for network in [place.outside(), place.inside()] {
            place.make_network(&network).await?;
        }
        for number in 0..count {
            let (name, port) = (format!("n{}", number + 1), free_ports()?);
            place.make_volume(&name).await?;
            let mut variables = place.access.variables(&name, number, |file| format!("{FILES}/{file}"));
            let own = [
                ("FTP_LISTEN", format!("0.0.0.0:{FTP}")),
                ("FTP_PASSIVE_PORTS", format!("{}-{}", port + 1, port + PASSIVE)),
                ("FTP_PASSIVE_ADDRESS", Ipv4Addr::LOCALHOST.to_string()),
                ("FTP_ADVERTISE", format!("{}:{port}", Ipv4Addr::LOCALHOST)),
                ("PEER_DISCOVER", format!("{ALIAS}:2123")),
            ];
            variables.extend(own.map(|(setting, value)| (format!("TREBOL_{setting}"), value)));
            set(&mut variables, more);
            place.nodes.push(Contained { name, port, variables, image: image.to_owned(), container: None });
        }
        Ok(place)
    }
    pub(super) fn access(&self) -> &Access {
        &self.access
    }
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| (Ipv4Addr::LOCALHOST, node.port).into()).collect()
    }
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
    /// The network over which clients come.
    fn outside(&self) -> String {
        format!("{}-clients", self.name)
    }
    /// The network on which nodes meet.
    pub(super) fn inside(&self) -> String {
        format!("{}-nodes", self.name)
    }
    fn volume(&self, node: &str) -> String {
        format!("{}-{node}", self.name)
    }
    pub(super) fn id(&self, node: usize) -> Result<&str> {
        Ok(self.nodes[node].container.as_ref().with_context(|| format!("node {node} was never started"))?.id())
    }

    async fn make_network(&self, name: &str) -> Result<()> {
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels().into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        let made = self.engine.docker.create_network(request).await;
        made.map(drop).map_err(|error| self.engine.failed("make a network", &error))
    }
    async fn make_volume(&self, node: &str) -> Result<()> {
        let request = VolumeCreateRequest {
            name: Some(self.volume(node)),
            labels: Some(labels().into_iter().collect()),
            ..VolumeCreateRequest::default()
        };
        let made = self.engine.docker.create_volume(request).await;
        made.map(drop).map_err(|error| self.engine.failed("make a volume", &error))
    }
    async fn remove_volume(&self, node: &str) -> Result<()> {
        let name = self.volume(node);
        let removed = self.engine.docker.remove_volume(&name, None::<RemoveVolumeOptions>).await;
        unless_missing(removed).map_err(|error| self.engine.failed("remove a volume", &error))
    }

    /// Starts the node's container again, or its first one.
    pub(super) async fn start(&mut self, node: usize) -> Result<()> {
        if self.nodes[node].container.is_none() {
            let started = self.first_start(node).await?;
            self.nodes[node].container = Some(started);
            return Ok(());
        }
        let started = self.engine.docker.start_container(self.id(node)?, None::<StartContainerOptions>).await;
        started.map_err(|error| self.engine.failed("start a node", &error))
    }
    async fn first_start(&self, node: usize) -> Result<Container> {
        if stopping() {
            bail!("the run was interrupted");
        }
        let this = &self.nodes[node];
        let (port, ports) = (this.port, PASSIVE);
        let published = std::iter::once(FTP).chain(port + 1..=port + ports);
        let mut request = self
            .request_with_ports(&this.image, published)?
            .with_container_name(format!("{}-{}", self.name, this.name))
            .with_hostname(&this.name)
            .with_network(self.outside())
            .with_mount(Mount::volume_mount(self.volume(&this.name), DATA))
            .with_host_config_modifier(move |host| publish(host, port, ports));
        for (name, file) in self.access.files(&this.name)? {
            // As bytes, for a file would keep its mode, and the node is not who may read it.
            request = request.with_copy_to(format!("{FILES}/{name}"), std::fs::read(file)?);
        }
        for (name, value) in &this.variables {
            request = request.with_env_var(name, value);
        }
        let started = request.start().await.with_context(|| format!("node {} does not start", this.name))?;
        let alias = EndpointSettings { aliases: Some(vec![ALIAS.to_owned()]), ..EndpointSettings::default() };
        let request = NetworkConnectRequest { container: started.id().to_owned(), endpoint_config: Some(alias) };
        let connected = self.engine.docker.connect_network(&self.inside(), request).await;
        connected.map_err(|error| self.engine.failed("connect a node", &error))?;
        Ok(started)
    }
    /// A container of this run, of an image that is there.
    pub(super) fn request(&self, image: &str) -> Result<ContainerRequest<GenericImage>> {
        self.request_with_ports(image, std::iter::empty())
    }
    /// The same, with ports that can be published: of others an engine takes the bindings and does nothing.
    fn request_with_ports(
        &self,
        image: &str,
        ports: impl Iterator<Item = u16>,
    ) -> Result<ContainerRequest<GenericImage>> {
        let (name, tag) = image.rsplit_once(':').with_context(|| format!("{image} has no tag"))?;
        let image = ports.fold(GenericImage::new(name, tag), |image, port| image.with_exposed_port(port.into()));
        Ok(image.with_labels(labels()).with_startup_timeout(START))
    }
    pub(super) async fn kill(&mut self, node: usize) -> Result<()> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        let killed = self.engine.docker.kill_container(self.id(node)?, Some(options)).await;
        killed.map_err(|error| self.engine.failed("kill a node", &error))?;
        let container = self.nodes[node].container.as_ref().context("no container")?;
        wait_for(
            "a killed node to be gone",
            END,
            async || {
                if container.is_running().await? { bail!("it runs") } else { Ok(()) }
            },
        )
        .await
    }
    pub(super) async fn stop(&mut self, node: usize) -> Result<()> {
        let (id, grace) = (self.id(node)?.to_owned(), i32::try_from(END.as_secs())?);
        let options = StopContainerOptionsBuilder::default().signal("SIGTERM").t(grace).build();
        let stop = async { Ok(self.engine.docker.stop_container(&id, Some(options)).await?) };
        within("a node to stop", 2 * END, stop).await?;
        let container = self.nodes[node].container.as_ref().context("no container")?;
        match container.exit_code().await? {
            Some(0) => Ok(()),
            code => bail!("after SIGTERM a node ended with {code:?}:\n{}", self.log(node).await),
        }
    }
    pub(super) async fn wipe(&mut self, node: usize) -> Result<()> {
        self.remove_container(node).await?;
        let name = self.nodes[node].name.clone();
        self.remove_volume(&name).await?;
        self.make_volume(&name).await
    }
    async fn remove_container(&mut self, node: usize) -> Result<()> {
        match self.nodes[node].container.take() {
            Some(container) => Ok(container.rm().await?),
            None => Ok(()),
        }
    }
    /// Replaces a stopped node's container by a new one on the same volume, with one more setting.
    pub async fn replace(&mut self, node: usize, (name, value): (&str, &str)) -> Result<()> {
        self.remove_container(node).await?;
        self.nodes[node].variables.insert(name.to_owned(), value.to_owned());
        self.start(node).await
    }
    /// Replaces a stopped node's container by one of another image, on the same volume.
    pub async fn replace_image(&mut self, node: usize, image: &str) -> Result<()> {
        self.remove_container(node).await?;
        image.clone_into(&mut self.nodes[node].image);
        self.start(node).await
    }
    /// The image that all nodes began with.
    pub fn image(&self) -> &str {
        &self.image
    }
    /// Replaces a stopped node's container by one with another address: what had its old one in between keeps it for good.
    /// What is returned must live as long.
    pub async fn move_away(&mut self, node: usize) -> Result<impl Sized + use<>> {
        self.remove_container(node).await?;
        let tools = self.tools.as_ref().context("there is no image of tools")?;
        let squatter = self.request(&tools.image)?.with_network(self.inside()).start().await?;
        self.start(node).await?;
        Ok(squatter)
    }
    /// A node's address on the network on which nodes meet.
    pub async fn address(&self, node: usize) -> Result<Ipv4Addr> {
        let seen = self.engine.docker.inspect_container(self.id(node)?, None::<InspectContainerOptions>).await;
        let seen = seen.map_err(|error| self.engine.failed("look at a node", &error))?;
        let networks = seen.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let address = networks.get(&self.inside()).and_then(|end| end.ip_address.as_ref()?.parse().ok());
        address.with_context(|| format!("node {node} has no address"))
    }
    pub(super) async fn between_nodes(&self, node: usize) -> Result<[SocketAddr; 2]> {
        let address = self.address(node).await?;
        Ok([2123, 2124].map(|port| (address, port).into()))
    }
    pub(super) async fn ask(&self, node: usize, arguments: &[&str]) -> Result<Output> {
        let command: Vec<&str> = ["trebol"].into_iter().chain(arguments.iter().copied()).collect();
        ask::exec(&self.engine, self.id(node)?, &command).await
    }
    pub(super) async fn verify(&self, node: usize) -> Result<Output> {
        let request = self
            .request(&self.image)?
            .with_ready_conditions(vec![WaitFor::Exit(ExitWaitStrategy::new())])
            .with_mount(Mount::volume_mount(self.volume(&self.nodes[node].name), DATA))
            .with_cmd(["verify", "--json", "--data", DATA]);
        let ended = request.start().await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(ended.stdout_to_vec().await?), text(ended.stderr_to_vec().await?));
        let code = ended.exit_code().await?.ok_or_else(|| anyhow!("verify does not end"))?;
        ended.rm().await?;
        Ok(Output { code, stdout, stderr })
    }
    pub(super) async fn log(&self, node: usize) -> String {
        match &self.nodes[node].container {
            Some(container) => tail(&container.stderr_to_vec().await.unwrap_or_default()),
            None => String::new(),
        }
    }
    pub(super) async fn clear(mut self) -> Result<()> {
        for node in 0..self.nodes.len() {
            self.remove_container(node).await?;
            self.remove_volume(&self.nodes[node].name).await?;
        }
        for network in [self.outside(), self.inside()] {
            // An engine may still be letting go of a container's end.
            wait_for("a network to be removed", END, async || {
                unless_missing(self.engine.docker.remove_network(&network).await)
                    .map_err(|error| self.engine.failed("remove a network", &error))
            })
            .await?;
        }
        Ok(())
    }
}

/// Clients come through loopback only, to single ports that PASV can name.
fn publish(host: &mut HostConfig, first: u16, passive: u16) {
    let on = |outside: u16| {
        let binding =
            PortBinding { host_ip: Some(Ipv4Addr::LOCALHOST.to_string()), host_port: Some(outside.to_string()) };
        Some(vec![binding])
    };
    let mut ports = HashMap::from([(format!("{FTP}/tcp"), on(first))]);
    ports.extend((first + 1..=first + passive).map(|port| (format!("{port}/tcp"), on(port))));
    host.publish_all_ports = Some(false);
    host.port_bindings = Some(ports);
    // As on a swarm: port 21 without any capability.
    host.cap_drop = Some(vec!["ALL".to_owned()]);
    host.sysctls = Some(HashMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())]));
}
