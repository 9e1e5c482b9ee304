//! Every segment script under `tests/scripts/` is a test of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use halfopen::sim::script::Script;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let trials = files.into_iter().map(|path| {
        let name = path.strip_prefix(&root).expect("it lies below").with_extension("").display().to_string();
        Trial::test(name, move || play(&path))
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}

fn play(path: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(path)?;
    let done = Script::parse(&text).and_then(|script| script.run());
    done.map_err(|failure| format!("{}:{failure}", path.display()).into())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for entry in entries {
        let path = entry.expect("a directory can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "txt") {
            files.push(path);
        }
    }
}
