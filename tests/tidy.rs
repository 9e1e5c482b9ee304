//! The house rules, held over the source tree: which module may name which (docs in `src/lib.rs`), what the core never
//! touches, where `unsafe` may live, how long files and functions get. A breach is told as `file:line: rule`.

#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::fs;
use std::path::Path;

/// Longest file, in lines.
const MAX_FILE: usize = 500;
/// Longest function, in lines of code between its braces.
const MAX_FUNCTION: usize = 70;

/// What every core module may name.
const BASE: &[&str] = &["cx", "rng", "time", "trace", "wire"];

/// Module, what it may name besides itself, and whether it may name [`BASE`] too.
const ARROWS: &[(&str, &[&str], bool)] = &[
    ("time", &[], false),
    ("rng", &[], false),
    ("wire", &[], false),
    ("trace", &["time", "wire"], false),
    ("cx", &["time", "trace", "wire"], false),
    ("tcp", &[], true),
    ("fault", &["tcp::knobs", "tcp::Knobs"], true),
    ("relay", &["tcp", "fault"], true),
    ("ping", &["tcp"], true),
    ("measure", &[], true),
    ("report", &["measure"], true),
    ("capture", &[], true),
    ("sim", &["tcp", "fault", "relay", "measure", "report", "capture"], true),
    ("engine", &["tcp", "fault", "relay", "ping", "measure", "capture"], true),
    (
        "setup",
        &[
            "engine::tun",
            "engine::exec::address",
            "engine::sockets::be_transparent",
            "engine::sockets::AnswerMarks",
            "engine::sockets::Cut",
            "engine::sockets::Queue",
            "engine::sockets::UNREACHABLE",
        ],
        true,
    ),
    ("config", &["tcp", "fault", "relay"], true),
    ("control", &["config", "engine", "fault", "measure", "report"], true),
    (
        "app",
        &[
            "config", "control", "engine", "setup", "tcp", "fault", "relay", "ping", "measure", "report",
            "capture",
        ],
        true,
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "control",
            "engine",
            "setup",
            "tcp",
            "fault",
            "relay",
            "ping",
            "measure",
            "report",
            "capture",
            "sim::scene",
        ],
        true,
    ),
    ("main", &["cli"], false),
];

/// Modules without clock, system, files, logging or threads.
const CORE: &[&str] = &[
    "time", "rng", "cx", "trace", "wire", "tcp", "fault", "relay", "ping", "measure", "report", "capture",
    "sim",
];

/// Crates that the core never names.
const HOST_CRATES: &[&str] = &[
    "anstream",
    "anyhow",
    "clap",
    "figment",
    "libc",
    "mio",
    "nix",
    "socket2",
    "tokio",
    "tracing",
    "tracing_subscriber",
];

/// Parts of the standard library that the core never names.
const HOST_STD: &[&str] = &[
    "env",
    "fs",
    "io::stderr",
    "io::stdin",
    "io::stdout",
    "net::TcpListener",
    "net::TcpStream",
    "net::UdpSocket",
    "os",
    "process",
    "thread",
    "time::Instant",
    "time::SystemTime",
];

/// Where `unsafe`, `nix` and `libc` may be named.
const SYSTEM: &[&str] =
    &["src/engine/tun/", "src/engine/exec/", "src/engine/ping/", "src/engine/sockets/", "src/setup/"];

/// A source file.
struct Source {
    /// From the root of the package.
    path: String,
    text: String,
    /// The text with comments and the insides of literals blanked.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// The first path component below `src`, without `.rs`; `None` for other trees.
    fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    fn is_test(&self) -> bool {
        !self.path.starts_with("src/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The code without the test modules at its end, and the number of its lines.
    fn shipped(&self) -> &str {
        let mut at = 0;
        for line in self.code.split_inclusive('\n') {
            let after = &self.code[at + line.len()..];
            let opens_module =
                || after.lines().next().is_some_and(|next| next.contains("mod ") && next.ends_with('{'));
            if line.trim_end() == "#[cfg(test)]" && opens_module() {
                return &self.code[..at];
            }
            at += line.len();
        }
        &self.code
    }
}

/// Replaces comments and the insides of string and character literals by blanks; lines stay where they are.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_len(rest)
        } else if let Some(len) = raw_string_len(rest, out.chars().last()) {
            len
        } else if first == '\'' {
            char_len(rest)
        } else {
            0
        };
        let (gone, next) = rest.split_at(skip.max(if skip == 0 { first.len_utf8() } else { 0 }));
        if skip == 0 {
            out.push(first);
        } else {
            out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = next;
    }
    out
}

/// Length of the string literal at the start of `text`.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Length of the raw string literal at the start of `text`, if there is one.
fn raw_string_len(text: &str, before: Option<char>) -> Option<usize> {
    let rest = text.strip_prefix('r').filter(|_| !before.is_some_and(is_word))?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", &rest[..hashes]);
    Some(body.find(&close).map_or(text.len(), |end| 1 + hashes + 1 + end + close.len()))
}

