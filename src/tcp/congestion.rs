//! Congestion control in bytes: CUBIC (RFC 9438) and NewReno (RFC 5681, RFC 6582), with Linux's idle restart.
//!
//! The caller finds losses (RACK, duplicate ACKs, RTO) and asks [`CongestionControl::cwnd`] how many bytes may be in
//! flight; in recovery it sends while its estimate of the pipe is below that (RFC 6675).

use super::Congestion;
use crate::time::{Duration, Instant};

/// Initial window in segments (RFC 6928; Linux `TCP_INIT_CWND`).
const INITIAL_SEGMENTS: u32 = 10;
/// No window is larger: what the largest scaled window allows (RFC 7323 §2.2). Loss-free paths reach it and stay there.
const MAX_CWND: u32 = 1 << 30;
/// RFC 9438 §4.6: what remains of the window after a loss.
const BETA: f64 = 0.7;
/// RFC 9438 §5: aggressiveness, in segments per second cubed.
const C: f64 = 0.4;

/// The congestion window of one connection.
#[derive(Clone, Debug)]
pub struct CongestionControl {
    mss: u32,
    cwnd: u32,
    ssthresh: u32,
    /// Part of a byte that congestion avoidance has earned so far.
    fraction: f64,
    phase: Phase,
    algorithm: Algorithm,
    /// What it was before the reduction that may turn out to be spurious.
    before: Option<Before>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Growing.
    Open,
    /// Fast recovery: the window stands still.
    Recovery,
    /// After an RTO: slow start, but no second reduction for the same window of data.
    Loss,
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    NewReno,
    Cubic(Cubic),
}

#[derive(Clone, Copy, Debug)]
struct Before {
    cwnd: u32,
    ssthresh: u32,
    algorithm: Algorithm,
}

/// The variables of RFC 9438 §4.1, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Cubic {
    w_max: f64,
    cwnd_prior: f64,
    epoch: Option<Epoch>,
}

/// One stage of congestion avoidance.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Seconds until the window is back at `w_max`.
    k: f64,
    /// The window that NewReno would have (§4.3).
    w_est: f64,
}

impl CongestionControl {
    /// A new connection that sends segments of up to `mss` payload bytes.
    #[must_use]
    pub fn new(kind: Congestion, mss: u32) -> Self {
        let algorithm = match kind {
            Congestion::Cubic => Algorithm::Cubic(Cubic::default()),
            Congestion::NewReno => Algorithm::NewReno,
        };
        let mss = mss.max(1);
        let cwnd = mss.saturating_mul(INITIAL_SEGMENTS).min(MAX_CWND);
        Self { mss, cwnd, ssthresh: u32::MAX, fraction: 0.0, phase: Phase::Open, algorithm, before: None }
    }

    /// Most bytes in flight; at least one segment.
    #[must_use]
    pub const fn cwnd(&self) -> u32 {
        self.cwnd
    }

    /// Slow start ends here; `u32::MAX` until the first loss.
    #[must_use]
    pub const fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    /// True between [`Self::on_loss`] or [`Self::on_rto`] and [`Self::exit_recovery`].
    #[must_use]
    pub fn in_recovery(&self) -> bool {
        self.phase != Phase::Open
    }

    /// The path or the peer allows another segment size. The window stays the same in bytes.
    pub fn set_mss(&mut self, mss: u32) {
        self.mss = mss.max(1);
        self.set_cwnd(self.cwnd);
    }

    /// `acked` bytes left the network, cumulatively or by SACK. `app_limited`: the window was not filled when they were
    /// sent, so that nothing is learnt from their arrival (RFC 9438 §5.8, RFC 7661).
    pub fn on_ack(&mut self, now: Instant, mut acked: u32, srtt: Duration, app_limited: bool) {
        if app_limited || self.phase == Phase::Recovery {
            return;
        }
        if self.cwnd < self.ssthresh {
            let step = acked.min(self.ssthresh - self.cwnd);
            self.set_cwnd(self.cwnd.saturating_add(step));
            acked -= step;
        }
        if acked > 0 && self.cwnd >= self.ssthresh {
            self.avoid(now, f64::from(acked), srtt);
        }
    }

    /// A loss was found: fast recovery begins. Without effect during a recovery.
    pub fn on_loss(&mut self) {
        if self.phase == Phase::Open {
            self.reduce();
            self.set_cwnd(self.ssthresh);
            self.phase = Phase::Recovery;
        }
    }

