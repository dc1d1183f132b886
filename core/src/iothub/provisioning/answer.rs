//! What the service answers, and what a device makes of it.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde_json::value::RawValue;

use crate::iothub::json_text;

/// How long a device waits that is told nothing (Azure's Python and Node SDKs).
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(2);
/// Longest operation id that a device takes (own limit: those of the service have 57 bytes).
const OPERATION_ID_MAX: usize = 1024;
/// Shortest and longest wait that a device lets itself be told (Azure's C SDK).
pub const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// The states of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing was done yet.
    Unassigned,
    /// The service is looking for a hub.
    Assigning,
    /// The device has a hub.
    Assigned,
    /// It could not be given one.
    Failed,
    /// The enrollment is disabled.
    Disabled,
}

impl Status {
    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unassigned => "unassigned",
            Self::Assigning => "assigning",
            Self::Assigned => "assigned",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
        }
    }

    /// The status with this word, in whatever letter case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Unassigned, Self::Assigning, Self::Assigned, Self::Failed, Self::Disabled]
            .into_iter()
            .find(|status| status.word().eq_ignore_ascii_case(word))
    }
}

/// Where a device belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The host name of the hub.
    pub hub: String,
    /// The id that the device has there.
    pub device_id: String,
    /// How it came to be: `initialAssignment`, `deviceDataMigrated`, `deviceDataReset` or
    /// `reprovisionedToInitialAssignment`.
    pub substatus: Option<String>,
    /// JSON from the custom allocation, as it was sent.
    pub payload: Option<String>,
    /// The certificates that were issued for the device, each as base64 of its DER, its own first; empty where no
    /// certificate was asked for or issued.
    pub certificates: Vec<String>,
    /// How to speak with the hub; none or `classic` is MQTT 3.1.1.
    pub connection_profile: Option<String>,
}

/// What the service says about an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// Six digits, the first three those of HTTP; 0 where the body has none.
    pub code: u32,
    /// For people.
    pub message: String,
    /// What support asks for.
    pub tracking_id: String,
}

/// What a device makes of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The service is looking for a hub: ask again.
    Poll {
        /// What to ask for.
        operation_id: String,
        /// When, clamped to [`RETRY_AFTER`].
        after: Duration,
    },
    /// The device has a hub.
    Assigned(Box<Assignment>),
    /// It was not given one.
    Failed(ErrorBody),
    /// Its enrollment is disabled.
    Disabled,
    /// The service refuses the request: another one will not do better.
    Refused {
        /// As in HTTP.
        status: u16,
        /// What the body says.
        error: ErrorBody,
    },
    /// The service is busy or out of order: the same again.
    Again {
        /// As in HTTP.
        status: u16,
        /// When, clamped to [`RETRY_AFTER`].
        after: Duration,
        /// What the body says, if it says anything.
        error: ErrorBody,
    },
    /// The answer makes no sense.
    Malformed(&'static str),
}

type Members<'a> = BTreeMap<String, &'a RawValue>;

impl Answer {
    /// Reads an answer with this `status` and `retry_after`, in seconds, in its topic or its HTTP header.
    #[must_use]
    pub fn parse(status: u16, retry_after: Option<u32>, body: &[u8]) -> Self {
        let (shortest, longest) = RETRY_AFTER;
        let after = retry_after.map_or(RETRY_AFTER_DEFAULT, |seconds| {
            Duration::from_secs(seconds.into()).clamp(shortest, longest)
        });
        let members: Option<Members<'_>> = serde_json::from_slice(body).ok();
        match status {
            429.. => Self::Again { status, after, error: ErrorBody::read(members.as_ref()) },
            300.. => Self::Refused { status, error: ErrorBody::read(members.as_ref()) },
            200.. => match members {
                Some(members) => Self::of_status(&members, after),
                None => Self::Malformed("the body is not a JSON object"),
            },
            _ => Self::Malformed("the status is not one of HTTP"),
        }
    }

    fn of_status(members: &Members<'_>, after: Duration) -> Self {
        let state = match present(members, "registrationState").map(serde_json::from_str::<Members<'_>>) {
            Some(Ok(state)) => state,
            Some(Err(_)) => return Self::Malformed("registrationState is not a JSON object"),
            None => Members::new(),
        };
        let Some(status) = text(members, "status").as_deref().and_then(Status::from_word) else {
            return Self::Malformed(
                "the status is none of unassigned, assigning, assigned, failed, disabled",
            );
        };
        match status {
            Status::Assigning => {
                match text(members, "operationId").filter(|id| (1..=OPERATION_ID_MAX).contains(&id.len())) {
                    Some(operation_id) => Self::Poll { operation_id, after },
                    None => Self::Malformed(
                        "assigning without an operationId, or with one of more than 1024 bytes",
                    ),
                }
            }
            Status::Assigned => match Assignment::read(&state) {
                Some(assignment) => Self::Assigned(Box::new(assignment)),
                None => Self::Malformed("assigned without assignedHub or deviceId"),
            },
            Status::Failed | Status::Unassigned => Self::Failed(ErrorBody::read(Some(&state))),
            Status::Disabled => Self::Disabled,
        }
    }
}

impl Assignment {
    fn read(state: &Members<'_>) -> Option<Self> {
        let filled = |name| text(state, name).filter(|text| !text.is_empty());
        let certificates = match present(state, "issuedCertificateChain") {
            Some(list) => serde_json::from_str(list).ok()?,
            None => Vec::new(),
        };
        Some(Self {
            hub: filled("assignedHub")?,
            device_id: filled("deviceId")?,
            substatus: filled("substatus"),
            payload: present(state, "payload").map(ToOwned::to_owned),
            certificates,
            connection_profile: filled("connectionProfile"),
        })
    }
}

impl ErrorBody {
    /// Reads a body; what is missing is empty.
    #[must_use]
    pub fn parse(body: &[u8]) -> Self {
        Self::read(serde_json::from_slice(body).ok().as_ref())
    }

    fn read(members: Option<&Members<'_>>) -> Self {
        let Some(members) = members else { return Self::default() };
        let code = present(members, "errorCode").and_then(|code| serde_json::from_str(code).ok());
        let message = text(members, "message").or_else(|| text(members, "errorMessage"));
        Self {
            code: code.unwrap_or(0),
            message: message.unwrap_or_default(),
            tracking_id: text(members, "trackingId").unwrap_or_default(),
        }
    }
}

/// The text of a member as JSON; `None` where it is missing or null.
fn present<'a>(members: &Members<'a>, name: &str) -> Option<&'a str> {
    members.get(name).map(|value| value.get()).filter(|text| *text != "null")
}

/// A member that is text.
fn text(members: &Members<'_>, name: &str) -> Option<String> {
    json_text(present(members, name)?)
}
