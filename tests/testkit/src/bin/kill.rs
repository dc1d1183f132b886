//! Kills `devicebound hub` under load and looks whether anything is missing that it had acknowledged:
//! `cargo run --release -p devicebound-testkit --bin kill -- --times 20`
//!
//! The hub is this program itself, which holds the whole of `devicebound`, unless `--program` names another.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use devicebound_testkit::kill::{Options, run};

/// Kill a hub under load (SIGKILL), start it again, and miss nothing.
#[derive(Debug, Parser)]
#[command(name = "kill")]
struct Arguments {
    /// How many kills; without end where it is not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    times: Option<u64>,
    /// The seed of all choices [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many devices
    #[arg(long, value_name = "N", default_value_t = 50)]
    devices: usize,
    /// Within how many milliseconds a hub has to be ready again; more where others use the machine, too
    #[arg(long, value_name = "N", default_value_t = 2000)]
    start_ms: u64,
    /// The program `devicebound` [default: this program, in its place]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Started by itself as the hub.
    if std::env::args().nth(1).is_some_and(|argument| argument == "hub") {
        return devicebound_hub::cli::main();
    }
    let arguments = Arguments::parse();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or(now);
    println!("seed {seed}");
    let program = match arguments.program.clone().map_or_else(std::env::current_exe, Ok) {
        Ok(program) => program,
        Err(error) => {
            eprintln!("this program does not know where it is: {error}; name one: --program FILE");
            return ExitCode::FAILURE;
        }
    };
    let Arguments { times, devices, start_ms, .. } = arguments;
    let options = Options { program, seed, times, devices, start_time: Duration::from_millis(start_ms) };
    match run(&options, |line| println!("{line}")) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("\nVIOLATION: {failure}");
            ExitCode::FAILURE
        }
    }
}
