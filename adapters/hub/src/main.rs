//! `devicebound`: the hub and its tools on the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    devicebound_hub::cli::main()
}
