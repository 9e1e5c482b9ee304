//! The seam, one sentence per row. A script line is an input (`c>`, `s>`: a segment from the client or the server; `+2s`:
//! time passes; `k>`, `a>`: the socket of the server, of an accepted client reports) or an expected output (`c<`, `s<`, `k<`, `a<`), in order; whatever comes out beyond the
//! script fails the row. Numbers are relative to the ISN of their sender.

mod accept_first;
mod accepted;
mod closing;
mod control;
mod ending;
mod ends;
mod handshake;
mod held_syn;
mod opening;
mod resets;
mod segments;
mod shapes;
mod windows;

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;
use crate::fault::{Circumstances, Engine, RuleSpec, Rules, Turns};
use crate::relay::SocketOffer;
use crate::relay::Uplink::{self, HeldSyn, Socket, Transparent};
use crate::relay::{Limits, Refusal};
use crate::time::Duration;
use crate::trace::Outcome::{Aborted, Ok as Fine, RefusedIcmp, RefusedRst, Reset, Timeout};
use crate::trace::{Did, Kill, Record};
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
        let engine = match uplink {
            Socket => Engine::Exec,
            HeldSyn => Engine::Sockets,
            _ => Engine::Tun,
        };
        let syn = segment("S 0", CLIENT_ISN, None);
        Self::with(uplink, engine, rules, |cx, settings, tuple, plan| {
            Flow::new(cx, settings, FlowId(1), tuple, 4000, &syn, plan)
        })
    }

    fn with(
        uplink: Uplink,
        engine: Engine,
        rules: &[&str],
        flow: impl FnOnce(&mut Cx<'_>, &Arc<Settings>, Tuple, Plan) -> Flow,
    ) -> Self {
        let rules = rules
            .iter()
            .map(|rule| crate::fault::Rule::build(rule.parse::<RuleSpec>().unwrap()).unwrap())
            .collect();
        let rules = Rules::new(1, engine, rules).unwrap();
        let settings = Arc::new(Settings { uplink, limits: Limits::default(), ..Settings::default() });
        let mut log = Vec::new();
        let tuple = Tuple { src: "10.0.0.1:4000".parse().unwrap(), dst: "10.0.0.2:80".parse().unwrap() };
        let plan =
            rules.plan(FlowId(1), tuple.src, tuple.dst, &Circumstances::default(), &mut Turns::default());
        let now = Instant::from_millis(1000);
        let flow = flow(&mut Cx::new(now, &mut log), &settings, tuple, plan);
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
                "open" if self.flow.settings.uplink == HeldSyn => {
                    let open = if self.flow.around.is_some() {
                        OPEN_HELD.replace("a< join", "")
                    } else {
                        OPEN_HELD.into()
                    };
                    self.lines(&open);
                }
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
            "k>" => self.socket(Leg::Server, what),
            "a>" => self.socket(Leg::Client, what),
            "i>" => self.icmp(what),
            "kill" => self.kill(what),
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

    fn socket(&mut self, leg: Leg, what: &str) {
        if what == "accepted" {
            self.flow.on_accepted(&mut Cx::new(self.now, &mut self.log));
            return self.drain();
        }
        let event = match what.split(' ').collect::<Vec<_>>()[..] {
            ["connected"] => SocketEvent::Connected,
            ["alive"] => SocketEvent::ProbeAnswered,
            ["eof"] => SocketEvent::Eof,
            ["left"] => SocketEvent::Left,
            ["reset"] => SocketEvent::Reset,
            ["refused"] => SocketEvent::Failed { errno: "ECONNREFUSED", refusal: Refusal::Reset },
            ["unreachable"] => {
                SocketEvent::Failed { errno: "EHOSTUNREACH", refusal: Refusal::Icmp { kind: 3, code: 1 } }
            }
            ["silence"] => SocketEvent::Failed { errno: "ETIMEDOUT", refusal: Refusal::Silence },
            ["sent", n] => SocketEvent::Sent(n.parse().unwrap()),
            ["crossed", bytes, waiting] => {
                SocketEvent::Crossed { bytes: bytes.parse().unwrap(), waiting: waiting.parse().unwrap() }
            }
            ["data", n] => SocketEvent::Data { data: vec![b'k'; n.parse().unwrap()].into(), urgent: false },
            _ => panic!("{what}"),
        };
        self.flow.on_socket(&mut Cx::new(self.now, &mut self.log), leg, event);
        self.drain();
    }

    fn kill(&mut self, what: &str) {
        let how = match what {
            "rst" => Kill::Rst,
            "fin" => Kill::Fin,
            "vanish" => Kill::Vanish,
            _ => panic!("{what}"),
        };
        self.flow.kill(&mut Cx::new(self.now, &mut self.log), how).unwrap();
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
                Output::Socket { leg, command } => {
                    format!("{} {}", if leg == Leg::Client { "a<" } else { "k<" }, describe(&command))
                }
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
        let by_kernel = segment.has(Flags::SYN) && self.flow.has_socket(leg);
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
        if by_kernel {
            text += &offered(SocketOffer::of(&segment));
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

/// All SYNs here announce an MSS of 1460.
fn offered(offer: SocketOffer) -> String {
    let mss = offer.mss.filter(|mss| *mss != 1460).map(|mss| format!(" mss {mss}"));
    let window = offer.window.map(|window| format!(" win {window}"));
    mss.into_iter().chain(window).collect()
}

fn describe(command: &SocketCommand) -> String {
    match command {
        SocketCommand::Dial { server, offer, .. } => format!("dial {server}{}", offered(*offer)),
        SocketCommand::Read { credit } => format!("read {credit}"),
        SocketCommand::Write { data, .. } => format!("write {}", data.len()),
        SocketCommand::Silence(true) => "silent".into(),
        SocketCommand::Silence(false) => "heard".into(),
        SocketCommand::Window(Some(most)) => format!("window {most}"),
        SocketCommand::Window(None) => "window".into(),
        SocketCommand::Stall(true) => "stall".into(),
        SocketCommand::Stall(false) => "read on".into(),
        SocketCommand::Probe => "probe".into(),
        SocketCommand::Watch => "watch".into(),
        SocketCommand::Flush => "flush".into(),
        SocketCommand::Join => "join".into(),
        SocketCommand::Part => "part".into(),
        SocketCommand::Shutdown => "shutdown".into(),
        SocketCommand::Abort => "abort".into(),
        SocketCommand::Close => "close".into(),
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

/// Both handshakes, of sockets, where the kernel holds the SYN.
const OPEN_HELD: &str = "
    c> S 0
    k< dial 10.0.0.2:80
    k> connected
    c< S. 0 ack 1
    a> accepted
    a< join
    a< read 65536
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
