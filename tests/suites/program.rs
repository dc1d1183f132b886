//! The program `devicebound` once more, so that the tests of this crate always have one that is built from the sources at
//! hand: cargo tells an integration test where a binary is only if it belongs to the test's own package.

use std::process::ExitCode;

fn main() -> ExitCode {
    devicebound_hub::cli::main()
}
