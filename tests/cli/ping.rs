//! Bad input of `ping`.

use super::Halfopen;

#[test]
fn a_ping_that_cannot_be_says_why_before_anything_is_sent() {
    let hint = "  hint: write HOST:PORT, such as db.example.com:5432, 10.0.0.2:80 or '[2001:db8::1]:443'\n";
    for (target, what) in [
        ("127.0.0.1", "the port is missing"),
        ("127.0.0.1:", "not a port from 1 to 65535"),
        ("127.0.0.1:http", "not a port from 1 to 65535"),
        ("127.0.0.1:65536", "not a port from 1 to 65535"),
        ("127.0.0.1:0", "nobody can connect to port 0"),
        (":80", "the host is missing"),
        ("::1:80", "an IPv6 address needs brackets before its port"),
        ("[::1:80", "not a host and a port"),
    ] {
        let said = Halfopen::new().says(&["ping", target]);
        assert_eq!((said.code, said.stderr), (2, format!("halfopen: {target}: {what}\n{hint}")));
    }
    let rates = "not a rate that can be had\n  hint: allowed: 0.001 to 10000 connects per second\n";
    for (option, value, what) in [
        ("--rate", "0", rates),
        ("--rate", "-1", rates),
        ("--rate", "NaN", rates),
        ("--rate", "1e9", rates),
        ("--rate", "fast", rates),
        ("--count", "0", "not a number that can be had\n  hint: allowed: 1 to 18446744073709551615\n"),
        ("--in-flight", "65537", "not a number that can be had\n  hint: allowed: 1 to 65536\n"),
        ("--timeout", "0", "out of range\n  hint: allowed: above 0, to 2m 30s\n"),
        ("--timeout", "200s", "out of range\n  hint: allowed: above 0, to 2m 30s\n"),
        ("--duration", "5", "missing unit\n  hint: write \"5ms\" or \"5s\"\n"),
    ] {
        let option_is = format!("{option}={value}");
        let said = Halfopen::new().says(&["ping", "127.0.0.1:80", &option_is]);
        assert_eq!((said.code, said.stderr), (2, format!("halfopen: {option} {value}: {what}")));
    }
    for (options, code, stderr) in [
        (
            &["--via", "kernel", "--handshake", "half"][..],
            2,
            "halfopen: --handshake half: a kernel socket completes every handshake\n  hint: leave out --via kernel\n",
        ),
        (&["-6"], 69, "halfopen: 127.0.0.1:80: has no IPv6 address\n  hint: leave out -6\n"),
        (
            &["--hlog", "none/x"],
            1,
            "halfopen: --hlog none/x: cannot be created: No such file or directory (os error 2)\n  hint: name a file in a directory that is there and may be written to\n",
        ),
    ] {
        let args = [&["ping", "127.0.0.1:80", "-n", "1"], options].concat();
        let said = Halfopen::new().says(&args);
        assert_eq!((said.code, &*said.stderr), (code, stderr), "{options:?}");
    }
    let said = Halfopen::new().says(&["ping", "127.0.0.1:80", "-n", "1", "--assert", "p99(conect) < 1s"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("no latency \"conect\"\n  hint: "), "{said:?}");
    let many = vec!["127.0.0.1:80"; 65];
    let said = Halfopen::new().says(&[&["ping"], &many[..]].concat());
    assert!(said.code == 2 && said.stderr.starts_with("halfopen: 65 targets are too many\n"), "{said:?}");
}

#[test]
fn a_ping_of_a_name_that_does_not_resolve_is_unavailable() {
    // A label of more than 63 bytes is refused by the resolver itself: nobody is asked.
    let name = format!("{}:80", "x".repeat(64));
    let said = Halfopen::new().says(&["ping", &name]);
    assert_eq!(said.code, 69, "{said:?}");
    assert!(said.stderr.starts_with(&format!("halfopen: {name}: cannot be resolved: ")), "{said:?}");
    assert_eq!(said.stderr.lines().count(), 2, "{said:?}");
}
