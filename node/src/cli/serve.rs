//! `trebol serve`: settings, log and runtime for one node; its life is in [`crate::serve`].

use super::Failure;
use super::flags::Layers;
use crate::config::Settings;
use crate::serve::{ServeError, Stop, serve};
use std::os::fd::AsFd;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Run one node
///
/// Every setting can stand in the file, in a variable and in a flag; flags win over variables, those over the file. Relative
/// paths begin at the working directory. SIGTERM and SIGINT end the node after its running transfers: new clients are told
/// 421 at once, and what has not ended after drain_s is cut, as it is by a second signal.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// Stop when stdin ends: how `trebol dev` takes its nodes with it, however it ends.
    #[arg(long, hide = true)]
    exit_on_stdin_eof: bool,
    #[command(flatten)]
    layers: Layers,
}

impl Serve {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let settings = self.layers.load().map_err(|error| Failure::Usage(error.to_string()))?;
        settings.check().map_err(|error| Failure::Usage(error.to_string()))?;
        start_log(&settings)?;
        abort_on_panic();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::runtime)?;
        let result = runtime.block_on(self.until_told(settings));
        // Blocking tasks that are still in a system call must not keep the process.
        runtime.shutdown_background();
        result.map_err(|error| match error {
            ServeError::Settings(sentence) => Failure::Usage(sentence),
            other => Failure::runtime(other),
        })
    }

    async fn until_told(&self, settings: Settings) -> Result<(), ServeError> {
        let stop = Stop { drain: CancellationToken::new(), now: CancellationToken::new() };
        let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
        let mut orphaned = std::pin::pin!(stdin_ends());
        let mut life = std::pin::pin!(serve(settings, stop.clone()));
        loop {
            let asked = tokio::select! {
                result = &mut life => return result,
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = &mut orphaned, if self.exit_on_stdin_eof && !stop.now.is_cancelled() => {
                    tracing::warn!("the process that started this node is gone: stopping at once");
                    stop.now.cancel();
                    "end of stdin"
                }
            };
            // The second signal means it.
            if stop.drain.is_cancelled() {
                stop.now.cancel();
            }
            tracing::info!(asked, "stopping");
            stop.drain.cancel();
        }
    }
}

/// Returns when stdin is closed. What is written to it is passed over.
async fn stdin_ends() {
    let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    let (mut stdin, mut block) = (tokio::fs::File::from_std(stdin.into()), [0; 64]);
    while matches!(stdin.read(&mut block).await, Ok(n) if n > 0) {}
}

/// stderr, filtered by `TREBOL_LOG`.
pub(super) fn start_log(settings: &Settings) -> Result<(), Failure> {
    let filter = match std::env::var("TREBOL_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| {
            Failure::Usage(format!("TREBOL_LOG {text:?} is no filter such as info,node=debug: {error}"))
        })?,
        Err(_) => EnvFilter::new("info"),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if settings.node.log_json {
        log.json().init();
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
    Ok(())
}

/// A node that lost one of its tasks to a panic is in no state anybody thought of: it stops, and starts from its disk.
fn abort_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        std::process::abort();
    }));
}
