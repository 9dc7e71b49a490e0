//! What the member finds worth knowing, as lines of the log.

use crate::cluster::{Event, Liveness};

/// Writes one event.
pub(crate) fn log(event: &Event) {
    match event {
        Event::TookOver { epoch, members, .. } => tracing::info!(%epoch, ?members, "takes over"),
        Event::Serving { epoch } => tracing::info!(%epoch, "leads"),
        Event::Follows { leader, epoch } => tracing::info!(?leader, %epoch, "follows"),
        Event::Leaderless => tracing::info!("no leader"),
        Event::Liveness { node, liveness } if *liveness == Liveness::Alive => {
            tracing::info!(peer = ?node, "peer is alive")
        }
        Event::Liveness { node, liveness } => tracing::warn!(peer = ?node, ?liveness, "peer is silent"),
        Event::Granted { .. } | Event::Logged { .. } | Event::Committed { .. } => tracing::trace!(?event),
    }
}
