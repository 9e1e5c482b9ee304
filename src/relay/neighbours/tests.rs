use super::*;
use crate::trace::Record;
use crate::wire::{Flags, Options, Timestamps};

struct Bench {
    neighbours: Neighbours,
    log: Vec<Record>,
}

impl Bench {
    fn new(asked: Asked, limit: usize) -> Self {
        Self { neighbours: Neighbours::new(asked, limit), log: Vec::new() }
    }

    /// A SYN from 10.0.0.`client`:`port` to 10.0.1.`server`:80 at this millisecond.
    fn opens(&mut self, millis: u64, client: u8, port: u16, server: u8, stamp: Option<u32>) -> Circumstances {
        let options =
            Options { timestamps: stamp.map(|val| Timestamps { val, ecr: 0 }), ..Options::default() };
        let syn = Segment { flags: Flags::SYN, options, ..Segment::default() };
        let cx = &mut Cx::new(Instant::from_millis(millis), &mut self.log);
        self.neighbours.on_open(cx, tuple(client, port, server), &syn)
    }

    fn ends(&mut self, millis: u64, client: u8, port: u16, server: u8) {
        let cx = &mut Cx::new(Instant::from_millis(millis), &mut self.log);
        self.neighbours.on_end(cx, tuple(client, port, server));
    }

    fn hits(&self) -> usize {
        let hit = Event::LimitHit { limit: "limits.neighbours" };
        self.log.iter().filter(|record| record.event == hit).count()
    }
}

fn tuple(client: u8, port: u16, server: u8) -> Tuple {
    Tuple { src: ([10, 0, 0, client], port).into(), dst: ([10, 0, 1, server], 80).into() }
}

