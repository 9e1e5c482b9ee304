//! What the segments of one leg say about its two ends: relative numbers, scaled windows, retransmissions, and the state
//! of the peer, whose TCP we cannot see.

use crate::time::{Duration, Instant};
use crate::trace::{SegmentNote, State};
use crate::wire::{Flags, SeqNum, WindowScale};

/// A segment in numbers relative to the first of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seg {
    pub(super) flags: Flags,
    pub(super) seq: u32,
    pub(super) len: u32,
    pub(super) ack: u32,
    /// Bytes, scaled as the two SYNs agreed.
    pub(super) window: u32,
    pub(super) segs: u32,
    pub(super) urgent: u16,
    pub(super) bad_checksum: bool,
    /// The options of a SYN.
    pub(super) options: Option<Box<str>>,
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Syn,
    SynAck,
    /// The third segment of the handshake.
    HandshakeAck,
    Data,
    /// Data that acknowledge the other end's FIN.
    DataAndAckOfFin,
    Ack,
    /// The first of its sender that acknowledges data.
    FirstAck,
    /// Acknowledges the other end's FIN for the first time.
    AckOfFin,
    Fin,
    Reset,
    /// An empty segment with an old number, to draw an ACK from an idle peer.
    KeepaliveProbe,
    /// The same, to ask a zero window whether it is still zero.
    WindowProbe,
}

/// That a segment repeats what was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    /// How many times in a row, from 1.
    pub(super) count: u32,
    /// Time since the last time.
    pub(super) after: Duration,
}

/// One end of a leg, as its own segments describe it.
#[derive(Debug, Default)]
struct End {
    isn: Option<SeqNum>,
    scale: Option<WindowScale>,
    /// SND.NXT: the number after all that was sent.
    next: Option<SeqNum>,
    /// The number after the FIN.
    fin: Option<SeqNum>,
    /// The FIN was sent before the other end's FIN was acknowledged.
    fin_first: bool,
    /// Highest number acknowledged.
    acked: Option<SeqNum>,
    window: u32,
    /// It has sent a [`Meaning::FirstAck`].
    acked_data: bool,
    again: u32,
    last_sent: Instant,
}

impl End {
    fn has_acked(&self, number: Option<SeqNum>) -> bool {
        matches!((self.acked, number), (Some(acked), Some(number)) if acked.at_or_after(number))
    }
}

/// Both ends of one leg.
#[derive(Debug)]
pub(super) struct Track {
    /// The peer opens the connection (client leg).
    peer_opens: bool,
    peer: End,
    ours: End,
    reset: bool,
}

impl Track {
    pub(super) fn new(peer_opens: bool) -> Self {
        Self { peer_opens, peer: End::default(), ours: End::default(), reset: false }
    }

    /// True once the peer has shown its first number.
    pub(super) fn has_begun(&self) -> bool {
        self.peer.isn.is_some()
    }

    /// Takes the next segment of this leg. A segment that is not `delivered` teaches nothing about its receiver.
    pub(super) fn observe(
        &mut self,
        at: Instant,
        from_peer: bool,
        note: &SegmentNote,
        delivered: bool,
    ) -> (Seg, Meaning, Option<Again>) {
        let (me, other) =
            if from_peer { (&mut self.peer, &mut self.ours) } else { (&mut self.ours, &mut self.peer) };
        let has = |flag| note.flags.has(flag);
        if has(Flags::SYN) && me.isn != Some(note.seq) {
            *me = End { isn: Some(note.seq), scale: note.options.window_scale, ..End::default() };
        }
        let seg = relative(me, other, note);
        let meaning = meaning(me, other, note);
        me.acked_data |= meaning == Meaning::FirstAck;
        let again = repeats(me, at, note);
        if from_peer && again.is_some() && other.acked.is_some_and(|acked| acked.after(note.seq)) {
            // Whoever repeats something has not got the ACK for it.
            other.acked = Some(note.seq);
        }
        if from_peer || delivered {
            if has(Flags::ACK) && me.acked.is_none_or(|acked| note.ack.after(acked)) {
                me.acked = Some(note.ack);
            }
            if has(Flags::FIN) && me.fin.is_none() {
                me.fin = Some(note.seq + note.len + 1);
                me.fin_first = !me.has_acked(other.fin);
            }
            me.window = seg.window;
            // One that is not exact resets nobody (RFC 5961 §3).
            let exact = from_peer
                || me.next.is_none_or(|next| next == note.seq)
                || other.acked.is_none_or(|acked| acked == note.seq);
            self.reset = has(Flags::RST) && exact;
        }
        (seg, meaning, again)
    }

