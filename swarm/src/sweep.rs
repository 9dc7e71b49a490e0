//! What test runs leave: everything they make carries [`RUN`], which names the process. Whatever belongs to a process that is
//! no more is removed, or to this one at its end; everything else is left alone.

use crate::engine::{Engine, unless_missing};
use crate::look::others;
use crate::work::until;
use anyhow::{Error, Result, bail};
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    LeaveSwarmOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
    ListSecretsOptionsBuilder, ListServicesOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptions, RemoveVolumeOptions,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The label of what a test run makes; its value is [`this_run`].
pub const RUN: &str = "trebol.run";
/// For containers of removed services to end.
const END: Duration = Duration::from_secs(60);

/// This process: its number, when it started, for numbers come again, where it is numbered, for containers that share an
/// engine number apart, and the machine's start.
pub fn this_run() -> String {
    let pid = std::process::id();
    format!("{pid}-{}-{}-{}", started(pid).unwrap_or_default(), numbering(), boot())
}

/// A name that only this run gives.
pub fn named(what: &str) -> String {
    format!("{what}-{}", &blake3::hash(this_run().as_bytes()).to_hex()[..8])
}

/// The labels of this run, for a [`crate::Cluster`], an image, a machine.
pub fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([(RUN.to_owned(), this_run())])
}

/// Whether the process of a run may still live; of one that is numbered apart that is not known here.
pub fn is_alive(run: &str) -> bool {
    let words: Vec<&str> = run.splitn(4, '-').collect();
    let [pid, start, namespace, since] = words[..] else { return false };
    let lives = || pid.parse().ok().and_then(started).is_some_and(|started| started == start);
    // Nothing outlives the machine's start.
    since == boot() && (namespace != numbering() || lives())
}

/// The namespace that this process is numbered in (pid_namespaces(7)).
fn numbering() -> String {
    std::fs::read_link("/proc/self/ns/pid").unwrap_or_default().display().to_string()
}

/// Which start of the machine this is.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// When a process started, in ticks since the machine did (proc(5), stat, field 22).
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name that may hold anything, in parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Whether what carries these labels is to go.
type Judge = fn(Option<&HashMap<String, String>>) -> bool;

/// What runs have on an engine beside services, secrets and the swarm itself: each thing in words, and its labels.
pub async fn there(engine: &Engine) -> Result<Vec<(String, HashMap<String, String>)>> {
    let docker = &engine.docker;
    let mut there = Vec::new();
    let options = ListContainersOptionsBuilder::default().all(true).filters(&of_runs()).build();
    let containers = docker.list_containers(Some(options)).await;
    for container in containers.map_err(|error| engine.failed("list containers", &error))? {
        let name = container.names.unwrap_or_default().join(" ");
        there.push((format!("container {name}"), container.labels.unwrap_or_default()));
    }
    let networks = docker.list_networks(Some(ListNetworksOptionsBuilder::default().filters(&of_runs()).build())).await;
    for network in networks.map_err(|error| engine.failed("list networks", &error))? {
        there.push((format!("network {}", network.name.unwrap_or_default()), network.labels.unwrap_or_default()));
    }
    let volumes = docker.list_volumes(Some(ListVolumesOptionsBuilder::default().filters(&of_runs()).build())).await;
    for volume in volumes.map_err(|error| engine.failed("list volumes", &error))?.volumes.unwrap_or_default() {
        there.push((format!("volume {}", volume.name), volume.labels));
    }
    let images = docker.list_images(Some(ListImagesOptionsBuilder::default().filters(&of_runs()).build())).await;
    for image in images.map_err(|error| engine.failed("list images", &error))? {
        there.push((format!("image {}", image.repo_tags.join(" ")), image.labels));
    }
    Ok(there)
}

/// Removes what dead runs left on an engine; how many things.
pub async fn sweep(engine: &Engine) -> Result<usize> {
    remove(engine, is_dead).await
}

/// Removes all that this run has on an engine; how many things.
pub async fn clear(engine: &Engine) -> Result<usize> {
    remove(engine, is_ours).await
}

/// How many things were removed, and the first that could not be.
#[derive(Default)]
struct Swept {
    things: usize,
    failed: Option<Error>,
}

