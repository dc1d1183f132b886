//! The structured log of `devicebound hub --log`.

use std::io;

use clap::ValueEnum;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::Failure;
use crate::observe::printable::Escaping;

/// The variable with the filter: `info`, `warn`, `devicebound_hub::observe::view=debug,warn` and so on.
const FILTER: &str = "DEVICEBOUND_LOG";

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One JSON object per line.
    Json,
    /// A line of text with fields.
    Text,
    /// Not at all: the live view tells.
    Off,
}

/// Starts the log; it ends, and what is left is written, when the guard is dropped.
pub(super) fn start(format: LogFormat) -> Result<Option<WorkerGuard>, Failure> {
    if format == LogFormat::Off {
        return Ok(None);
    }
    let filter = std::env::var(FILTER).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Failure::new(
            format!("{FILTER} is no filter: {error}"),
            "write a level (warn, info, debug) or target=level",
        )
    })?;
    let (out, guard) = NonBlocking::new(Escaping(io::stderr()));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(out);
    let started = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text | LogFormat::Off => log.with_ansi(false).try_init(),
    };
    started.map_err(|error| Failure::new(format!("cannot start the log: {error}"), "start again"))?;
    Ok(Some(guard))
}
