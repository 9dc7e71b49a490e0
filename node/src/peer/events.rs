//! What the member finds worth knowing, as lines of the log.

use crate::cluster::{Event, Liveness, MS};

/// Writes one event.
pub(crate) fn log(event: &Event) {
    match event {
        Event::TookOver { epoch, members, .. } => tracing::info!(%epoch, ?members, "takes over"),
        Event::Serving { epoch } => tracing::info!(%epoch, "leads"),
        Event::Follows { leader, epoch } => tracing::info!(?leader, %epoch, "follows"),
        Event::Leaderless => tracing::info!("no leader"),
        Event::TookIndex { from, paths } => {
            tracing::info!(peer = ?from, paths, "took over an index: records were truncated")
        }
        Event::Forgot { node } => tracing::warn!(peer = ?node, "removed from the cluster for good"),
        Event::Liveness { node, liveness } if *liveness == Liveness::Alive => {
            tracing::info!(peer = ?node, "peer is alive")
        }
        Event::Liveness { node, liveness } => tracing::warn!(peer = ?node, ?liveness, "peer is silent"),
        Event::Implausible { from, counter } => tracing::error!(
            peer = ?from,
            counter,
            "a peer names an epoch that no cluster can have come to; what it says is ignored: look at its disk"
        ),
        Event::ClockAhead { by: 0 } => tracing::info!("this node's clock agrees with its peers' again"),
        Event::ClockAhead { by } => tracing::warn!(
            by_ms = by / MS,
            "this node's clock is ahead of its peers': set it right; until then it does not lead, and takes new files last"
        ),
        Event::Granted { .. } | Event::Logged { .. } | Event::Committed { .. } => tracing::trace!(?event),
    }
}