fn ms(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

const NOTHING: Asked = Asked { sibling: None, reused: None, stamp_behind: None, crowd: false };

#[test]
fn what_nobody_asks_is_not_remembered() {
    let mut bench = Bench::new(NOTHING, 1);
    for port in 1..=3 {
        let found = bench.opens(5, 1, port, 1, Some(9));
        assert_eq!(found, Circumstances::alone(Instant::from_millis(5)));
        bench.ends(6, 1, port, 1);
    }
    assert_eq!(bench.hits(), 0);
}

#[test]
fn a_sibling_is_the_last_flow_before_to_the_same_server() {
    let mut bench = Bench::new(Asked { sibling: ms(100), ..NOTHING }, 8);
    assert_eq!(bench.opens(0, 1, 1, 1, None).sibling, None);
    assert_eq!(bench.opens(10, 2, 1, 1, None).sibling, ms(10));
    assert_eq!(bench.opens(10, 1, 2, 2, None).sibling, None, "another server");
    assert_eq!(bench.opens(12, 1, 3, 1, None).sibling, ms(2));
    assert_eq!(bench.opens(112, 1, 4, 1, None).sibling, ms(100));
    assert_eq!(bench.opens(213, 1, 5, 1, None).sibling, None, "too long ago");
}

#[test]
fn addresses_and_ports_are_used_again_after_the_end_of_a_flow() {
    let mut bench = Bench::new(Asked { reused: ms(1000), ..NOTHING }, 8);
    bench.opens(0, 1, 7, 1, None);
    bench.ends(50, 1, 7, 1);
    assert_eq!(bench.opens(60, 1, 8, 1, None).reused, None, "another port");
    assert_eq!(bench.opens(60, 2, 7, 1, None).reused, None, "another client");
    assert_eq!(bench.opens(60, 1, 7, 2, None).reused, None, "another server");
    assert_eq!(bench.opens(60, 1, 7, 1, None).reused, ms(10));
    bench.ends(100, 1, 7, 1);
    assert_eq!(bench.opens(1100, 1, 7, 1, None).reused, ms(1000), "counted from the last end");
    bench.ends(1200, 1, 7, 1);
    assert_eq!(bench.opens(2201, 1, 7, 1, None).reused, None, "too long ago");
}

#[test]
fn a_timestamp_is_behind_the_latest_from_its_address_and_does_not_set_it_back() {
    let mut bench = Bench::new(Asked { stamp_behind: ms(60_000), ..NOTHING }, 8);
    assert_eq!(bench.opens(0, 1, 1, 1, Some(500)).stamp_behind, None);
    assert_eq!(bench.opens(10, 1, 2, 2, Some(400)).stamp_behind, ms(10), "whatever the server");
    assert_eq!(bench.opens(20, 1, 3, 1, Some(450)).stamp_behind, ms(20), "of the latest");
    assert_eq!(bench.opens(20, 2, 1, 1, Some(10)).stamp_behind, None, "another address");
    assert_eq!(bench.opens(25, 1, 4, 1, None).stamp_behind, None, "it has none");
    assert_eq!(bench.opens(30, 1, 5, 1, Some(500)).stamp_behind, None, "as late");
    assert_eq!(bench.opens(60_030, 1, 6, 1, Some(400)).stamp_behind, ms(60_000));
    assert_eq!(bench.opens(60_031, 1, 7, 1, Some(400)).stamp_behind, None, "too long ago");
    assert_eq!(bench.opens(60_032, 1, 8, 1, Some(399)).stamp_behind, ms(1));
    assert_eq!(bench.opens(60_033, 3, 1, 1, Some(u32::MAX)).stamp_behind, None);
    assert_eq!(bench.opens(60_034, 3, 2, 1, Some(3)).stamp_behind, None, "it has wrapped");
}

#[test]
fn the_crowd_of_a_server_is_its_open_flows() {
    let mut bench = Bench::new(Asked { crowd: true, ..NOTHING }, 8);
    let crowds = [(1, 1), (2, 1), (1, 2), (3, 1)]
        .map(|(client, server)| bench.opens(0, client, 1, server, None).crowd);
    assert_eq!(crowds, [1, 2, 1, 3]);
    bench.ends(1, 1, 1, 1);
    bench.ends(1, 1, 1, 2);
    assert_eq!([1, 2].map(|server| bench.opens(2, 4, 1, server, None).crowd), [3, 1]);
}

#[test]
fn the_memory_is_bounded_and_forgets_what_was_noted_longest_ago() {
    let all = Asked { sibling: ms(1000), reused: ms(1000), stamp_behind: ms(1000), crowd: true };
    let mut bench = Bench::new(all, 2);
    bench.opens(0, 1, 1, 1, Some(100));
    bench.opens(1, 2, 1, 2, Some(100));
    bench.opens(2, 1, 2, 1, Some(100));
    assert_eq!(bench.hits(), 0, "two of each");
    bench.opens(3, 3, 1, 3, Some(100));
    assert_eq!(bench.hits(), 1, "told once, whatever was full");
    let first = bench.opens(4, 1, 3, 1, Some(99));
    assert_eq!((first.sibling, first.stamp_behind, first.crowd), (ms(2), ms(2), 3));
    let second = bench.opens(5, 2, 2, 2, Some(99));
    assert_eq!((second.sibling, second.stamp_behind, second.crowd), (None, None, 1), "forgotten");
    bench.ends(6, 2, 1, 2);
    bench.ends(6, 2, 2, 2);
    assert_eq!(bench.opens(7, 2, 3, 2, None).crowd, 1, "an end of what was forgotten is no harm");
}

#[test]
fn new_rules_know_the_open_flows_and_what_was_asked_before() {
    let mut bench = Bench::new(Asked { sibling: ms(50), ..NOTHING }, 8);
    bench.opens(0, 1, 1, 1, Some(100));
    let asked = Asked { sibling: ms(100), crowd: true, stamp_behind: ms(100), ..NOTHING };
    bench.neighbours.ask(asked, [tuple(1, 1, 1), tuple(2, 1, 1)].into_iter());
    let found = bench.opens(10, 1, 2, 1, Some(99));
    assert_eq!((found.sibling, found.crowd, found.stamp_behind), (ms(10), 3, None));
    bench.neighbours.ask(NOTHING, std::iter::empty());
    bench.neighbours.ask(asked, std::iter::empty());
    assert_eq!(bench.opens(11, 1, 3, 1, None), Circumstances::alone(Instant::from_millis(11)));
}
