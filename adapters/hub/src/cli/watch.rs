//! A stream of the service API on the terminal, line by line.

use std::io::{BufRead as _, BufReader};

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::Client;
use super::{Target, say, say_json};
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

/// Prints until the stream ends or nobody reads any more. A stream ends with its token: then it goes on with another one.
pub(super) fn run(target: &Target, args: &StreamArgs, stream: &Stream) -> Result<(), Failure> {
    let mut after = args
        .after
        .or(args.no_follow.then_some(0))
        .map_or_else(|| "newest".to_owned(), |after| after.to_string());
    let client = Client::connect(target)?;
    loop {
        match follow(&client, args, stream, &after)? {
            End::Expired(cursor) => after = cursor.to_string(),
            End::Over => return Ok(()),
        }
    }
}

/// Why a stream is over.
enum End {
    /// Its token is not good any more; it goes on after this line.
    Expired(u64),
    /// All was printed, or nobody reads any more.
    Over,
}

fn follow(client: &Client, args: &StreamArgs, stream: &Stream, after: &str) -> Result<End, Failure> {
    let mut path = format!("{}?after={after}&follow={}", stream.path, !args.no_follow);
    if let Some(device) = &args.device {
        path.push_str("&deviceId=");
        path.extend(utf8_percent_encode(device, NON_ALPHANUMERIC));
    }
    for line in BufReader::new(client.stream(&path)?).lines() {
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
        let event = serde_json::from_str::<Value>(&line).unwrap_or_default();
        if let Some(cursor) = event.pointer("/expired/cursor").and_then(Value::as_u64) {
            return Ok(End::Expired(cursor));
        }
        let goes_on = match event.is_object() && !args.json {
            true => say((stream.for_people)(&event)),
            false => say_json(&line),
        };
        // Nobody reads any more (`| head`): done.
        if !goes_on {
            break;
        }
    }
    Ok(End::Over)
}
