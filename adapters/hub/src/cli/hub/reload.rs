//! SIGHUP: what of a configuration file can be taken while the hub runs.
//!
//! Certificates and authorities are watched anyway, and taken within seconds of a change of their files. Everything else
//! is what the hub was built with; a changed file is judged, and what waits for a restart is named.

use std::path::PathBuf;

use super::super::{config_file, program};
use crate::Failure;
use crate::observe::view::View;

/// What is said when nothing waits for a restart.
const ALL_TAKEN: &str =
    "certificates and authorities are read again when their files change; nothing waits for a restart";

/// Answers each SIGHUP with what has become of the file, for as long as it is run.
///
/// # Errors
/// When the system gives no signals.
pub(super) fn answer_hangups(file: Option<PathBuf>, view: View) -> Result<impl Future<Output = ()>, Failure> {
    // What the command line sets is the same before and after.
    let before = config_file::settings(&program(), file.as_deref())?;
    let told = move || {
        let changed = config_file::settings(&program(), file.as_deref());
        let text = match changed.map(|now| config_file::changed(&before, &now)) {
            Ok(keys) if keys.is_empty() => ALL_TAKEN.to_owned(),
            Ok(keys) => format!("these settings have changed and wait for a restart: {}", keys.join(", ")),
            Err(failure) => format!("the configuration file cannot be taken: {failure}"),
        };
        view.note("reloaded", &text);
    };
    hangups(told)
}

#[cfg(unix)]
fn hangups(told: impl Fn()) -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|error| Failure::new(format!("cannot listen for signals: {error}"), "start again"))?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            told();
        }
    })
}

#[cfg(not(unix))]
fn hangups(told: impl Fn()) -> Result<impl Future<Output = ()>, Failure> {
    let _ = told;
    Ok(std::future::pending())
}
