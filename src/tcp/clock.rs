//! The timestamps option of one connection (RFC 7323).

use crate::time::{Duration, Instant};
use crate::wire::{Segment, Timestamps};

/// RFC 7323 §5.5: after 24 days without a segment an old TS.Recent proves nothing.
const OUTDATED: Duration = Duration::from_secs(24 * 24 * 3600);

/// TSval runs in milliseconds from a secret offset, as on Linux.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// Negotiated.
    pub on: bool,
    pub offset: u32,
    /// TS.Recent: the value to echo.
    pub recent: u32,
    pub recent_at: Instant,
}

impl Clock {
    pub(super) fn now(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.offset)
    }

    /// The option of a segment that leaves now.
    pub(super) fn option(&self, now: Instant) -> Option<Timestamps> {
        self.on.then(|| Timestamps { val: self.now(now), ecr: self.recent })
    }

    /// PAWS (RFC 7323 §5.3 R1): true if the segment is older than what was seen. A segment without the option passes, as
    /// on Linux.
    pub(super) fn too_old(&self, now: Instant, seg: &Segment) -> bool {
        let Some(ts) = seg.options.timestamps.filter(|_| self.on) else { return false };
        (ts.val.wrapping_sub(self.recent) as i32) < 0 && now.since(self.recent_at) < OUTDATED
    }

    /// RFC 7323 §4.3: `covers` tells whether the segment covers Last.ACK.sent.
    pub(super) fn update(&mut self, now: Instant, seg: &Segment, covers: bool) {
        if let Some(ts) = seg.options.timestamps.filter(|_| self.on && covers)
            && (ts.val.wrapping_sub(self.recent) as i32) >= 0
        {
            (self.recent, self.recent_at) = (ts.val, now);
        }
    }

    /// Round-trip time by the echo in an ACK (RFC 7323 §4.1); millisecond steps, so at least one.
    pub(super) fn rtt(&self, now: Instant, seg: &Segment) -> Option<Duration> {
        let ecr = seg.options.timestamps.filter(|_| self.on)?.ecr;
        let ms = self.now(now).wrapping_sub(ecr);
        (ecr != 0 && ms < 1 << 24).then(|| Duration::from_millis(u64::from(ms.max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Options;

    fn seg(val: u32, ecr: u32) -> Segment {
        let options = Options { timestamps: Some(Timestamps { val, ecr }), ..Options::default() };
        Segment { options, ..Segment::default() }
    }

    /// RFC 7323 §5.3, also across the wrap of TSval.
    #[test]
    fn old_timestamps_are_found() {
        let now = Instant::from_millis(5);
        let clock = Clock { on: true, offset: 0, recent: u32::MAX, recent_at: now };
        assert!(!clock.too_old(now, &seg(3, 0)));
        assert!(clock.too_old(now, &seg(u32::MAX - 1, 0)));
        assert!(!clock.too_old(now + OUTDATED, &seg(u32::MAX - 1, 0)), "outdated");
        assert!(!clock.too_old(now, &Segment::default()), "absent");
    }

    #[test]
    fn the_echo_gives_the_round_trip() {
        let clock = Clock { on: true, offset: 1000, ..Clock::default() };
        let now = Instant::from_millis(50);
        assert_eq!(clock.rtt(now, &seg(1, 1030)), Some(Duration::from_millis(20)));
        assert_eq!(clock.rtt(now, &seg(1, 0)), None);
    }
}
