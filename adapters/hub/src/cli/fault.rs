//! `devicebound fault`: lets something go wrong for one device.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use devicebound::hub::Fault;
use serde_json::json;
use ureq::http::Method;

use super::client::{Client, identity_path};
use super::{Target, parse_duration, say};
use crate::Failure;

#[derive(Debug, Args)]
pub(super) struct FaultArgs {
    /// The device id, or DEVICE/MODULE
    id: String,
    /// What goes wrong: the connection is cut; telemetry is throttled; the daily quota is used up; the token counts as
    /// expired; the connection is cut as by a second one; the hub neither reads nor writes
    #[arg(value_parser = PossibleValuesParser::new(Fault::ALL.map(Fault::name)).try_map(named))]
    fault: Fault,
    /// When it begins
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    delay: Duration,
    /// How long it lasts; what cuts a connection does so once
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    duration: Duration,
    #[command(flatten)]
    target: Target,
}

fn named(name: String) -> Result<Fault, &'static str> {
    Fault::from_name(&name).ok_or("no fault has this name")
}

pub(super) fn run(args: &FaultArgs) -> Result<(), Failure> {
    let client = Client::connect(&args.target)?;
    let body = json!({
        "fault": args.fault.name(),
        "delayInSeconds": args.delay.as_secs(),
        "durationInSeconds": args.duration.as_secs(),
    });
    client.json(Method::POST, &identity_path("faults", &args.id), Some(&body))?;
    say(format_args!(
        "{} for {} in {} s, for {} s",
        args.fault.name(),
        args.id,
        args.delay.as_secs(),
        args.duration.as_secs()
    ));
    Ok(())
}
