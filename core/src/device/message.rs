//! Telemetry as the application gives it.

use alloc::string::String;

use crate::iothub::{BagWriter, Identity, SystemProperty, topic};
use crate::limits::{MESSAGE_MAX, TEXT_MAX};
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

    /// Writes the topic that the message is published to, after a check of all that the hub would close the connection
    /// for.
    pub(super) fn topic<'t>(&self, topic: &'t mut TelemetryTopic) -> Result<TopicName<'t>, SendError> {
        self.check()?;
        self.append_properties(topic.bag());
        topic.name()
    }

    fn check(&self) -> Result<(), SendError> {
        if self.properties.iter().any(|(name, _)| name.is_empty()) {
            return Err(SendError::UnnamedProperty);
        }
        if self.size() > MESSAGE_MAX { Err(SendError::TooLarge) } else { Ok(()) }
    }

    /// The size that the hub's limit is about: body, values of system properties, names and values of application
    /// properties (IoT Hub: message format).
    fn size(&self) -> usize {
        let system = [
            self.output,
            self.message_id,
            self.correlation_id,
            self.user_id,
            self.creation_time,
            self.content_type,
            self.content_encoding,
            self.component,
        ];
        let length = |value: Option<&str>| value.map_or(0, str::len);
        let system =
            system.into_iter().fold(self.payload.len(), |sum, value| sum.saturating_add(length(value)));
        let own = self.properties.iter().map(|&(name, value)| name.len().saturating_add(length(value)));
        own.fold(system, usize::saturating_add)
    }

    /// System properties first, as the Python and Node SDKs do.
    fn append_properties(&self, out: &mut String) {
        let mut bag = BagWriter::new(out);
        let mut system = |property, value| {
            if let Some(value) = value {
                bag.system(property, value);
            }
        };
        system(SystemProperty::Output, self.output);
        system(SystemProperty::MessageId, self.message_id);
        system(SystemProperty::CorrelationId, self.correlation_id);
        system(SystemProperty::UserId, self.user_id);
        system(SystemProperty::CreationTime, self.creation_time);
        system(SystemProperty::ContentType, self.content_type);
        system(SystemProperty::ContentEncoding, self.content_encoding);
        system(SystemProperty::Component, self.component);
        for &(name, value) in self.properties {
            bag.application(name, value);
        }
    }
}

/// The properties of telemetry, checked and percent-encoded once: for messages that differ in their bodies only, by
/// [`Device::telemetry_with`](super::Device::telemetry_with). They are no device's own.
///
/// ```
/// # use devicebound::device::{Message, PreparedProperties};
/// let message = Message { content_type: Some("application/json"), ..Message::default() };
/// let properties = PreparedProperties::new(&message)?;
/// # Ok::<(), devicebound::device::SendError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreparedProperties {
    bag: String,
    /// What they add to the size of a message.
    size: usize,
}

impl PreparedProperties {
    /// The properties of `message`, whatever its body.
    ///
    /// # Errors
    /// [`SendError::UnnamedProperty`], or [`SendError::TooLarge`] where not even an empty body could have them. Whether
    /// they fit into the topic of a device is said when they are sent.
    pub fn new(message: &Message<'_>) -> Result<Self, SendError> {
        let message = Message { payload: &[], ..*message };
        message.check()?;
        let mut bag = String::new();
        message.append_properties(&mut bag);
        Ok(Self { bag, size: message.size() })
    }

    /// Writes the topic that a message with these properties is published to, after a check of its size.
    pub(super) fn topic<'t>(
        &self,
        payload: &[u8],
        topic: &'t mut TelemetryTopic,
    ) -> Result<TopicName<'t>, SendError> {
        if self.size.saturating_add(payload.len()) > MESSAGE_MAX {
            return Err(SendError::TooLarge);
        }
        topic.bag().push_str(&self.bag);
        topic.name()
    }
}

/// The topic of telemetry: the device's own part, which stays, and behind it a property bag, which is written for each
/// message.
#[derive(Debug)]
pub(super) struct TelemetryTopic {
    text: String,
    own: usize,
}

impl TelemetryTopic {
    /// The topic of `identity`, without properties.
    ///
    /// # Errors
    /// The rule that its ids break, as words of a topic.
    pub(super) fn of(identity: Identity<'_>) -> Result<Self, Rule> {
        let mut text = String::new();
        topic::telemetry_topic(identity, [], &mut text);
        TopicName::new(&text)?;
        Ok(Self { own: text.len(), text })
    }

    /// Where the bag is to be appended.
    fn bag(&mut self) -> &mut String {
        self.text.truncate(self.own);
        &mut self.text
    }

    /// The topic with its bag.
    fn name(&self) -> Result<TopicName<'_>, SendError> {
        if self.text.len() > TEXT_MAX {
            return Err(SendError::TopicTooLong);
        }
        // The own part was checked, and what is percent-encoded is unreserved characters of ASCII, `%`, `=` and `&`.
        Ok(TopicName::from_checked(self.text.as_bytes()))
    }
}
