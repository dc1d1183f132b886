//! Keeping in step with the desired properties.
//!
//! The rule is: a document, then every version after it. So the machine subscribes, asks for the document, and from
//! then on hands out a notification if and only if it is the next version. A version that it knows already is dropped.
//! One that skips a version says that a notification was missed: the machine asks for the document again. What comes
//! while it asks is not kept, only its version: if the document turns out to be older, the machine asks once more.
//! That costs a request in a rare race, and no memory in any.

use crate::time::Instant;

/// How far a connection has come with the desired properties.
#[derive(Debug, Default)]
pub(super) struct Observer {
    state: State,
    failures: u32,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// The document is to be asked for.
    #[default]
    Behind,
    /// The document was asked for; `missed` is the newest version that was notified since.
    Asked { missed: u64 },
    /// The hub gave no document; it is to be asked again later.
    Paused { until: Instant },
    /// The application has this version.
    Current { version: u64 },
}

impl Observer {
    /// Whether the document is to be asked for now.
    pub(super) fn is_behind(&self) -> bool {
        self.state == State::Behind
    }

    /// Changes may have been missed.
    pub(super) fn fall_behind(&mut self) {
        self.state = State::Behind;
    }

    /// The document was asked for.
    pub(super) fn asked(&mut self) {
        self.state = State::Asked { missed: 0 };
    }

    /// The document came, with this version of the desired properties.
    pub(super) fn answered(&mut self, version: u64) {
        self.failures = 0;
        self.state = match self.state {
            State::Asked { missed: newer } | State::Current { version: newer } if newer > version => {
                State::Behind
            }
            _ => State::Current { version },
        };
    }

    /// No document came. `delay` gives the time to wait for a number of failures in a row.
    pub(super) fn failed(&mut self, until: impl FnOnce(u32) -> Instant) {
        self.state = State::Paused { until: until(self.failures) };
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether the application is to see the notification of `version`.
    pub(super) fn notified(&mut self, version: u64) -> bool {
        match &mut self.state {
            State::Current { version: known } if version <= *known => false,
            State::Current { version: known } if version == known.saturating_add(1) => {
                *known = version;
                true
            }
            State::Current { .. } => {
                self.state = State::Behind;
                false
            }
            State::Asked { missed } => {
                *missed = version.max(*missed);
                false
            }
            State::Behind | State::Paused { .. } => false,
        }
    }

    /// When a pause ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Paused { until } => Some(until),
            _ => None,
        }
    }

    /// Ends a pause that is over.
    pub(super) fn time_out(&mut self, now: Instant) {
        if self.deadline().is_some_and(|until| until <= now) {
            self.state = State::Behind;
        }
    }
}

/// The `$version` of the desired properties in the answer to a GET, with or without the outer `properties` of the
/// 2016 documents.
pub(super) fn desired_version(document: &[u8]) -> Option<u64> {
    let document: serde_json::Value = serde_json::from_slice(document).ok()?;
    document.get("properties").unwrap_or(&document).get("desired")?.get("$version")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current(version: u64) -> Observer {
        let mut observer = Observer::default();
        observer.asked();
        observer.answered(version);
        observer
    }

    #[test]
    fn the_next_version_is_handed_out_once() {
        let mut observer = current(4);
        assert!(observer.notified(5));
        assert!(!observer.notified(5));
        assert!(!observer.notified(3));
        assert!(observer.notified(6));
        assert!(!observer.is_behind());
    }

    #[test]
    fn a_skipped_version_asks_for_the_document() {
        let mut observer = current(4);
        assert!(!observer.notified(6));
        assert!(observer.is_behind());
        observer.asked();
        observer.answered(6);
        assert!(observer.notified(7));
    }

    #[test]
    fn a_document_older_than_what_was_notified_meanwhile_is_not_the_last() {
        let mut observer = Observer::default();
        observer.asked();
        assert!(!observer.notified(5));
        observer.answered(4);
        assert!(observer.is_behind());
        observer.asked();
        observer.answered(5);
        assert!(!observer.is_behind());
    }

    #[test]
    fn a_hub_that_contradicts_itself_is_not_asked_for_ever() {
        let mut observer = current(4);
        assert!(!observer.notified(u64::MAX));
        observer.asked();
        observer.answered(4);
        assert!(!observer.is_behind());
    }

    #[test]
    fn the_last_version_that_a_number_can_say_does_no_harm() {
        let mut observer = current(u64::MAX);
        assert!(!observer.notified(u64::MAX));
        assert!(!observer.notified(0));
    }

    #[test]
    fn after_a_failure_the_document_is_asked_for_later() {
        let mut observer = Observer::default();
        observer.asked();
        observer.failed(|failures| Instant::from_secs(10 + u64::from(failures)));
        assert!(!observer.is_behind());
        observer.time_out(Instant::from_secs(9));
        assert!(!observer.is_behind());
        observer.time_out(Instant::from_secs(10));
        assert!(observer.is_behind());
        observer.asked();
        observer.failed(|failures| Instant::from_secs(20 + u64::from(failures)));
        assert_eq!(observer.deadline(), Some(Instant::from_secs(21)));
    }

    #[test]
    fn the_version_is_found_with_and_without_wrapper() {
        assert_eq!(desired_version(br#"{"desired":{"$version":7},"reported":{"$version":1}}"#), Some(7));
        assert_eq!(desired_version(br#"{"properties":{"desired":{"a":1,"$version":8}}}"#), Some(8));
        for other in
            [&b""[..], b"[]", b"{}", br#"{"desired":{}}"#, br#"{"desired":{"$version":-1}}"#, b"\xFF"]
        {
            assert_eq!(desired_version(other), None);
        }
    }
}
