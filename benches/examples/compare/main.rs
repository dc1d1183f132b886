//! The hub beside mosquitto and rumqttd, row by row of issue 6, on Linux with two CPUs:
//!
//! ```sh
//! cargo build --release -p devicebound-hub
//! cargo run --release -p devicebound-benches --example compare [-- part of a row's name…]
//! ```

mod rows;
mod servers;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use devicebound_benches::load::{Failure, pin_to, raise_file_limit};
use rows::{ROWS, Setting};
use servers::Place;

/// Measures each row with all its servers in turn, and says which targets are met.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The hub's program [default: devicebound beside this one]
    #[arg(long, value_name = "FILE")]
    hub: Option<PathBuf>,
    /// The CPU of whichever server is measured
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The CPU of the load
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Rounds of a row; in each, every server has its turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a turn, after one that is not counted
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The part of a row's name that all rows to be measured have; may be given again
    rows: Vec<String>,
    #[command(subcommand)]
    serve: Option<Serve>,
}

#[derive(Subcommand)]
enum Serve {
    /// Be rumqttd
    #[cfg(feature = "rumqttd")]
    #[command(hide = true)]
    Rumqttd { port: u16, certificate: String, key: String },
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    match arguments.serve {
        #[cfg(feature = "rumqttd")]
        Some(Serve::Rumqttd { port, certificate, key }) => servers::rumqttd::serve(port, certificate, key),
        None => compare(&arguments),
    }
}

fn compare(arguments: &Arguments) -> Result<(), Failure> {
    raise_file_limit()?;
    pin_to(arguments.load_cpu)?;
    let hub = match &arguments.hub {
        Some(hub) => hub.clone(),
        None => beside_this_program()?,
    };
    let place = Place::new(hub, arguments.server_cpu)?;
    let setting =
        Setting { rounds: arguments.rounds.max(1), turn: Duration::from_secs_f64(arguments.seconds) };
    let wanted =
        |name: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|part| name.contains(part));
    let mut verdicts = Vec::new();
    for row in ROWS.iter().filter(|row| wanted(row.name)) {
        match rows::measure(row, &place, setting) {
            Ok(measured) => {
                print!("{measured}");
                verdicts.push(measured.verdicts());
            }
            // The other rows need not be measured again for it.
            Err(error) => verdicts.push(format!("| {} | – | {error} | missed |\n", row.name)),
        }
    }
    println!("\n| row | target | measured | |\n|---|---|--:|---|");
    verdicts.iter().for_each(|verdict| print!("{verdict}"));
    Ok(())
}

/// This is `target/release/examples/compare`; the hub's program is `target/release/devicebound`.
fn beside_this_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let hub = own.ancestors().nth(2).map(|folder| folder.join("devicebound")).filter(|hub| hub.is_file());
    Ok(hub.ok_or("build the hub first: cargo build --release -p devicebound-hub; or name it: --hub FILE")?)
}