    /// The retransmission timer ran out: one segment, then slow start. A timeout in a row, or during a recovery, leaves
    /// ssthresh alone (RFC 5681 §3.1).
    pub fn on_rto(&mut self) {
        if self.phase == Phase::Open {
            self.reduce();
        }
        if let Algorithm::Cubic(cubic) = &mut self.algorithm {
            // RFC 9438 §4.8: the next stage starts flat, at whatever window slow start has reached.
            *cubic = Cubic::default();
        }
        self.set_cwnd(self.mss);
        self.phase = Phase::Loss;
    }

    /// The peer echoes a congestion mark. The caller passes this at most once per window of data (RFC 3168 §6.1.2).
    pub fn on_ecn(&mut self) {
        if self.phase == Phase::Open {
            self.reduce();
            self.set_cwnd(self.ssthresh);
            self.before = None;
        }
    }

    /// Everything sent before the loss or timeout is acknowledged.
    pub fn exit_recovery(&mut self) {
        if self.phase == Phase::Recovery {
            self.set_cwnd(self.ssthresh);
        }
        self.phase = Phase::Open;
    }

    /// The loss or timeout was none: as if nothing had happened.
    pub fn undo(&mut self) {
        if let Some(before) = self.before.take() {
            self.ssthresh = before.ssthresh;
            self.algorithm = before.algorithm;
            self.set_cwnd(self.cwnd.max(before.cwnd));
            self.phase = Phase::Open;
        }
    }

    /// Data is sent after `idle` time without any: the window halves for every RTO, down to the initial window
    /// (Linux `tcp_slow_start_after_idle`, RFC 2861).
    pub fn on_idle_restart(&mut self, idle: Duration, rto: Duration) {
        let halvings = idle.as_nanos().checked_div(rto.as_nanos()).unwrap_or(0);
        if halvings == 0 {
            return;
        }
        self.ssthresh = self.ssthresh.max(self.cwnd - self.cwnd / 4);
        let floor = self.mss.saturating_mul(INITIAL_SEGMENTS).min(self.cwnd);
        let halved = self.cwnd.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0);
        self.set_cwnd(halved.max(floor));
        if let Algorithm::Cubic(cubic) = &mut self.algorithm {
            cubic.epoch = None;
        }
    }

    fn set_cwnd(&mut self, cwnd: u32) {
        self.cwnd = cwnd.clamp(self.mss, MAX_CWND.max(self.mss));
    }

    /// Like Linux from the window itself and not from what is in flight: one ACK may have covered most of that already. A
    /// window that was never filled does not get here, because it does not grow ([`Self::on_ack`]).
    fn reduce(&mut self) {
        self.before = Some(Before { cwnd: self.cwnd, ssthresh: self.ssthresh, algorithm: self.algorithm });
        let keep = match &mut self.algorithm {
            Algorithm::NewReno => 0.5,
            Algorithm::Cubic(cubic) => {
                cubic.congestion(f64::from(self.cwnd));
                BETA
            }
        };
        self.ssthresh = ((f64::from(self.cwnd) * keep) as u32).max(self.mss.saturating_mul(2));
        self.fraction = 0.0;
    }

    fn avoid(&mut self, now: Instant, acked: f64, srtt: Duration) {
        let (cwnd, mss) = (f64::from(self.cwnd), f64::from(self.mss));
        self.fraction += match &mut self.algorithm {
            Algorithm::NewReno => mss * acked / cwnd,
            Algorithm::Cubic(cubic) => cubic.growth(now, cwnd, mss, acked, srtt),
        };
        let whole = self.fraction as u32;
        self.fraction -= f64::from(whole);
        self.set_cwnd(self.cwnd.saturating_add(whole));
    }
}

impl Cubic {
    /// §4.6 and §4.7: remembers the window, a little less of it if it had not come back to the last one.
    fn congestion(&mut self, cwnd: f64) {
        self.w_max = if cwnd < self.w_max { cwnd * (1.0 + BETA) / 2.0 } else { cwnd };
        self.cwnd_prior = cwnd;
        self.epoch = None;
    }

