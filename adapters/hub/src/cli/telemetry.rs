//! `devicebound telemetry`: what devices send, as it comes.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::text_of_service;
use super::watch::{self, Stream};
use super::{Target, say};
use crate::Failure;
use crate::observe::printable::printable;
use crate::state::StateDir;

/// Whose place is taken: nobody's.
const GROUP: &str = "reading all partitions in no consumer group: the readers of $Default and of other groups keep their places";

#[derive(Debug, Subcommand)]
pub(super) enum TelemetryCommand {
    /// Print each message that arrives, until interrupted; it reads the log itself and is in no consumer group
    Watch(WatchArgs),
    /// Print a program that reads with Azure's Event Hubs SDK, for Python, Node, .NET and Java
    Snippets(SnippetsArgs),
}

#[derive(Debug, Args)]
pub(super) struct SnippetsArgs {
    /// The state folder of a hub that runs on this machine
    #[arg(long, value_name = "DIR", env = "DEVICEBOUND_STATE")]
    state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    stream: watch::StreamArgs,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(command: TelemetryCommand) -> Result<(), Failure> {
    match command {
        TelemetryCommand::Watch(args) => {
            // Not among the events, which programs read.
            eprintln!("{GROUP}");
            watch::run(&args.target, &args.stream, &Stream { path: "/messages/events", for_people })
        }
        TelemetryCommand::Snippets(args) => {
            let folder = args.state.unwrap_or_else(StateDir::default_path);
            say(text_of_service(&folder, "eventHubSnippets")?);
            Ok(())
        }
    }
}

/// `{time} {device} {body} {properties}`, on one line: what a device chose cannot begin another.
fn for_people(event: &Value) -> String {
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
    printable(&shown)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_shown_as_text_and_bytes_as_base64() {
        let event = json!({"enqueuedTime": "T", "deviceId": "d", "body": "aGk=", "properties": {"a": "b"}});
        assert_eq!(for_people(&event), "T d hi a=b");
        let event = json!({"enqueuedTime": "T", "deviceId": "d", "moduleId": "m", "body": "AAE="});
        assert_eq!(for_people(&event), "T d/m 2 bytes AAE=");
    }

    #[test]
    fn what_a_device_chose_neither_moves_the_cursor_nor_begins_a_line() {
        let body = STANDARD.encode("21\n2099-01-01 demo\u{202e}");
        let event = json!({
            "enqueuedTime": "T", "deviceId": "d\u{9b}31m", "body": body, "properties": {"a\u{9d}": "b\u{202e}c"},
        });
        assert_eq!(for_people(&event), r"T d\u{9b}31m 21\n2099-01-01 demo\u{202e} a\u{9d}=b\u{202e}c");
    }
}
