//! Load for one MQTT 3.1.1 server, on Linux:
//!
//! ```sh
//! cargo run --release -p devicebound-benches --features load --example load -- --port 1883 publish
//! cargo run --release -p devicebound-benches --features load --example load -- --port 8883 --state DIR --server-pid PID publish --rate 20000
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use devicebound_benches::load::{
    Client, Failure, Peer, Process, Publishing, Registry, Tls, connect, idle, pin_to, publish,
    raise_file_limit,
};

/// Connects many clients to a server, and says what it does and what that costs it.
#[derive(Parser)]
struct Arguments {
    /// Where the server is
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Its port
    #[arg(long)]
    port: u16,
    /// TLS 1.3, and the authorities that are trusted; plain TCP without, but for --state
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name in the server's certificate
    #[arg(long, default_value = "localhost")]
    name: String,
    /// The server is a hub on this state folder: register devices with it, and use its authority
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How many clients
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// The server, to measure what it costs
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Run on this CPU alone
    #[arg(long)]
    cpu: Option<usize>,
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Messages at QoS 1
    Publish {
        /// Messages of one client that wait for their PUBACK at most
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
        window: u16,
        /// Bytes of a message's body
        #[arg(long, default_value_t = 128)]
        payload: usize,
        /// Messages per second of all clients together [default: as fast as they are acknowledged]
        #[arg(long)]
        rate: Option<u32>,
        /// Seconds that are not counted
        #[arg(long, default_value_t = 1.0)]
        warm_up: f64,
        /// Seconds that are
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Clients that come and go
    Connect {
        /// How many at a time
        #[arg(long, default_value_t = 8)]
        parallel: usize,
        /// How many in all
        #[arg(long, default_value_t = 2000)]
        count: usize,
    },
    /// Clients that stay and do nothing; needs --server-pid
    Idle,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    raise_file_limit()?;
    if let Some(cpu) = arguments.cpu {
        pin_to(cpu)?;
    }
    let clients = match &arguments.state {
        Some(state) => Registry::of(state)?.clients(arguments.connections)?,
        None => Client::anonymous(arguments.connections),
    };
    let ca = arguments.ca.or_else(|| Some(arguments.state?.join("ca.pem")));
    let tls = ca.map(|ca| Tls::new(&ca, &arguments.name)).transpose()?;
    let peer = Peer { address: SocketAddr::new(arguments.host, arguments.port), tls };
    let server = arguments.server_pid.map(Process::new).transpose()?;

    match arguments.kind {
        Kind::Publish { window, payload, rate, warm_up, seconds } => {
            let (warm_up, duration) = (Duration::from_secs_f64(warm_up), Duration::from_secs_f64(seconds));
            let plan = Publishing { payload, window, rate, warm_up, duration };
            let published = publish(&peer, &clients, &plan, server.as_ref())?;
            println!("{:.0} messages/s, {} acknowledged", published.rate(), published.messages);
            println!("latency p50 {:.1?}, p99 {:.1?}", published.p50, published.p99);
            if let (Some(cpu), Some(ns)) = (published.server_cpu, published.server_ns()) {
                println!("server {:.0} ns per message, busy {:.0} %", ns, share(cpu, published.elapsed));
            }
            println!("generator busy {:.0} %", share(published.generator_cpu, published.elapsed));
        }
        Kind::Connect { parallel, count } => {
            let connected = connect(&peer, &clients, parallel, count, server.as_ref())?;
            println!("{:.0} connects/s", connected.connects as f64 / connected.elapsed.as_secs_f64());
            println!("latency p50 {:.1?}, p99 {:.1?}", connected.p50, connected.p99);
            if let Some(cpu) = connected.server_cpu {
                let per_connect = cpu.as_secs_f64() * 1e6 / connected.connects as f64;
                println!(
                    "server {per_connect:.0} µs per connect, busy {:.0} %",
                    share(cpu, connected.elapsed)
                );
            }
            println!("generator busy {:.0} %", share(connected.generator_cpu, connected.elapsed));
        }
        Kind::Idle => {
            let server = server.ok_or("name the server, whose memory is to be measured: --server-pid PID")?;
            let idle = idle(&peer, &clients, &server)?;
            let kib = |bytes: f64| bytes / 1024.0;
            println!("{:.1} KiB per connection", kib(idle.per_connection()));
            println!(
                "server {:.0} KiB, before {:.0} KiB",
                kib(idle.resident as f64),
                kib(idle.resident_before as f64)
            );
        }
    }
    Ok(())
}

/// Percent of one CPU.
fn share(cpu: Duration, elapsed: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64()
}
