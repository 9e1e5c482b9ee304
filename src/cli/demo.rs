//! `halfopen demo`: shows one fault, or a healthy connection, as a ladder.

mod scene;
mod script;

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use clap::Args as ClapArgs;

use super::{Failure, faults, paint};
use crate::config::Machine;
use crate::engine::tun::Device;
use crate::engine::{self, Clock, Handle};
use crate::fault::{Engine, Rule, Rules};
use crate::measure::Measure;
use crate::relay;
use crate::report::{Ladder, Line, Role, Style, Summary, Text};
use crate::setup::namespace;
use crate::tcp;
use crate::time::{Duration, Instant};
use crate::trace::{Event, FlowId, Record, Sink};
use scene::Scene;
use script::Diary;

/// Show a connection between a real client and a real server as a ladder, in
/// namespaces of its own: healthy, or with one fault
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The fault to show, by name or as a rule. Default: none
    #[arg(value_name = "FAULT")]
    fault: Option<String>,

    /// Print the events as JSON, one object per line, instead of the ladder
    #[arg(long)]
    json: bool,
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 81, 1, 2));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 81, 2, 2));
const PORT: u16 = 8080;
/// Events and diary lines that may wait for the main thread. A scene has a few hundred.
const WAITING: usize = 1 << 14;
/// How long a flow may take to close after both applications are done.
const AFTERMATH: Duration = Duration::from_millis(500);

