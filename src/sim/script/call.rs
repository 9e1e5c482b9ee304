//! What a script's application can do and see.

use super::{number, seconds};
use crate::tcp::knobs::{AckKnob, WindowKnob};
use crate::tcp::{Event, Knobs, SynOptions};
use crate::trace::State;
use crate::wire::WindowScale;

/// A call from above, `! NAME …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `connect [mss=N] [wscale=N] [sack] [ts] [ecn]`: active OPEN with these offers.
    Connect(SynOptions),
    /// `listen …`: passive OPEN; the SYN-ACK offers these, as far as the SYN does.
    Listen(SynOptions),
    /// `send N`, `send N xTIMES`: queues N bytes, so many times.
    Send {
        /// Bytes per write.
        bytes: u32,
        /// Writes.
        times: u32,
    },
    /// `shutdown`: CLOSE.
    Shutdown,
    /// `abort`: ABORT.
    Abort,
    /// `vanish`: disappears without a word.
    Vanish,
    /// `cork`: holds back everything but RST.
    Cork,
    /// `uncork`.
    Uncork,
    /// `resend-syn`.
    ResendSyn,
    /// `probe`: sends a keepalive probe.
    Probe,
    /// `answer-probe`: answers the peer's.
    AnswerProbe,
    /// `urgent OFFSET`: urgent data end before this offset of our stream.
    Urgent(u64),
    /// `space N`: the application takes N bytes more, and no more than these until it says so again.
    Space(u32),
    /// `knobs [window=zero|dead|N] [ack=SECONDS] [every-other] [single] [cookie]`: turns these and gives the others back.
    Knobs(Knobs),
    /// `icmp KIND CODE MTU SEQ`: an ICMP error about our segment SEQ.
    Icmp {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
        /// Next-hop MTU.
        mtu: u32,
        /// Our relative sequence number.
        seq: u32,
    },
}

impl Call {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words[..] {
            ["connect", ref offers @ ..] => Self::Connect(parse_offers(offers)?),
            ["listen", ref offers @ ..] => Self::Listen(parse_offers(offers)?),
            ["send", n] => Self::Send { bytes: number(n)?, times: 1 },
            ["send", n, times] if times.starts_with('x') => {
                Self::Send { bytes: number(n)?, times: number(&times[1..])? }
            }
            ["shutdown"] => Self::Shutdown,
            ["abort"] => Self::Abort,
            ["vanish"] => Self::Vanish,
            ["cork"] => Self::Cork,
            ["uncork"] => Self::Uncork,
            ["resend-syn"] => Self::ResendSyn,
            ["probe"] => Self::Probe,
            ["answer-probe"] => Self::AnswerProbe,
            ["urgent", n] => Self::Urgent(number(n)?),
            ["space", n] => Self::Space(number(n)?),
            ["knobs", ref knobs @ ..] => Self::Knobs(parse_knobs(knobs)?),
            ["icmp", kind, code, mtu, seq] => {
                Self::Icmp { kind: number(kind)?, code: number(code)?, mtu: number(mtu)?, seq: number(seq)? }
            }
            _ => return Err(format!("no such call: {text:?}")),
        })
    }
}

fn parse_offers(words: &[&str]) -> Result<SynOptions, String> {
    let mut offers = SynOptions::default();
    for word in words {
        match word.split_once('=') {
            Some(("mss", n)) => offers.mss = Some(number(n)?),
            Some(("wscale", n)) => offers.window_scale = Some(WindowScale::new(number(n)?)),
            None if *word == "sack" => offers.sack = true,
            None if *word == "ts" => offers.timestamps = true,
            None if *word == "ecn" => offers.ecn = true,
            _ => return Err(format!("no such offer: {word:?}")),
        }
    }
    Ok(offers)
}

fn parse_knobs(words: &[&str]) -> Result<Knobs, String> {
    let mut knobs = Knobs::default();
    let every = words.contains(&"every-other").then_some(2);
    for word in words {
        match word.split_once('=') {
            Some(("window", "zero")) => knobs.window = WindowKnob::Zero { answer_probes: true },
            Some(("window", "dead")) => knobs.window = WindowKnob::Zero { answer_probes: false },
            Some(("window", n)) => knobs.window = WindowKnob::Cap(number(n)?),
            Some(("ack", delay)) => knobs.ack = AckKnob::Delay { delay: seconds(delay)?, every },
            None if *word == "single" => knobs.single_segments = true,
            None if *word == "cookie" => knobs.syn_cookie = true,
            None if *word == "every-other" => {}
            _ => return Err(format!("no such knob: {word:?}")),
        }
    }
    Ok(knobs)
}

/// Something to see, `= …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// `ESTABLISHED` and so on: the state of the connection.
    State(State),
    /// `event NAME`: the application has been told since the last such line.
    Event(&'static str),
    /// `no-event NAME`: the application has not been told.
    NoEvent(&'static str),
    /// `received N`: bytes received in order.
    Received(u64),
    /// `acked N`: bytes that the peer has acknowledged.
    Acked(u64),
    /// `queued N`: bytes not yet acknowledged.
    Queued(u32),
    /// `urgent N`: where the peer's urgent data end in its stream.
    Urgent(u64),
}

const STATES: [State; 11] = [
    State::Closed,
    State::Listen,
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

const EVENTS: [&str; 9] = [
    "established",
    "fin-received",
    "fin-acked",
    "reset",
    "unreachable",
    "timed-out",
    "keepalive-probe",
    "probe-answered",
    "closed",
];

/// The name of an event in a script.
pub(super) const fn event_name(event: Event) -> &'static str {
    EVENTS[match event {
        Event::Established => 0,
        Event::FinReceived => 1,
        Event::FinAcked => 2,
        Event::Reset => 3,
        Event::Unreachable { .. } => 4,
        Event::TimedOut => 5,
        Event::KeepaliveProbe => 6,
        Event::ProbeAnswered => 7,
        Event::Closed => 8,
    }]
}

impl Expect {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let unknown = || format!("nothing to see by that name: {text:?}");
        let event = |name| EVENTS.into_iter().find(|e| *e == name).ok_or_else(unknown);
        Ok(match words[..] {
            ["event", name] => Self::Event(event(name)?),
            ["no-event", name] => Self::NoEvent(event(name)?),
            ["received", n] => Self::Received(number(n)?),
            ["acked", n] => Self::Acked(number(n)?),
            ["queued", n] => Self::Queued(number(n)?),
            ["urgent", n] => Self::Urgent(number(n)?),
            [state] => Self::State(STATES.into_iter().find(|s| s.name() == state).ok_or_else(unknown)?),
            _ => return Err(unknown()),
        })
    }
}
