use super::*;
use crate::time::Duration;
use crate::trace::Direction;

const DOCS: &[AttributeDoc] = &[
    doc("delay", Unit::Duration { max_secs: 300 }, "200ms"),
    doc("size", Unit::Bytes, ""),
    doc("on", Unit::Bool, "true"),
    doc("direction", DIRECTIONS, "downstream"),
    doc("first", Unit::First, ""),
    doc("nth", Unit::Ordinals, ""),
    doc("share", Unit::Share, ""),
    doc("server", Unit::Peer, "any"),
    doc("copies", Unit::Count { from: 1, to: 64 }, "1"),
    doc("slots", Unit::Count { from: 0, to: u64::MAX }, ""),
    doc("offset", Unit::Number { from: -2_147_483_648, to: 2_147_483_647 }, "-1"),
    doc("rate", Unit::Rate, ""),
    doc("sides", DIRECTIONS_BOTH, "both"),
    doc("options", Unit::Words(&["mss", "wscale", "sack"]), "wscale,sack"),
];

const fn doc(name: &'static str, unit: Unit, default: &'static str) -> AttributeDoc {
    AttributeDoc { name, unit, default, zero: "", doc: "" }
}

fn given(name: &str, value: Value) -> Attributes {
    Attributes::from([(name.to_owned(), value)])
}

#[test]
fn defaults_come_from_the_documentation() {
    let none = Attributes::new();
    let reader = Reader::new(&none, DOCS);
    assert_eq!(reader.duration("delay"), Ok(Some(Duration::from_millis(200))));
    assert_eq!(reader.bytes("size"), Ok(None));
    assert_eq!(reader.flag("on"), Ok(Some(true)));
    assert_eq!(reader.direction("direction"), Ok(Direction::Downstream));
    assert_eq!(reader.first("first"), Ok(None));
    assert_eq!((reader.count("copies"), reader.count("slots")), (Ok(Some(1)), Ok(None)));
    assert_eq!((reader.number("offset"), reader.rate("rate")), (Ok(Some(-1)), Ok(None)));
    assert_eq!(reader.directions("sides"), Ok(Directions::Both));
    assert_eq!(reader.words("options"), Ok(Some(vec!["wscale", "sack"])));
}

#[test]
fn durations_and_sizes_are_read_with_their_units() {
    for (text, millis) in [("1.5s", 1500), ("200ms", 200), ("0", 0), ("2min", 120_000), ("300s", 300_000)] {
        let a = given("delay", text.into());
        let read = Reader::new(&a, DOCS).duration("delay");
        assert_eq!(read, Ok(Some(Duration::from_millis(millis))), "{text}");
    }
    for (text, bytes) in [("64KiB", 65_536), ("1000", 1000), ("1 MB", 1_000_000), ("0", 0), ("7B", 7)] {
        let a = given("size", text.into());
        assert_eq!(Reader::new(&a, DOCS).bytes("size"), Ok(Some(bytes)), "{text}");
    }
    let a = given("size", Value::Int(65_536));
    assert_eq!(Reader::new(&a, DOCS).bytes("size"), Ok(Some(65_536)));
}

#[test]
fn rates_are_bytes_per_second_whatever_their_unit() {
    for (text, bytes) in [
        ("1000", 1000),
        ("0", 0),
        ("8bit", 1),
        ("1Mbit", 125_000),
        ("1.5 Mbit/s", 187_500),
        ("56kbit", 7_000),
        ("10Gbit", 1_250_000_000),
        ("125KB/s", 125_000),
        ("125kB/s", 125_000),
        ("64KiB/s", 65_536),
        ("0.5MiB/s", 524_288),
    ] {
        let a = given("rate", text.into());
        assert_eq!(Reader::new(&a, DOCS).rate("rate"), Ok(Some(bytes)), "{text}");
    }
    let a = given("rate", Value::Float(1.5));
    assert_eq!(Reader::new(&a, DOCS).rate("rate"), Ok(Some(1)), "a fraction of a byte is cut off");
}

