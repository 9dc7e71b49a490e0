//! The command `swarm`: reads arguments, calls the library, prints. What is wrong is one sentence on stderr. Exit code 2:
//! usage; 1: anything that went wrong later, and `status` of a cluster that is not well.

mod arguments;
mod print;

use crate::deployment::{Choice, Deployment};
use crate::image::{self, Source};
use crate::name::{Name, NodeName};
use crate::plan::TakeDown;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use arguments::{Build, Shape, Which};
use clap::{Parser, Subcommand};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};
use std::process::ExitCode;

/// Provision Trébol clusters on Docker Swarm.
///
/// `up` makes five nodes on this machine; a cluster file (--file) says more: hosts, nodes per host, ports, users. What was
/// asked for is remembered, so later commands need no file.
#[derive(Debug, Parser)]
#[command(name = "swarm", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what `up` would change
    Plan {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        shape: Shape,
        #[command(flatten)]
        build: Build,
    },
    /// Make the cluster, or what is missing of it; never takes a node away
    Up {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        shape: Shape,
        #[command(flatten)]
        build: Build,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the nodes, and what is wrong; exit code 1 if anything is
    Status {
        #[command(flatten)]
        which: Which,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Change the number of nodes; fewer: their copies move to the others first
    Scale {
        /// How many nodes in all
        #[arg(value_name = "N")]
        total: u16,
        /// Add or take away nodes on this host only
        #[arg(long, value_name = "HOST")]
        host: Option<Name>,
        #[command(flatten)]
        which: Which,
    },
    /// Replace the nodes' image, one node at a time: the one given, or one built now
    Update {
        /// Replace nodes that have it already, too
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        build: Build,
    },
    /// Take the cluster away; its files stay in their volumes
    Down {
        /// Take away all files, keys and passwords, and the images built here, too
        #[arg(long)]
        volumes: bool,
        /// Leave the images built here, for the next cluster
        #[arg(long, requires = "volumes")]
        keep_images: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Show what nodes log
    Logs {
        /// One node; all unless given
        node: Option<NodeName>,
        /// Go on until Ctrl-C
        #[arg(long)]
        follow: bool,
        /// So many lines of each node
        #[arg(long, value_name = "LINES", default_value_t = 100)]
        tail: u32,
        #[command(flatten)]
        which: Which,
    },
    /// Build the image on the first host's engine, and print its name
    Image {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        build: Build,
    },
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    // clap itself exits with 2 on wrong usage and with 0 after --help.
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.into()),
    };
    let progress = Progress::on_stderr();
    let result = runtime.block_on(async {
        tokio::select! {
            result = perform(command, &progress) => result,
            _ = tokio::signal::ctrl_c() => {
                Err(anyhow::anyhow!("interrupted: the same command goes on from here, `down` takes everything away"))
            }
        }
    });
    progress.finish();
    // A request that still waits must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => complain(&error),
    }
}

fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("swarm: {error:#}");
    ExitCode::from(1)
}

async fn perform(command: Command, progress: &Progress) -> Result<ExitCode> {
    match command {
        Command::Plan { which, shape, build } => {
            let deployment = connect(&which, Some(&shape), progress).await?;
            let plan = deployment.plan(&as_it_runs(&build)?).await?;
            progress.finish();
            print::plan(&plan)?;
        }
        Command::Up { which, shape, build, json } => {
            let deployment = connect(&which, Some(&shape), progress).await?;
            let done = deployment.up(&as_it_runs(&build)?).await?;
            progress.finish();
            print::up(&deployment, &done, json)?;
        }
        Command::Status { which, json } => {
            let report = connect_to_some(&which, progress).await?.status().await?;
            progress.finish();
            print::report(&report, json)?;
            return Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        Command::Scale { total, host, which } => {
            let deployment = connect(&which, None, progress).await?;
            let done = deployment.scale(total, host.as_ref()).await?;
            progress.finish();
            print::done(&done)?;
            which.remind(progress);
        }
        Command::Update { force, which, build } => {
            let deployment = connect(&which, None, progress).await?;
            let choice = match &build.image {
                Some(image) => Choice::Named(image.clone()),
                // A restart of all nodes is no reason to compile.
                None if force && !build.is_given() => Choice::AsItRuns(None),
                None => Choice::Build(build.source()?),
            };
            let done = deployment.update(&choice, force).await?;
            progress.finish();
            print::done(&done)?;
        }
        Command::Down { volumes, keep_images, which } => {
            let how_far = TakeDown { volumes, images: volumes && !keep_images };
            let steps = connect(&which, None, progress).await?.down(how_far).await?;
            progress.finish();
            print::text(if steps == 0 { "there was nothing\n" } else { "down\n" })?;
        }
        Command::Logs { node, follow, tail, which } => {
            let deployment = connect_to_some(&which, progress).await?;
            for why in deployment.engines().silent() {
                progress.note(why);
            }
            logs(&deployment, node, tail, follow, progress).await?;
        }
        Command::Image { which, build } => {
            let deployment = connect(&which, None, progress).await?;
            let labels = &deployment.cluster().labels;
            let engine = deployment.engines().manager();
            let image = image::from_source(&build.source()?, engine, labels, progress).await?;
            progress.finish();
            print::text(&format!("{image}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn connect(which: &Which, shape: Option<&Shape>, progress: &Progress) -> Result<Deployment> {
    let cluster = which.cluster(shape)?;
    if shape.is_some() {
        for risk in cluster.risks() {
            progress.note(&format!("at risk: {risk}"));
        }
    }
    Deployment::connect(cluster, &which.state(), progress.clone()).await
}

/// For commands that only look: a host may be lost.
async fn connect_to_some(which: &Which, progress: &Progress) -> Result<Deployment> {
    Deployment::connect_to_some(which.cluster(None)?, &which.state(), progress.clone()).await
}

/// For commands that only build where nothing runs yet.
fn as_it_runs(build: &Build) -> Result<Choice> {
    Ok(match &build.image {
        Some(image) => Choice::Named(image.clone()),
        None if build.is_given() => Choice::Build(build.source()?),
        // Without a workspace around there is still what runs.
        None => Choice::AsItRuns(Source::release().ok()),
    })
}

async fn logs(
    deployment: &Deployment,
    node: Option<NodeName>,
    tail: u32,
    follow: bool,
    progress: &Progress,
) -> Result<()> {
    let nodes = match node {
        Some(node) => vec![node],
        None => deployment.cluster().nodes(),
    };
    let alone = nodes.len() == 1;
    let streams: Vec<BoxStream<'static, (String, Result<String>)>> = nodes
        .into_iter()
        .map(|node| {
            let prefix = if alone { String::new() } else { format!("{node} | ") };
            deployment.logs(&node, tail, follow).map(move |line| (prefix.clone(), line)).boxed()
        })
        .collect();
    let (mut lines, mut shown, mut last) = (select_all(streams), false, None);
    progress.finish();
    while let Some((prefix, line)) = lines.next().await {
        match line {
            Ok(line) => {
                shown = true;
                print::text(&format!("{prefix}{line}\n"))?;
            }
            // A node that is not there yet must not hide the others' words.
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if !shown => Err(error).context("nothing to show"),
        None if !shown => bail!("nothing is logged yet"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
