//! Waiting for a condition, with a bound. Never waits for time alone.

use anyhow::{Context, Result, bail};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until the condition holds, and hands out what it found. Fails after `bound`, naming `what` was waited for and the
/// reason that the last look gave.
pub async fn wait_for<T>(what: &str, bound: Duration, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + bound;
    let mut looks = interval(PAUSE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        looks.tick().await;
        let Ok(looked) = timeout(end.saturating_duration_since(Instant::now()), look()).await else {
            let last = last.map_or_else(|| "the first look does not end".to_owned(), |error| format!("{error:#}"));
            bail!("waited {} s for {what}: {last}", bound.as_secs_f32());
        };
        match looked {
            Ok(found) => return Ok(found),
            // A look that never waits is never late.
            Err(error) if Instant::now() >= end => {
                bail!("waited {} s for {what}: {error:#}", bound.as_secs_f32());
            }
            Err(error) => last = Some(error),
        }
    }
}

/// Awaits what may fail by itself, but no longer than `bound`.
pub async fn within<T>(what: &str, bound: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let ended = timeout(bound, work).await;
    ended.with_context(|| format!("waited {} s for {what}", bound.as_secs_f32()))?.with_context(|| what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_what_was_found_or_says_what_was_not() {
        let mut looks = 0;
        let third = async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { bail!("{looks} so far") }
        };
        assert_eq!(wait_for("three looks", Duration::from_secs(60), third).await.unwrap(), 3);
        let never: Result<()> = wait_for("a miracle", Duration::from_millis(250), async || bail!("none yet")).await;
        assert_eq!(never.unwrap_err().to_string(), "waited 0.25 s for a miracle: none yet");
        let stuck: Result<()> = wait_for("an end", Duration::from_millis(50), std::future::pending).await;
        assert!(stuck.unwrap_err().to_string().contains("does not end"));
    }
}
