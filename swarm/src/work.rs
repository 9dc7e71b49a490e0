//! Performs steps. Each one may have been done before, by a run that was interrupted: what is there already, or gone
//! already, is as good as done. Never decides what to do.

mod fault;
mod hosts;
mod nodes;
mod things;
mod wait;

pub use wait::synchronised;

use crate::image;
use crate::look::Engines;
use crate::name;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::state::State;
use crate::step::Step;
use crate::wanted::Wanted;
use anyhow::Result;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// What steps are performed with.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// What shall be.
    pub wanted: &'a Wanted,
    /// The contents of secrets, by what they are.
    pub contents: &'a BTreeMap<String, Vec<u8>>,
    /// Where.
    pub engines: &'a Engines,
    /// What this machine keeps.
    pub state: &'a State,
    /// Where it is shown.
    pub progress: &'a Progress,
    /// Counts forced restarts; 0 for none.
    pub force: u64,
}

impl Work<'_> {
    /// All steps, in order. The first that fails ends it; what was done stays done.
    pub async fn perform(&self, plan: &Plan) -> Result<()> {
        for notice in &plan.notices {
            self.progress.note(notice);
        }
        self.progress.expect(plan.steps.len());
        for step in &plan.steps {
            self.progress.step(&step.to_string());
            self.step(step).await?;
            self.progress.done();
        }
        Ok(())
    }

    async fn step(&self, step: &Step) -> Result<()> {
        let engines = self.engines;
        match step {
            Step::InitSwarm { host } => self.init_swarm(host).await,
            Step::JoinSwarm { host } => self.join_swarm(host).await,
            Step::BePatient => self.be_patient().await,
            Step::LabelHost { host } => self.label_host(host, true).await,
            Step::UnlabelHost { host } => self.label_host(host, false).await,
            Step::LeaveSwarm { host } => self.leave_swarm(host).await,
            Step::PullImage { host } => image::pull(engines.of(host)?, &self.wanted.image).await,
            Step::CarryImage { from, to } => image::carry(engines.of(from)?, engines.of(to)?, &self.wanted.image).await,
            Step::RemoveImage { host, image } => image::remove(engines.of(host)?, image).await,
            Step::CreateNetwork => self.create_network().await,
            Step::RemoveNetwork => self.remove_network().await,
            Step::CreateSecret { role, name } => self.create_secret(role, name).await,
            Step::RemoveSecret { name } => self.remove_secret(name).await,
            Step::RemoveVolume { host, volume } => self.remove_volume(host, volume).await,
            Step::CreateNode { node } => self.create_node(node).await,
            Step::UpdateNode { node, .. } => self.update_node(node).await,
            Step::KeepNode { node } => self.keep_node(node).await,
            Step::Drain { nodes } => self.drain(nodes).await,
            Step::RemoveNode { node } => self.remove_node(&name::service(&self.wanted.cluster.name, node)).await,
            Step::AwaitGone { nodes } => self.await_gone(nodes).await,
            Step::AwaitEmpty { nodes } => self.await_empty(nodes).await,
            Step::Forget { node } => self.forget(node).await,
            Step::RemoveState => self.state.remove(),
        }
    }
}

/// Asks until there is an answer, or no time is left.
pub(crate) async fn until<T, F>(bound: Duration, mut ask: impl FnMut() -> F) -> Result<Option<T>>
where
    F: Future<Output = Result<Option<T>>>,
{
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let found = timeout(bound, async {
        loop {
            looks.tick().await;
            if let Some(found) = ask().await? {
                return Ok(found);
            }
        }
    });
    match found.await {
        Ok(found) => found.map(Some),
        Err(_) => Ok(None),
    }
}