pub(super) fn demo(args: &Args) -> Result<ExitCode, Failure> {
    let scene = match &args.fault {
        None => Scene::healthy(),
        Some(rule) => Scene::of(faults::find(rule.split_whitespace().next().unwrap_or_default())?, rule),
    };
    let rules = rules(&scene)?;
    // Before any thread: a process with threads cannot enter a user namespace.
    let device = namespace::stage(CLIENT, SERVER)
        .map_err(|e| Failure::new(Failure::UNAVAILABLE, &e.what).hint(e.hint))?;
    let failed = |e: io::Error| Failure::new(Failure::FAILED, format_args!("demo: {e}"));
    let listener = TcpListener::bind(SocketAddr::new(SERVER, PORT)).map_err(failed)?;

    let clock = Clock::start();
    let (news, told) = sync_channel(WAITING);
    let engine = start_engine(device, &rules, clock, Camera(news.clone())).map_err(failed)?;
    let (play, to) = (scene.play, SocketAddr::new(SERVER, PORT));
    perform(clock, &news, "server", move |diary| script::server(play, &listener, diary)).map_err(failed)?;
    perform(clock, &news, "client", move |diary| {
        // Kept open until the process ends, if the client gave up.
        std::mem::forget(script::client(play, SocketAddr::new(CLIENT, 0), to, diary));
    })
    .map_err(failed)?;
    drop(news);
    let mut film = watch(&told, clock);
    drop(engine);
    told.try_iter().for_each(|last| film.take(last));
    match print(args, &scene, &rules, film, clock.now()) {
        // Whoever read on the other side of a pipe has seen enough.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(failed(e)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn rules(scene: &Scene) -> Result<Rules, Failure> {
    let specs: Vec<&str> = Some(scene.rule.as_str()).filter(|rule| !rule.is_empty()).into_iter().collect();
    let build = |text: &str| Rule::build(text.parse()?);
    let rules = specs.into_iter().map(build).collect::<Result<_, _>>();
    rules.and_then(|rules| Rules::new(0, Engine::Tun, rules)).map_err(|mut error| {
        let hint = error.hint.take();
        let failure = Failure::new(Failure::USAGE, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

fn start_engine(device: Device, rules: &Rules, clock: Clock, camera: Camera) -> io::Result<Handle> {
    let random = || Machine::here().random;
    let tcp = tcp::Config { secret: [random(), random()], ..tcp::Config::default() };
    let relay = relay::Settings { tcp: Arc::new(tcp), ..relay::Settings::default() };
    let settings = engine::Settings { relay, rules: Arc::new(rules.clone()), hash_seed: random(), clock };
    let mut camera = Some(camera);
    engine::start(&settings, vec![device], None, || camera.take().expect("there is one device"))
}

/// What the main thread hears.
enum News {
    Event(Record),
    Diary(script::Line),
    Done,
}

/// Passes events on. The channel is larger than any scene; were it full, the loss would be seen as a gap in the ladder,
/// and the data path would not wait.
struct Camera(SyncSender<News>);

impl Sink for Camera {
    fn record(&mut self, record: Record) {
        let _ = self.0.try_send(News::Event(record));
    }
}

/// Runs an application's part in a thread of its own.
fn perform(
    clock: Clock,
    news: &SyncSender<News>,
    who: &'static str,
    part: impl FnOnce(&mut Diary<Box<dyn FnMut(script::Line)>>) + Send + 'static,
) -> io::Result<()> {
    let news = news.clone();
    let body = move || {
        let lines = news.clone();
        // If nobody listens any more the scene is over.
        let write = Box::new(move |line| drop(lines.send(News::Diary(line))));
        part(&mut Diary { who, clock, write });
        let _ = news.send(News::Done);
    };
    std::thread::Builder::new().name(who.to_owned()).spawn(body).map(drop)
}

/// What was seen of a scene.
#[derive(Default)]
struct Film {
    records: Vec<Record>,
    diary: Vec<script::Line>,
    closed: bool,
    applications_done: u32,
}

impl Film {
    fn take(&mut self, news: News) {
        match news {
            News::Event(record) => {
                self.closed |= matches!(record.event, Event::FlowClosed { .. });
                self.records.push(record);
            }
            News::Diary(line) => self.diary.push(line),
            News::Done => self.applications_done += 1,
        }
    }

    /// True if the client was refused and is done: the server will wait for ever.
    fn has_no_server(&self) -> bool {
        self.closed && self.applications_done == 1 && self.diary.iter().all(|line| line.who == "client")
    }
}

/// Listens until the flow is closed and both applications are done, or it has taken too long.
fn watch(told: &Receiver<News>, clock: Clock) -> Film {
    let mut film = Film::default();
    let mut end = clock.now() + scene::LONGEST;
    while film.applications_done < 2 || !film.closed {
        let Ok(news) = told.recv_timeout(end.since(clock.now())) else { break };
        if matches!(news, News::Done) && film.applications_done == 1 {
            end = clock.now() + AFTERMATH;
        }
        film.take(news);
        if film.has_no_server() {
            end = end.min(clock.now() + AFTERMATH);
        }
    }
    film
}

fn print(args: &Args, scene: &Scene, rules: &Rules, film: Film, now: Instant) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if args.json {
        for record in &film.records {
            serde_json::to_writer(&mut out, record)?;
            writeln!(out)?;
        }
        return out.flush();
    }
    let style = Style { explain: true, ..paint::style(&io::stdout()) };
    let mut measure = Measure::new(rules.rules().iter().map(|rule| (rule.name.clone(), rule.kind.name)));
    let mut ladder = Ladder::new(FlowId(1));
    let start = film.records.first().map_or(now, |record| record.at);
    for record in film.records {
        ladder.record(&record);
        measure.record(record);
    }
    measure.finish(now);
    let mut text = introduction(scene, rules, &style);
    text.0.extend(ladder.draw(&style).0);
    text.0.extend([Line::default(), Line::of(Role::Title, "what the applications saw")]);
    for script::Line { at, who, text: said } in film.diary {
        let mut line = Line::of(Role::Dim, format!("{:>10.6}  ", at.since(start).as_secs_f64()));
        line.push(Role::Plain, format!("{who}  {said}"));
        text.0.push(line);
    }
    text.0.push(Line::default());
    text.0.extend(Summary::new(&measure, rules.seed(), now).draw(&style).0);
    paint::write(&mut out, &text)?;
    out.flush()
}

fn introduction(scene: &Scene, rules: &Rules, style: &Style) -> Text {
    let mut text = Text::default();
    match rules.rules().first() {
        Some(rule) => {
            text.0.push(Line::of(Role::Title, scene.rule.clone()));
            text.paragraph(style, Role::Plain, &format!("It {}.", rule.kind.summary));
        }
        None => text.paragraph(
            style,
            Role::Title,
            "A healthy connection: three-way handshake, request and reply, half-close, the rest of the reply, four-way close",
        ),
    }
    text.paragraph(
        style,
        Role::Plain,
        "Client and server are ordinary programs on the kernel's TCP; halfopen stands between them with a TCP of its own \
         on both sides. S is SYN, F is FIN, R is RST, P is PSH, a dot is ACK. Sequence numbers count from each sender's \
         first, windows are bytes.",
    );
    text.0.push(Line::default());
    text
}
