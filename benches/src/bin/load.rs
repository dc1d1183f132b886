//! Puts load on one MQTT server and prints what came of it as one JSON object.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use devicebound_benches::load::drive::{Plan, publish, reconnect, rest};
use devicebound_benches::load::target::Target;

/// Puts load on an MQTT server, QoS 1, from one thread
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    target: Target,
    /// What the connections do
    #[arg(long, value_enum, default_value = "publish")]
    mode: Mode,
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Messages of one connection that wait for their acknowledgement at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Bytes of a message
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Messages per second in all [default: as many as can be]
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds that do not count
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds that count
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The server's process, to see its CPU time and memory
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Publish within the window
    Publish,
    /// Connect and do nothing
    Rest,
    /// Connect over and over
    Reconnect,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    let plan = Plan {
        connections: options.connections.max(1),
        window: usize::from(options.window),
        payload: options.payload,
        rate: options.rate,
        warm_up: Duration::from_secs_f64(options.warm_up),
        time: Duration::from_secs_f64(options.seconds),
        pid: options.pid,
    };
    let way = options.target.way()?;
    let result = match options.mode {
        Mode::Publish => publish(&way, &plan)?,
        Mode::Rest => rest(&way, &plan)?,
        Mode::Reconnect => reconnect(&way, &plan)?,
    };
    println!("{result}");
    Ok(())
}