/// Length of the character literal at the start of `text`, 0 for a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, _))) => text[at + 1..].find('\'').map_or(0, |end| at + 1 + end + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands on its own, in bytes.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back().is_some_and(is_word);
        let after = code[at + word.len()..].chars().next().is_some_and(is_word);
        !before && !after
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Every path below `root::` that the code names, with its line; `use root::{a, b::{c, d}}` names three.
fn paths(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for at in words(code, root) {
        if let Some(tree) = code[at + root.len()..].strip_prefix("::") {
            let mut found = Vec::new();
            expand(tree, "", &mut found);
            out.extend(found.into_iter().map(|path| (line_of(code, at), path)));
        }
    }
    out
}

/// Reads one use tree into its paths and returns what follows it.
fn expand<'a>(tree: &'a str, prefix: &str, out: &mut Vec<String>) -> &'a str {
    let tree = tree.trim_start();
    if let Some(mut list) = tree.strip_prefix('{') {
        loop {
            list = list.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            if let Some(rest) = list.strip_prefix('}') {
                return rest;
            }
            let before = list.len();
            list = expand(list, prefix, out);
            if list.len() == before {
                return list;
            }
        }
    }
    let end = tree.find(|c: char| !is_word(c) && c != '*').unwrap_or(tree.len());
    let (name, rest) = tree.split_at(end);
    let path = format!("{prefix}{name}");
    match rest.strip_prefix("::") {
        Some(rest) => expand(rest, &format!("{path}::"), out),
        None => {
            out.push(path);
            rest.strip_prefix(" as ").map_or(rest, |alias| alias.trim_start_matches(is_word))
        }
    }
}

/// True if `path` is `allowed` or lies below it.
fn below(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `rule(source)` gives the line and the breach.
type Breaches = Vec<(usize, String)>;

fn arrows(source: &Source) -> Breaches {
    let Some(module) = source.module().filter(|module| *module != "lib" && !source.is_test()) else {
        return Vec::new();
    };
    let Some((_, allowed, base)) = ARROWS.iter().find(|(name, ..)| *name == module) else {
        return vec![(1, format!("module `{module}` has no row in ARROWS"))];
    };
    let root = if module == "main" { "halfopen" } else { "crate" };
    let base: &[&str] = if *base { BASE } else { &[] };
    let ok = |path: &str| [&[module], *allowed, base].concat().iter().any(|allowed| below(path, allowed));
    let wrong = paths(source.shipped(), root).into_iter().filter(|(_, path)| !ok(path));
    wrong.map(|(line, path)| (line, format!("`{module}` must not name `{path}`"))).collect()
}

fn core_is_pure(source: &Source) -> Breaches {
    if source.is_test() || !source.module().is_some_and(|module| CORE.contains(&module)) {
        return Vec::new();
    }
    let code = source.shipped();
    let mut out = Vec::new();
    for name in HOST_CRATES {
        let used = words(code, name).filter(|at| {
            let (before, after) = (code[..*at].trim_end(), &code[at + name.len()..]);
            after.starts_with("::") || after.starts_with('!') || before.ends_with("use")
        });
        out.extend(used.map(|at| (line_of(code, at), format!("the core must not name `{name}`"))));
    }
    for (line, path) in paths(code, "std") {
        if HOST_STD.iter().any(|banned| below(&path, banned)) {
            out.push((line, format!("the core must not name `std::{path}`")));
        }
    }
    for name in ["print", "println", "eprint", "eprintln"] {
        let used = words(code, name).filter(|at| code[at + name.len()..].starts_with('!'));
        out.extend(used.map(|at| (line_of(code, at), format!("the core must not `{name}!`"))));
    }
    out
}

fn system_has_its_place(source: &Source) -> Breaches {
    if source.is_test() || SYSTEM.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let code = source.shipped();
    let calls = |name: &'static str| {
        paths(code, name)
            .into_iter()
            .map(move |(line, path)| (line, format!("`{name}::{path}` outside {SYSTEM:?}")))
    };
    let blocks = words(code, "unsafe").map(|at| (line_of(code, at), format!("`unsafe` outside {SYSTEM:?}")));
    blocks.chain(calls("nix")).chain(calls("libc")).collect()
}

fn files_are_short(source: &Source) -> Breaches {
    let lines = source.text.lines().count();
    if lines <= MAX_FILE {
        return Vec::new();
    }
    vec![(lines, format!("{lines} lines; at most {MAX_FILE}"))]
}

