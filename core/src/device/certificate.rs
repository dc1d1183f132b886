//! A newer certificate from the hub, before the device's own ends (IoT Hub: certificate renewal).
//!
//! The application makes key and request, the machine asks. A request lives over the end of a connection: it is sent again
//! on the next one, in place of what the hub may still have of it, so that whichever answer comes has a certificate for
//! the same key.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Action, CertificateFailure, Device, Phase, RequestError};
use crate::iothub::provisioning::ErrorBody;
use crate::iothub::topic::issue_certificate_topic;
use crate::iothub::{
    CertificateChain, CertificateRequest, Subscription, issue_certificate_body, issued_certificates,
};
use crate::time::{Instant, UnixTime};

/// From a request to its last answer, on one connection: 120 s (Azure's C SDK of 2026).
const ISSUE_TIME: Duration = Duration::from_secs(120);
/// What the id of a request begins with: the hub wants 4 to 36 characters.
const RID: &str = "renew-";
/// The part of its life after which a certificate is renewed at the earliest and at the latest, in sixths: the rest is for
/// trying again.
const RENEWAL: (u32, u32) = (4, 5);

/// The one request that can be open, and the time for the next.
#[derive(Debug, Default)]
pub(super) struct Issue {
    open: Option<Open>,
    /// The number in the last request's id.
    last: u32,
    failure: Option<CertificateFailure>,
    /// When the application is to be told that it is time.
    due: Option<Instant>,
    is_due: bool,
}

#[derive(Debug)]
struct Open {
    request: CertificateRequest,
    /// The number in the id of its first sending.
    first: u32,
    /// `None` while it waits for a connection.
    deadline: Option<Instant>,
}

impl Issue {
    /// Whether the application is to be told something.
    pub(super) const fn owes(&self) -> bool {
        self.is_due || self.failure.is_some()
    }

    /// What it is to be told.
    pub(super) fn owed(&mut self) -> Option<Action<'static>> {
        if core::mem::take(&mut self.is_due) {
            return Some(Action::CertificateDue);
        }
        self.failure.take().map(Action::CertificateFailed)
    }

    /// The connection is over: what was asked is asked again on the next one.
    pub(super) const fn rewind(&mut self) {
        if let Some(open) = &mut self.open {
            open.deadline = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().and_then(|open| open.deadline).into_iter().chain(self.due).min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.is_due = true;
        }
        let is_over = |open: &mut Open| open.deadline.is_some_and(|deadline| deadline <= now);
        if self.open.as_mut().is_some_and(is_over) {
            self.open = None;
            self.failure = Some(CertificateFailure::TimedOut);
        }
    }

    /// Whether the id is one of the open request's.
    fn is_own(&self, rid: &str) -> bool {
        let number = rid.strip_prefix(RID).and_then(|number| number.parse::<u32>().ok());
        self.open
            .as_ref()
            .is_some_and(|open| number.is_some_and(|number| (open.first..=self.last).contains(&number)))
    }
}

impl Device {
    /// Asks the hub for a certificate for the key behind `request`, whose subject is the device id or the registration id.
    /// Works offline, too: it is sent on the next connection.
    ///
    /// [`Action::CertificateIssued`] or [`Action::CertificateFailed`] is the answer. The connection goes on as it is; give
    /// the new certificate to the transport and call
    /// [`replace_credential`](Self::replace_credential), and the machine connects with it when nothing is in flight.
    ///
    /// # Errors
    /// [`RequestError::TooMany`] where a request is open, or too many SUBSCRIBEs wait for their SUBACK;
    /// [`RequestError::OtherIdentity`] for a module.
    pub fn request_certificate(
        &mut self,
        now: Instant,
        request: CertificateRequest,
        tx: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        self.now = self.now.max(now);
        if self.config.identity().module_id().is_some() {
            return Err(RequestError::OtherIdentity);
        }
        if self.issue.open.is_some() {
            return Err(RequestError::TooMany);
        }
        self.want(&[Subscription::CredentialResponses], tx)?;
        let first = self.issue.last.saturating_add(1);
        self.issue.open = Some(Open { request, first, deadline: None });
        self.send_certificate_request(tx);
        Ok(())
    }

    /// Has [`Action::CertificateDue`] told when `chain` is to be renewed: after two thirds of its life, at a time that
    /// differs from device to device, and before five sixths. `unix_time` is the wall clock at `now`. One plan takes the
    /// place of another.
    pub fn plan_certificate_renewal(&mut self, now: Instant, unix_time: UnixTime, chain: &CertificateChain) {
        self.now = self.now.max(now);
        let life = chain.not_after().since(chain.not_before());
        let after = |sixths: u32| {
            let part = life.saturating_mul(sixths).checked_div(6).unwrap_or_default();
            chain.not_before().after(part).since(unix_time)
        };
        let delay = self.backoff.between(after(RENEWAL.0), after(RENEWAL.1));
        self.issue.due = Some(self.now.after(delay));
        self.issue.is_due = false;
    }

    /// Sends the request, where there is one and its answer will be heard.
    pub(super) fn send_certificate_request(&mut self, tx: &mut Vec<u8>) {
        let heard = self.granted.get(Subscription::CredentialResponses).is_some();
        if !heard || !matches!(self.phase, Phase::Online(_)) {
            return;
        }
        let Some(open) = self.issue.open.as_mut().filter(|open| open.deadline.is_none()) else { return };
        self.issue.last = self.issue.last.saturating_add(1);
        open.deadline = Some(self.now.after(ISSUE_TIME));
        // What an earlier connection has asked for is not to stand in the way.
        let replace = (open.first < self.issue.last).then_some("*");
        let body = issue_certificate_body(self.config.identity().device_id(), &open.request, replace);
        self.topic = String::new();
        issue_certificate_topic(format!("{RID}{:04}", self.issue.last), &mut self.topic);
        self.publish_at_most_once(body.as_bytes(), tx);
    }

    /// Takes an answer; `None` where nothing waits for it.
    pub(super) fn certificate_answered(
        &mut self,
        status: u16,
        rid: &str,
        body: &[u8],
    ) -> Option<Action<'static>> {
        if !self.issue.is_own(rid) {
            return None;
        }
        match status {
            202 => return Some(Action::Handled), // accepted; it is not the last
            200 => {}
            _ => {
                self.issue.open = None;
                let error = ErrorBody::parse(body);
                return Some(Action::CertificateFailed(CertificateFailure::Refused { status, error }));
            }
        }
        self.issue.open = None;
        Some(match issued_certificates(body) {
            Ok(chain) => Action::CertificateIssued(Box::new(chain)),
            Err(_) => Action::CertificateFailed(CertificateFailure::Malformed),
        })
    }
}
