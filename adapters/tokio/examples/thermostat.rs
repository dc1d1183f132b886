//! A thermostat on tokio, in one task:
//!
//! ```sh
//! export CONNECTION_STRING='HostName=…;DeviceId=…;SharedAccessKey=…'
//! cargo run -p devicebound-tokio --example thermostat -- --count 10
//! ```
//!
//! For a hub of your own (`devicebound hub`) add `--ca` with the file that it names, for a network that lets only HTTPS
//! out `--websocket`, and `--proxy` for a proxy.

#[path = "../../blocking/examples/thermostat/client.rs"]
mod client;
#[path = "../../blocking/examples/thermostat/mod.rs"]
mod thermostat;

use std::error::Error;
use std::future::pending;
use std::time::Instant;

use clap::Parser as _;
use client::{Arguments, hear, read, tls};
use devicebound_tokio::Client;
use thermostat::{SUBSCRIPTIONS, install};
use tokio::time::sleep_until;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (device, mut thermostat) = install(&arguments.connection_string, &arguments.options)?;
    let mut client = Client::new(device, tls(&arguments)?);
    for subscription in SUBSCRIPTIONS {
        client.device().subscribe(subscription)?;
    }
    loop {
        let next_reading = thermostat.next_reading();
        tokio::select! {
            () = until(next_reading) => read(client.device(), &mut thermostat),
            goes_on = client.wait() => {
                if !goes_on {
                    return Ok(());
                }
                hear(client.split(), &mut thermostat);
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
