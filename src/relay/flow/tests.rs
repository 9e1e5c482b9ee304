//! The seam, one sentence per row. A script line is an input (`c>`, `s>`: a segment from the client or the server; `+2s`:
//! time passes; `k>`: the socket reports) or an expected output (`c<`, `s<`, `k<`), in order; whatever comes out beyond the
//! script fails the row. Numbers are relative to the ISN of their sender.

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;
use crate::fault::{Circumstances, Engine, RuleSpec, Rules, Turns};
use crate::relay::Uplink::{self, Socket, Transparent};
use crate::relay::{Limits, Refusal};
use crate::time::Duration;
use crate::trace::Outcome::{Aborted, Ok as Fine, RefusedIcmp, RefusedRst, Reset, Timeout};
use crate::trace::Record;
use crate::wire::{Options, RawWindow, SeqNum, WindowScale};

const CLIENT_ISN: u32 = u32::MAX - 2;
const SERVER_ISN: u32 = 5_000_000;

struct Script {
    flow: Flow,
    now: Instant,
    log: Vec<Record>,
    /// Our ISN towards the client and towards the server.
    ours: [Option<SeqNum>; 2],
    output: VecDeque<String>,
    /// The last output segment of each leg.
    last: [Segment; 2],
    window: u16,
}

impl Script {
    fn new(uplink: Uplink, rules: &[&str]) -> Self {
        let engine = if uplink == Socket { Engine::Exec } else { Engine::Tun };
        let rules = rules
            .iter()
            .map(|rule| crate::fault::Rule::build(rule.parse::<RuleSpec>().unwrap()).unwrap())
            .collect();
        let rules = Rules::new(1, engine, rules).unwrap();
        let settings = Arc::new(Settings { uplink, limits: Limits::default(), ..Settings::default() });
        let mut log = Vec::new();
        let tuple = Tuple { src: "10.0.0.1:4000".parse().unwrap(), dst: "10.0.0.2:80".parse().unwrap() };
        let syn = segment("S 0", CLIENT_ISN, None);
        let plan =
            rules.plan(FlowId(1), tuple.src, tuple.dst, &Circumstances::default(), &mut Turns::default());
        let now = Instant::from_millis(1000);
        let flow = Flow::new(&mut Cx::new(now, &mut log), &settings, FlowId(1), tuple, &syn, plan);
        Self {
            flow,
            now,
            log,
            ours: [None; 2],
            output: VecDeque::new(),
            last: Default::default(),
            window: 64_000,
        }
    }

    fn run(&mut self, script: &str) {
        self.lines(script);
        assert_eq!(self.output, VecDeque::<String>::new(), "nothing else may come out at the end");
    }

