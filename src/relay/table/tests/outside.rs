//! What is asked of a table from outside.

use super::*;
use crate::relay::NotKilled;
use crate::trace::Kill;

#[test]
fn a_table_is_looked_at_in_pieces_and_each_flow_is_found_once() {
    let mut bench = Bench::new(Limits::default());
    let ports = 1000..1600;
    for port in ports.clone() {
        bench.arrive(tuple(port), segment(Flags::SYN, 100, 0));
    }
    let (mut from, mut pieces, mut seen) = (Some(0), 0, Vec::new());
    while let Some(piece) = from {
        let looked = bench.table.look(bench.now, piece, None);
        seen.extend(looked.flows.iter().map(|(_, flow)| flow.client.port()));
        (from, pieces) = (looked.next, pieces + 1);
    }
    seen.sort_unstable();
    assert_eq!(seen, ports.collect::<Vec<_>>());
    assert!(pieces >= 3, "{pieces}");
}

#[test]
fn a_killed_flow_is_remembered_but_listed_no_more_and_its_slot_kills_no_other() {
    let mut bench = Bench::new(Limits::default());
    bench.open(tuple(1000));
    let kill = |bench: &mut Bench, slot, flow| {
        let cx = &mut Cx::new(bench.now, &mut bench.log);
        let killed = bench.table.kill(cx, slot, FlowId(flow), Kill::Vanish);
        bench.serve();
        killed
    };
    assert_eq!(kill(&mut bench, 0, 2), Err(NotKilled::Unknown));
    assert_eq!(kill(&mut bench, 7, 1), Err(NotKilled::Unknown));
    assert_eq!(kill(&mut bench, 0, 1), Ok(()));
    assert_eq!(bench.closed(), [(1, Outcome::Killed)]);
    assert_eq!((bench.table.open_flows(), bench.table.queued()), (0, 0));
    assert!(bench.table.look(bench.now, 0, None).flows.is_empty());
    let looked = bench.table.look(bench.now, 0, Some(FlowId(1)));
    assert_eq!(looked.flows[0].1.outcome, Some(Outcome::Killed));
    // Its peers get no answer, not even a RST, until the client opens another connection from the same port.
    assert!(matches!(bench.arrive(tuple(1000), segment(Flags::ACK, 101, 1)), Route::To(..)));
    assert!(bench.sent.is_empty());
    bench.arrive(tuple(1000), segment(Flags::SYN, 5000, 0));
    assert_eq!(bench.table.look(bench.now, 0, None).flows[0].1.flow, FlowId(2));
}
