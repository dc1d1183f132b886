//! Direct methods that the application has not answered.

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::METHOD_RESPONSE_TIME;
use crate::rule::Rule;
use crate::time::Instant;

/// Names a call of a direct method until it is answered with `Device::respond`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// Why a direct method cannot be answered. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RespondError {
    /// The call was answered before, is older than the hub waits for any answer (300 s), or came by a connection that
    /// has ended: the hub gives up a call with its connection.
    #[error(
        "nobody waits for an answer to this call: it was answered, is too old, or its connection has ended"
    )]
    Gone,
    /// The body is larger than 128 KB.
    #[error("the body of the answer is larger than 131072 bytes; send less, and the rest as telemetry")]
    TooLarge,
}

impl RespondError {
    /// The rule that stands in the way.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Gone => Rule::AnswerOnce,
            Self::TooLarge => Rule::MethodSize,
        }
    }
}

/// Longest `$rid` that is kept: as long as an id of the dialect may be. Azure's are 36 characters or fewer.
const RID_MAX: usize = crate::limits::ID_MAX;

/// Calls by their `$rid`, which is the hub's own text and opaque. Slots are used again, so that a call in the steady
/// state allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    last: u64,
}

#[derive(Debug)]
struct Slot {
    call: Option<CallId>,
    rid: String,
    expires: Instant,
}

impl Calls {
    /// Calls that can be answered.
    pub(super) fn len(&self) -> usize {
        self.slots.iter().filter(|slot| slot.call.is_some()).count()
    }

    /// Takes a call, and says until when it can be answered; `None` where `limit` calls are open, or the `$rid` is too long to keep.
    pub(super) fn open(&mut self, rid: &str, now: Instant, limit: usize) -> Option<(CallId, Instant)> {
        if rid.len() > RID_MAX {
            return None;
        }
        let free = self.slots.iter().position(|slot| slot.call.is_none() || slot.expires <= now);
        let index = free.unwrap_or(self.slots.len());
        if index >= limit {
            return None;
        }
        if free.is_none() {
            self.slots.push(Slot { call: None, rid: String::new(), expires: now });
        }
        let slot = self.slots.get_mut(index)?;
        self.last = self.last.saturating_add(1);
        let call = CallId(self.last);
        slot.call = Some(call);
        slot.rid.clear();
        slot.rid.push_str(rid);
        slot.expires = now.after(METHOD_RESPONSE_TIME.2);
        Some((call, slot.expires))
    }

    /// Takes a call out, and gives its `$rid`; `None` where nobody waits for the answer.
    pub(super) fn close(&mut self, call: CallId, now: Instant) -> Option<&str> {
        let slot = self.slots.iter_mut().find(|slot| slot.call == Some(call) && now < slot.expires)?;
        slot.call = None;
        Some(&slot.rid)
    }

    /// The connection is gone, and its calls with it.
    pub(super) fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.call = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(1000);

    #[test]
    fn a_call_is_answered_once() {
        let mut calls = Calls::default();
        let (first, _) = calls.open("a", NOW, 16).unwrap();
        let (second, _) = calls.open("b", NOW, 16).unwrap();
        assert_eq!(calls.close(second, NOW), Some("b"));
        assert_eq!(calls.close(second, NOW), None);
        assert_eq!(calls.close(first, NOW), Some("a"));
    }

    #[test]
    fn calls_are_bounded_and_a_call_that_the_hub_gave_up_makes_room() {
        let mut calls = Calls::default();
        let (old, _) = calls.open("old", NOW, 1).unwrap();
        assert_eq!(calls.open("new", NOW, 1), None);
        let later = NOW.after(METHOD_RESPONSE_TIME.2);
        assert_eq!(calls.close(old, later), None);
        let (new, _) = calls.open("new", later, 1).unwrap();
        assert_eq!(calls.close(old, later), None);
        assert_eq!(calls.close(new, later), Some("new"));
    }

    #[test]
    fn a_call_of_a_connection_that_ended_is_gone() {
        let mut calls = Calls::default();
        let (old, _) = calls.open("1", NOW, 1).unwrap();
        calls.clear();
        let (new, _) = calls.open("1", NOW, 1).unwrap();
        assert_eq!(calls.close(old, NOW), None);
        assert_eq!(calls.close(new, NOW), Some("1"));
    }

    #[test]
    fn an_endless_rid_is_not_kept() {
        assert_eq!(Calls::default().open(&"x".repeat(RID_MAX + 1), NOW, 16), None);
    }
}
