//! The `halfopen` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    halfopen::cli::main()
}
