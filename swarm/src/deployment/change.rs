//! The commands that change something: look, plan, perform.

use super::{Choice, Deployment, Done, endpoints};
use crate::ask::Member;
use crate::cluster::Cluster;
use crate::image;
use crate::look::look;
use crate::name::Name;
use crate::observed::Observed;
use crate::plan::{self, Plan, TakeDown};
use crate::step::Step;
use crate::wanted::Wanted;
use crate::work::Work;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// What a plan calls an image that has still to be built.
const TO_BUILD: &str = "localhost/trebol-node:to-be-built";

impl Deployment {
    /// What `up` would do. Changes nothing, builds nothing, makes no keys.
    pub async fn plan(&self, choice: &Choice) -> Result<Plan> {
        let (seen, cluster, notice) = self.begin().await?;
        let contents = self.state.contents(&cluster)?;
        let known = self.known_image(choice, &cluster, &seen);
        let image = known.clone().unwrap_or_else(|| TO_BUILD.to_owned());
        let mut seen = if known.is_some() { self.with_image(&cluster, seen, &image).await? } else { seen };
        if known.is_none() {
            seen.hosts.entry(cluster.manager().name.clone()).and_modify(|host| {
                host.images.insert(image.clone());
            });
        }
        let mut plan = plan::grow(&Wanted::new(cluster, image, &contents), &seen)?;
        plan.notices.extend(notice);
        if known.is_none() {
            plan.notices.push("the image is built from this workspace first".to_owned());
        }
        Ok(plan)
    }

    /// Makes what is missing and mends what differs, one running node at a time; takes no node away.
    pub async fn up(&self, choice: &Choice) -> Result<Done> {
        let _hold = self.state.hold()?;
        let (seen, cluster, notice) = self.begin().await?;
        let image = self.image(choice, &cluster, &seen).await?;
        let plan = |wanted: &Wanted, seen: &Observed| {
            let mut plan = plan::grow(wanted, seen)?;
            plan.notices.extend(notice.clone());
            Ok(plan)
        };
        self.reach(cluster, image, seen, 0, plan).await
    }

    /// Replaces all nodes that have another image, one at a time; with `force` all others as well.
    pub async fn update(&self, choice: &Choice, force: bool) -> Result<Done> {
        let _hold = self.state.hold()?;
        let (seen, mut cluster, _) = self.begin().await?;
        if seen.nodes.is_empty() {
            bail!("there is no cluster {} to update: `up` makes it", self.cluster.name);
        }
        let image = self.image(choice, &cluster, &seen).await?;
        // Where an image is remembered it is this one from now on, or the next `up` would go back.
        cluster.image = cluster.image.map(|_| image.clone());
        let forced = if force { seen.nodes.values().map(|node| node.task.force).max().unwrap_or(0) + 1 } else { 0 };
        let plan = |wanted: &Wanted, seen: &Observed| {
            let mut plan = plan::grow(wanted, seen)?;
            if force {
                plan::restart(wanted, &mut plan);
            }
            Ok(plan)
        };
        self.reach(cluster, image, seen, forced, plan).await
    }

    /// Changes the number of nodes, of all or of one host. Fewer: their copies move first.
    pub async fn scale(&self, total: u16, only: Option<&Name>) -> Result<Done> {
        let _hold = self.state.hold()?;
        let (seen, cluster, _) = self.begin().await?;
        if seen.nodes.is_empty() {
            bail!("there is no cluster {} to scale: `up` makes it", self.cluster.name);
        }
        let shrunk = plan::spread(&cluster, total, only)?;
        // Of what runs: a version is changed by `update`, never in passing.
        let choice = running_image(&seen).map_or(Choice::AsItRuns(None), Choice::Named);
        let image = self.image(&choice, &cluster, &seen).await?;
        let plan = |wanted: &Wanted, seen: &Observed| {
            // Who stays is mended first: a cluster that lacks something can give nothing away.
            let mut plan = plan::grow(wanted, &kept(seen, wanted))?;
            plan.steps.extend(plan::shrink(&shrunk, seen)?.steps);
            Ok(plan)
        };
        self.reach(shrunk.cluster.clone(), image, seen, 0, plan).await
    }

    /// Takes the cluster away; how many things there were to take.
    pub async fn down(&self, how_far: TakeDown) -> Result<usize> {
        self.all_answer()?;
        let _hold = self.state.hold()?;
        let mut images = self.state.images()?;
        images.extend(self.cluster.image.clone());
        let seen = look(&self.cluster, &self.engines, &images).await?;
        if how_far.volumes {
            let contents = self.state.contents(&self.cluster)?;
            let ours = Wanted::new(self.cluster.clone(), String::new(), &contents).authority;
            plan::check_owner(&self.cluster, ours.as_ref(), &seen)?;
        }
        images.extend(seen.nodes.values().map(|node| node.image.clone()));
        let plan = plan::take_down(&self.cluster, &images, &seen, how_far);
        let wanted = Wanted::new(self.cluster.clone(), String::new(), &BTreeMap::new());
        self.work(&wanted, &BTreeMap::new(), 0).perform(&plan).await?;
        Ok(plan.steps.iter().filter(|step| **step != Step::RemoveState).count())
    }

