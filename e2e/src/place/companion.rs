//! Containers that join a node's network namespace: they cut it off from other nodes, and listen to what passes. Packets are
//! dropped on their way in, never on their way out: there, a process would be told (sendto fails).

use super::containers::{Container, Containers};
use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use serde_json::Value;
use swarm::ask;
use testcontainers::ImageExt;
use testcontainers::core::WaitFor;
use testcontainers::runners::AsyncRunner;

/// A cut between two sides. Dropping it heals nothing: [`Containers::heal`] does.
#[must_use]
pub struct Cut(Vec<Container>);

/// What listens to a node.
pub struct Ear(Container);

/// What it has heard so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Bytes of coordination.
    pub control: u64,
    /// File bytes, with what is around them.
    pub raw: u64,
    /// How often the texts were among them.
    pub found: u64,
}

impl Containers {
    /// From now on nothing passes between these nodes and the others. Clients reach all of them.
    pub async fn cut_off(&self, side: &[usize]) -> Result<Cut> {
        let addresses = try_join_all((0..self.len()).map(|node| self.address(node))).await?;
        let cuts = (0..self.len()).map(async |node| {
            let others = (0..self.len()).filter(|other| side.contains(other) != side.contains(&node));
            let others: Vec<String> = others.map(|other| addresses[other].to_string()).collect();
            let companion = self.companion(node, &[]).await?;
            let rules = format!(
                "add table inet cut; add chain inet cut in {{ type filter hook input priority -300; policy accept; }}; \
                 add rule inet cut in ip saddr {{ {} }} drop",
                others.join(", ")
            );
            self.nft(&companion, &rules).await?;
            anyhow::Ok(companion)
        });
        Ok(Cut(try_join_all(cuts).await?))
    }
    /// Everything passes again.
    pub async fn heal(&self, cut: Cut) -> Result<()> {
        try_join_all(cut.0.iter().map(|companion| self.nft(companion, "delete table inet cut"))).await?;
        for companion in cut.0 {
            companion.rm().await?;
        }
        Ok(())
    }
    async fn nft(&self, companion: &Container, rules: &str) -> Result<()> {
        let ran = ask::exec(&self.engine, companion.id(), &["nft", rules]).await?;
        ran.stdout_if_ok().map(drop).context("nft")
    }
    /// Listens, inside a node's own namespace, for these texts between it and other nodes.
    pub async fn listen(&self, node: usize, texts: &[&str]) -> Result<Ear> {
        if texts.is_empty() {
            bail!("nothing to listen for");
        }
        Ok(Ear(self.companion(node, texts).await?))
    }
    /// `tap`, in the network namespace of a node that runs.
    async fn companion(&self, node: usize, arguments: &[&str]) -> Result<Container> {
        let tools = self.tools.as_ref().context("there is no image of tools")?;
        let with = format!("container:{}", self.id(node)?);
        let mut request = self.request(&tools.image)?.with_cap_add("NET_ADMIN").with_cap_add("NET_RAW");
        if !arguments.is_empty() {
            let listens = vec![WaitFor::message_on_stdout("listening\n")];
            request = request.with_cmd(arguments.iter().copied()).with_ready_conditions(listens);
        }
        let joined = request.with_host_config_modifier(move |host| {
            host.network_mode = Some(with.clone());
            host.publish_all_ports = Some(false);
            host.port_bindings = None;
        });
        joined.start().await.context("nothing can join a node's network")
    }
}

impl Ear {
    /// So far.
    pub async fn heard(&self) -> Result<Heard> {
        let said = self.0.stdout_to_vec().await?;
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rfind(|line| line.starts_with('{') && line.ends_with('}'));
        let last: Value = serde_json::from_str(last.context("it has told nothing yet")?)?;
        let number = |name: &str| last[name].as_u64().with_context(|| format!("no {name} in {last}"));
        Ok(Heard { control: number("control")?, raw: number("raw")?, found: number("found")? })
    }
    /// Takes it away.
    pub async fn stop(self) -> Result<()> {
        Ok(self.0.rm().await?)
    }
}