    /// Bytes that the window grows when `acked` bytes arrive (§4.2 to §4.5).
    fn growth(&mut self, now: Instant, cwnd: f64, mss: f64, acked: f64, srtt: Duration) -> f64 {
        let w_max = &mut self.w_max;
        let epoch = self.epoch.get_or_insert_with(|| {
            *w_max = w_max.max(cwnd);
            Epoch { start: now, k: ((*w_max - cwnd) / (C * mss)).cbrt(), w_est: cwnd }
        });
        // NewReno's growth with beta 0.7 instead of 0.5 needs a smaller step, until it is back where it was (§4.3).
        let alpha = if epoch.w_est < self.cwnd_prior { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        epoch.w_est += alpha * mss * acked / cwnd;

        let w_cubic = |t: f64| C * mss * (t - epoch.k).powi(3) + *w_max;
        let t = (now - epoch.start).as_secs_f64();
        if w_cubic(t) < epoch.w_est {
            return (epoch.w_est - cwnd).max(0.0);
        }
        let target = w_cubic(t + srtt.as_secs_f64()).clamp(cwnd, 1.5 * cwnd);
        (target - cwnd) * acked / cwnd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const RTT: Duration = Duration::from_millis(100);
    const KINDS: [Congestion; 2] = [Congestion::Cubic, Congestion::NewReno];

    /// Lets `rtts` full windows be acknowledged, segment by segment.
    fn run(cc: &mut CongestionControl, from: Instant, rtts: u32) -> Instant {
        let mut now = from;
        for _ in 0..rtts {
            now += RTT;
            for _ in 0..cc.cwnd() / MSS {
                cc.on_ack(now, MSS, RTT, false);
            }
        }
        now
    }

    /// Out of slow start with a window of 70 (CUBIC) or 50 (NewReno) segments.
    fn after_loss(kind: Congestion) -> CongestionControl {
        let mut cc = CongestionControl::new(kind, MSS);
        cc.on_ack(Instant::ZERO, 90 * MSS, RTT, false);
        assert_eq!(cc.cwnd(), 100 * MSS);
        cc.on_loss();
        cc.exit_recovery();
        cc
    }

    #[test]
    fn starts_with_ten_segments_and_doubles_each_round_trip() {
        for kind in KINDS {
            let mut cc = CongestionControl::new(kind, MSS);
            assert_eq!((cc.cwnd(), cc.ssthresh()), (10 * MSS, u32::MAX));
            run(&mut cc, Instant::ZERO, 3);
            assert_eq!(cc.cwnd(), 80 * MSS);
        }
    }

    #[test]
    fn a_loss_reduces_once_per_recovery_and_the_window_stands_still() {
        for (kind, left) in [(Congestion::Cubic, 70), (Congestion::NewReno, 50)] {
            let mut cc = CongestionControl::new(kind, MSS);
            cc.on_ack(Instant::ZERO, 90 * MSS, RTT, false);
            cc.on_loss();
            cc.on_loss();
            cc.on_ack(Instant::ZERO, 50 * MSS, RTT, false);
            assert!(cc.in_recovery());
            assert_eq!((cc.cwnd(), cc.ssthresh()), (left * MSS, left * MSS), "{kind:?}");
            cc.exit_recovery();
            assert!(!cc.in_recovery());
            assert_eq!(cc.cwnd(), left * MSS, "{kind:?}");
        }
    }

    #[test]
    fn a_timeout_means_one_segment_then_slow_start_to_half() {
        let mut cc = CongestionControl::new(Congestion::NewReno, MSS);
        cc.on_ack(Instant::ZERO, 30 * MSS, RTT, false);
        cc.on_rto();
        cc.on_rto();
        assert_eq!((cc.cwnd(), cc.ssthresh()), (MSS, 20 * MSS));
        let now = run(&mut cc, Instant::ZERO, 4);
        assert_eq!(cc.cwnd(), 16 * MSS, "slow start during the recovery");
        cc.exit_recovery();
        run(&mut cc, now, 2);
        assert!((20 * MSS..22 * MSS).contains(&cc.cwnd()), "{}", cc.cwnd());
    }

    #[test]
    fn newreno_grows_one_segment_per_round_trip() {
        let mut cc = after_loss(Congestion::NewReno);
        run(&mut cc, Instant::ZERO, 10);
        assert!((59_000..=60_000).contains(&cc.cwnd()), "{}", cc.cwnd());
    }

    /// K = cbrt(30 / 0.4) = 4.2 s. With 100 ms the cubic curve is above NewReno's line.
    #[test]
    fn cubic_returns_to_its_old_window_after_k_and_then_probes() {
        let mut cc = after_loss(Congestion::Cubic);
        let now = run(&mut cc, Instant::ZERO, 20);
        assert!((90_000..99_000).contains(&cc.cwnd()), "concave: {}", cc.cwnd());
        let now = run(&mut cc, now, 22);
        assert!((98_500..101_500).contains(&cc.cwnd()), "plateau: {}", cc.cwnd());
        run(&mut cc, now, 30);
        assert!(cc.cwnd() > 108_000, "convex: {}", cc.cwnd());
    }

    #[test]
    fn cubic_is_never_slower_than_newreno_on_short_paths() {
        let (mut cc, mut now, rtt) = (after_loss(Congestion::Cubic), Instant::ZERO, Duration::from_millis(1));
        for _ in 0..100 {
            now += rtt;
            for _ in 0..cc.cwnd() / MSS {
                cc.on_ack(now, MSS, rtt, false);
            }
        }
        // 0.53 segments per round trip up to the old 100 segments, 1 after that.
        assert!((112_000..=144_000).contains(&cc.cwnd()), "{}", cc.cwnd());
    }

    #[test]
    fn fast_convergence_gives_way_when_the_window_had_not_come_back() {
        let mut cc = after_loss(Congestion::Cubic);
        cc.on_loss();
        let Algorithm::Cubic(cubic) = cc.algorithm else { unreachable!() };
        assert_eq!(cubic.w_max, 70_000.0 * 0.85);
    }

    #[test]
    fn an_app_limited_sender_does_not_grow() {
        for kind in KINDS {
            let mut cc = CongestionControl::new(kind, MSS);
            cc.on_ack(Instant::ZERO, 500 * MSS, RTT, true);
            assert_eq!(cc.cwnd(), 10 * MSS);
        }
    }

    #[test]
    fn undo_restores_the_window_before_the_reduction() {
        for kind in KINDS {
            let mut cc = CongestionControl::new(kind, MSS);
            cc.on_ack(Instant::ZERO, 90 * MSS, RTT, false);
            cc.on_rto();
            cc.on_ack(Instant::ZERO, MSS, RTT, false);
            cc.undo();
            assert_eq!((cc.cwnd(), cc.ssthresh(), cc.in_recovery()), (100 * MSS, u32::MAX, false));
            cc.undo();
            assert_eq!(cc.cwnd(), 100 * MSS, "only once");
        }
    }

    #[test]
    fn a_congestion_mark_reduces_without_recovery_and_cannot_be_undone() {
        let mut cc = after_loss(Congestion::NewReno);
        cc.on_ecn();
        assert_eq!((cc.cwnd(), cc.in_recovery()), (25 * MSS, false));
        cc.undo();
        assert_eq!(cc.cwnd(), 25 * MSS);
    }

    #[test]
    fn idle_time_halves_the_window_per_rto_down_to_the_initial_window() {
        let rto = Duration::from_millis(300);
        for (idle_ms, left) in [(299, 80), (300, 40), (650, 20), (5_000, 10), (u64::MAX, 10)] {
            let mut cc = CongestionControl::new(Congestion::Cubic, MSS);
            cc.on_ack(Instant::ZERO, 70 * MSS, RTT, false);
            cc.on_idle_restart(Duration::from_millis(idle_ms), rto);
            assert_eq!(cc.cwnd(), left * MSS, "idle {idle_ms} ms");
        }
        let mut small = CongestionControl::new(Congestion::Cubic, MSS);
        small.on_rto();
        small.on_idle_restart(Duration::from_secs(9), rto);
        assert_eq!(small.cwnd(), MSS, "never larger than it was");
    }

    /// gvisor#11632: a long-lived loss-free flow overflowed its window.
    #[test]
    fn no_input_overflows_the_window() {
        for kind in KINDS {
            let mut cc = CongestionControl::new(kind, MSS);
            for _ in 0..10 {
                cc.on_ack(Instant::ZERO, u32::MAX, RTT, false);
            }
            assert_eq!(cc.cwnd(), MAX_CWND);
            cc.on_loss();
            cc.exit_recovery();
            for now in [Instant::ZERO, Instant::from_millis(1), Instant::FAR, Instant::FAR] {
                cc.on_ack(now, u32::MAX, Duration::MAX, false);
            }
            assert!(cc.cwnd() <= MAX_CWND && cc.cwnd() > MAX_CWND / 2, "{}", cc.cwnd());
            cc.set_mss(0);
            cc.on_rto();
            assert_eq!((cc.cwnd(), cc.ssthresh() >= 2), (1, true));
            cc.set_mss(u32::MAX);
            assert_eq!(cc.cwnd(), u32::MAX, "at least one segment");
        }
    }

    #[test]
    fn a_smaller_segment_size_keeps_the_bytes_and_a_larger_one_lifts_the_floor() {
        let mut cc = CongestionControl::new(Congestion::Cubic, 1460);
        cc.set_mss(536);
        assert_eq!(cc.cwnd(), 14_600);
        cc.on_rto();
        assert_eq!(cc.cwnd(), 536);
        cc.set_mss(1460);
        assert_eq!(cc.cwnd(), 1460);
    }
}
