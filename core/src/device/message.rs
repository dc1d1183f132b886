//! Telemetry as the application gives it.

use alloc::string::String;

use crate::iothub::{Identity, SystemProperty, topic};
use crate::limits::MESSAGE_MAX;
use crate::packet::TopicName;
use crate::rule::Rule;

/// A telemetry message: the body and what the hub is told about it.
///
/// `Message { content_type: Some("application/json"), ..Message::new(body) }`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// The body, any bytes.
    pub payload: &'a [u8],
    /// `$.mid`: an id of your own.
    pub message_id: Option<&'a str>,
    /// `$.cid`: the id of the message that this one answers.
    pub correlation_id: Option<&'a str>,
    /// `$.uid`: who made the message.
    pub user_id: Option<&'a str>,
    /// `$.ctime`: when the message was made, in ISO 8601, as [`UnixTime`](crate::time::UnixTime) is displayed; the hub adds the
    /// time of arrival by itself.
    pub creation_time: Option<&'a str>,
    /// `$.ct`: the media type of the body. The hub routes by the body of `application/json` in `utf-8` only.
    pub content_type: Option<&'a str>,
    /// `$.ce`: the character set of the body.
    pub content_encoding: Option<&'a str>,
    /// `$.sub`: the component that the message is from (IoT Plug and Play).
    pub component: Option<&'a str>,
    /// `$.on`: the output that a module of an Edge device sends by.
    pub output: Option<&'a str>,
    /// Application properties, in order. `None` is a name without a value.
    pub properties: &'a [(&'a str, Option<&'a str>)],
}

/// Why a telemetry message was not taken. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many messages or bytes wait as [`Limits`](super::Limits) allow.
    #[error("the outbox is full; wait for Acknowledged, or raise Limits::outbox_messages or outbox_bytes")]
    OutboxFull,
    /// Body and property values are larger than 256 KB.
    #[error("the message is larger than 262144 bytes; split it, or use file upload")]
    TooLarge,
    /// The properties do not fit into a topic name of 65535 bytes.
    #[error("the properties do not fit into a topic name of 65535 bytes; move some of them into the body")]
    TopicTooLong,
    /// A property has an empty name.
    #[error("a property has an empty name; name it, or leave it out")]
    UnnamedProperty,
    /// The device is not connected, and the message is one that does not wait: QoS 0.
    #[error("the device is not connected; wait for Connected, or send at QoS 1")]
    NotConnected,
    /// `tx` holds as much as it shall, and the message is one that does not wait: QoS 0.
    #[error("more waits to be written than Limits::tx_high_water; write it first, or send at QoS 1")]
    Congested,
}

impl SendError {
    /// The rule that stands in the way.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::OutboxFull | Self::Congested => Rule::OutboxFull,
            Self::TooLarge => Rule::MessageSize,
            Self::TopicTooLong => Rule::TextLength,
            Self::UnnamedProperty => Rule::PropertyBag,
            Self::NotConnected => Rule::NotConnected,
        }
    }
}

impl<'a> Message<'a> {
    /// A message without properties.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, ..Self::default() }
    }

    /// Writes the topic that the message is published to by `identity` into `topic`, after a check of all that the
    /// hub would close the connection for.
    pub(super) fn topic<'t>(
        &self,
        identity: Identity<'_>,
        topic: &'t mut String,
    ) -> Result<TopicName<'t>, SendError> {
        if self.properties.iter().any(|(name, _)| name.is_empty()) {
            return Err(SendError::UnnamedProperty);
        }
        if self.size() > MESSAGE_MAX {
            return Err(SendError::TooLarge);
        }
        topic.clear();
        topic::telemetry_topic(identity, self.all_properties(), topic);
        TopicName::new(topic).map_err(|_| SendError::TopicTooLong)
    }

    /// The size that the hub's limit is about: body, values of system properties, names and values of application
    /// properties (IoT Hub: message format).
    fn size(&self) -> usize {
        let system = self.system_properties().map(|(_, value)| value.len());
        let own =
            self.properties.iter().map(|(name, value)| name.len().saturating_add(value.map_or(0, str::len)));
        system.chain(own).fold(self.payload.len(), usize::saturating_add)
    }

    /// System properties first, as the Python and Node SDKs do.
    fn all_properties(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let system = self.system_properties().map(|(property, value)| (property.wire(), Some(value)));
        system.chain(self.properties.iter().copied())
    }

    fn system_properties(&self) -> impl Iterator<Item = (SystemProperty, &'a str)> + use<'a> {
        [
            (SystemProperty::Output, self.output),
            (SystemProperty::MessageId, self.message_id),
            (SystemProperty::CorrelationId, self.correlation_id),
            (SystemProperty::UserId, self.user_id),
            (SystemProperty::CreationTime, self.creation_time),
            (SystemProperty::ContentType, self.content_type),
            (SystemProperty::ContentEncoding, self.content_encoding),
            (SystemProperty::Component, self.component),
        ]
        .into_iter()
        .filter_map(|(property, value)| Some((property, value?)))
    }
}
