//! Direct method calls in flight. They are volatile: a hub that restarts has forgotten them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::time::Duration;

use super::{DeviceKey, TierError};
use crate::limits::{METHOD_CONNECT_TIME_MAX, METHOD_PAYLOAD_MAX, METHOD_RESPONSE_TIME};
use crate::time::Instant;

/// Longest method name (Azure IoT Edge hub).
const METHOD_NAME_MAX: usize = 100;

/// A call of a direct method, until it is answered or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// The number, which is also the `$rid` of the request.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A call as the back end makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodRequest {
    /// The method's name.
    pub name: String,
    /// The JSON text of the payload; `None` reaches the device as `null`, which every SDK understands.
    pub payload: Option<String>,
    /// How long to wait for the answer.
    pub response_timeout: Duration,
    /// How long to wait for the device to be there; zero: it must be there now.
    pub connect_timeout: Duration,
}

impl MethodRequest {
    /// Whether the call may be made: the rules of direct methods (IoT Hub direct method guide).
    ///
    /// # Errors
    /// [`InvokeError::Argument`] with the rule that is broken.
    pub fn check(&self) -> Result<(), InvokeError> {
        let (shortest, _, longest) = METHOD_RESPONSE_TIME;
        if self.name.is_empty() || self.name.len() > METHOD_NAME_MAX {
            return Err(InvokeError::Argument("the method name has 1 to 100 characters"));
        }
        if !self.name.bytes().all(|byte| byte.is_ascii_graphic() && !br#"$()<>@,;:\"/[]?={}"#.contains(&byte))
        {
            return Err(InvokeError::Argument(
                "the method name is printable ASCII without $()<>@,;:\\\"/[]?={} and spaces",
            ));
        }
        if !(shortest..=longest).contains(&self.response_timeout) {
            return Err(InvokeError::Argument("responseTimeoutInSeconds is 5 to 300"));
        }
        if self.connect_timeout > METHOD_CONNECT_TIME_MAX {
            return Err(InvokeError::Argument("connectTimeoutInSeconds is 0 to 300"));
        }
        if self.payload.as_ref().is_some_and(|payload| payload.len() > METHOD_PAYLOAD_MAX) {
            return Err(InvokeError::Argument("the payload is at most 131072 bytes"));
        }
        Ok(())
    }
}

/// The answer of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodAnswer<'i> {
    /// The call that it answers.
    pub call: CallId,
    /// The status, the device's own choice.
    pub status: i32,
    /// The body: JSON, or nothing.
    pub payload: &'i [u8],
}

/// Why a call cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// 404001: no such identity.
    #[error("no such device (404001 DeviceNotFound); register it first")]
    UnknownDevice,
    /// 404103: the device is not connected, and the call does not wait for it.
    #[error(
        "Timed out waiting for device to connect: it is not connected (404103 DeviceNotOnline); connect it, or set connectTimeoutInSeconds to wait for it"
    )]
    NotOnline,
    /// 404103: the device is connected and did not subscribe to methods, and the call does not wait for that.
    #[error(
        "Timed out waiting for device to subscribe: it is connected and has no subscription to $iothub/methods/POST/# (404103 DeviceNotOnline); subscribe, or set connectTimeoutInSeconds to wait for that"
    )]
    NotSubscribed,
    /// 403800: the device has as many calls open as it may have.
    #[error(
        "too many calls are in flight for the device (403800 DeviceMaximumInflightMethodExceeded); wait for answers"
    )]
    TooMany,
    /// The hub's tier does not allow it, or not now.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// 400004: the name, payload or a time breaks a rule.
    #[error("{0} (400004 ArgumentInvalid)")]
    Argument(&'static str),
}

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// 404103: the device did not come online in time.
    #[error(
        "Timed out waiting for device to connect: it did not within connectTimeoutInSeconds (404103 DeviceNotOnline); see why it stays away"
    )]
    NotOnline,
    /// 404103: the device is connected, and did not subscribe to methods in time.
    #[error(
        "Timed out waiting for device to subscribe: it is connected and did not subscribe to $iothub/methods/POST/# within connectTimeoutInSeconds (404103 DeviceNotOnline)"
    )]
    NotSubscribed,
    /// 504101: the device got the call and did not answer in time.
    #[error("the device did not answer in time (504101 GatewayTimeout)")]
    NoAnswer,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) device: DeviceKey,
    pub(super) name: Box<str>,
    pub(super) payload: Option<Box<str>>,
    pub(super) response_timeout: Duration,
    pub(super) deadline: Instant,
    pub(super) sent: bool,
}

#[derive(Debug)]
pub(super) struct Calls {
    open: BTreeMap<CallId, Call>,
    last: u64,
}

impl Calls {
    pub(super) const fn new() -> Self {
        Self { open: BTreeMap::new(), last: 0 }
    }

    pub(super) fn insert(&mut self, call: Call) -> CallId {
        self.last = self.last.saturating_add(1);
        let id = CallId(self.last);
        self.open.insert(id, call);
        id
    }

    pub(super) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.open.get_mut(&id)
    }

    /// The call that `rid` names, if it was sent to this device and is still open.
    pub(super) fn find(&self, rid: &str, device: DeviceKey) -> Option<CallId> {
        // As the hub wrote it, and in no other form of the same number.
        if rid.starts_with(['0', '+']) {
            return None;
        }
        let id = CallId(rid.parse().ok()?);
        let call = self.open.get(&id)?;
        (call.device == device && call.sent).then_some(id)
    }

    /// The call has its answer.
    pub(super) fn answered(&mut self, id: CallId) {
        self.open.remove(&id);
    }

    /// Forgets a call whose device is gone: at its deadline it comes to nothing.
    pub(super) fn abandon(&mut self, id: CallId) {
        if let Some(call) = self.open.get_mut(&id) {
            call.sent = false;
        }
    }

    /// Takes out a call that nobody waits for any more; gives whose it was.
    pub(super) fn cancel(&mut self, id: CallId) -> Option<DeviceKey> {
        self.open.remove(&id).map(|call| call.device)
    }

    /// Takes out a call whose deadline has passed. The error is the deadline of one that is still open.
    pub(super) fn expire(
        &mut self,
        id: CallId,
        now: Instant,
    ) -> Result<(DeviceKey, CallFailure), Option<Instant>> {
        let call = self.open.get(&id).ok_or(None)?;
        if call.deadline > now {
            return Err(Some(call.deadline));
        }
        let failure = if call.sent { CallFailure::NoAnswer } else { CallFailure::NotOnline };
        let device = call.device;
        self.open.remove(&id);
        Ok((device, failure))
    }
}