fn functions_are_short(source: &Source) -> Breaches {
    let code = &source.code;
    let mut out = Vec::new();
    for at in words(code, "fn") {
        let Some(open) = code[at..].find(['{', ';']).map(|open| at + open) else { continue };
        let mut depth = 0;
        let body = code[open..].find(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let body = &code[open..open + body.unwrap_or(0)];
        let lines = body.lines().filter(|line| !line.trim().is_empty()).count().saturating_sub(1);
        if lines > MAX_FUNCTION {
            let name = code[at + 2..].split('(').next().unwrap_or_default().trim();
            out.push((
                line_of(code, at),
                format!("function `{name}` has {lines} lines; at most {MAX_FUNCTION}"),
            ));
        }
    }
    out
}

fn nothing_is_left_undone(source: &Source) -> Breaches {
    let macros = ["dbg", "todo", "unimplemented"].into_iter().flat_map(|name| {
        let used =
            words(&source.code, name).filter(move |at| source.code[at + name.len()..].starts_with('!'));
        used.map(move |at| (line_of(&source.code, at), format!("`{name}!`")))
    });
    let notes = source.text.match_indices(concat!("FIX", "ME")).map(|(at, word)| (at, word.to_owned()));
    macros.chain(notes.map(|(at, word)| (line_of(&source.text, at), word))).collect()
}

const RULES: &[fn(&Source) -> Breaches] = &[
    arrows,
    core_is_pure,
    system_has_its_place,
    files_are_short,
    functions_are_short,
    nothing_is_left_undone,
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir`, from the root of the package, in order.
fn files(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root().join(dir)) else { return Vec::new() };
    let mut out = Vec::new();
    for entry in entries.map(Result::unwrap) {
        let path = format!("{dir}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

fn sources() -> Vec<Source> {
    let trees = ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"].into_iter().flat_map(files);
    let rust = trees.filter(|path| path.ends_with(".rs"));
    rust.map(|path| Source::new(&path, &fs::read_to_string(root().join(&path)).unwrap())).collect()
}

#[test]
fn the_source_tree_keeps_the_house_rules() {
    let sources = sources();
    assert!(
        sources.iter().any(|source| source.path == "src/lib.rs"),
        "the sources are not where this test looks"
    );
    let mut breaches = String::new();
    for source in &sources {
        for (line, breach) in RULES.iter().flat_map(|rule| rule(source)) {
            breaches += &format!("\n{}:{line}: {breach}", source.path);
        }
    }
    assert!(breaches.is_empty(), "{breaches}");
}

/// A test names a golden file by its path below `tests/golden`, or its directory when the rest is computed.
#[test]
fn every_golden_file_is_read_by_a_test() {
    let sources = sources();
    let named = |text: &str| sources.iter().any(|source| source.text.contains(text));
    let unread: Vec<String> = files("tests/golden")
        .into_iter()
        .filter(|path| !path.ends_with(".rs"))
        .filter(|path| {
            let name = path.trim_start_matches("tests/golden/");
            let computed = name.rsplit_once('/').is_some_and(|(dir, _)| named(&format!("\"{dir}/{{")));
            !named(&format!("\"{name}\"")) && !computed
        })
        .collect();
    assert!(unread.is_empty(), "no test reads {unread:?}");
}

#[test]
fn each_rule_finds_its_breach() {
    let long = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(71));
    for (path, text, expected) in [
        ("src/tcp/a.rs", "use crate::time;\nuse crate::fault::Plan;", "2: `tcp` must not name `fault::Plan`"),
        (
            "src/fault/a.rs",
            "use crate::{wire, tcp::{Knobs, conn::Conn}};",
            "1: `fault` must not name `tcp::conn::Conn`",
        ),
        ("src/odd.rs", "", "1: module `odd` has no row in ARROWS"),
        ("src/main.rs", "use halfopen::engine;", "1: `main` must not name `engine`"),
        (
            "src/relay/a.rs",
            "use std::time::{Duration, Instant};",
            "1: the core must not name `std::time::Instant`",
        ),
        ("src/relay/a.rs", "fn a() { tracing::info!() }", "1: the core must not name `tracing`"),
        ("src/sim/a.rs", "fn a() { println!() }", "1: the core must not `println!`"),
        ("src/app.rs", "fn a() {\n unsafe {} }", "2: `unsafe` outside"),
        ("src/cli/a.rs", "use nix::unistd::getpid;", "1: `nix::unistd::getpid` outside"),
        ("src/cli/a.rs", &"\n".repeat(501), "501: 501 lines; at most 500"),
        ("tests/a.rs", &long, "1: function `long` has 71 lines; at most 70"),
        ("tests/a.rs", "fn a() { todo!() }", "1: `todo!`"),
        ("tests/a.rs", concat!("// FIX", "ME"), concat!("1: FIX", "ME")),
    ] {
        let source = Source::new(path, text);
        let found: Vec<String> = RULES
            .iter()
            .flat_map(|rule| rule(&source))
            .map(|(line, breach)| format!("{line}: {breach}"))
            .collect();
        assert!(
            matches!(&found[..], [one] if one.starts_with(expected)),
            "{path}: {expected:?}, found {found:?}"
        );
    }
}

#[test]
fn what_only_looks_like_a_breach_is_none() {
    let text = r##"
        //! Not like `crate::fault`, todo!() or unsafe.
        /* libc::fork() */
        fn a<'a>(x: &'a str) -> char { b(r#"nix:: " {"#, "unsafe \" { {", '{', '\'', '"', x) }
        #[cfg(test)]
        mod tests {
            use crate::relay::Flow;
        }
    "##;
    let text: String =
        text.lines().map(|line| format!("{}\n", line.strip_prefix("        ").unwrap_or(line))).collect();
    let source = Source::new("src/tcp/a.rs", &text);
    let found: Breaches = RULES.iter().flat_map(|rule| rule(&source)).collect();
    assert!(found.is_empty(), "{found:?}");
}