    fn lines(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line {
                "open" if self.flow.settings.uplink == Socket => self.lines(OPEN_SOCKET),
                "open" => self.lines(OPEN),
                "half-closed" => self.lines(HALF_CLOSED),
                _ => self.line(line),
            }
        }
    }

    fn line(&mut self, line: &str) {
        let (who, what) = line.split_once(' ').unwrap_or((line, ""));
        if who.ends_with('<') {
            let found = self.output.pop_front().unwrap_or_default();
            assert_eq!(found, line, "then: {:?}", self.output);
            return;
        }
        assert_eq!(self.output, VecDeque::<String>::new(), "must not come out before {line:?}");
        match who {
            "c>" => self.input(Leg::Client, what),
            "s>" => self.input(Leg::Server, what),
            "k>" => self.socket(what),
            "i>" => self.icmp(what),
            // The window field of all further input.
            "window" => self.window = what.parse().unwrap(),
            _ => self.pass(humantime::parse_duration(&who[1..]).unwrap()),
        }
    }

    fn input(&mut self, leg: Leg, what: &str) {
        let isn = if leg == Leg::Client { CLIENT_ISN } else { SERVER_ISN };
        let mut segment = segment(what, isn, self.ours[leg as usize]);
        segment.window = RawWindow(self.window);
        self.flow.on_segment(&mut Cx::new(self.now, &mut self.log), leg, segment);
        self.drain();
    }

    fn icmp(&mut self, what: &str) {
        let (kind, code) = what.split_once('/').unwrap();
        let note = IcmpNote {
            from: "10.9.9.9".parse().unwrap(),
            quoted: self.flow.arriving(Leg::Client),
            seq: self.ours[1].unwrap(),
            kind: kind.parse().unwrap(),
            code: code.parse().unwrap(),
            mtu: 0,
        };
        self.flow.on_icmp(&mut Cx::new(self.now, &mut self.log), Leg::Server, &note);
        self.drain();
    }

    fn socket(&mut self, what: &str) {
        let event = match what.split(' ').collect::<Vec<_>>()[..] {
            ["connected"] => SocketEvent::Connected,
            ["alive"] => SocketEvent::ProbeAnswered,
            ["eof"] => SocketEvent::Eof,
            ["reset"] => SocketEvent::Reset,
            ["refused"] => SocketEvent::Failed { errno: "ECONNREFUSED", refusal: Refusal::Reset },
            ["unreachable"] => {
                SocketEvent::Failed { errno: "EHOSTUNREACH", refusal: Refusal::Icmp { kind: 3, code: 1 } }
            }
            ["silence"] => SocketEvent::Failed { errno: "ETIMEDOUT", refusal: Refusal::Silence },
            ["sent", n] => SocketEvent::Sent(n.parse().unwrap()),
            ["data", n] => SocketEvent::Data { data: vec![b'k'; n.parse().unwrap()].into(), urgent: false },
            _ => panic!("{what}"),
        };
        self.flow.on_socket(&mut Cx::new(self.now, &mut self.log), event);
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.flow.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now, "a deadline in the past spins");
            self.now = at;
            self.flow.on_timeout(&mut Cx::new(self.now, &mut self.log));
            self.drain();
            assert!(
                self.flow.poll_timeout().is_none_or(|next| next > at),
                "a deadline that is not served spins"
            );
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let caps = Caps { tx: TxCaps { max_payload: 65_000 }, buffer: 1 << 20 };
        while let Some(output) = self.flow.poll_output(&mut Cx::new(self.now, &mut self.log), caps) {
            let text = match output {
                Output::Segment { tuple, segment } => self.describe(tuple, segment),
                Output::Icmp { note, quoted } => {
                    format!(
                        "i< {}/{} from {} seq {}",
                        note.kind,
                        note.code,
                        note.from,
                        quoted.seq - CLIENT_ISN
                    )
                }
                Output::Socket(SocketCommand::Dial { server }) => format!("k< dial {server}"),
                Output::Socket(SocketCommand::Read { credit }) => format!("k< read {credit}"),
                Output::Socket(SocketCommand::Write { data, .. }) => format!("k< write {}", data.len()),
                Output::Socket(SocketCommand::Probe) => "k< probe".into(),
                Output::Socket(SocketCommand::Shutdown) => "k< shutdown".into(),
                Output::Socket(SocketCommand::Abort) => "k< abort".into(),
                Output::Socket(SocketCommand::Close) => "k< close".into(),
            };
            self.output.push_back(text);
        }
    }

    fn describe(&mut self, tuple: Tuple, segment: Segment) -> String {
        let leg = if tuple == self.flow.arriving(Leg::Client).reverse() { Leg::Client } else { Leg::Server };
        let (name, theirs) = if leg == Leg::Client { ("c<", CLIENT_ISN) } else { ("s<", SERVER_ISN) };
        if segment.has(Flags::SYN) {
            self.ours[leg as usize] = Some(segment.seq);
        }
        let ours = self.ours[leg as usize].unwrap_or_default();
        let seq = segment.seq.diff(ours);
        let len = segment.payload.len();
        let mut text = format!("{name} {} {seq}", segment.flags);
        if len > 0 {
            text += &format!(":{}", seq + len as i32);
        }
        if segment.has(Flags::ACK) {
            text += &format!(" ack {}", segment.ack.diff(SeqNum(theirs)));
        }
        if segment.has(Flags::URG) {
            text += &format!(" urg {}", segment.urgent);
        }
        if segment.window.0 == 0 && !segment.has(Flags::RST) {
            text += " win 0";
        }
        self.last[leg as usize] = segment;
        text
    }

    fn outcome(&self) -> Option<Outcome> {
        self.flow.outcome()
    }

    fn closed_with_bytes(&self) -> Option<(u64, u64)> {
        self.log.iter().find_map(|record| match record.event {
            Event::FlowClosed { upstream_bytes, downstream_bytes, .. } => {
                Some((upstream_bytes, downstream_bytes))
            }
            _ => None,
        })
    }
}

/// `P. 1:6 ack 1 urg 3`
fn segment(text: &str, isn: u32, ours: Option<SeqNum>) -> Segment {
    let words: Vec<&str> = text.split(' ').collect();
    let flags = words[0].chars().fold(Flags::default(), |flags, letter| {
        flags.with(match letter {
            'S' => Flags::SYN,
            'F' => Flags::FIN,
            'R' => Flags::RST,
            'P' => Flags::PSH,
            'U' => Flags::URG,
            '.' => Flags::ACK,
            _ => panic!("flag {letter}"),
        })
    });
    let (from, to) = words[1].split_once(':').unwrap_or((words[1], words[1]));
    let (from, to): (u32, u32) = (from.parse().unwrap(), to.parse().unwrap());
    let mut options = Options::default();
    if flags.has(Flags::SYN) {
        options.mss = Some(1460);
        options.window_scale = Some(WindowScale::new(7));
        options.sack_permitted = true;
    }
    let value =
        |name: &str| words.iter().position(|w| *w == name).map(|i| words[i + 1].parse::<u32>().unwrap());
    Segment {
        seq: SeqNum(isn) + from,
        ack: value("ack").map_or(SeqNum(0), |n| ours.unwrap_or_default() + n),
        flags,
        urgent: value("urg").unwrap_or(0) as u16,
        options,
        payload: Bytes::from(vec![b'x'; (to - from) as usize]).into(),
        ..Segment::default()
    }
}

/// Both handshakes.
const OPEN: &str = "
    c> S 0
    s< S 0
    s> S. 0 ack 1
    c< S. 0 ack 1
    c> . 1 ack 1
    s< . 1 ack 1
";

const HALF_CLOSED: &str = "
    open
    c> F. 1 ack 1
    c< . 1 ack 2
    s< F. 1 ack 1
    s> . 1 ack 2
";

