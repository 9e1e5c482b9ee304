//! The scenes of the faults in virtual time: client, halfopen and server, and what halfopen tells of it.

use super::host::{App, Close};
use super::trio::Trio;
use super::world::Setup;
use crate::fault::{Play, Rules};
use crate::time::Duration;
use crate::trace::Record;

/// How long a scene is watched.
const SHOWN: Duration = Duration::from_secs(4);

/// The events of the first four seconds of a flow under these rules. The seed of the world is that of the dice.
///
/// # Errors
/// A broken rule of TCP.
pub fn perform(rules: Rules, play: Play) -> Result<Vec<Record>, String> {
    let (client, server) = applications(play);
    let setup = Setup { seed: rules.seed(), client, server, ..Setup::default() };
    let mut trio = Trio::new(setup, rules, Vec::new());
    if play == Play::Extensions {
        trio.client.host.ask_for_extensions();
    }
    trio.run_for(SHOWN)?;
    trio.close();
    Ok(trio.sink)
}

/// What client and server do; they do not listen to each other as those of the demo do.
fn applications(play: Play) -> (App, App) {
    let pause = Duration::from_millis(300);
    let client = |send, chunk, close| App { send, chunk, pause, close, ..App::default() };
    let server = |send, close| App { send, close, ..App::default() };
    match play {
        Play::Talk | Play::Extensions => (client(100, 100, Close::WhenSent), server(2000, Close::AfterPeer)),
        Play::ServerCloses => (client(100, 100, Close::AfterPeer), server(2000, Close::WhenSent)),
        Play::TwoWrites => (client(150, 50, Close::WhenSent), server(2000, Close::AfterPeer)),
        Play::Upload => (client(60_000, 20_000, Close::WhenSent), server(2000, Close::AfterPeer)),
        Play::Download => (client(100, 100, Close::AfterPeer), server(60_000, Close::WhenSent)),
        Play::Pause => (
            App { pause: Duration::from_millis(1200), ..client(200, 100, Close::WhenSent) },
            App { chunk: 2000, pause: Duration::from_millis(1200), ..server(4000, Close::AfterPeer) },
        ),
        Play::Greeting => (
            App { wait: pause, ..client(100, 100, Close::WhenSent) },
            App { chunk: 50, pause, ..server(100, Close::AfterPeer) },
        ),
        Play::EachCloses => {
            (App { wait: pause, ..client(100, 100, Close::WhenSent) }, server(2000, Close::WhenSent))
        }
        Play::Idle => (
            App { keepalive: Some(Duration::from_secs(1)), ..client(100, 100, Close::AfterPeer) },
            server(2000, Close::AfterPeer),
        ),
    }
}