#[test]
fn counts_numbers_directions_and_lists_are_read() {
    for (name, text, read) in [
        ("copies", "64", "Some(64)"),
        ("slots", "0xffffff00", "Some(4294967040)"),
        ("slots", "0", "Some(0)"),
        ("slots", "18446744073709551615", "Some(18446744073709551615)"),
        ("offset", "-2147483648", "Some(-2147483648)"),
        ("offset", "+1", "Some(1)"),
        ("options", "sack, mss", "Some([\"sack\", \"mss\"])"),
        ("sides", "upstream", "One(Upstream)"),
        ("sides", "downstream", "One(Downstream)"),
        ("sides", "both", "Both"),
    ] {
        let a = given(name, text.into());
        let r = Reader::new(&a, DOCS);
        let found = match name {
            "offset" => format!("{:?}", r.number(name).unwrap()),
            "options" => format!("{:?}", r.words(name).unwrap()),
            "sides" => format!("{:?}", r.directions(name).unwrap()),
            _ => format!("{:?}", r.count(name).unwrap()),
        };
        assert_eq!(found, read, "{name} {text}");
    }
    let (up, down) = (Direction::Upstream, Direction::Downstream);
    for (sides, contains, first) in [
        (Directions::Both, [true, true], up),
        (Directions::One(up), [true, false], up),
        (Directions::One(down), [false, true], down),
    ] {
        assert_eq!(([up, down].map(|d| sides.contains(d)), sides.first()), (contains, first), "{sides:?}");
    }
}

#[test]
fn a_unit_that_has_zero_says_so() {
    let zero: Vec<&str> = DOCS.iter().filter(|doc| doc.unit.takes_zero()).map(|doc| doc.name).collect();
    assert_eq!(zero, ["delay", "size", "share", "slots", "offset", "rate"]);
}

/// What is wrong with `value` at `name`, up to what is allowed, and the hint.
fn told(name: &str, value: Value) -> String {
    let error = error(&given(name, value), name);
    let (problem, rest) = error.split_once("; allowed: ").unwrap();
    let hint = rest.split_once("\nhint: ").map_or(String::new(), |(_, hint)| format!(" ({hint})"));
    format!("{problem}{hint}")
}

#[test]
fn wrong_rates_counts_and_lists_are_told_with_what_was_meant() {
    for (name, value, expected) in [
        ("copies", Value::Int(0), "copies = 0: too small"),
        ("copies", Value::Int(65), "copies = 65: too large"),
        ("copies", Value::Float(1.5), "copies = 1.5: not a whole number"),
        ("slots", Value::Int(-1), "slots = -1: not a whole number"),
        ("offset", "2147483648".into(), "offset = \"2147483648\": too large"),
        ("offset", "-2147483649".into(), "offset = \"-2147483649\": too small"),
        ("offset", "one".into(), "offset = \"one\": not a whole number"),
        ("rate", "fast".into(), "rate = \"fast\": not a number of bytes per second"),
        ("rate", Value::Int(-5), "rate = -5: not a number of bytes per second"),
        ("rate", "1e9".into(), "rate = \"1e9\": not a number of bytes per second"),
        ("rate", "64KiB".into(), "rate = \"64KiB\": unknown unit \"KiB\" (did you mean \"64KiB/s\"?)"),
        ("rate", "1mbit".into(), "rate = \"1mbit\": unknown unit \"mbit\" (did you mean \"1Mbit\"?)"),
        ("rate", "1Mbps".into(), "rate = \"1Mbps\": unknown unit \"Mbps\" (write \"Mbit\" or \"MB/s\")"),
        ("rate", "7bit".into(), "rate = \"7bit\": less than a byte per second"),
        ("rate", "99999999999GB/s".into(), "rate = \"99999999999GB/s\": too large"),
        ("sides", "all".into(), "sides = \"all\": not one of the known words"),
        (
            "options",
            "wscal,sack".into(),
            "options = \"wscal,sack\": \"wscal\" is unknown (did you mean \"wscale\"?)",
        ),
        ("options", "".into(), "options = \"\": \"\" is unknown"),
        ("options", "sack,sack".into(), "options = \"sack,sack\": \"sack\" is given twice"),
    ] {
        assert_eq!(told(name, value), expected);
    }
    let allowed = |name: &str| DOCS.iter().find(|doc| doc.name == name).unwrap().unit.range();
    assert_eq!(allowed("copies"), "a whole number from 1 to 64");
    assert_eq!(allowed("slots"), "a whole number from 0");
    assert_eq!(allowed("offset"), "a whole number from -2147483648 to 2147483647");
    assert_eq!(allowed("rate"), "0 or more bytes per second, such as 1000, \"64KiB/s\" or \"1.5Mbit\"");
    assert_eq!(allowed("options"), "one or more of mss, wscale, sack, joined by commas");
}

