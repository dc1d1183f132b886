//! Twin requests on their way, by `$rid`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use crate::rule::Rule;
use crate::time::Instant;

/// Names a request until its answer: the decimal number that the request carries as `$rid`.
///
/// Numbers count up from 1. One device machine uses none twice while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u32);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a request gets no answer. Whether the hub did what it was asked for is not known, but for
/// [`NeverSent`](Self::NeverSent).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailure {
    /// The answer did not come within [`Timing::request`](super::Timing::request).
    #[error("the hub did not answer in time; ask again")]
    TimedOut,
    /// The connection ended first.
    #[error("the connection ended before the answer came; ask again when the device is connected")]
    ConnectionLost,
    /// No connection came within [`Timing::request`](super::Timing::request), or the application disconnected first: the hub
    /// was not asked.
    #[error("no connection came in time, and nothing was sent; ask again when the device is connected")]
    NeverSent,
    /// The hub refused the subscription that answers come by.
    #[error("the hub refused the subscription to twin answers; see the hub's log")]
    Refused,
}

/// Why a request was not made. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The application has disconnected, so that no connection will come.
    #[error("the device was disconnected; call connect first")]
    NotConnected,
    /// As many requests wait for their answer as [`Limits::requests`](super::Limits::requests) allows.
    #[error("too many requests wait for their answer; wait for Answered or Failed")]
    TooMany,
    /// The patch is larger than 256 KB.
    #[error("the patch is larger than 262144 bytes; a twin section holds 32 KB")]
    TooLarge,
    /// A module has no cloud-to-device messages, a device no inputs.
    #[error("cloud-to-device messages are for devices, inputs for modules")]
    OtherIdentity,
}

impl RequestError {
    /// The rule that stands in the way.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::NotConnected => Rule::NotConnected,
            Self::TooMany => Rule::RequestsOpen,
            Self::TooLarge => Rule::MessageSize,
            Self::OtherIdentity => Rule::UnknownFilter,
        }
    }
}

/// What becomes of the requests of the application that wait for their answer when the connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestPolicy {
    /// They fail with [`RequestFailure::ConnectionLost`], and the application decides.
    #[default]
    Fail,
    /// They are sent again on the next connection, until their time is over. A patch that the hub has merged already is
    /// merged again, which changes nothing; with a version it was for, it is answered with 412.
    Resend,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Application,
    /// The machine, which keeps the desired properties in step.
    Machine,
}

/// An answer that no open request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stray {
    /// The request was given up before.
    Late,
    /// The request was answered before.
    Duplicate,
    /// No request of late carried the `$rid`.
    Unknown,
}

#[derive(Debug)]
struct Request {
    id: RequestId,
    asker: Asker,
    deadline: Instant,
    /// The PUBLISH, where it is to be sent on a connection to come; else nothing.
    packet: Vec<u8>,
    sent: bool,
    /// Given up, and not told yet.
    failure: Option<RequestFailure>,
}

/// The open requests, and as many of the last closed ones, to tell stray answers apart.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: Vec<Request>,
    closed: VecDeque<(RequestId, Stray)>,
    last: u32,
}

impl Requests {
    /// Requests of the application whose fate it was not told.
    pub(super) fn len(&self) -> usize {
        self.open.iter().filter(|request| request.asker == Asker::Application).count()
    }

    /// Whether there is no request whose fate is open or untold.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a request waits for its answer.
    pub(super) fn any_open(&self) -> bool {
        self.open.iter().any(|request| request.failure.is_none())
    }

