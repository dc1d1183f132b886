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

    /// Ends a pause, whether it is over or not.
    pub(super) fn resume(&mut self) {
        if self.deadline().is_some() {
            self.state = State::Behind;
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
///
/// It is looked for where it stands and nothing else is read: who needs the document parses it, or leaves that to
/// `follow_desired`.
pub(super) fn desired_version(document: &[u8]) -> Option<u64> {
    let twin = member(document, b"properties").unwrap_or(document);
    let version = member(member(twin, b"desired")?, b"$version")?.trim_ascii_end();
    let digits = version.iter().all(u8::is_ascii_digit);
    str::from_utf8(version).ok().filter(|_| digits)?.parse().ok()
}

/// The value of the first member of a JSON object that has this name, spelled without escapes.
fn member<'a>(object: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = object.trim_ascii_start().strip_prefix(b"{")?;
    loop {
        let quoted = rest.trim_ascii_start().strip_prefix(b"\"")?;
        let (key, after) = quoted.split_at_checked(string_length(quoted)?)?;
        let after = after.strip_prefix(b"\"")?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let (value, after) = after.split_at_checked(value_length(after)?)?;
        if key == name {
            return Some(value);
        }
        rest = after.strip_prefix(b",")?;
    }
}

/// How many bytes stand before the quote that ends a text.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// How many bytes stand before the comma or the brace that ends a member.
fn value_length(value: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0_usize);
    loop {
        match value.get(at)? {
            b'"' => {
                let text = value.get(at.checked_add(1)?..)?;
                at = at.checked_add(string_length(text)?)?.checked_add(1)?;
            }
            b'{' | b'[' => depth = depth.checked_add(1)?,
            b'}' | b']' if depth > 0 => depth = depth.checked_sub(1)?,
            b',' if depth > 0 => {}
            b'}' | b']' | b',' => return Some(at),
            _ => {}
        }
        at = at.checked_add(1)?;
    }
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
        for (document, version) in [
            (r#"{"desired":{"$version":7},"reported":{"$version":1}}"#, 7),
            (r#"{"properties":{"desired":{"a":1,"$version":8}}}"#, 8),
            (" { \"reported\" : {} , \"desired\" : { \"a\" : [ 1 , {} ] , \"$version\" : 9\n} } ", 9),
            (r#"{"x":"}\",\\","desired":{"a":{"$version":1},"b":"\"$version\":2","$version":10}}"#, 10),
        ] {
            assert_eq!(desired_version(document.as_bytes()), Some(version), "{document}");
        }
    }

    #[test]
    fn a_document_without_a_version_has_none_however_it_is_broken() {
        let deep = "[".repeat(100_000);
        for document in [
            "",
            "[]",
            "{}",
            r#"{"desired":{}}"#,
            r#"{"desired":{"$version":-1}}"#,
            r#"{"desired":{"$version":+1}}"#,
            r#"{"desired":{"$version":1.5}}"#,
            r#"{"desired":{"$version":"1"}}"#,
            r#"{"desired":{"$version":18446744073709551616}}"#,
            r#"{"desired":{"$version":1"#,
            r#"{"desired":7,"$version":1}"#,
            r#"{"desired":{"a":"\"},"$version":1}"#,
            &deep,
        ] {
            assert_eq!(desired_version(document.as_bytes()), None, "{document:.60}");
        }
        assert_eq!(desired_version(b"{\"desired\":{\"\xFF"), None);
    }
}