#[test]
fn errors_name_key_value_what_is_allowed_and_the_nearest_name() {
    let rows: [(&str, Value, &str); 12] = [
        (
            "delay",
            Value::Int(200),
            "delay = 200: missing unit; allowed: 0 to 5m, with a unit such as \"200ms\" or \"1.5s\"\nhint: write \"200ms\" or \"200s\"",
        ),
        (
            "delay",
            "301s".into(),
            "delay = \"301s\": too long; allowed: 0 to 5m, with a unit such as \"200ms\" or \"1.5s\"",
        ),
        (
            "delay",
            "soon".into(),
            "delay = \"soon\": not a duration; allowed: 0 to 5m, with a unit such as \"200ms\" or \"1.5s\"",
        ),
        (
            "size",
            "64kib".into(),
            "size = \"64kib\": unknown unit \"kib\"; allowed: 0 or more bytes, such as 1000 or \"64KiB\"\nhint: did you mean \"64KiB\"?",
        ),
        (
            "size",
            Value::Int(-1),
            "size = -1: not a number of bytes; allowed: 0 or more bytes, such as 1000 or \"64KiB\"",
        ),
        (
            "size",
            "99999999999GiB".into(),
            "size = \"99999999999GiB\": too large; allowed: 0 or more bytes, such as 1000 or \"64KiB\"",
        ),
        ("on", "yes".into(), "on = \"yes\": not true or false; allowed: true or false"),
        (
            "direction",
            "downsteam".into(),
            "direction = \"downsteam\": not one of the known words; allowed: upstream, downstream\nhint: did you mean \"downstream\"?",
        ),
        (
            "first",
            Value::Int(0),
            "first = 0: not a count from 1; allowed: \"all\" or a count from 1\nhint: leave the rule out to never act",
        ),
        (
            "nth",
            "0".into(),
            "nth = \"0\": numbers start at 1; allowed: numbers from 1, such as 2, \"1,4-6\" or \"3..\"",
        ),
        (
            "share",
            Value::Int(20),
            "share = 20: not a share from 0 to 1; allowed: 0 to 1\nhint: 20 percent is 0.2",
        ),
        (
            "server",
            "10.0.0.0/33".into(),
            "server = \"10.0.0.0/33\": \"10.0.0.0/33\" is neither an address nor a network; allowed: \"any\", an address or a network, such as \"10.0.0.0/8:5432\", \":80-89\" or \"[fd00::/8]:443\"",
        ),
    ];
    for (name, value, expected) in rows {
        assert_eq!(error(&given(name, value), name), expected);
    }
}

/// Reads the attribute by the unit of its documentation.
fn error(given: &Attributes, name: &str) -> String {
    let r = Reader::new(given, DOCS);
    let read = match name {
        "delay" => r.duration(name).map(|_| ()),
        "size" => r.bytes(name).map(|_| ()),
        "on" => r.flag(name).map(|_| ()),
        "direction" => r.direction(name).map(|_| ()),
        "first" => r.first(name).map(|_| ()),
        "nth" => r.ordinals(name).map(|_| ()),
        "share" => r.share(name).map(|_| ()),
        "copies" | "slots" => r.count(name).map(|_| ()),
        "offset" => r.number(name).map(|_| ()),
        "rate" => r.rate(name).map(|_| ()),
        "sides" => r.directions(name).map(|_| ()),
        "options" => r.words(name).map(|_| ()),
        _ => r.peer(name).map(|_| ()),
    };
    read.unwrap_err().to_string()
}

#[test]
fn values_come_from_json_and_lists_are_another_way_to_write_commas() {
    let json = r#"{"a": true, "b": 2, "c": 0.5, "d": "x", "e": [1, "4-6"]}"#;
    let a: Attributes = serde_json::from_str(json).unwrap();
    let text: Vec<String> = a.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(text.join(" "), "a=true b=2 c=0.5 d=x e=1,4-6");
    let error = serde_json::from_str::<Value>(r#"{"x": 1}"#).unwrap_err().to_string();
    assert!(error.contains("expected true, false, a number, text or a list of these"), "{error}");
}
