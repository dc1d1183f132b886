//! The topics of a registration (IoT Hub DPS: MQTT).

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

use super::super::escape::{Encoded, Escaped};
use super::super::topic::{Params, RequestId, TopicError, append, status_and_params, strip};
use crate::packet::{TopicFilter, TopicName};
use crate::rule::Rule;

const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/";
const POLL: &str = "$dps/registrations/GET/iotdps-get-operationstatus/";
const ANSWER: &str = "$dps/registrations/res/";

/// The one filter that the service grants: its answers.
pub const ANSWERS: &str = "$dps/registrations/res/#";

/// What a device says by publishing to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromDevice<'a> {
    /// It wants to be assigned to a hub.
    Register {
        /// Ties the answer to it.
        rid: RequestId<'a>,
    },
    /// It asks how far that is.
    Poll {
        /// Ties the answer to it.
        rid: RequestId<'a>,
        /// Which registration, decoded.
        operation_id: Cow<'a, str>,
    },
}

impl<'a> FromDevice<'a> {
    /// Reads the topic that a device has published to.
    ///
    /// # Errors
    /// [`TopicError::UnknownTopic`] or [`TopicError::Malformed`].
    pub fn parse(topic: TopicName<'a>) -> Result<Self, TopicError> {
        let topic = topic.as_bytes();
        if let Some(end) = strip(topic, REGISTER) {
            return Ok(Self::Register { rid: Params::parse(end)?.rid()? });
        }
        if let Some(end) = strip(topic, POLL) {
            let params = Params::parse(end)?;
            let operation_id = params.get("operationId").and_then(Encoded::new).map(Encoded::decoded);
            let operation_id = operation_id.filter(|id| !id.is_empty());
            return Ok(Self::Poll {
                rid: params.rid()?,
                operation_id: operation_id.ok_or(TopicError::Malformed(Rule::DpsOperation))?,
            });
        }
        Err(TopicError::UnknownTopic)
    }

    /// What ties the answer to it.
    #[must_use]
    pub const fn rid(&self) -> RequestId<'a> {
        match self {
            Self::Register { rid } | Self::Poll { rid, .. } => *rid,
        }
    }
}

/// The answer of the service, as its topic has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FromService<'a> {
    /// As in HTTP; of an error the first three digits of its code.
    pub status: u16,
    /// The `$rid` of the request.
    pub rid: RequestId<'a>,
    /// Seconds to wait before the next request.
    pub retry_after: Option<u32>,
}

impl<'a> FromService<'a> {
    /// Reads the topic that the service has published to.
    ///
    /// # Errors
    /// [`TopicError::UnknownTopic`] or [`TopicError::Malformed`].
    pub fn parse(topic: TopicName<'a>) -> Result<Self, TopicError> {
        let end = strip(topic.as_bytes(), ANSWER).ok_or(TopicError::UnknownTopic)?;
        let (status, params) = status_and_params(end, false)?;
        Ok(Self { status, rid: params.rid()?, retry_after: params.number("retry-after") })
    }
}

/// Whether `filter` is the one that the service grants, [`ANSWERS`].
///
/// # Errors
/// [`TopicError::UnknownFilter`].
pub fn check_filter(filter: TopicFilter<'_>) -> Result<(), TopicError> {
    if filter.as_bytes() == ANSWERS.as_bytes() { Ok(()) } else { Err(TopicError::UnknownFilter) }
}

/// Appends the topic of a register. `rid` is displayed as it shall stand.
pub fn register_topic(rid: impl fmt::Display, out: &mut String) {
    append(out, format_args!("{REGISTER}?$rid={rid}"));
}

/// Appends the topic of a question how far the operation is. `rid` is displayed as it shall stand.
pub fn poll_topic(rid: impl fmt::Display, operation_id: &str, out: &mut String) {
    append(out, format_args!("{POLL}?$rid={rid}&operationId={}", Escaped(operation_id)));
}

/// Appends the topic of an answer. `rid` is displayed as it shall stand.
pub fn answer_topic(status: u16, rid: impl fmt::Display, retry_after: Option<u32>, out: &mut String) {
    append(out, format_args!("{ANSWER}{status}/?$rid={rid}"));
    if let Some(seconds) = retry_after {
        append(out, format_args!("&retry-after={seconds}"));
    }
}