    /// The state that the peer must be in, by RFC 9293 §3.3.2, after what it has sent and what reached it.
    pub(super) fn peer_state(&self) -> State {
        let (peer, ours) = (&self.peer, &self.ours);
        if self.reset {
            return State::Closed;
        }
        let Some(isn) = peer.isn else {
            return if self.peer_opens { State::Closed } else { State::Listen };
        };
        if peer.acked.is_none() {
            return State::SynSent;
        }
        if !self.peer_opens && !ours.has_acked(Some(isn + 1)) {
            return State::SynReceived;
        }
        let got_fin = ours.fin.is_some() && peer.has_acked(ours.fin);
        let fin_acked = peer.fin.is_some() && ours.has_acked(peer.fin);
        match (peer.fin.is_some(), fin_acked, got_fin) {
            (false, _, false) => State::Established,
            (false, _, true) => State::CloseWait,
            (true, false, false) => State::FinWait1,
            (true, true, false) => State::FinWait2,
            (true, false, true) if peer.fin_first => State::Closing,
            (true, false, true) => State::LastAck,
            (true, true, true) if peer.fin_first => State::TimeWait,
            (true, true, true) => State::Closed,
        }
    }
}

/// The segment in relative numbers. A direction whose SYN was not seen starts at its first segment.
fn relative(me: &mut End, other: &mut End, note: &SegmentNote) -> Seg {
    let syn = note.flags.has(Flags::SYN);
    let isn = *me.isn.get_or_insert(note.seq);
    let ack = match note.flags.has(Flags::ACK) {
        true => note.ack.0.wrapping_sub(other.isn.get_or_insert(note.ack - 1).0),
        false => 0,
    };
    // RFC 7323 §2.2: the window of a SYN is never scaled, and scaling needs the option from both ends.
    let scale = match (me.scale, other.scale) {
        (Some(scale), Some(_)) if !syn => scale.shift(),
        _ => 0,
    };
    Seg {
        flags: note.flags,
        seq: note.seq.0.wrapping_sub(isn.0),
        len: note.len,
        ack,
        window: u32::from(note.window) << scale,
        segs: note.segs,
        bad_checksum: note.bad_checksum,
        urgent: if note.flags.has(Flags::URG) { note.urgent } else { 0 },
        options: syn.then(|| note.options.to_string().into()),
    }
}

fn meaning(me: &End, other: &End, note: &SegmentNote) -> Meaning {
    let has = |flag| note.flags.has(flag);
    let old = me.next.is_some_and(|next| note.seq.before(next));
    let acks_fin = other.fin.is_some_and(|fin| note.ack.at_or_after(fin)) && !me.has_acked(other.fin);
    match () {
        () if has(Flags::RST) => Meaning::Reset,
        () if has(Flags::SYN | Flags::ACK) => Meaning::SynAck,
        () if has(Flags::SYN) => Meaning::Syn,
        () if has(Flags::FIN) => Meaning::Fin,
        () if note.len > 0 && acks_fin => Meaning::DataAndAckOfFin,
        () if note.len > 0 => Meaning::Data,
        () if old && other.window == 0 => Meaning::WindowProbe,
        () if old => Meaning::KeepaliveProbe,
        () if me.acked.is_none_or(|acked| Some(acked) == other.isn) => Meaning::HandshakeAck,
        () if acks_fin => Meaning::AckOfFin,
        () if !me.acked_data && me.acked.is_some_and(|acked| note.ack.after(acked)) => Meaning::FirstAck,
        () => Meaning::Ack,
    }
}

