//! The one place that reads the clock.

use crate::time::Instant;

/// Turns the monotonic clock into the core's time, which starts with the run.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    epoch: u64,
}

impl Clock {
    /// A clock that stands at zero now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn start() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let epoch = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Self { start: std::time::Instant::now(), epoch }
    }

    /// Nanoseconds since 1970 when the clock was started; for captures only.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
