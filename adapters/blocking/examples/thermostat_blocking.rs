//! A thermostat on blocking sockets, in one thread:
//!
//! ```sh
//! export CONNECTION_STRING='HostName=…;DeviceId=…;SharedAccessKey=…'
//! cargo run -p devicebound-blocking --example thermostat_blocking -- --count 10
//! ```
//!
//! For a hub of your own (`devicebound hub`) add `--ca` with the file that it names, for a network that lets only HTTPS
//! out `--websocket`, and `--proxy` for a proxy.

#[path = "thermostat/client.rs"]
mod client;
mod thermostat;

use std::error::Error;
use std::time::Instant;

use clap::Parser as _;
use client::{Arguments, hear, read, tls};
use devicebound_blocking::Client;
use thermostat::{SUBSCRIPTIONS, install};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (device, mut thermostat) = install(&arguments.connection_string, &arguments.options)?;
    let mut client = Client::new(device, tls(&arguments)?);
    for subscription in SUBSCRIPTIONS {
        client.device().subscribe(subscription)?;
    }
    loop {
        read(client.device(), &mut thermostat);
        let goes_on = match thermostat.next_reading() {
            Some(at) => client.wait_timeout(at.saturating_duration_since(Instant::now())),
            None => client.wait(),
        };
        if !goes_on {
            return Ok(());
        }
        hear(client.split(), &mut thermostat);
    }
}