/// Whether everything in the segment was sent before; remembers it as sent.
fn repeats(me: &mut End, at: Instant, note: &SegmentNote) -> Option<Again> {
    let control = u32::from(note.flags.has(Flags::SYN)) + u32::from(note.flags.has(Flags::FIN));
    let end = note.seq + note.len + control;
    if (note.len, control) == (0, 0) || note.flags.has(Flags::RST) {
        return None;
    }
    let since = at.since(std::mem::replace(&mut me.last_sent, at));
    if me.next.is_some_and(|next| end.at_or_before(next)) {
        me.again += 1;
        return Some(Again { count: me.again, after: since });
    }
    me.again = 0;
    me.next = Some(end);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays "< segment" (from the peer) and "> segment" (to it), "x segment" (to it, lost), and tells the peer's states.
    fn states(peer_opens: bool, script: &[&str]) -> Vec<&'static str> {
        let mut track = Track::new(peer_opens);
        let step = |line: &&str| {
            let (mark, text) = line.split_once(' ').unwrap();
            track.observe(Instant::ZERO, mark == "<", &text.parse().unwrap(), mark != "x");
            track.peer_state().name()
        };
        script.iter().map(step).collect()
    }

    #[test]
    fn only_an_exact_reset_closes() {
        let open = ["< S 100:100(0) win 1", "> S. 500:500(0) ack 101 win 1", "< . 101:101(0) ack 501 win 1"];
        for (sentence, rest, last) in [
            ("in the window", &["> R 601:601(0) win 0"][..], "ESTABLISHED"),
            ("exact", &["> R 501:501(0) win 0"], "CLOSED"),
            (
                "after data that it has not acknowledged",
                &["> P. 501:511(10) ack 101 win 1", "> R 511:511(0) win 0"],
                "CLOSED",
            ),
            (
                "for who has not got them",
                &["x P. 501:511(10) ack 101 win 1", "> R 501:501(0) win 0"],
                "CLOSED",
            ),
            ("from the peer", &["< R 700:700(0) win 0"], "CLOSED"),
        ] {
            let script = [&open[..], rest].concat();
            assert_eq!(states(true, &script).last(), Some(&last), "{sentence}");
        }
    }

    #[test]
    fn a_client_that_closes_first_ends_in_time_wait() {
        let script = [
            "< S 100:100(0) win 1",
            "> S. 500:500(0) ack 101 win 1",
            "< . 101:101(0) ack 501 win 1",
            "< F. 101:101(0) ack 501 win 1",
            "> . 501:501(0) ack 102 win 1",
            "> F. 501:501(0) ack 102 win 1",
            "< . 102:102(0) ack 502 win 1",
        ];
        let expected =
            ["SYN-SENT", "SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "FIN-WAIT-2", "TIME-WAIT"];
        assert_eq!(states(true, &script), expected);
    }

    #[test]
    fn a_server_that_closes_second_ends_in_closed() {
        let script = [
            "> S 100:100(0) win 1",
            "< S. 500:500(0) ack 101 win 1",
            "> . 101:101(0) ack 501 win 1",
            "> F. 101:101(0) ack 501 win 1",
            "< . 501:501(0) ack 102 win 1",
            "< F. 501:501(0) ack 102 win 1",
            "> . 102:102(0) ack 502 win 1",
        ];
        let expected =
            ["LISTEN", "SYN-RECEIVED", "ESTABLISHED", "ESTABLISHED", "CLOSE-WAIT", "LAST-ACK", "CLOSED"];
        assert_eq!(states(false, &script), expected);
    }

    #[test]
    fn crossing_fins_pass_through_closing() {
        let script = [
            "< S 100:100(0) win 1",
            "> S. 500:500(0) ack 101 win 1",
            "< . 101:101(0) ack 501 win 1",
            "> F. 501:501(0) ack 101 win 1",
            "< F. 101:101(0) ack 501 win 1",
            "< . 102:102(0) ack 502 win 1",
            "> . 502:502(0) ack 102 win 1",
        ];
        assert_eq!(states(true, &script)[3..], ["ESTABLISHED", "FIN-WAIT-1", "CLOSING", "TIME-WAIT"]);
    }

    #[test]
    fn a_fin_that_acknowledges_ours_is_the_second_one() {
        let script = [
            "< S 100:100(0) win 1",
            "> S. 500:500(0) ack 101 win 1",
            "< . 101:101(0) ack 501 win 1",
            "> F. 501:501(0) ack 101 win 1",
            "< F. 101:101(0) ack 502 win 1",
            "> . 502:502(0) ack 102 win 1",
        ];
        assert_eq!(states(true, &script)[3..], ["ESTABLISHED", "LAST-ACK", "CLOSED"]);
    }

    #[test]
    fn a_peer_that_repeats_itself_has_not_got_our_ack() {
        let script = [
            "> S 100:100(0) win 1",
            "< S. 500:500(0) ack 101 win 1",
            "> . 101:101(0) ack 501 win 1",
            "< S. 500:500(0) ack 101 win 1",
            "> . 101:101(0) ack 501 win 1",
        ];
        let expected = ["LISTEN", "SYN-RECEIVED", "ESTABLISHED", "SYN-RECEIVED", "ESTABLISHED"];
        assert_eq!(states(false, &script), expected);
    }

    #[test]
    fn a_dropped_fin_of_ours_changes_nothing_at_the_peer_and_a_reset_closes_it() {
        let open = ["< S 100:100(0) win 1", "> S. 500:500(0) ack 101 win 1", "< . 101:101(0) ack 501 win 1"];
        let lost = [&open[..], &["x F. 501:501(0) ack 101 win 1"]].concat();
        assert_eq!(states(true, &lost)[3], "ESTABLISHED");
        let reset = [&open[..], &["> R. 501:501(0) ack 101 win 0"]].concat();
        assert_eq!(states(true, &reset)[3], "CLOSED");
    }

    #[test]
    fn windows_are_scaled_only_when_both_syns_carry_the_option() {
        for (reply, bytes) in [("<mss 1460,nop,wscale 7>", 502 << 7), ("<mss 1460>", 502)] {
            let mut track = Track::new(true);
            let mut see = |from_peer, text: &str| {
                track.observe(Instant::ZERO, from_peer, &text.parse().unwrap(), true).0
            };
            assert_eq!(see(true, "S 9:9(0) win 64240 <mss 1460,nop,wscale 7>").window, 64240);
            see(false, &format!("S. 70:70(0) ack 10 win 65160 {reply}"));
            let ack = see(true, ". 10:10(0) ack 71 win 502");
            assert_eq!((ack.seq, ack.ack, ack.window), (1, 1, bytes));
        }
    }

    #[test]
    fn repeats_are_counted_and_timed_and_probes_are_told_apart() {
        let mut track = Track::new(true);
        let mut see = |millis, from_peer, text: &str| {
            let (_, meaning, again) =
                track.observe(Instant::from_millis(millis), from_peer, &text.parse().unwrap(), true);
            (meaning, again.map(|a| (a.count, a.after.as_millis())))
        };
        see(0, true, "S 9:9(0) win 1000");
        assert_eq!(see(1000, true, "S 9:9(0) win 1000"), (Meaning::Syn, Some((1, 1000))));
        assert_eq!(see(2000, true, "S 9:9(0) win 1000"), (Meaning::Syn, Some((2, 1000))));
        see(2000, false, "S. 70:70(0) ack 10 win 1000");
        assert_eq!(see(2001, true, ". 10:10(0) ack 71 win 1000"), (Meaning::HandshakeAck, None));
        assert_eq!(see(2002, true, ". 9:9(0) ack 71 win 1000"), (Meaning::KeepaliveProbe, None));
        see(2003, false, ". 71:71(0) ack 10 win 0");
        assert_eq!(see(2200, true, ". 9:9(0) ack 71 win 1000"), (Meaning::WindowProbe, None));
        assert_eq!(see(2300, true, "F. 10:10(0) ack 71 win 1000"), (Meaning::Fin, None));
        assert_eq!(see(2500, true, "F. 10:10(0) ack 71 win 1000"), (Meaning::Fin, Some((1, 200))));
    }
}
