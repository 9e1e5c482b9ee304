use super::*;
use crate::fault::{Distribution, Limit, Slice, Spread};

fn ms(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn pipe(shape: Shape) -> Pipe {
    let mut pipe = Pipe::new(Rng::new(42, 1));
    pipe.set_shape(shape);
    pipe
}

fn spread(base: u64, jitter: u64) -> Option<Spread> {
    let [base, jitter] = [base, jitter].map(Duration::from_millis);
    Some(Spread { base, jitter, distribution: Distribution::Uniform })
}

fn bytes(len: usize) -> Bytes {
    Bytes::from(vec![7; len])
}

/// What leaves up to a time, woken as the pipe asks for: milliseconds and bytes, `F` for the end of the stream, `L` for a
/// limit.
fn leaving(pipe: &mut Pipe, until: u64) -> Vec<(u64, String)> {
    let mut out = Vec::new();
    let mut now = ms(0);
    loop {
        while let Some(flowing) = pipe.pop(now, false) {
            let what = match flowing {
                Flowing::Data(data) => data.len().to_string(),
                Flowing::Fin => "F".to_owned(),
                Flowing::Limit { reset } => format!("L{}", u8::from(reset)),
            };
            out.push((now.as_millis(), what));
        }
        match pipe.poll_timeout() {
            Some(at) if at <= ms(until) && at > now => now = at,
            _ => return out,
        }
    }
}

#[test]
fn each_value_shapes_the_bytes_as_it_says() {
    let second = Duration::from_secs(1);
    let slice = Slice { size: 40, variation: 0, delay: Duration::from_millis(10) };
    let limit = |bytes, reset| Some(Limit { bytes, reset });
    let default = Shape::default();
    for (sentence, shape, expected) in [
        ("nothing: at once", default, "0 100, 0 F"),
        ("latency holds bytes and their end", Shape { latency: spread(500, 0), ..default }, "500 100, 500 F"),
        (
            "a rate spreads them: 10 ms of it at once",
            Shape { rate: Some(5000), ..default },
            "10 50, 20 50, 20 F",
        ),
        (
            "slices leave one after the other",
            Shape { slice: Some(slice), ..default },
            "0 40, 10 40, 20 20, 20 F",
        ),
        ("what is lost does not leave, its end does", Shape { lose: true, ..default }, "0 F"),
        ("a limit cuts, and ends by FIN", Shape { limit: limit(30, false), ..default }, "0 30, 0 L0"),
        ("or by RST", Shape { limit: limit(100, true), ..default }, "0 100, 0 L1"),
        ("a limit beyond the bytes does nothing", Shape { limit: limit(101, true), ..default }, "0 100, 0 F"),
        ("a limit of nothing lets nothing through", Shape { limit: limit(0, true), ..default }, "0 L1"),
        ("the end waits", Shape { fin_delay: second, ..default }, "0 100, 1000 F"),
        ("the end is lost", Shape { lose_fin: true, ..default }, "0 100"),
        ("the end waits for the other direction", Shape { fin_last: true, ..default }, "0 100"),
        ("stalled, nothing leaves", Shape { stalled: true, ..default }, ""),
    ] {
        let mut pipe = pipe(shape);
        pipe.push(ms(0), bytes(100));
        pipe.close(ms(0));
        let seen: Vec<String> =
            leaving(&mut pipe, 5000).into_iter().map(|(at, what)| format!("{at} {what}")).collect();
        assert_eq!(seen.join(", "), expected, "{sentence}");
    }
}

#[test]
fn jitter_keeps_the_order() {
    let mut pipe = pipe(Shape { latency: spread(50, 50), ..Shape::default() });
    for len in 1..=100 {
        pipe.push(ms(0), bytes(len));
    }
    let left = leaving(&mut pipe, 1000);
    let sizes: Vec<usize> = left.iter().map(|(_, len)| len.parse().unwrap()).collect();
    assert_eq!(sizes, (1..=100).collect::<Vec<_>>());
    assert!(left.iter().all(|(at, _)| *at <= 100), "{left:?}");
}

#[test]
fn bytes_are_counted_and_a_buffer_holds_the_writer_back() {
    let mut pipe = pipe(Shape { rate: Some(1000), buffer: Some(300), ..Shape::default() });
    assert_eq!((pipe.bytes(), pipe.room()), (0, Some(300)));
    pipe.push(ms(0), bytes(200));
    assert_eq!((pipe.bytes(), pipe.room()), (200, Some(100)));
    pipe.push(ms(0), bytes(200));
    assert_eq!((pipe.bytes(), pipe.room()), (400, Some(0)), "what the window already allowed is taken");
    assert_eq!(leaving(&mut pipe, 100).len(), 10);
    assert_eq!(pipe.bytes(), 300);
    pipe.clear();
    assert_eq!((pipe.bytes(), pipe.is_idle(), pipe.poll_timeout()), (0, true, None));
}

#[test]
fn what_is_stalled_goes_on_when_the_stall_ends() {
    let mut pipe = pipe(Shape { stalled: true, ..Shape::default() });
    pipe.push(ms(0), bytes(5));
    pipe.close(ms(1));
    assert_eq!((pipe.pop(ms(9), false), pipe.poll_timeout(), pipe.is_idle()), (None, None, false));
    pipe.set_shape(Shape::default());
    assert_eq!(leaving(&mut pipe, 10), [(0, "5".to_owned()), (1, "F".to_owned())]);
    assert!(pipe.is_idle());
}
