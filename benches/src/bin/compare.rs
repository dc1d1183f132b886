//! Our hub beside other servers: the same load on each in turn, the server on one core and the load on another.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Parser, ValueEnum};
use devicebound_benches::load::server::{Certificates, Kind, Server};
use serde_json::Value;

/// Compares our hub with mosquitto and rumqttd, on TLS
#[derive(Debug, Parser)]
struct Options {
    /// What is measured; may be given again [default: all]
    #[arg(long, value_enum)]
    row: Vec<Row>,
    /// What is compared; may be given again [default: all]
    #[arg(long, value_enum)]
    server: Vec<Kind>,
    /// Each server once in each round
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that count, of one server in one round
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// The core of the server
    #[arg(long, default_value_t = 1)]
    server_core: usize,
    /// The core of the load
    #[arg(long, default_value_t = 0)]
    load_core: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Row {
    /// 100 connections, window 16
    Many,
    /// 1 connection, window 16
    One,
    /// 1,000 connections, window 1
    Crowd,
    /// 100 connections, 20,000 messages per second
    Paced,
    /// Connections one after the other
    Connect,
    /// 10,000 connections that rest
    Rest,
}

impl Row {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Many => &["--connections", "100", "--window", "16"],
            Self::One => &["--connections", "1", "--window", "16"],
            Self::Crowd => &["--connections", "1000", "--window", "1"],
            Self::Paced => &["--connections", "100", "--window", "16", "--rate", "20000"],
            Self::Connect => &["--mode", "reconnect", "--connections", "100"],
            Self::Rest => &["--mode", "rest", "--connections", "10000", "--window", "1"],
        }
    }

    const fn devices(self) -> usize {
        match self {
            Self::Many | Self::Paced | Self::Connect => 100,
            Self::One => 1,
            Self::Crowd => 1000,
            Self::Rest => 10_000,
        }
    }

    /// What is looked at in what the load program says.
    const fn figures(self) -> &'static [&'static str] {
        match self {
            Self::Many | Self::One | Self::Crowd | Self::Paced => &["perSecond", "cpuMicros", "p50", "p99"],
            Self::Connect => &["connectCpuMicros", "connectsPerSecond"],
            Self::Rest => &["kibPerConnection", "connectCpuMicros"],
        }
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    let program = std::env::current_exe()?;
    let programs = program.parent().map(Path::to_path_buf).unwrap_or_default();
    let certificates = Certificates::make(&programs)?;
    let rows = if options.row.is_empty() { Row::value_variants().to_vec() } else { options.row.clone() };
    let servers =
        if options.server.is_empty() { Kind::value_variants().to_vec() } else { options.server.clone() };
    for row in rows {
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            let mut round = BTreeMap::new();
            for kind in &servers {
                round.insert(*kind, measure(&options, &programs, &certificates, row, *kind)?);
            }
            rounds.push(round);
        }
        print(row, &servers, &rounds);
    }
    Ok(())
}

fn measure(
    options: &Options,
    programs: &PathBuf,
    certificates: &Certificates,
    row: Row,
    kind: Kind,
) -> io::Result<Value> {
    let core = options.server_core.to_string();
    let server = Server::start(kind, programs, &["taskset", "-c", &core], certificates, row.devices())?;
    let mut load = Command::new("taskset");
    load.arg("-c").arg(options.load_core.to_string()).arg(programs.join("load"));
    load.arg("--address").arg(server.address.to_string()).arg("--ca").arg(&server.ca);
    load.arg("--pid").arg(server.pid().to_string()).arg("--seconds").arg(options.seconds.to_string());
    server.policy.iter().for_each(|policy| drop(load.arg("--policy").arg(policy)));
    let output = load.args(row.arguments()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{row:?} failed with {kind:?}")));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Medians of each server, and in brackets the median of what the first server had, by this one's, of the same round.
fn print(row: Row, servers: &[Kind], rounds: &[BTreeMap<Kind, Value>]) {
    println!("\n| {row:?} | {} |", row.figures().join(" | "));
    println!("|---|{}", "--:|".repeat(row.figures().len()));
    for kind in servers {
        let cells = row.figures().iter().map(|figure| {
            let of = |round: &BTreeMap<Kind, Value>, kind: &Kind| {
                round
                    .get(kind)
                    .and_then(|value| value.get(figure))
                    .and_then(Value::as_f64)
                    .unwrap_or(f64::NAN)
            };
            let own = median(rounds.iter().map(|round| of(round, kind)).collect());
            let ratio = servers
                .first()
                .map(|first| median(rounds.iter().map(|round| of(round, first) / of(round, kind)).collect()));
            format!("{} ({:.2}×)", number(own), ratio.unwrap_or(f64::NAN))
        });
        println!("| {kind:?} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

fn number(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
