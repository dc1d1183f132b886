//! `devicebound telemetry`: what devices send, as it comes.

use std::io::{BufRead as _, BufReader, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::Target;
use super::client::Client;
use crate::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum TelemetryCommand {
    /// Print each message that arrives, until interrupted
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Only the messages of this device
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Begin behind this message instead of with the next one; 0 begins with the oldest that is kept
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
    /// End when all that is kept has been printed
    #[arg(long)]
    no_follow: bool,
    /// The JSON lines of the service API, unchanged
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(command: TelemetryCommand) -> Result<(), Failure> {
    let TelemetryCommand::Watch(args) = command;
    let after = args
        .after
        .or(args.no_follow.then_some(0))
        .map_or_else(|| "newest".to_owned(), |after| after.to_string());
    let mut path = format!("/messages/events?after={after}&follow={}", !args.no_follow);
    if let Some(device) = &args.device {
        path.push_str("&deviceId=");
        path.extend(utf8_percent_encode(device, NON_ALPHANUMERIC));
    }
    let lines = BufReader::new(Client::connect(&args.target)?.stream(&path)?).lines();
    let mut out = std::io::stdout().lock();
    for line in lines {
        let line = line.map_err(|error| {
            Failure::new(
                format!("the hub ended the stream: {error}"),
                "see whether the hub still runs, and watch again",
            )
        })?;
        // An empty line keeps the connection alive.
        if line.is_empty() {
            continue;
        }
        let text = if args.json { line } else { for_people(&line) };
        // Nobody reads any more (`| head`): done.
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// `{time} {device} {body} {properties}`; the line itself when it is something else.
fn for_people(line: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let text = |name| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let device = match event.get("moduleId").and_then(Value::as_str) {
        Some(module) => format!("{}/{module}", text("deviceId")),
        None => text("deviceId").to_owned(),
    };
    let body = STANDARD.decode(text("body")).unwrap_or_default();
    let body = match std::str::from_utf8(&body) {
        Ok(body) if !body.chars().any(|c| c.is_control() && !c.is_whitespace()) => body.to_owned(),
        _ => format!("{} bytes {}", body.len(), text("body")),
    };
    let mut shown = format!("{} {device} {body}", text("enqueuedTime"));
    for (name, value) in event.get("properties").and_then(Value::as_object).into_iter().flatten() {
        shown.push_str(&format!(" {name}={}", value.as_str().unwrap_or_default()));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text_and_bytes_as_base64() {
        let shown = for_people(r#"{"enqueuedTime":"T","deviceId":"d","body":"aGk=","properties":{"a":"b"}}"#);
        assert_eq!(shown, "T d hi a=b");
        let shown = for_people(r#"{"enqueuedTime":"T","deviceId":"d","moduleId":"m","body":"AAE="}"#);
        assert_eq!(shown, "T d/m 2 bytes AAE=");
    }
}
