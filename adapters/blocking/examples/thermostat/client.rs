//! What is the same for both clients.

use std::error::Error;

use clap::Parser;
use devicebound_blocking::{Machine, Tls};

use crate::thermostat::{Options, Wish};

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

/// Does what the thermostat wants.
pub(crate) fn grant(device: &mut Machine, wish: Wish) -> Result<(), Box<dyn Error>> {
    match wish {
        Wish::Report(patch) => drop(device.report(patch.as_bytes(), None)?),
        Wish::Respond(call, status, payload) => device.respond(call, status, payload.as_bytes())?,
        Wish::Disconnect => device.disconnect(),
    }
    Ok(())
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
