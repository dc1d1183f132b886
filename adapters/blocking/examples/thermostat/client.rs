//! What is the same for both clients.

use std::error::Error;

use clap::Parser;
use devicebound_client::{Incoming, Machine, Tls};

use crate::thermostat::{Options, Thermostat, Wish, message};

/// The command line.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// The device's connection string
    #[arg(long, env, hide_env_values = true)]
    pub(crate) connection_string: String,
    /// Use MQTT over WebSocket
    #[arg(long)]
    websocket: bool,
    /// Go through an HTTP proxy: http://user:password@host:port
    #[arg(long)]
    proxy: Option<String>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// Lets the thermostat hear all that came.
pub(crate) fn hear((device, mut incoming): (&mut Machine, Incoming<'_>), thermostat: &mut Thermostat) {
    while let Some(next) = incoming.next(device) {
        match next {
            Ok(action) => {
                let wishes = thermostat.hear(&action);
                grant(device, thermostat, wishes);
            }
            Err(offline) => thermostat.hear_offline(&offline), // the client connects again by itself
        }
    }
}

/// Does what the thermostat wants, as far as it can be done.
fn grant(device: &mut Machine, thermostat: &Thermostat, wishes: Vec<Wish>) {
    for wish in wishes {
        let granted: Result<(), Box<dyn Error>> = match wish {
            Wish::Report(patch) => device.report(patch.as_bytes(), None).map(drop).map_err(Into::into),
            Wish::Respond(call, status, payload) => {
                device.respond(call, status, payload.as_bytes()).map_err(Into::into)
            }
            Wish::Disconnect => {
                device.disconnect();
                Ok(())
            }
        };
        if let Err(error) = granted {
            thermostat.hear_refused(&error);
        }
    }
}

/// Makes the next reading, if it is due.
pub(crate) fn read(device: &mut Machine, thermostat: &mut Thermostat) {
    if let Some(reading) = thermostat.read()
        && let Err(error) = device.telemetry(message(&reading))
    {
        thermostat.hear_reading_refused(&error);
    }
}

/// The way to the hub.
pub(crate) fn tls(arguments: &Arguments) -> Result<Tls, Box<dyn Error>> {
    let mut tls = match &arguments.options.ca {
        Some(file) => Tls::with_authorities_file(file)?,
        None => Tls::system()?,
    };
    if arguments.websocket {
        tls = tls.with_websocket();
    }
    if let Some(url) = &arguments.proxy {
        tls = tls.with_proxy(url)?;
    }
    if let Some(port) = arguments.options.port {
        tls = tls.with_port(port);
    }
    Ok(tls)
}
