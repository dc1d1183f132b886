//! `devicebound sas`: a token for a device, to be used as its MQTT password.

use std::time::Duration;

use clap::Args;
use devicebound::iothub::connection_string::ConnectionString;
use devicebound::iothub::sas::{self, SymmetricKey};
use serde_json::Value;
use ureq::http::Method;

use super::client::{Client, identity_path, now};
use super::{Target, parse_duration};
use crate::Failure;

#[derive(Debug, Args)]
pub(super) struct SasArgs {
    /// The device id, or DEVICE/MODULE; its key is looked up in the hub
    #[arg(required_unless_present = "device_connection_string", conflicts_with = "device_connection_string")]
    id: Option<String>,
    /// How long the token is good for: 90s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// Make it from a device's connection string, without a hub
    #[arg(long, value_name = "TEXT")]
    device_connection_string: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &SasArgs) -> Result<(), Failure> {
    let expiry = now().after(args.ttl);
    let token = match (&args.device_connection_string, &args.id) {
        (Some(text), _) => from_connection_string(text, expiry)?,
        (None, Some(id)) => from_hub(&args.target, id, expiry)?,
        (None, None) => return Err(Failure::new("no device was named", "devicebound sas ID")),
    };
    println!("{token}");
    Ok(())
}
