//! What a hub has acknowledged, and what it may therefore never have forgotten.
//!
//! | acknowledged by | what must hold after a kill |
//! |---|---|
//! | PUBACK of telemetry | the message is read back, exactly once if it was sent once |
//! | 2xx for a cloud message | it waits, until the device completes it |
//! | PUBACK of a cloud message | once that is known to have been stored, it never comes again |
//! | 204 for reported, 2xx for desired properties | the section has these members and this version |
//!
//! What was asked for and not answered is in *doubt*: it may have happened or not, but not by half.

mod cloud;
mod section;
mod telemetry;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use cloud::Cloud;
pub use section::Section;
pub use telemetry::Telemetry;

/// So much of a device's past is shown with a violation.
const HISTORY: usize = 60;

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Says what must not be.
///
/// # Errors
/// Always.
pub fn violation<T>(what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(what.into()))
}

/// All that is known about one device.
#[derive(Debug)]
pub struct Ledger {
    /// The device id.
    pub device_id: String,
    /// What it has sent.
    pub telemetry: Telemetry,
    /// What was sent to it.
    pub cloud: Cloud,
    /// Its reported properties.
    pub reported: Section,
    /// Its desired properties.
    pub desired: Section,
    /// The hub has acknowledged subscriptions of a session that it has to keep.
    has_session: bool,
    start: Instant,
    history: VecDeque<(Duration, String)>,
}

impl Ledger {
    /// Of a device that has just been registered; `start` is when the run began.
    #[must_use]
    pub fn new(device_id: &str, start: Instant) -> Self {
        Self {
            device_id: device_id.to_owned(),
            telemetry: Telemetry::default(),
            cloud: Cloud::default(),
            reported: Section::default(),
            desired: Section::default(),
            has_session: false,
            start,
            history: VecDeque::new(),
        }
    }

    /// Remembers what happened, for whoever reads about a violation.
    pub fn note(&mut self, what: impl Into<String>) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((self.start.elapsed(), what.into()));
    }

    /// What happened lately, a line each, with the time since the run began.
    pub fn history(&self) -> impl Iterator<Item = String> + '_ {
        self.history.iter().map(|(at, what)| format!("{:9.3} s  {what}", at.as_secs_f64()))
    }

    /// The hub has acknowledged a subscription.
    pub const fn subscribed(&mut self) {
        self.has_session = true;
    }

    /// The device is connected: what it has sent and was not acknowledged goes out again.
    ///
    /// # Errors
    /// When the hub has forgotten a session whose subscriptions it had acknowledged.
    pub fn connected(&mut self, session_present: bool) -> Result<(), Violation> {
        self.note(format!("connected, session present: {session_present}"));
        self.telemetry.resent();
        if self.has_session && !session_present {
            return violation("the session is gone, although a subscription was acknowledged");
        }
        Ok(())
    }

    /// The hub was started again, and shows this twin before the device has connected.
    ///
    /// # Errors
    /// When a section is not what was acknowledged, or too few or too many cloud messages wait.
    pub fn check_twin(&mut self, twin: &Value) -> Result<(), Violation> {
        let named = |name: &str, result: Result<(), Violation>| {
            result.map_err(|Violation(what)| Violation(format!("{name} properties: {what}")))
        };
        named("reported", self.reported.check(&twin["properties"]["reported"]))?;
        named("desired", self.desired.check(&twin["properties"]["desired"]))?;
        let waiting = twin["cloudToDeviceMessageCount"].as_u64();
        let Some(waiting) = waiting else { return violation(format!("no count of messages in {twin}")) };
        self.cloud.check(waiting)
    }

    /// Nothing is under way any more: all was acknowledged, delivered and completed.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.telemetry.is_settled() && self.cloud.open().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn twin(reported: u64, desired: u64, waiting: u64) -> Value {
        let section = |version: u64| json!({"$version": version});
        json!({
            "properties": {"reported": section(reported), "desired": section(desired)},
            "cloudToDeviceMessageCount": waiting,
        })
    }

    #[test]
    fn a_new_device_has_an_empty_twin_and_no_messages() {
        let mut ledger = Ledger::new("dev", Instant::now());
        ledger.check_twin(&twin(1, 1, 0)).unwrap();
        assert!(ledger.check_twin(&twin(2, 1, 0)).unwrap_err().0.starts_with("reported"));
        assert!(ledger.check_twin(&twin(1, 2, 0)).unwrap_err().0.starts_with("desired"));
        assert!(ledger.check_twin(&twin(1, 1, 1)).is_err(), "a message that nobody sent");
        assert!(ledger.check_twin(&json!({})).is_err());
    }

    #[test]
    fn a_session_is_missed_once_a_subscription_was_acknowledged() {
        let mut ledger = Ledger::new("dev", Instant::now());
        ledger.connected(false).unwrap();
        ledger.subscribed();
        ledger.connected(true).unwrap();
        assert!(ledger.connected(false).is_err());
        assert_eq!(ledger.history().count(), 3);
    }
}
