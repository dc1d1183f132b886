//! A stream of the service API on the terminal, line by line.

use std::io::{BufRead as _, BufReader, Write as _};

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::Target;
use super::client::Client;
use crate::Failure;

/// Which part of a stream.
#[derive(Debug, Args)]
pub(super) struct StreamArgs {
    /// Only what is about this device
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Begin behind this line instead of with the next one; 0 begins with the oldest that is kept
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
    /// End when all that is kept has been printed
    #[arg(long)]
    no_follow: bool,
    /// The JSON lines of the service API, unchanged
    #[arg(long)]
    json: bool,
}

/// A stream and its form for people.
pub(super) struct Stream {
    pub(super) path: &'static str,
    pub(super) for_people: fn(&Value) -> String,
}

/// Prints until the stream ends or nobody reads any more.
pub(super) fn run(target: &Target, args: &StreamArgs, stream: &Stream) -> Result<(), Failure> {
    let after = args
        .after
        .or(args.no_follow.then_some(0))
        .map_or_else(|| "newest".to_owned(), |after| after.to_string());
    let mut path = format!("{}?after={after}&follow={}", stream.path, !args.no_follow);
    if let Some(device) = &args.device {
        path.push_str("&deviceId=");
        path.extend(utf8_percent_encode(device, NON_ALPHANUMERIC));
    }
    let lines = BufReader::new(Client::connect(target)?.stream(&path)?).lines();
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
        let text = match serde_json::from_str(&line) {
            Ok(event) if !args.json => (stream.for_people)(&event),
            _ => line,
        };
        // Nobody reads any more (`| head`): done.
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
