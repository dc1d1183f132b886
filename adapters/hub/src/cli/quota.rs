//! What was used of the daily quota, kept so that a hub which starts again goes on counting.
//!
//! It is one number for the whole hub, and nothing is acknowledged on it. So it is a file beside the store, written once a
//! second at most, and a crash forgets what that second brought.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use devicebound::hub::Usage;
use serde_json::{Value, json};

use crate::Failure;
use crate::blocking_thread::BlockingThread;
use crate::engine::Engine;
use crate::observe::view::View;
use crate::state::{Secrecy, StateDir};

const FILE: &str = "quota.json";
/// Time between two writes.
const PACE: Duration = Duration::from_secs(1);

/// Keeps the count of a hub that has a tier.
#[derive(Debug)]
pub(super) struct Quota {
    engine: Arc<Engine>,
    state: StateDir,
    writer: BlockingThread,
    view: View,
    written: Option<Usage>,
    has_failed: bool,
}

impl Quota {
    /// Gives the hub what was used before.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or holds no count.
    pub(super) async fn restore(engine: Arc<Engine>, state: StateDir, view: View) -> Result<Self, Failure> {
        let written = match state.read(FILE)? {
            None => None,
            Some(text) => Some(parse(&text).ok_or_else(|| {
                Failure::new(
                    format!("{} holds no count", state.file(FILE).display()),
                    "remove it, and the day counts from now on",
                )
            })?),
        };
        if let Some(usage) = written {
            engine.everywhere(move |core, _| core.hub.set_usage(usage)).await;
        }
        let no_thread =
            |error| Failure::new(format!("cannot start threads: {error}"), "see the limits of this system");
        let writer = BlockingThread::start("quota").map_err(no_thread)?;
        Ok(Self { engine, state, writer, view, written, has_failed: false })
    }

    /// Writes the count down whenever it has grown, until `stop`.
    pub(super) async fn keep_until(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut pace = tokio::time::interval(PACE);
        loop {
            let is_over = tokio::select! {
                _ = pace.tick() => false,
                () = &mut stop => true,
            };
            self.write().await;
            if is_over {
                return;
            }
        }
    }

    async fn write(&mut self) {
        let used = self.engine.everywhere(|core, _| core.hub.usage()).await;
        // A hub with a tier has one place.
        let Some(used) = used.into_iter().flatten().next() else { return };
        if self.written == Some(used) {
            return;
        }
        let text = json!({"day": used.day, "messages": used.messages}).to_string();
        let state = self.state.clone();
        let write = move || state.write(FILE, text.as_bytes(), Secrecy::Open);
        let failed = match self.writer.run(write).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure.to_string()),
            Err(error) => Some(error.to_string()),
        };
        match &failed {
            None => self.written = Some(used),
            Some(text) if !self.has_failed => self.view.note("quotaNotKept", text),
            Some(_) => {}
        }
        self.has_failed = failed.is_some();
    }
}

fn parse(text: &str) -> Option<Usage> {
    let value: Value = serde_json::from_str(text).ok()?;
    let number = |name| value.get(name).and_then(Value::as_u64);
    Some(Usage { day: number("day")?, messages: number("messages")? })
}
