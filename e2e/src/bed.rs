//! What all stories share: the binary and the images, built once; the cluster that one story leaves to the next; and that
//! nothing is left when the run is over, however it ends.

use crate::access::{self, Access, Variables};
use crate::cluster::Cluster;
use crate::place::{Containers, Place, Processes, labels};
use crate::tools::{self, Tools};
use anyhow::{Context, Result, anyhow};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use swarm::engine::Engine;
use swarm::{Host, Progress, Source, sweep};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

/// Nodes of the shared cluster.
const NODES: usize = 5;
/// Times that what is left is looked for after a signal: something may just have been made.
const LOOKS: usize = 3;
/// A signal came.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// The engine, asked for once.
static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();

/// What a story needs beside nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: processes will do where there is no engine.
    Nothing,
    /// An engine.
    Containers,
    /// An engine, and programs that go into the network namespaces of its containers.
    Network,
}

/// What is shared.
pub struct Bed {
    /// Where everything runs.
    pub runtime: Runtime,
    trebol: PathBuf,
    built: Option<Built>,
    shared: Mutex<Option<Cluster>>,
}

/// Today's version, or with a feature of the crate `node` another: with the profile and the flags of the tests of `swarm`,
/// so that what one has compiled, the other need not.
async fn compile(features: &[&str]) -> Result<PathBuf> {
    let features = features.iter().map(|&feature| feature.to_owned()).collect();
    let source = Source { profile: "dev".to_owned(), features, ..Source::release()? };
    source.compile(&Progress::silent()).await
}

/// On the engine.
struct Built {
    engine: Engine,
    image: String,
    tools: Tools,
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no runtime")
}

async fn connect() -> Result<Engine, String> {
    let name = "here".parse().map_err(|error| format!("{error}"))?;
    Engine::connect(&Host::local(name, 1)).await.map_err(|error| format!("{error:#}"))
}

/// This machine's engine, or why there is none.
fn engine() -> &'static Result<Engine, String> {
    ENGINE.get_or_init(|| runtime().map_err(|error| error.to_string())?.block_on(connect()))
}

/// Whether an engine has to be there.
fn required() -> bool {
    std::env::var("TREBOL_REQUIRE_DOCKER").is_ok_and(|set| set == "1")
}

/// What a story lacks: `Err` where it has to be there, `Some` where the story is to be ignored for this reason.
pub fn lacking(need: Need) -> Result<Option<String>, String> {
    let reason = match (engine(), need) {
        (Err(reason), Need::Nothing) if !required() => {
            eprintln!("told on processes: {reason}");
            return Ok(None);
        }
        (Err(reason), _) => Some(reason.clone()),
        (Ok(_), Need::Network) => tools::lacking(),
        (Ok(_), _) => None,
    };
    match reason {
        Some(reason) if required() => Err(format!("{reason}, and TREBOL_REQUIRE_DOCKER=1")),
        reason => Ok(reason),
    }
}

/// Whether a signal has ended the run: then nothing new is made, and the process ends once all is removed.
pub fn stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

impl Bed {
    /// Removes what dead runs left, compiles `trebol`, builds the images. `tap` is the program of that name.
    pub fn make(tap: &Path) -> Result<Self> {
        let runtime = runtime()?;
        let (trebol, built) = runtime.block_on(async {
            let trebol = compile(&[]).await?;
            let built = match engine() {
                Err(_) => None,
                Ok(_) => {
                    // Connected anew: a connection belongs to the runtime that it was made in.
                    let engine = connect().await.map_err(|reason| anyhow!(reason))?;
                    sweep::sweep(&engine).await.context("what dead runs left cannot be removed")?;
                    let image = swarm::image::build(&engine, &trebol, &labels()).await?;
                    let tools = Tools::build(&engine, tap).await?;
                    Some(Built { engine, image, tools })
                }
            };
            anyhow::Ok((trebol, built))
        })?;
        Ok(Self { runtime, trebol, built, shared: Mutex::new(None) })
    }
    /// The engine, if there is one.
    pub fn engine(&self) -> Option<&Engine> {
        self.built.as_ref().map(|built| &built.engine)
    }
    /// The image of the version that comes after this one.
    pub async fn next_image(&self) -> Result<String> {
        let built = self.built.as_ref().context("an image needs an engine")?;
        let image = swarm::image::build(&built.engine, &compile(&["next-protocol"]).await?, &labels()).await;
        // Cargo has put it where today's binary was.
        compile(&[]).await?;
        image
    }
    /// A cluster of its own for a story, with settings beside the usual ones.
    pub async fn own_cluster(&self, nodes: usize, more: &Variables) -> Result<Cluster> {
        let access = Access::make(&self.trebol).await?;
        let place = match &self.built {
            Some(Built { engine, image, tools }) => {
                let made = Containers::make(engine, (image, Some(tools.clone())), access, nodes, more).await;
                Place::Containers(Box::new(made?))
            }
            None => Place::Processes(Box::new(Processes::make(&self.trebol, access, nodes, more)?)),
        };
        Cluster::start(place).await
    }
    /// The cluster that stories share, settled: the one before left it whole, or it is a new one.
    pub async fn cluster(&self) -> Result<Cluster> {
        match self.shared.lock().await.take() {
            Some(mut cluster) => match cluster.settle().await {
                Ok(_) => Ok(cluster),
                Err(error) => Err(cluster.end_with(error).await),
            },
            None => self.own_cluster(NODES, &Variables::new()).await,
        }
    }
    /// Leaves it to the next story.
    pub async fn give_back(&self, cluster: Cluster) {
        *self.shared.lock().await = Some(cluster);
    }
    /// Takes all of this run away. What cannot be removed now is swept by the next run.
    pub fn clear(&self) -> Result<()> {
        self.runtime.block_on(async {
            let cleared = match self.shared.lock().await.take() {
                Some(cluster) => cluster.clear().await.context("the cluster cannot be removed"),
                None => Ok(()),
            };
            if let Some(built) = &self.built {
                let swept = sweep::clear(&built.engine).await.context("not everything can be removed");
                return cleared.and(swept.map(drop));
            }
            cleared
        })
    }
}

/// From now on Ctrl-C, SIGTERM and SIGHUP end the run, and leave nothing. Call it once, first.
pub fn clear_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let waits = move || {
        runtime.block_on(async {
            let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else {
                eprintln!("signals are not listened to: what an interrupted run leaves, the next one removes");
                return;
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
            STOPPING.store(true, Ordering::Relaxed);
            eprintln!("interrupted: removing what this run made");
            if let Ok(engine) = connect().await {
                for _ in 0..LOOKS {
                    if let Err(error) = sweep::clear(&engine).await {
                        eprintln!("not everything can be removed: {error:#}");
                    }
                }
            }
            access::clear();
            std::process::exit(130);
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(waits)?;
    Ok(())
}