/// Both handshakes with a socket.
const OPEN_SOCKET: &str = "
    c> S 0
    k< dial 10.0.0.2:80
    k> connected
    c< S. 0 ack 1
    c> . 1 ack 1
    k< read 65536
";

/// What is so, how the server is reached, the rules, the script, the outcome.
type Row = (&'static str, Uplink, &'static [&'static str], &'static str, Option<Outcome>);

fn check(rows: &[Row]) {
    for (sentence, uplink, rules, script, outcome) in rows {
        println!("{sentence}");
        let mut s = Script::new(*uplink, rules);
        s.run(script);
        assert_eq!(s.outcome(), *outcome, "{sentence}");
    }
}

#[rustfmt::skip]
const OPENING: &[Row] = &[
    ("the SYN-ACK waits for the server's, and the server's ACK for the client's", Transparent, &[], "open", None),
    ("a SYN that comes again makes one dial, and sends the server's SYN again", Transparent, &[], "
        c> S 0
        s< S 0
        +1s
        c> S 0
        s< S 0
        +1s
        c> S 0
        s< S 0
    ", None),
    ("the first bytes can complete the handshake, when the bare ACK got lost", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
    ", None),
    ("and so can the last ones", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> FP. 1:11 ack 1
        c< . 1 ack 12
        s< FP. 1:11 ack 1
    ", None),
    ("a silent server stays silent, and a client that stops is forgotten", Transparent, &[], "
        c> S 0
        s< S 0
        +6s
        +2s
    ", Some(Timeout)),
    ("a client with long intervals is not forgotten in between", Transparent, &[], "
        c> S 0
        s< S 0
        +3s
        c> S 0
        s< S 0
        +6s
        c> S 0
        s< S 0
        +12s
        c> S 0
        s< S 0
    ", None),
    ("refused by RST", Transparent, &[], "
        c> S 0
        s< S 0
        s> R. 0 ack 1
        c< R. 0 ack 1
    ", Some(RefusedRst)),
    ("refused by ICMP: kind, reporter and the quoted number are kept", Transparent, &[], "
        c> S 0
        s< S 0
        i> 3/1
        i< 3/1 from 10.9.9.9 seq 0
    ", Some(RefusedIcmp)),
    ("a client that resets its attempt: the server sees it gone", Transparent, &[], "
        c> S 0
        s< S 0
        c> R 1
        s< R 1
    ", Some(Aborted)),
    ("a RST with another number is blind", Transparent, &[], "
        c> S 0
        s< S 0
        c> R 2
    ", None),
    ("a client that is gone when its SYN-ACK comes: the server gets the RST", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> R 1
        s< R. 1 ack 1
    ", Some(Aborted)),
    ("a server that dies before the client's ACK", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        s> R 1
        c< R. 1 ack 1
    ", Some(Reset)),
    ("a lost SYN-ACK is sent again at 1, 3, 7 s, and again for a repeated SYN", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        +900ms
        c> S 0
        c< S. 0 ack 1
    ", None),
    ("a client that never acknowledges the SYN-ACK: the server hears nothing", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        +1s
        c< S. 0 ack 1
        +2s
        c< S. 0 ack 1
        +4s
        c< S. 0 ack 1
        +8s
        c< S. 0 ack 1
        +16s
        c< S. 0 ack 1
        +33s
    ", Some(Aborted)),
    ("a server that sends its SYN-ACK again meanwhile waits as well", Transparent, &[], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        s> S. 0 ack 1
        c> . 1 ack 1
        s< . 1 ack 1
    ", None),
    ("data with the SYN are not taken, data with the ACK are", Transparent, &[], "
        c> S 0:10
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
    ", None),
    ("both ends open at once: the server is answered, and the client sees an ordinary server", Transparent, &[], "
        c> S 0
        s< S 0
        s> S 0
        s< S. 0 ack 1
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> . 1 ack 1
        s< . 1 ack 1
    ", None),
];

#[test]
fn opening() {
    check(OPENING);
}

#[rustfmt::skip]
const OPENING_THROUGH_A_SOCKET: &[Row] = &[
    ("dial, answer, bytes", Socket, &[], "open", None),
    ("a SYN that comes again makes one dial", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        c> S 0
    ", None),
    ("refused", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> refused
        c< R. 0 ack 1
    ", Some(RefusedRst)),
    ("unreachable", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> unreachable
        i< 3/1 from 10.0.0.2 seq 0
    ", Some(RefusedIcmp)),
    ("a dial that ends in silence is not repeated", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> silence
        c> S 0
        +8s
    ", Some(Timeout)),
    ("a client that resets its attempt cancels the dial", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        c> R 1
        k< abort
    ", Some(Aborted)),
    ("a client that stops sending SYNs cancels the dial", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        +7s
        k< abort
    ", Some(Timeout)),
    ("a client that is gone when the dial succeeds", Socket, &[], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        c> R 1
        k< abort
    ", Some(Aborted)),
];

#[test]
fn opening_through_a_socket() {
    check(OPENING_THROUGH_A_SOCKET);
}

#[rustfmt::skip]
const CLOSING: &[Row] = &[
    ("the client closes first: FIN becomes FIN, and TIME-WAIT is on the leg whose peer closed second", Transparent, &[], "
        half-closed
        s> F. 1 ack 2
        c< F. 1 ack 2
        s< . 2 ack 2
        c> . 2 ack 2
    ", Some(Fine)),
    ("a reply after the client's FIN is delivered, however late", Transparent, &[], "
        half-closed
        +900s
        s> P. 1:101 ack 2
        c< P. 1:101 ack 2
        s< . 2 ack 101
        c> . 2 ack 101
    ", None),
    ("both close at once", Transparent, &[], "
        open
        c> F. 1 ack 1
        c< . 1 ack 2
        s< F. 1 ack 1
        s> F. 1 ack 1
        c< F. 1 ack 2
        s< . 2 ack 2
        s> . 2 ack 2
        c> . 2 ack 2
    ", Some(Fine)),
    ("RST by the client", Transparent, &[], "
        open
        c> R. 1 ack 1
        s< R. 1 ack 1
    ", Some(Reset)),
    ("RST by the server", Transparent, &[], "
        open
        s> R 1
        c< R. 1 ack 1
    ", Some(Reset)),
    ("data and then RST, as a close with unread data sends it: the data arrive first", Transparent, &[], "
        open
        s> P. 1:101 ack 1
        c< P. 1:101 ack 1
        s< . 1 ack 101
        s> R. 101 ack 1
        c< R. 101 ack 1
    ", Some(Reset)),
    ("a RST follows the bytes before it that wait for the congestion window", Transparent, &[], "
        open
        c> P. 1:20001 ack 1
        c< . 1 ack 20001
        s< . 1:14601 ack 1
        c> R. 20001 ack 1
        s> . 1 ack 14601
        s< P. 14601:20001 ack 1
        s< R. 20001 ack 1
    ", Some(Reset)),
    ("a RST does not wait for a reader that has closed its window", Transparent, &[], "
        open
        window 0
        s> . 1 ack 1
        c> P. 1:101 ack 1
        c< . 1 ack 101
        c> R. 101 ack 1
        s< R. 1 ack 1
    ", Some(Reset)),
    ("an answer that comes for a client that is gone", Transparent, &[], "
        open
        c> R. 1 ack 1
        s< R. 1 ack 1
        s> P. 1:11 ack 1
        s< R 1
    ", Some(Reset)),
    ("a keepalive is answered when the far peer has answered", Transparent, &[], "
        open
        +60s
        c> . 0 ack 1
        s< . 0 ack 1
        s> . 1 ack 1
        c< . 1 ack 1
    ", None),
    ("the urgent mark crosses", Transparent, &[], "
        open
        c> UP. 1:11 ack 1 urg 5
        c< . 1 ack 11
        s< P.U 1:11 ack 1 urg 5
    ", None),
];

#[test]
fn closing() {
    check(CLOSING);
}

#[rustfmt::skip]
const CLOSING_THROUGH_A_SOCKET: &[Row] = &[
    ("the client closes first", Socket, &[], "
        open
        c> F. 1 ack 1
        c< . 1 ack 2
        k< shutdown
        k> data 10
        c< P. 1:11 ack 2
        c> . 2 ack 11
        k> eof
        c< F. 11 ack 2
        k< close
        c> . 2 ack 12
    ", Some(Fine)),
    ("the server closes first, and waits until the kernel has all bytes", Socket, &[], "
        open
        k> eof
        c< F. 1 ack 1
        c> . 1 ack 2
        c> FP. 1:5 ack 2
        c< . 2 ack 6
        k< write 4
        k< shutdown
        k> sent 4
        k< close
    ", Some(Fine)),
    ("RST by the client", Socket, &[], "
        open
        c> R. 1 ack 1
        k< abort
    ", Some(Reset)),
    ("RST by the server", Socket, &[], "
        open
        k> reset
        c< R. 1 ack 1
    ", Some(Reset)),
    ("a keepalive is answered when the socket has found the server alive", Socket, &[], "
        open
        c> . 0 ack 1
        k< probe
        k> alive
        c< . 1 ack 1
    ", None),
];

#[test]
fn closing_through_a_socket() {
    check(CLOSING_THROUGH_A_SOCKET);
}

/// RFC 9293 MUST-48, MUST-49, SHLD-22: as a router would, but the ECN bits belong to each leg alone.
#[test]
fn ttl_and_dscp_cross_and_ecn_does_not() {
    let (ef, marked) = (0b1011_1000, 0b11);
    let arrived = IpMeta { ttl: 60, tos: ef | marked };
    assert_eq!(carried(arrived, 1), IpMeta { ttl: 61, tos: ef });
    assert_eq!(carried(IpMeta { ttl: 255, tos: 0 }, 1).ttl, 255);
}

#[test]
fn the_end_tells_the_bytes_that_arrived() {
    let mut s = Script::new(Transparent, &[]);
    s.run(
        "open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        s> P. 1:6 ack 11
        c< P. 1:6 ack 11
        s< . 11 ack 6
        c> . 11 ack 6
        c> R. 11 ack 6
        s< R. 11 ack 6",
    );
    assert_eq!(s.closed_with_bytes(), Some((10, 5)));
    assert!(s.flow.is_done());
}

#[test]
fn a_reader_that_stops_stops_the_writer() {
    let mut s = Script::new(Transparent, &[]);
    s.run("open");
    let mut offered = 0;
    // The server acknowledges nothing; the client fills what it is offered.
    for round in 0..100 {
        let window = u32::from(s.last[0].window.0) << 7;
        let from = 1 + offered;
        let more = window.min(1460);
        if more == 0 {
            assert!(round > 40, "at least 64 KiB are offered");
            assert!(offered <= 66_000, "{offered}");
            return;
        }
        s.input(Leg::Client, &format!("P. {from}:{} ack 1", from + more));
        offered += more;
        s.pass(Duration::from_millis(50));
        s.output.clear();
    }
    panic!("the window never closed");
}

#[test]
fn a_flow_that_only_waits_for_its_server_is_small() {
    assert!(size_of::<Flow>() <= 240, "{}", size_of::<Flow>());
}

/// The catalogue at the seam: H1, H22, T1, E1, E7, E16.
#[rustfmt::skip]
const FAULTS: &[Row] = &[
    ("a swallowed SYN dials nothing; the next one does", Transparent, &["syn-drop first=1"], "
        c> S 0
        +1s
        c> S 0
        s< S 0
    ", None),
    ("a client whose SYNs are swallowed for a minute is one flow all the time", Transparent, &["syn-drop for=63s"], "
        c> S 0
        +4s
        c> S 0
        +8s
        c> S 0
        +16s
        c> S 0
        +33s
        c> S 0
        +8s
        c> S 0
        s< S 0
    ", None),
    ("so it is before a socket", Socket, &["syn-drop for=63s"], "
        c> S 0
        +4s
        c> S 0
        +8s
        c> S 0
        +16s
        c> S 0
        +33s
        c> S 0
        +8s
        c> S 0
        k< dial 10.0.0.2:80
    ", None),
    ("a SYN-ACK that is held comes later", Transparent, &["syn-ack-delay delay=200ms"], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        +199ms
        +1ms
        c< S. 0 ack 1
    ", None),
    ("a server's FIN that is swallowed never ends the client's input", Transparent, &["fin-drop direction=downstream first=all"], "
        open
        s> F. 1 ack 1
        s> P. 1:5 ack 1
        c< P. 1:5 ack 1
        s< . 1 ack 5
        s> FP. 1:5 ack 1
        s< . 1 ack 5
    ", None),
    ("a SYN that comes again while the SYN-ACK is held has an answer of its own", Transparent, &["syn-ack-delay delay=1.5s"], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        +1020ms
        c> S 0
        +479ms
        +1ms
        c< S. 0 ack 1
        c> . 1 ack 1
        s< . 1 ack 1
    ", None),
    ("a client's FIN that is swallowed never ends the server's input", Transparent, &["fin-drop direction=upstream"], "
        open
        c> FP. 1:5 ack 1
        c< . 1 ack 5
        s< P. 1:5 ack 1
        c> F. 5 ack 1
    ", None),
    ("where the server is a socket, the FIN to the client is swallowed", Socket, &["fin-drop direction=downstream first=3"], "
        open
        k> eof
        +200ms
        +400ms
        +799ms
        +1ms
        c< F. 1 ack 1
        c> . 1 ack 2
    ", None),
    ("a stalled window stays zero until the hold is over, and probes are answered", Transparent, &["zero-window-stall after_bytes=10 hold=5s"], "
        open
        c> P. 1:10 ack 1
        c< . 1 ack 10
        s< P. 1:10 ack 1
        c> P. 10:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 10:21 ack 1
        s> . 1 ack 21
        +200ms
        c> . 20 ack 1
        c< . 1 ack 21 win 0
        +4799ms
        +1ms
        c< . 1 ack 21
    ", None),
    ("what was already allowed is still taken", Transparent, &["zero-window-stall after_bytes=10 hold=5s"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 1:21 ack 1
        c> P. 21:31 ack 1
        c< . 1 ack 31 win 0
        s< P. 21:31 ack 1
    ", None),
    ("a dead reader answers no probe", Transparent, &["zero-window-stall after_bytes=10 answer_probes=false"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 1:21 ack 1
        s> . 1 ack 21
        +200ms
        c> . 20 ack 1
        +400ms
        c> . 20 ack 1
    ", None),
    ("the other direction of a stalled flow goes on", Transparent, &["zero-window-stall after_bytes=10"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 1:21 ack 1
        s> P. 1:11 ack 21
        c< P. 1:11 ack 21 win 0
        s< . 21 ack 11
    ", None),
    ("an acknowledgement comes late, and not along with data either", Transparent, &["ack-delay delay=40ms"], "
        open
        c> P. 1:11 ack 1
        s< P. 1:11 ack 1
        s> . 1 ack 11
        +20ms
        s> P. 1:6 ack 11
        c< P. 1:6 ack 1
        s< . 11 ack 6
        +19ms
        +1ms
        c< . 6 ack 11
    ", None),
    ("a second full segment ends the wait", Transparent, &["ack-delay delay=40ms"], "
        open
        c> . 1:1461 ack 1
        s< P. 1:1461 ack 1
        c> . 1461:2921 ack 1
        c< . 1 ack 2921
        s< P. 1461:2921 ack 1
    ", None),
    ("a time bound that runs beyond the end of the flow does nothing", Transparent, &["ack-delay after=30s", "rst-inject after=5s"], "
        open
        c> F. 1 ack 1
        c< . 1 ack 2
        s< F. 1 ack 1
        s> F. 1 ack 2
        c< F. 1 ack 2
        s< . 2 ack 2
        c> . 2 ack 2
        +61s
    ", Some(Fine)),
    ("a reset for both", Transparent, &["rst-inject"], "
        open
        c> P. 1:11 ack 1
        c< R. 1 ack 11
        s< R. 1 ack 1
    ", Some(Reset)),
    ("a reset for the client: the server hears nothing until it speaks", Transparent, &["rst-inject to=client after=5s"], "
        open
        +4999ms
        +1ms
        c< R. 1 ack 1
        +10s
        s> P. 1:11 ack 1
        s< R 1
    ", Some(Reset)),
    ("a reset for the server: the client hears nothing until it speaks", Transparent, &["rst-inject to=server after=5s"], "
        open
        +5s
        s< R. 1 ack 1
        +10s
        c> P. 1:11 ack 1
        c< R 1
    ", Some(Reset)),
    ("latency holds what came by a socket", Socket, &["latency latency=500ms"], "
        open
        k> data 10
        +499ms
        +1ms
        c< P. 1:11 ack 1
        c> P. 1:11 ack 11
        c< . 11 ack 11
        k< write 10
    ", None),
    ("a rate stops the reading from a socket when the queue is full", Socket, &["bandwidth rate=0 buffer=4KiB"], "
        c> S 0
        k< dial 10.0.0.2:80
        k> connected
        c< S. 0 ack 1
        c> . 1 ack 1
        k< read 4096
        k> data 4096
        +1h
    ", None),
    ("a rate closes the writer's window when the queue is full", Transparent, &["bandwidth direction=upstream rate=0 buffer=4KiB"], "
        open
        c> P. 1:8001 ack 1
        c< . 1 ack 8001
        c> P. 8001:64193 ack 1
        c< . 1 ack 64193 win 0
    ", None),
    ("a limit ends a flow with a socket after the bytes", Socket, &["limit-data bytes=10 style=rst"], "
        open
        k> data 25
        c< P. 1:11 ack 1
        c> . 1 ack 11
        c< R. 11 ack 1
        k< abort
    ", Some(Reset)),
    ("or by FINs on both sides", Socket, &["limit-data bytes=10 direction=upstream"], "
        open
        c> P. 1:26 ack 1
        c< F. 1 ack 26
        k< write 10
        k< shutdown
        k> sent 10
        c> F. 26 ack 2
        c< . 2 ack 27
        k> eof
        k< close
    ", Some(Fine)),
    ("slices of a socket's bytes come one by one", Socket, &["slicer average_size=5 delay=10ms"], "
        open
        k> data 12
        c< P. 1:6 ack 1
        +10ms
        c< P. 6:11 ack 1
        +10ms
        c< P. 11:13 ack 1
    ", None),
    ("the end of a socket's bytes waits", Socket, &["slow-close delay=2s"], "
        open
        k> data 5
        c< P. 1:6 ack 1
        c> . 1 ack 6
        k> eof
        +1999ms
        +1ms
        c< F. 6 ack 1
        c> . 1 ack 7
    ", None),
    ("what a socket sends is lost, and each piece of it puts the end off", Socket, &["timeout timeout=500ms"], "
        open
        k> data 5
        +499ms
        k> data 5
        +499ms
        +1ms
        c< F. 1 ack 1
        k< shutdown
    ", None),
    ("what a client sends is acknowledged and lost until the reset", Socket, &["acked-but-lost hold=1s"], "
        open
        c> FP. 1:11 ack 1
        c< . 1 ack 12
        +999ms
        +1ms
        c< R. 1 ack 12
        k< abort
    ", Some(Reset)),
    ("a reset comes on an idle flow too", Transparent, &["reset-peer timeout=1s"], "
        open
        +999ms
        +1ms
        c< R. 1 ack 1
        s< R. 1 ack 1
    ", Some(Reset)),
    ("a reset that thinks first", Transparent, &["rst-inject delay=7ms"], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        +6ms
        +1ms
        c< R. 1 ack 11
        s< R. 11 ack 1
    ", Some(Reset)),
    ("a path that has forgotten the flow is silent", Transparent, &["idle-timeout idle=5s"], "
        open
        +6s
        c> P. 1:11 ack 1
        s> P. 1:11 ack 1
        c> R. 11 ack 1
        s> F. 11 ack 1
    ", None),
    ("or resets who speaks next, and the other when it does", Transparent, &["idle-timeout idle=5s style=rst-on-next"], "
        open
        +4s
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        s> . 1 ack 11
        +6s
        c> P. 11:21 ack 1
        c< R. 1 ack 11
        s> P. 1:11 ack 11
        s< R 11
    ", Some(Reset)),
    ("or the inside alone, each time", Transparent, &["idle-timeout idle=5s style=rst-on-next rst_to=inside"], "
        open
        +6s
        s> P. 1:11 ack 1
        c> P. 1:11 ack 1
        c< R. 1 ack 11
        c> P. 1:11 ack 1
        c< R. 1 ack 11
        s> P. 1:11 ack 1
    ", None),
    ("or both when the time is over", Transparent, &["idle-timeout idle=5s style=rst-both"], "
        open
        +4999ms
        +1ms
        c< R. 1 ack 1
        s< R. 1 ack 1
    ", Some(Reset)),
    ("a server behind a socket that speaks next is reset", Socket, &["idle-timeout idle=5s style=rst-on-next"], "
        open
        +4s
        k> data 10
        c< P. 1:11 ack 1
        c> . 1 ack 11
        +4s
        +2s
        k> data 10
        k< abort
        c> P. 1:11 ack 11
        c< R 11
    ", Some(Reset)),
    ("and a client that speaks next, too", Socket, &["idle-timeout idle=5s style=rst-on-next"], "
        open
        +6s
        c> P. 1:11 ack 1
        c< R. 1 ack 1
        k> data 10
        k< abort
    ", Some(Reset)),
    ("a flow whose path is cut ends when nobody has spoken for three hours", Transparent, &["blackhole"], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        +1s
        c> R. 11 ack 1
        s> R. 1 ack 11
        +10799s
        +1s
    ", Some(Timeout)),
    ("a peer that never finishes is forgotten when nobody is left to hear it", Transparent, &["half-close-broken"], "
        open
        c> F. 1 ack 1
        c< F. 1 ack 2
        s< F. 1 ack 1
        s> . 1 ack 2
        c> . 2 ack 2
        +59s
        s> P. 1:11 ack 2
        s< . 2 ack 11
        +2s
    ", Some(Timeout)),
    ("where it goes to a socket, the server hears of it", Socket, &["idle-timeout idle=5s"], "
        open
        +10800s
        k< abort
    ", Some(Timeout)),
    ("a reset for both where the server is a socket", Socket, &["rst-inject after=5s"], "
        open
        +5s
        c< R. 1 ack 1
        k< abort
    ", Some(Reset)),
];

#[test]
fn a_knob_is_turned_before_the_first_bytes_even_if_they_come_in_one_batch_with_the_handshake() {
    let mut script = Script::new(Transparent, &["ack-delay delay=200ms every_other=false"]);
    script.lines("c> S 0\n s< S 0\n s> S. 0 ack 1\n c< S. 0 ack 1");
    for text in [". 1 ack 1", "P. 1:11 ack 1"] {
        let segment = segment(text, CLIENT_ISN, script.ours[0]);
        script.flow.on_segment(&mut Cx::new(script.now, &mut script.log), Leg::Client, segment);
    }
    script.drain();
    script.run("s< P. 1:11 ack 1\n s> . 1 ack 11\n +199ms\n +1ms\n c< . 1 ack 11");
}

#[test]
fn faults() {
    check(FAULTS);
}

#[test]
fn a_server_that_is_gone_for_good_resets_the_client() {
    let mut s = Script::new(Transparent, &[]);
    s.run(
        "open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1",
    );
    s.pass(Duration::from_secs(1200));
    assert_eq!(s.output.back().map(String::as_str), Some("c< R. 1 ack 11"), "{:?}", s.output);
    assert_eq!(s.outcome(), Some(Timeout));
    assert!(s.flow.is_done());
}

/// E16: the peer that is not told sees silence until it speaks, then a RST.
#[test]
fn an_injected_reset_for_one_side_answers_the_other_when_it_speaks() {
    let mut s = Script::new(Transparent, &["rst-inject to=client after=1s"]);
    s.run(
        "open
        +1s
        c< R. 1 ack 1
        +5s
        s> P. 1:11 ack 1
        s< R 1
        +60s",
    );
    assert_eq!(s.outcome(), Some(Reset));
    assert!(s.flow.is_done());
}

/// The client's host has sent its first SYN twice, and one copy comes when the flow is over.
#[test]
fn a_late_copy_of_the_syn_opens_nothing_and_another_one_does() {
    let mut s = Script::new(Transparent, &["rst-inject to=server after=1s"]);
    s.run(
        "open
        +1s
        s< R. 1 ack 1",
    );
    let superseded = |syn| s.flow.is_superseded_by(&segment(syn, CLIENT_ISN, s.ours[0]));
    assert!(!superseded("S 0"));
    assert!(superseded("S 5"));
}

/// A super-segment of five, and what leaves for the server: numbers and bytes of single segments.
fn bulk(rules: &[&str]) -> (usize, Vec<(u32, u16)>) {
    let mut s = Script::new(Transparent, rules);
    s.lines("open");
    let whole = Segment {
        gso_size: 1000,
        window: RawWindow(s.window),
        ..segment("P. 1:5001 ack 1", CLIENT_ISN, s.ours[0])
    };
    s.flow.on_segment(&mut Cx::new(s.now, &mut s.log), Leg::Client, whole);
    let mut left = Vec::new();
    let caps = Caps { tx: TxCaps { max_payload: 65_000 }, buffer: 1 << 20 };
    while let Some(output) = s.flow.poll_output(&mut Cx::new(s.now, &mut s.log), caps) {
        if let Output::Segment { segment, .. } = output
            && !segment.payload.is_empty()
        {
            left.push((segment.payload.len(), segment.gso_size));
        }
    }
    let met = |record: &&Record| {
        let Event::SegmentIn { segment } = &record.event else { return false };
        segment.len > 0
    };
    (s.log.iter().filter(met).count(), left)
}

/// Only faults that ask for it pay for single segments.
#[test]
fn super_segments_stay_whole_unless_a_fault_must_meet_each_segment() {
    let whole = (1, vec![(5000, 1460)]);
    for rules in [
        &[][..],
        &["rst-inject after=1h"],
        &["fin-drop"],
        &["blackhole after=1h"],
        &["sequence-shift"],
        &["timestamp-mangle after=1h"],
        &["rst-blind after=1h"],
        &["late-segment-rst after=1h"],
    ] {
        assert_eq!(bulk(rules), whole, "{rules:?}");
    }
    let single = (5, vec![(1460, 0), (1460, 0), (1460, 0), (620, 0)]);
    for rule in ["loss p=0", "duplicate share=0", "reorder share=0", "corrupt share=0", "odd-flags share=0"] {
        assert_eq!(bulk(&[rule]), single, "{rule}");
    }
}

/// A middlebox on the client's leg: neither end may notice, and a refusal still quotes the client's own SYN.
#[test]
fn shifted_numbers_are_consistent_from_the_first_syn_to_the_last_reset() {
    for rule in [
        "sequence-shift sack=translated",
        "sequence-shift sack=translated direction=downstream",
        "sequence-shift mode=iss sack=translated",
    ] {
        let mut s = Script::new(Transparent, &[rule]);
        s.run(
            "c> S 0
            s< S 0
            c> S 0
            s< S 0
            s> S. 0 ack 1
            c< S. 0 ack 1
            c> . 1 ack 1
            s< . 1 ack 1
            c> P. 1:11 ack 1
            c< . 1 ack 11
            s< P. 1:11 ack 1
            s> P. 1:21 ack 11
            c< P. 1:21 ack 11
            s< . 11 ack 21
            c> R 11
            s< R. 11 ack 21",
        );
        assert_eq!(s.outcome(), Some(Reset), "{rule}");
        let mut s = Script::new(Transparent, &[rule]);
        s.run(
            "c> S 0
            s< S 0
            i> 3/1
            i< 3/1 from 10.9.9.9 seq 0",
        );
        let mut s = Script::new(Transparent, &[rule]);
        s.lines(
            "c> S 0
            s< S 0
            s> R. 0 ack 1",
        );
        // A host in SYN-SENT looks at the acknowledgement only (RFC 9293 §3.10.7.3).
        let refusal = s.output.pop_front();
        assert!(refusal.is_some_and(|r| r.starts_with("c< R. ") && r.ends_with(" ack 1")), "{rule}");
        let syn = |s: &Script, text| s.flow.is_superseded_by(&segment(text, CLIENT_ISN, None));
        let mut s = Script::new(Transparent, &[rule]);
        s.lines("c> S 0\n s< S 0");
        assert!(!syn(&s, "S 0") && syn(&s, "S 5"), "{rule}: the same SYN again is the same flow");
    }
}

/// What other faults hold or make is shifted as well, and so is what comes after the end.
#[test]
fn shifted_numbers_reach_what_other_faults_hold_and_the_late_segments() {
    for shift in ["sequence-shift sack=translated", "sequence-shift sack=translated direction=downstream"] {
        for rules in [[shift, "syn-ack-delay delay=200ms"], ["syn-ack-delay delay=200ms", shift]] {
            let mut s = Script::new(Transparent, &rules);
            s.run(
                "c> S 0
                s< S 0
                s> S. 0 ack 1
                +200ms
                c< S. 0 ack 1
                c> . 1 ack 1
                s< . 1 ack 1
                s> F. 1 ack 1
                c< F. 1 ack 1
                s< . 1 ack 2
                c> F. 1 ack 2
                c< . 2 ack 2
                s< F. 1 ack 2
                s> . 2 ack 2
                +1s
                c> F. 1 ack 2
                c< . 2 ack 2",
            );
            let syn = |text| s.flow.is_superseded_by(&segment(text, CLIENT_ISN, None));
            assert!(!syn("S 0") && syn("S 5"), "{rules:?}: another SYN opens another flow");
        }
    }
}

#[test]
fn overtaken_segments_wait_for_their_number_or_for_their_time() {
    let mut s = Script::new(Transparent, &["reorder nth=1 segments=2 direction=upstream delay=100ms"]);
    s.run(
        "open
        c> P. 1:11 ack 1
        c> P. 11:21 ack 1
        c< . 1 ack 1
        c> . 21 ack 1
        c< . 1 ack 21
        s< P. 1:21 ack 1",
    );
    let mut s = Script::new(Transparent, &["reorder nth=1 segments=2 direction=downstream delay=100ms"]);
    s.lines(
        "open
        s> P. 1:11 ack 1
        s< . 1 ack 11
        s> P. 11:21 ack 1
        c< P. 11:21 ack 1
        s< . 1 ack 21
        +99ms
        +1ms
        c< P. 1:11 ack 1",
    );
}

#[test]
fn copies_come_after_their_time() {
    let mut s = Script::new(Transparent, &["duplicate nth=2 copies=2 delay=50ms direction=downstream"]);
    s.lines(
        "open
        s> P. 1:11 ack 1
        c< P. 1:11 ack 1
        s< . 1 ack 11
        c> . 1 ack 11
        +49ms
        +1ms
        c< P. 1:11 ack 1
        c< P. 1:11 ack 1",
    );
}
