//! `trebol forget`: a node that will not come back is removed for good, and with it all that waits for it.

use super::status::find_running;
use super::{DATA, Failure, print, small_runtime};
use crate::admin::{AskError, forget};
use crate::cluster::NodeId;
use std::path::{Path, PathBuf};

/// Remove a node that will not come back
///
/// Nothing waits for it any more: deletes it never saw are collected, blobs it may name are deleted. It is refused for ever,
/// whatever it holds; its machine may join again with an empty data directory. The node must be down.
#[derive(Debug, clap::Args)]
pub(super) struct Forget {
    /// Its name, its id, or how its id begins, as `trebol status` shows them; of two with one name, the one that is down
    node: String,
    /// The data directory of a node that is up; the usual one unless given
    #[arg(long, env = "TREBOL_DATA", value_name = "DIR", default_value = DATA)]
    data: PathBuf,
}

impl Forget {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { node, data } = self;
        let forgotten = small_runtime()?.block_on(ask(&data, node)).map_err(Failure::runtime)?;
        print(&format!("{forgotten} is forgotten\n"))
    }
}

async fn ask(data: &Path, node: String) -> Result<NodeId, AskError> {
    let (dir, _) = find_running(data).await?;
    forget(&dir, node).await
}
