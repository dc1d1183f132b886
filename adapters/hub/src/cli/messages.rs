//! `devicebound c2d` and `devicebound method`: what a service sends to a device.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use devicebound::iothub::encode_property;
use devicebound::limits::CLOUD_MESSAGE_TTL_MAX;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Client, identity_path};
use super::{Target, json_argument, parse_duration, print_json, say, say_json};
use crate::Failure;
use crate::clock::unix_time;

#[derive(Debug, Subcommand)]
pub(super) enum CloudToDeviceCommand {
    /// Queue a message; it waits until the device takes it, by default for an hour
    Send(SendArgs),
    /// Take away all messages that wait for a device
    Purge(PurgeArgs),
    /// Print what became of messages that were sent with --ack, a line of JSON each; they are not kept any longer
    Feedback {
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// The device id
    id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The device id
    id: String,
    /// The body, as it is
    #[arg(default_value = "")]
    body: String,
    /// An application property; may be given again
    #[arg(short, long = "property", value_name = "NAME=VALUE", value_parser = parse_property)]
    properties: Vec<(String, String)>,
    /// The message id
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// The correlation id
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// The content type, for example application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// How long the message is good for, at most two days: 90s, 15m, 1h, 2d
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// Which feedback to ask for
    #[arg(long, value_enum)]
    ack: Option<Ack>,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ack {
    None,
    Positive,
    Negative,
    Full,
}

#[derive(Debug, Subcommand)]
pub(super) enum MethodCommand {
    /// Call a method and print the device's status and answer
    Invoke(InvokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct InvokeArgs {
    /// The device id, or DEVICE/MODULE
    id: String,
    /// The method
    method: String,
    /// The argument as JSON
    #[arg(default_value = "null")]
    payload: String,
    /// Seconds to wait for the answer: 5 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Seconds to wait for the device to come online: 0 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    connect_timeout: u64,
    #[command(flatten)]
    target: Target,
}

pub(super) fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a property is NAME=VALUE".to_owned()),
    }
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let is_possible = |ttl: &Duration| !ttl.is_zero() && *ttl <= CLOUD_MESSAGE_TTL_MAX;
    let ttl = parse_duration(text)?;
    Some(ttl).filter(is_possible).ok_or_else(|| "a message is good for 1s to 2d".to_owned())
}

pub(super) fn run_cloud_to_device(command: CloudToDeviceCommand) -> Result<(), Failure> {
    match command {
        CloudToDeviceCommand::Send(args) => send(args),
        CloudToDeviceCommand::Purge(args) => {
            let path = format!("{}/commands", identity_path("devices", &args.id));
            let purged = Client::connect(&args.target)?.json(Method::DELETE, &path, None)?;
            let count = purged.get("totalMessagesPurged").and_then(Value::as_u64).unwrap_or_default();
            say(format_args!("took away {count} messages of {}", args.id));
            Ok(())
        }
        CloudToDeviceCommand::Feedback { target } => {
            let client = Client::connect(&target)?;
            while let Some((reports, lock)) = client.feedback()? {
                if !reports.iter().all(|report| say_json(&report.to_string())) {
                    // What nobody has read comes again.
                    return Ok(());
                }
                client.complete_feedback(&lock)?;
            }
            Ok(())
        }
    }
}

fn send(args: SendArgs) -> Result<(), Failure> {
    // In the query, because header names know no case and header values little more than ASCII.
    let mut bag = String::new();
    for (name, value) in &args.properties {
        encode_property(name, Some(value), &mut bag);
    }
    let expiry = args.ttl.map(|ttl| unix_time().after(ttl).to_string());
    let ack = args.ack.and_then(|ack| Some(ack.to_possible_value()?.get_name().to_owned()));
    let mut headers = Vec::new();
    for (name, value) in [
        ("iothub-messageid", &args.message_id),
        ("iothub-correlationid", &args.correlation_id),
        ("iothub-contenttype", &args.content_type),
        ("iothub-expiry", &expiry),
        ("iothub-ack", &ack),
    ] {
        headers.extend(value.clone().map(|value| (name, value)));
    }
    let bag = utf8_percent_encode(&bag, NON_ALPHANUMERIC);
    let path = format!("{}/messages/deviceBound?properties={bag}", identity_path("devices", &args.id));
    Client::connect(&args.target)?.send(Method::POST, &path, &headers, args.body.as_bytes())?;
    say(format_args!("queued for {}", args.id));
    Ok(())
}

pub(super) fn run_method(command: MethodCommand) -> Result<(), Failure> {
    let MethodCommand::Invoke(args) = command;
    let body = json!({
        "methodName": args.method,
        "payload": json_argument("payload", &args.payload)?,
        "responseTimeoutInSeconds": args.timeout,
        "connectTimeoutInSeconds": args.connect_timeout,
    });
    let path = identity_path("twins", &args.id) + "/methods";
    let answer = Client::connect(&args.target)?.json(Method::POST, &path, Some(&body))?;
    print_json(&answer);
    match answer.get("status").and_then(Value::as_i64) {
        Some(200..300) | None => Ok(()),
        Some(status) => Err(Failure::new(
            format!("the device answered {status}"),
            "the answer above is the device's own; see what its handler says",
        )),
    }
}
