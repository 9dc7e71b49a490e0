//! "A run leaves nothing, however it ends, and says what it could not tell." Told by runs inside the run.

use crate::{Story, store};
use anyhow::{Context, Result, bail};
use bollard::models::{NetworkCreateRequest, VolumeCreateRequest};
use e2e::{Bed, Need, ensure, wait_for, within};
use futures_util::future::LocalBoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeSet, HashMap};
use std::process::{Output, Stdio};
use std::time::Duration;
use swarm::engine::Engine;
use swarm::sweep;
use tokio::process::{Child, Command};

pub(crate) const INTERRUPTED: Story =
    ("an_interrupted_run_leaves_nothing", Need::Containers, |bed, _| Box::pin(interrupted(bed)));
pub(crate) const WITHOUT_ENGINE: Story =
    ("without_an_engine_processes_do_or_the_reason_is_told", Need::Containers, |_, _| without_engine());

/// For a run to have made containers, or to end: it compiles nothing, but has to see that.
const RUN: Duration = Duration::from_secs(240);
/// Where no engine answers.
const NOWHERE: &str = "unix:///nowhere/docker.sock";

/// This program, to tell one story.
fn run(story: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([story, "--exact"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    Ok(command)
}

async fn end(child: Child) -> Result<Output> {
    within("the end of a run", RUN, async { Ok(child.wait_with_output().await?) }).await
}

/// Ctrl-C in the middle of a run that finds what a killed one left.
async fn interrupted(bed: &Bed) -> Result<()> {
    let engine = bed.engine().context("there is an engine")?;
    let dead = plant(engine).await?;
    let files = directories()?;
    let child = run(store::STORY.0)?.spawn()?;
    let pid = child.id().context("it has ended")?;
    let of_it = format!("{pid}-");
    // Not one in which an image is made.
    wait_for("the run to have a node", RUN, async || {
        let made = made(engine, &of_it).await?;
        ensure(made.iter().any(|thing| thing.starts_with("container /trebol-e2e-")), || format!("it has {made:?}"))
    })
    .await?;
    kill_process(Pid::from_raw(i32::try_from(pid)?).context("no process")?, Signal::INT)?;
    let output = end(child).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(130) && said.contains("interrupted"), || format!("{}: {said}", output.status))?;
    for run in [&of_it, &dead] {
        let left = made(engine, run).await?;
        ensure(left.is_empty(), || format!("the run {run} leaves {left:?}"))?;
    }
    let left: Vec<_> = directories()?.difference(&files).cloned().collect();
    ensure(left.is_empty(), || format!("it leaves {left:?}"))
}

/// A volume and a network of a run whose process never was; the run.
async fn plant(engine: &Engine) -> Result<String> {
    let this = sweep::this_run();
    let elsewhere = this.splitn(3, '-').nth(2).context("no run")?;
    let dead = format!("{}-1-{elsewhere}", u32::MAX);
    let labels = HashMap::from([(sweep::RUN.to_owned(), dead.clone())]);
    let name = sweep::named("trebol-planted");
    let volume = VolumeCreateRequest {
        name: Some(name.clone()),
        labels: Some(labels.clone()),
        ..VolumeCreateRequest::default()
    };
    engine.docker.create_volume(volume).await?;
    let network = NetworkCreateRequest { name, labels: Some(labels), ..NetworkCreateRequest::default() };
    engine.docker.create_network(network).await?;
    let planted = made(engine, &dead).await?;
    ensure(planted.len() == 2, || format!("only {planted:?} is there"))?;
    Ok(dead)
}

/// What runs whose names begin like this have on the engine.
async fn made(engine: &Engine, run: &str) -> Result<Vec<String>> {
    let there = sweep::there(engine).await?;
    let of_it = |labels: &HashMap<String, String>| labels.get(sweep::RUN).is_some_and(|of| of.starts_with(run));
    Ok(there.into_iter().filter(|(_, labels)| of_it(labels)).map(|(thing, _)| thing).collect())
}

/// Those of clusters, on this machine.
fn directories() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(std::env::temp_dir())? {
        found.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    found.retain(|name| name.starts_with("trebol-e2e-"));
    Ok(found)
}

fn without_engine<'a>() -> LocalBoxFuture<'a, Result<()>> {
    Box::pin(async {
        let tell = async |(story, required): (&str, &str)| {
            let mut run = run(story)?;
            run.env("DOCKER_HOST", NOWHERE).env("TREBOL_REQUIRE_DOCKER", required);
            end(run.spawn()?).await
        };
        let (processes, containers) = (store::STORY.0, crate::rolling::STORY.0);
        for (told, good, says) in [
            ((processes, "0"), true, "1 passed; 0 failed; 0 ignored"),
            ((containers, "0"), true, "no engine answers at"),
            ((containers, "0"), true, "0 passed; 0 failed; 1 ignored"),
            ((containers, "1"), false, "0 passed; 1 failed; 0 ignored"),
            ((processes, "1"), false, "TREBOL_REQUIRE_DOCKER=1"),
        ] {
            let output = tell(told).await?;
            let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
            if output.status.success() != good || !said.contains(says) {
                bail!("{told:?} ended with {}, not with {says:?}: {said}", output.status);
            }
        }
        Ok(())
    })
}
