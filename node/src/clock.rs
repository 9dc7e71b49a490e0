//! The one reader of clocks: everything that reaches the cluster core carries a [`Now`] from here. It never judges time;
//! a wrong wall clock is passed on as it is.

use crate::cluster::{Micros, Now};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Where the monotonic clock starts, so that "long ago" can be written: two hours.
const MONO_START: Duration = Duration::from_secs(2 * 3600);

/// Both clocks of this process.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    wall_offset_ms: i64,
}

impl Clock {
    /// Starts the monotonic clock. `wall_offset_ms` shifts the wall clock (setting `clock_offset_ms`, for tests of clock
    /// skew; 0 in production).
    pub fn new(wall_offset_ms: i64) -> Self {
        Self { origin: Instant::now(), wall_offset_ms }
    }
    /// Both clocks, now.
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: self.wall() }
    }
    /// Microseconds on the monotonic clock.
    pub fn mono(&self) -> Micros {
        micros(MONO_START + self.origin.elapsed())
    }
    /// Microseconds since the Unix epoch, with the offset; 0 when that would lie before it.
    pub fn wall(&self) -> Micros {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros);
        wall.saturating_add_signed(self.wall_offset_ms.saturating_mul(1000))
    }
}

/// A duration in [`Micros`]; the longest there is when it does not fit.
pub fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mono_starts_late_and_never_goes_back() {
        let clock = Clock::new(0);
        let start = clock.mono();
        assert!(start >= 3_600_000_000);
        assert!(clock.now().mono >= start);
    }

    #[test]
    fn wall_is_shifted_by_the_offset() {
        let (right, ahead) = (Clock::new(0), Clock::new(3_600_000));
        // The earlier reading is the one that is taken away, or time in between would make the shift too small.
        let earlier = right.wall();
        let shift = ahead.wall() - earlier;
        assert!((3_600_000_000..3_610_000_000).contains(&shift), "{shift}");
        assert_eq!(Clock::new(i64::MIN).wall(), 0);
    }
}