    /// To change anything, all hosts have to answer.
    fn all_answer(&self) -> Result<()> {
        self.engines.silent().first().map_or(Ok(()), |why| bail!("{why}"))
    }

    /// What there is, and the cluster with no node fewer.
    async fn begin(&self) -> Result<(Observed, Cluster, Option<String>)> {
        self.all_answer()?;
        let mut seen = look(&self.cluster, &self.engines, &BTreeSet::new()).await?;
        if let Some(view) = self.view(&seen).await {
            for (node, seen) in &mut seen.nodes {
                seen.draining = view.member(&node.to_string()).is_some_and(Member::is_drained);
            }
        }
        let (cluster, notice) = plan::effective(&self.cluster, &seen)?;
        // Before anything is made or built on this machine.
        let contents = self.state.contents(&cluster)?;
        plan::possible(&Wanted::new(cluster.clone(), TO_BUILD.to_owned(), &contents), &seen)?;
        Ok((seen, cluster, notice))
    }

    /// The image that is chosen, if it need not be built.
    fn known_image(&self, choice: &Choice, cluster: &Cluster, seen: &Observed) -> Option<String> {
        match choice {
            Choice::Named(image) => Some(image.clone()),
            Choice::Build(_) => None,
            Choice::AsItRuns(_) => cluster.image.clone().or_else(|| running_image(seen)),
        }
    }

    /// The image that is chosen, built if it has to be.
    async fn image(&self, choice: &Choice, cluster: &Cluster, seen: &Observed) -> Result<String> {
        if let Some(image) = self.known_image(choice, cluster, seen) {
            return Ok(image);
        }
        let (Choice::Build(source) | Choice::AsItRuns(Some(source))) = choice else {
            bail!("there is no image: name one with --image, or run this in the workspace of Trébol to build one");
        };
        // The first host that has nodes: an image is of no use to one that only manages.
        let host = cluster.hosts.iter().find(|host| host.nodes > 0).unwrap_or(cluster.manager());
        image::from_source(source, self.engines.of(&host.name)?, &cluster.labels, &self.progress).await
    }

    /// Which hosts have the image.
    async fn with_image(&self, cluster: &Cluster, mut seen: Observed, image: &str) -> Result<Observed> {
        let fresh = look(cluster, &self.engines, &BTreeSet::from([image.to_owned()])).await?;
        for (name, host) in fresh.hosts {
            seen.hosts.entry(name).and_modify(|seen| seen.images = host.images);
        }
        Ok(seen)
    }

    /// Makes keys, plans, performs, remembers, and waits until all nodes agree.
    async fn reach(
        &self,
        cluster: Cluster,
        image: String,
        seen: Observed,
        force: u64,
        plan: impl Fn(&Wanted, &Observed) -> Result<Plan>,
    ) -> Result<Done> {
        let contents = self.state.make(&cluster)?;
        self.state.remember_image(&image)?;
        let seen = self.with_image(&cluster, seen, &image).await?;
        let wanted = Wanted::new(cluster, image, &contents);
        let plan = plan(&wanted, &seen)?;
        // Remembered before the first step when it grows, so that `down` finds everything, and after the last when it
        // shrinks, so that what is left of an interrupted run is still known as surplus.
        let shrinks = plan.steps.iter().any(|step| matches!(step, Step::AwaitGone { .. }));
        if !shrinks {
            self.state.remember(&wanted.cluster)?;
        }
        let work = self.work(&wanted, &contents, force);
        work.perform(&plan).await?;
        self.state.remember(&wanted.cluster)?;
        let nodes = wanted.cluster.nodes();
        self.progress.step("wait until all nodes are healthy");
        work.await_started(&nodes).await?;
        self.progress.step("wait until all nodes agree");
        work.keep_all(&nodes).await?;
        work.await_synchronised(&nodes).await?;
        Ok(Done { changes: plan.steps.len(), endpoints: endpoints(&wanted.cluster) })
    }

    fn work<'a>(&'a self, wanted: &'a Wanted, contents: &'a BTreeMap<String, Vec<u8>>, force: u64) -> Work<'a> {
        Work { wanted, contents, engines: &self.engines, state: &self.state, progress: &self.progress, force }
    }
}

/// Without the nodes that shall go, and with all secrets taken for used: theirs are removed with them.
fn kept(seen: &Observed, wanted: &Wanted) -> Observed {
    let mut kept = seen.clone();
    let nodes = wanted.cluster.nodes();
    kept.nodes.retain(|node, _| nodes.contains(node));
    kept.secrets.retain(|secret| wanted.secrets.values().any(|used| used == secret));
    kept
}

/// The image that most nodes have.
fn running_image(seen: &Observed) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in seen.nodes.values() {
        *counts.entry(&node.image).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(image, _)| image.to_owned())
}
