//! `devicebound operations`: what begins, fails and ends.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Target;
use super::watch::{self, Stream};
use crate::Failure;
use crate::observe::printable::printable;

#[derive(Debug, Subcommand)]
pub(super) enum OperationsCommand {
    /// Print each event, until interrupted
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    stream: watch::StreamArgs,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(command: OperationsCommand) -> Result<(), Failure> {
    let OperationsCommand::Watch(args) = command;
    watch::run(&args.target, &args.stream, &Stream { path: "/operations", for_people })
}

/// `{time} {device} {operation}`, and for a failure what it breaks and how to fix it.
fn for_people(event: &Value) -> String {
    let text = |name| event.get(name).and_then(Value::as_str).map(printable);
    let mut device = text("deviceId").unwrap_or_default();
    if let Some(module) = text("moduleId") {
        device = format!("{device}/{module}");
    }
    let mut shown = format!(
        "{} {device:24} {}/{}",
        text("time").unwrap_or_default(),
        text("category").unwrap_or_default(),
        text("operationName").unwrap_or_default(),
    );
    if let Some(description) = text("statusDescription") {
        let status = text("statusType").unwrap_or_default();
        shown.push_str(&format!(" {status} {description}"));
    }
    if let Some(fix) = text("mend") {
        shown.push_str(&format!("\n{:26}fix: {fix}", ""));
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_is_shown_with_its_number_and_the_way_out() {
        let event = json!({
            "time": "T", "category": "Connections", "operationName": "deviceDisconnect", "deviceId": "d",
            "moduleId": "m", "statusType": "400027", "statusDescription": "taken over", "mend": "one id each",
        });
        let shown = for_people(&event);
        for part in ["T d/m ", "Connections/deviceDisconnect 400027 taken over", "fix: one id each"] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn what_a_stranger_chose_neither_moves_the_cursor_nor_begins_a_line() {
        let event = json!({
            "time": "T", "category": "C", "operationName": "o", "deviceId": "\u{9b}31m\u{202e}",
            "statusDescription": "no `\u{9d}\nT demo`",
        });
        let shown = for_people(&event);
        assert!(!shown.contains(['\u{9b}', '\u{9d}', '\u{202e}', '\n']), "{shown:?}");
        assert!(shown.contains(r"\u{9b}31m\u{202e}"), "{shown}");
    }
}
