//! How fast one stream is by window and loss, in virtual time: a change of the congestion control or of the loss recovery shows
//! here. Golden: `tests/golden/throughput.txt`.

mod golden;

use std::fmt::Write as _;

use halfopen::sim::host::{App, Close, End, linux_syn};
use halfopen::sim::link::Weather;
use halfopen::sim::world::{Setup, World};
use halfopen::tcp::{Config, Congestion, SynOptions};
use halfopen::time::Duration;
use halfopen::trace::NoSink;

const BYTES: u64 = 8_000_000;
const LOSS: [f64; 4] = [0.0, 0.001, 0.01, 0.05];
const WINDOWS: [u32; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// Megabits per second of one transfer over 100 Mbit/s and 20 ms.
fn speed(congestion: Congestion, syn: SynOptions, loss: f64, window: u32) -> f64 {
    let weather = Weather {
        delay: Duration::from_millis(10),
        rate: Some(12_500_000),
        queue: Duration::from_millis(20),
        loss,
        ..Weather::default()
    };
    let sender =
        App { send: BYTES, chunk: 64 << 10, send_buffer: 4 << 20, close: Close::WhenSent, ..App::default() };
    let setup = Setup {
        seed: 1,
        config: Config { congestion, buffer: window, ..Config::default() },
        client_syn: syn,
        server_syn: syn,
        client: sender,
        upstream: weather,
        downstream: Weather { loss: 0.0, ..weather },
        ..Setup::default()
    };
    let mut world = World::new(setup, NoSink);
    let mut seconds = 0.0;
    while world.server.received < BYTES {
        world.run_for(Duration::from_millis(10)).expect("no rule of TCP is broken");
        seconds += 0.01;
        assert!(seconds < 3600.0, "{} bytes in an hour", world.server.received);
    }
    world.run(Duration::from_secs(3600)).expect("no rule of TCP is broken");
    assert_eq!((world.client.end, world.server.end), (Some(End::Closed), Some(End::Closed)));
    BYTES as f64 * 8.0 / 1e6 / seconds
}

#[test]
fn one_stream_is_as_fast_as_window_and_loss_allow() {
    let without_sack = SynOptions { sack: false, ..linux_syn() };
    let tables = [
        ("CUBIC, SACK", Congestion::Cubic, linux_syn()),
        ("NewReno, SACK", Congestion::NewReno, linux_syn()),
        ("CUBIC, no SACK", Congestion::Cubic, without_sack),
        ("NewReno, no SACK", Congestion::NewReno, without_sack),
    ];
    let mut text =
        String::from("8 MB over 100 Mbit/s, round trip 20 ms, queue 20 ms; Mbit/s by window and loss\n");
    for (name, congestion, syn) in tables {
        let _ = write!(text, "\n{name:<16}");
        for loss in LOSS {
            let _ = write!(text, "{:>8}", format!("{} %", loss * 100.0));
        }
        text.push('\n');
        for window in WINDOWS {
            let _ = write!(text, "{:<16}", format!("{} KiB", window >> 10));
            for loss in LOSS {
                let _ = write!(text, "{:>8.1}", speed(congestion, syn, loss, window));
            }
            text.push('\n');
        }
    }
    golden::check("throughput.txt", &text);
}
