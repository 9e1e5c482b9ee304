use super::*;
use crate::time::Instant;

fn leg() -> SocketLeg {
    let [client, server] = ["192.0.2.2:1234", "192.0.2.1:80"].map(|at| at.parse().unwrap());
    let mut leg = SocketLeg::dial(
        &mut Cx::new(Instant::ZERO, &mut trace::NoSink),
        client,
        server,
        SocketOffer::default(),
    );
    assert!(matches!(leg.poll_command(), Some(SocketCommand::Dial { .. })));
    leg
}

fn tell(leg: &mut SocketLeg, event: SocketEvent) {
    leg.on_event(&mut Cx::new(Instant::ZERO, &mut trace::NoSink), event);
}

#[test]
fn nothing_is_commanded_after_the_end() {
    let mut leg = leg();
    leg.abort();
    leg.set_receive_space(100_000);
    leg.send(Bytes::from_static(b"late"));
    leg.shutdown();
    leg.probe();
    assert_eq!((leg.poll_command(), leg.poll_command()), (Some(SocketCommand::Abort), None));
}

#[test]
fn reading_needs_credit_and_credit_comes_in_steps() {
    let mut leg = leg();
    leg.set_receive_space(100_000);
    assert_eq!(leg.poll_command(), Some(SocketCommand::Read { credit: 100_000 }));
    tell(&mut leg, SocketEvent::Data { data: Bytes::from_static(&[0; 1000]), urgent: false });
    leg.set_receive_space(100_000);
    assert_eq!(leg.poll_command(), None, "1000 bytes that still wait here are no reason to read on");
    assert_eq!(leg.recv().unwrap().len(), 1000);
    leg.set_receive_space(99_500);
    assert_eq!(leg.poll_command(), None, "a small renewal waits");
    leg.set_receive_space(170_000);
    assert_eq!(leg.poll_command(), Some(SocketCommand::Read { credit: 71_000 }));
}

#[test]
fn the_socket_closes_when_both_directions_are_through() {
    let mut leg = leg();
    leg.send(Bytes::from_static(b"bye"));
    leg.shutdown();
    leg.poll_command();
    assert_eq!(leg.poll_command(), Some(SocketCommand::Shutdown));
    tell(&mut leg, SocketEvent::Eof);
    assert_eq!((leg.poll_command(), leg.poll_event()), (None, Some(Event::FinReceived)));
    tell(&mut leg, SocketEvent::Sent(3));
    assert_eq!((leg.poll_command(), leg.poll_event()), (Some(SocketCommand::Close), Some(Event::Closed)));
}

#[test]
fn an_abort_follows_what_was_written_and_ends_the_events() {
    let mut leg = leg();
    leg.send(Bytes::from_static(b"last words"));
    leg.abort();
    assert!(matches!(leg.poll_command(), Some(SocketCommand::Write { .. })));
    assert_eq!((leg.poll_command(), leg.poll_command()), (Some(SocketCommand::Abort), None));
    tell(&mut leg, SocketEvent::Connected);
    assert_eq!((leg.poll_event(), leg.poll_event()), (Some(Event::Closed), None), "late events are ignored");
}

#[test]
fn a_vanished_leg_is_silent_until_the_server_speaks() {
    let mut leg = leg();
    leg.vanish();
    leg.send(Bytes::from_static(b"never"));
    leg.shutdown();
    assert_eq!((leg.poll_command(), leg.poll_event()), (None, None));
    tell(&mut leg, SocketEvent::Data { data: Bytes::from_static(b"hello?"), urgent: false });
    assert_eq!((leg.poll_command(), leg.poll_event()), (Some(SocketCommand::Abort), Some(Event::Closed)));
}

#[test]
fn the_urgent_byte_ends_a_write() {
    let mut leg = leg();
    leg.set_urgent(3);
    leg.send(Bytes::from_static(b"abcd"));
    let write =
        |data: &'static [u8], urgent| Some(SocketCommand::Write { data: Bytes::from_static(data), urgent });
    assert_eq!((leg.poll_command(), leg.poll_command()), (write(b"abc", true), write(b"d", false)));
}
