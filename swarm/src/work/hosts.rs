//! Machines and the swarm: begin it, take them in, say which is which, take them out.

use super::{Work, until};
use crate::engine::{membership, words};
use crate::look::others;
use crate::name::{self, Name};
use crate::observed::Membership;
use crate::spec;
use anyhow::{Context, Result, anyhow, bail};
use bollard::models::{Swarm, SwarmInitRequest, SwarmJoinRequest, SwarmSpecDispatcher};
use bollard::query_parameters::{LeaveSwarmOptionsBuilder, UpdateNodeOptionsBuilder, UpdateSwarmOptionsBuilder};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Three of these without a heartbeat, and a machine counts as lost. Swarm's default of 5 s makes a cut of 15 s restart
/// all pinned nodes of a machine when it heals, and for some seconds two of each.
const HEARTBEAT_NS: i64 = 60_000_000_000;
/// Where managers listen.
const PORT: u16 = 2377;
/// For a machine that joined to be known to the manager.
const KNOWN: Duration = Duration::from_secs(30);

/// On loopback if the machine is only reached there, else on all addresses: an advertised one may not be its own.
fn listen(address: Ipv4Addr) -> String {
    let on = if address.is_loopback() { address } else { Ipv4Addr::UNSPECIFIED };
    format!("{on}:{PORT}")
}

impl Work<'_> {
    pub(super) async fn init_swarm(&self, host: &Name) -> Result<()> {
        let (engine, address) = (self.engines.of(host)?, self.wanted.cluster.host(host)?.address);
        let spec = bollard::models::SwarmSpec {
            labels: Some(spec::labels(self.wanted, None).into_iter().collect()),
            dispatcher: Some(SwarmSpecDispatcher { heartbeat_period: Some(HEARTBEAT_NS) }),
            ..Default::default()
        };
        let request = SwarmInitRequest {
            listen_addr: Some(listen(address)),
            advertise_addr: Some(address.to_string()),
            spec: Some(spec),
            ..SwarmInitRequest::default()
        };
        match engine.docker.init_swarm(request).await {
            Ok(_) => Ok(()),
            Err(error) => bail!("host {host}: its engine cannot begin a swarm: {}", words(&error)),
        }
    }

    pub(super) async fn join_swarm(&self, host: &Name) -> Result<()> {
        let (engine, address) = (self.engines.of(host)?, self.wanted.cluster.host(host)?.address);
        let swarm = self.swarm().await?;
        let token = swarm.join_tokens.and_then(|tokens| tokens.worker);
        let request = SwarmJoinRequest {
            listen_addr: Some(listen(address)),
            advertise_addr: Some(address.to_string()),
            data_path_addr: Some(address.to_string()),
            remote_addrs: Some(vec![format!("{}:{PORT}", self.wanted.cluster.manager().address)]),
            join_token: Some(token.context("the swarm hands out no tokens to join it")?),
        };
        let manager = &self.wanted.cluster.manager().name;
        engine.docker.join_swarm(request).await.map_err(|error| {
            anyhow!("host {host}: its engine cannot join the swarm of {manager}: {}", words(&error))
        })?;
        let id = self.machine(host).await?;
        let known = until(KNOWN, async || Ok(self.engines.manager().docker.inspect_node(&id).await.ok()));
        let late = || format!("host {host} joined the swarm and {manager} does not know it");
        known.await?.with_context(late).map(drop)
    }

    pub(super) async fn be_patient(&self) -> Result<()> {
        let swarm = self.swarm().await?;
        let version = swarm.version.and_then(|version| version.index).unwrap_or_default();
        let mut spec = swarm.spec.unwrap_or_default();
        spec.dispatcher = Some(SwarmSpecDispatcher { heartbeat_period: Some(HEARTBEAT_NS) });
        let options = UpdateSwarmOptionsBuilder::default().version(i64::try_from(version)?).build();
        let manager = self.engines.manager();
        manager.docker.update_swarm(spec, options).await.map_err(|error| manager.failed("change the swarm", &error))
    }

    /// Puts the label on, or takes it off.
    pub(super) async fn label_host(&self, host: &Name, on: bool) -> Result<()> {
        let (id, manager) = (self.machine(host).await?, self.engines.manager());
        let failed = |error| manager.failed(&format!("label {host}"), &error);
        let machine = manager.docker.inspect_node(&id).await.map_err(failed)?;
        let mut spec = machine.spec.unwrap_or_default();
        let labels = spec.labels.get_or_insert_default();
        let key = name::host_label(&self.wanted.cluster.name);
        if on {
            labels.insert(key, host.to_string());
        } else {
            labels.remove(&key);
        }
        let version = machine.version.and_then(|version| version.index).unwrap_or_default();
        let options = UpdateNodeOptionsBuilder::default().version(i64::try_from(version)?).build();
        manager.docker.update_node(&id, spec, options).await.map_err(failed)
    }

    pub(super) async fn leave_swarm(&self, host: &Name) -> Result<()> {
        let engine = self.engines.of(host)?;
        if membership(&engine.info().await?)? == Membership::Outside {
            return Ok(());
        }
        // With its manager the swarm ends, and somebody may have come since the plan was made.
        let cluster = &self.wanted.cluster;
        if *host == cluster.manager().name && others(engine, &|labels| name::is_of(&cluster.name, labels)).await? > 0 {
            bail!("others have begun to use the swarm: it is left as it is");
        }
        let options = LeaveSwarmOptionsBuilder::default().force(true).build();
        engine.docker.leave_swarm(Some(options)).await.map_err(|error| engine.failed("leave the swarm", &error))
    }

    async fn swarm(&self) -> Result<Swarm> {
        let manager = self.engines.manager();
        manager.docker.inspect_swarm().await.map_err(|error| manager.failed("look at the swarm", &error))
    }

    /// A host's id in the swarm.
    async fn machine(&self, host: &Name) -> Result<String> {
        match membership(&self.engines.of(host)?.info().await?)? {
            Membership::Manager(id) | Membership::Worker(id) => Ok(id),
            Membership::Outside => bail!("host {host} is in no swarm"),
            Membership::Unusable(says) => bail!("host {host}: its engine cannot take part in a swarm: {says}"),
        }
    }
}
