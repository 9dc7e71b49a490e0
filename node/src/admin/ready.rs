//! Whether a node is ready for clients: it follows a leader, or leads, and shows what that leader has committed. The very
//! question that a client's read asks; it decides nothing.

use super::Admin;
use crate::cluster::RoleName;
use crate::peer::Stopped;
use std::time::Duration;
use tokio::time::timeout;

/// For the node to answer for itself.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// For its index to come to what the leader has committed now.
const CAUGHT_UP: Duration = Duration::from_secs(2);

/// Why a node is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReady {
    /// The data directory is not open: another process has it, or it is being read.
    #[error("the data directory is not open yet")]
    Starting,
    /// The node was told to stop.
    #[error("the node is shutting down")]
    Stopping,
    /// Nobody leads.
    #[error("this node has no leader")]
    Leaderless,
    /// Somebody leads, and this node cannot show by now what it has committed.
    #[error("this node is catching up with its leader")]
    Behind,
    /// The part of the node that knows does not say.
    #[error("the node does not answer")]
    Silent,
}

impl From<Stopped> for NotReady {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopping
    }
}

impl Admin {
    pub(super) async fn ready(&self) -> Result<(), NotReady> {
        let status = timeout(ANSWER, self.handle.status()).await.map_err(|_| NotReady::Silent)??;
        if status.leader.is_none() || !matches!(status.role, RoleName::Follow | RoleName::Lead) {
            return Err(NotReady::Leaderless);
        }
        match timeout(CAUGHT_UP, self.handle.fresh()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(NotReady::Leaderless),
            Ok(Err(_)) | Err(_) => Err(NotReady::Behind),
        }
    }
}
