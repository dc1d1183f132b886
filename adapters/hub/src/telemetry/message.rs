//! A telemetry message as its readers see it.

use std::borrow::Cow;

use devicebound::hub::hub_properties;
use devicebound::iothub::PropertyBag;
use devicebound::time::UnixTime;

use crate::telemetry::sender::SenderFields;

/// A telemetry message of a block.
#[derive(Clone, Copy, Debug)]
pub struct Message<'b> {
    /// Who sent it.
    pub sender: SenderFields<'b>,
    /// When the hub took it.
    pub enqueued: UnixTime,
    /// The properties that the device sent.
    pub bag: PropertyBag<'b>,
    /// The name of the property that stands for the RETAIN flag, if that was set.
    pub retain_property: Option<&'b str>,
    /// The device sent it with DUP 1.
    pub is_dup: bool,
    /// A will.
    pub is_will: bool,
    /// The body.
    pub body: &'b [u8],
}

/// A message of a block without its sender.
#[derive(Clone, Copy, Debug)]
pub struct Content<'b> {
    /// When the hub took it.
    pub enqueued: UnixTime,
    /// The properties that the device sent.
    pub bag: PropertyBag<'b>,
    /// The name of the property that stands for the RETAIN flag, if that was set.
    pub retain_property: Option<&'b str>,
    /// The device sent it with DUP 1.
    pub is_dup: bool,
    /// A will.
    pub is_will: bool,
    /// The body.
    pub body: &'b [u8],
}

impl<'b> Content<'b> {
    pub(crate) const fn of(self, sender: SenderFields<'b>) -> Message<'b> {
        let Self { enqueued, bag, retain_property, is_dup, is_will, body } = self;
        Message { sender, enqueued, bag, retain_property, is_dup, is_will, body }
    }

    /// All properties: those of the bag in order, then the hub's own.
    pub(crate) fn properties(&self) -> impl Iterator<Item = (Cow<'b, str>, Option<Cow<'b, str>>)> {
        let own = hub_properties(self.retain_property, self.is_dup, self.is_will);
        self.bag.iter().chain(own.map(|(name, value)| (name.into(), Some(value.into()))))
    }

    /// Whether there are any.
    pub(crate) fn has_properties(&self) -> bool {
        !self.bag.as_str().is_empty() || self.retain_property.is_some() || self.is_dup || self.is_will
    }
}

impl<'b> Message<'b> {
    pub(crate) const fn content(&self) -> Content<'b> {
        let &Self { enqueued, bag, retain_property, is_dup, is_will, body, .. } = self;
        Content { enqueued, bag, retain_property, is_dup, is_will, body }
    }
}

#[cfg(test)]
pub(crate) mod tests {

    use super::*;

    /// A message of the device `demo` with these properties.
    pub(crate) fn message(bag: &str) -> Message<'_> {
        let sender = SenderFields {
            device_id: "demo",
            module_id: None,
            generation_id: "1",
            auth_type: "sas",
            model_id: None,
        };
        Message {
            sender,
            enqueued: UnixTime::from_secs(1_700_000_000),
            bag: PropertyBag::parse(bag).unwrap(),
            retain_property: None,
            is_dup: false,
            is_will: false,
            body: &[0, 255],
        }
    }
}