impl Swept {
    fn note(&mut self, removed: Result<usize>) {
        match removed {
            Ok(things) => self.things += things,
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
    }
}

async fn remove(engine: &Engine, goes: Judge) -> Result<usize> {
    // What cannot be removed keeps nothing else there.
    let mut swept = Swept::default();
    swept.note(remove_from_swarm(engine, goes).await);
    let docker = &engine.docker;
    let options = ListContainersOptionsBuilder::default().all(true).filters(&of_runs()).build();
    let containers = docker.list_containers(Some(options)).await;
    for container in containers.map_err(|error| engine.failed("list containers", &error))? {
        if let (true, Some(id)) = (goes(container.labels.as_ref()), container.id) {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let removed = unless_missing(docker.remove_container(&id, Some(options)).await);
            swept.note(removed.map(|()| 1).map_err(|error| engine.failed("remove a container", &error)));
        }
    }
    let networks = docker.list_networks(Some(ListNetworksOptionsBuilder::default().filters(&of_runs()).build())).await;
    for network in networks.map_err(|error| engine.failed("list networks", &error))? {
        if let (true, Some(id)) = (goes(network.labels.as_ref()), network.id) {
            swept.note(eventually(engine, "remove a network", async || docker.remove_network(&id).await).await);
        }
    }
    let volumes = docker.list_volumes(Some(ListVolumesOptionsBuilder::default().filters(&of_runs()).build())).await;
    for volume in volumes.map_err(|error| engine.failed("list volumes", &error))?.volumes.unwrap_or_default() {
        if goes(Some(&volume.labels)) {
            let remove = async || docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await;
            swept.note(eventually(engine, "remove a volume", remove).await);
        }
    }
    let images = docker.list_images(Some(ListImagesOptionsBuilder::default().filters(&of_runs()).build())).await;
    for image in images.map_err(|error| engine.failed("list images", &error))? {
        // One that something else uses stays.
        if goes(Some(&image.labels)) && docker.remove_image(&image.id, None::<RemoveImageOptions>, None).await.is_ok() {
            swept.note(Ok(1));
        }
    }
    swept.failed.map_or(Ok(swept.things), Err)
}

/// Services, secrets, labels of machines, and the swarm itself, if such a run began it and nobody else uses it.
async fn remove_from_swarm(engine: &Engine, goes: Judge) -> Result<usize> {
    let docker = &engine.docker;
    // Not a manager: then a dead run can have left nothing of that kind here.
    let Ok(swarm) = docker.inspect_swarm().await else { return Ok(0) };
    let mut swept = 0;
    let services = docker.list_services(Some(ListServicesOptionsBuilder::default().filters(&of_runs()).build())).await;
    for service in services.map_err(|error| engine.failed("list services", &error))? {
        if let (true, Some(id)) = (goes(service.spec.as_ref().and_then(|spec| spec.labels.as_ref())), service.id) {
            let removed = unless_missing(docker.delete_service(&id).await);
            removed.map_err(|error| engine.failed("remove a service", &error))?;
            swept += 1;
        }
    }
    let secrets = docker.list_secrets(Some(ListSecretsOptionsBuilder::default().filters(&of_runs()).build())).await;
    for secret in secrets.map_err(|error| engine.failed("list secrets", &error))? {
        if let (true, Some(id)) = (goes(secret.spec.as_ref().and_then(|spec| spec.labels.as_ref())), secret.id) {
            swept += eventually(engine, "remove a secret", async || docker.delete_secret(&id).await).await?;
        }
    }
    let labels = swarm.spec.and_then(|spec| spec.labels);
    // Networks are removed later, and those of dead runs do not count.
    if goes(labels.as_ref()) && others(engine, &|labels| goes(Some(labels))).await? == 0 {
        let options = LeaveSwarmOptionsBuilder::default().force(true).build();
        docker.leave_swarm(Some(options)).await.map_err(|error| engine.failed("leave the swarm", &error))?;
        return Ok(swept + 1);
    }
    Ok(swept)
}

/// Once what uses it is gone; fails with the engine's last word.
async fn eventually(
    engine: &Engine,
    what: &str,
    remove: impl AsyncFn() -> std::result::Result<(), DockerError>,
) -> Result<usize> {
    let last = RefCell::new(None);
    let removed = until(END, async || match unless_missing(remove().await) {
        Ok(()) => Ok(Some(())),
        Err(error) => {
            *last.borrow_mut() = Some(error);
            Ok(None)
        }
    });
    match (removed.await?, last.into_inner()) {
        (Some(()), _) => Ok(1),
        (None, Some(error)) => Err(engine.failed(what, &error)),
        (None, None) => bail!("host {}: cannot {what}: the engine does not answer", engine.host),
    }
}

fn of_runs() -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![RUN.to_owned()])])
}

fn is_dead(labels: Option<&HashMap<String, String>>) -> bool {
    labels.and_then(|labels| labels.get(RUN)).is_some_and(|run| !is_alive(run))
}

fn is_ours(labels: Option<&HashMap<String, String>>) -> bool {
    labels.and_then(|labels| labels.get(RUN)).is_some_and(|run| *run == this_run())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    #[test]
    fn runs_live_as_long_as_their_process() {
        assert!(is_alive(&this_run()));
        let pid = std::process::id();
        let (here, now) = (numbering(), boot());
        let dead = [format!("{pid}-1-{here}-{now}"), format!("999999999-5-{here}-{now}")];
        let earlier = [this_run().replace(&now, "another"), String::new(), "17".to_owned(), "999999999-5".to_owned()];
        for dead in dead.iter().chain(&earlier) {
            assert!(!is_alive(dead), "{dead}");
        }
        assert!(is_alive(&format!("999999999-5-elsewhere-{now}")), "nobody here can know");
        let labels = |run: String| HashMap::from([(RUN.to_owned(), run)]);
        assert!(is_dead(Some(&labels("999999999-5".to_owned()))) && !is_dead(Some(&labels(this_run()))));
        assert!(
            is_ours(Some(&labels(this_run()))) && !is_ours(Some(&labels("999999999-5".to_owned()))) && !is_ours(None)
        );
        assert!(!is_dead(Some(&HashMap::from([(name::CLUSTER.to_owned(), "x".to_owned())]))) && !is_dead(None));
    }
}