    pub(super) fn open(&mut self, asker: Asker, deadline: Instant) -> RequestId {
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            let id = RequestId(self.last);
            if self.open.iter().all(|request| request.id != id) {
                self.open.push(Request {
                    id,
                    asker,
                    deadline,
                    packet: Vec::new(),
                    sent: true,
                    failure: None,
                });
                return id;
            }
        }
    }

    /// Takes an answer with `rid` as it stands in the topic; `memory` closed requests are remembered.
    pub(super) fn answer(&mut self, rid: &str, memory: usize) -> Result<(RequestId, Asker), Stray> {
        let id = parse(rid).ok_or(Stray::Unknown)?;
        let waits = |request: &Request| request.id == id && request.failure.is_none();
        if let Some(index) = self.open.iter().position(waits) {
            let request = self.open.remove(index);
            self.remember(id, Stray::Duplicate, memory);
            return Ok((id, request.asker));
        }
        if self.open.iter().any(|request| request.id == id) {
            return Err(Stray::Late);
        }
        Err(self.closed.iter().find(|(closed, _)| *closed == id).map_or(Stray::Unknown, |&(_, stray)| stray))
    }

    /// Gives up the requests whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        for request in self.open.iter_mut().filter(|request| request.deadline <= now) {
            request.fail(RequestFailure::TimedOut);
        }
    }

    /// Keeps the PUBLISH of a request of the application, which was `sent` or not, to be sent on a connection to come.
    pub(super) fn keep(&mut self, id: RequestId, packet: &[u8], sent: bool) {
        let kept = |request: &&mut Request| request.id == id && request.asker == Asker::Application;
        if let Some(request) = self.open.iter_mut().find(kept) {
            request.packet = packet.to_vec();
            request.sent = sent;
        }
    }

    /// Appends the requests that wait for a connection, and keeps them only where they may be sent again.
    pub(super) fn send_kept(&mut self, policy: RequestPolicy, out: &mut Vec<u8>) {
        for request in self.open.iter_mut().filter(|request| request.failure.is_none()) {
            out.extend_from_slice(&request.packet);
            request.sent = true;
            if policy == RequestPolicy::Fail {
                request.packet = Vec::new();
            }
        }
    }

    /// Gives up the requests that are not to be sent again.
    pub(super) fn fail_lost(&mut self) {
        for request in self.open.iter_mut().filter(|request| request.packet.is_empty()) {
            request.fail(RequestFailure::ConnectionLost);
        }
    }

    /// Gives up all requests.
    pub(super) fn fail_all(&mut self, failure: RequestFailure) {
        for request in &mut self.open {
            request.fail(failure);
        }
    }

    /// The next request that was given up.
    pub(super) fn poll_failure(&mut self, memory: usize) -> Option<(RequestId, Asker, RequestFailure)> {
        let (index, failure) =
            self.open.iter().enumerate().find_map(|(index, request)| Some((index, request.failure?)))?;
        let request = self.open.remove(index);
        self.remember(request.id, Stray::Late, memory);
        Some((request.id, request.asker, failure))
    }

    /// The next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.iter().filter(|request| request.failure.is_none()).map(|request| request.deadline).min()
    }

    fn remember(&mut self, id: RequestId, stray: Stray, memory: usize) {
        if self.closed.len() >= memory {
            self.closed.pop_front();
        }
        self.closed.push_back((id, stray));
    }
}

impl Request {
    /// Gives the request up, unless it was given up before.
    fn fail(&mut self, failure: RequestFailure) {
        self.failure.get_or_insert(if self.sent { failure } else { RequestFailure::NeverSent });
    }
}

/// Only the very text that was sent names a request: `01` and `+1` do not.
fn parse(rid: &str) -> Option<RequestId> {
    let plain = rid.bytes().all(|byte| byte.is_ascii_digit()) && !rid.starts_with('0');
    rid.parse().ok().filter(|_| plain).map(RequestId)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: usize = 4;

    fn open(requests: &mut Requests) -> RequestId {
        requests.open(Asker::Application, Instant::from_secs(60))
    }

    #[test]
    fn late_duplicate_and_unknown_answers_are_told_apart() {
        let mut requests = Requests::default();
        let (first, second) = (open(&mut requests), open(&mut requests));
        assert_eq!(requests.answer("1", MEMORY), Ok((first, Asker::Application)));
        assert_eq!(requests.answer("1", MEMORY), Err(Stray::Duplicate));
        requests.expire(Instant::from_secs(60));
        assert_eq!(requests.answer("2", MEMORY), Err(Stray::Late), "failed, and not told yet");
        assert_eq!(
            requests.poll_failure(MEMORY),
            Some((second, Asker::Application, RequestFailure::TimedOut))
        );
        assert_eq!(requests.answer("2", MEMORY), Err(Stray::Late));
        for unknown in ["3", "02", "+2", "", "2 ", "x", "4294967296"] {
            assert_eq!(requests.answer(unknown, MEMORY), Err(Stray::Unknown), "{unknown:?}");
        }
    }

    #[test]
    fn a_request_expires_at_its_deadline_and_not_before() {
        let mut requests = Requests::default();
        let id = open(&mut requests);
        requests.expire(Instant::from_micros(59_999_999));
        assert_eq!(requests.poll_failure(MEMORY), None);
        assert_eq!(requests.deadline(), Some(Instant::from_secs(60)));
        requests.expire(Instant::from_secs(60));
        assert_eq!(requests.deadline(), None);
        assert_eq!(requests.poll_failure(MEMORY), Some((id, Asker::Application, RequestFailure::TimedOut)));
        assert_eq!(requests.poll_failure(MEMORY), None);
    }

    #[test]
    fn the_memory_of_closed_requests_is_bounded() {
        let mut requests = Requests::default();
        for _ in 0..10 {
            let id = open(&mut requests);
            requests.answer(&alloc::format!("{id}"), MEMORY).unwrap();
        }
        assert_eq!(requests.closed.len(), MEMORY);
        assert_eq!(requests.answer("6", MEMORY), Err(Stray::Unknown));
        assert_eq!(requests.answer("7", MEMORY), Err(Stray::Duplicate));
    }

    #[test]
    fn ids_wrap_past_those_that_are_open() {
        let mut requests = Requests::default();
        let id = open(&mut requests);
        requests.last = u32::MAX;
        assert_eq!((id, open(&mut requests)), (RequestId(1), RequestId(2)));
    }
}
