//! Waiting for a condition, with a bound: the one place under `tests/` that sleeps. It never decides anything itself.

use crate::Outcome;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `condition` holds and hands out what it found. Fails after `bound`, naming `what` was waited for and the
/// reason that the last look gave.
pub(crate) fn wait_for<T>(what: &str, bound: Duration, mut condition: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let began = Instant::now();
    loop {
        match condition() {
            Ok(found) => return Ok(found),
            Err(failed) if began.elapsed() > bound => {
                let reason = failed.message().unwrap_or_default();
                return Err(format!("waited {} s for {what}: {reason}", bound.as_secs_f32()).into());
            }
            Err(_) => pause(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition, which has a bound")]
fn pause() {
    std::thread::sleep(PAUSE);
}
