//! Property bags: the end of a telemetry or cloud-to-device topic.

use alloc::borrow::Cow;
use alloc::string::String;

use super::escape::{Encoded, Escaped};
use super::scan::Scan;
use crate::rule::Rule;

/// The properties of a message as they stand in its topic: `name=value` pairs joined by `&`, percent-encoded.
///
/// Empty pairs are skipped. A pair is cut at its first `=`; a hub takes no second one. A leading `?` is part of the first
/// name: it is no part of the syntax, although one page shows it. Parsing allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PropertyBag<'a> {
    encoded: Encoded<'a>,
    /// There is a slash that is not percent-encoded; the one that may end a bag does not count.
    has_slash: bool,
}

impl<'a> PropertyBag<'a> {
    /// No properties.
    pub const EMPTY: PropertyBag<'static> = PropertyBag { encoded: Encoded::EMPTY, has_slash: false };

    /// Takes `text` as a property bag.
    ///
    /// # Errors
    /// [`Rule::PropertyBag`] where percent-decoding does not give UTF-8.
    pub fn parse(text: &'a str) -> Result<Self, Rule> {
        Self::from_topic(text.as_bytes())
    }

    /// Takes the end of a topic as a property bag. Some clients end the bag with a slash; it is dropped.
    #[inline]
    pub(super) fn from_topic(end: &'a [u8]) -> Result<Self, Rule> {
        Self::scanned(end).map(|(bag, _)| bag)
    }

    /// As [`from_topic`](Self::from_topic), for telemetry: with more `=` than pairs one stands in a value, for which the
    /// real hub closes the connection (azure-iot-sdk-c issue 1695). They are counted, because that is what each message
    /// can afford; a bag that has as many names without a value besides is let through.
    #[inline]
    pub(super) fn of_telemetry(end: &'a [u8]) -> Result<Self, Rule> {
        match Self::scanned(end)? {
            (_, surplus) if surplus > 1 => Err(Rule::PropertyBag),
            (bag, _) => Ok(bag),
        }
    }

    /// The bag, and how many more `=` than `&` it has.
    #[inline]
    fn scanned(end: &'a [u8]) -> Result<(Self, i32), Rule> {
        let bag = end.strip_suffix(b"/").unwrap_or(end);
        let scan = Scan::of(bag);
        let encoded = Encoded::scanned(bag, &scan).ok_or(Rule::PropertyBag)?;
        Ok((Self { encoded, has_slash: scan.slash }, scan.surplus))
    }

    /// The bag as it stands in the topic.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.encoded.as_str()
    }

    /// How many bytes the bag has as it stands in the topic.
    #[cfg(feature = "hub")]
    #[must_use]
    pub(crate) const fn encoded_len(self) -> usize {
        self.encoded.as_bytes().len()
    }

    /// Whether there is a slash that is not percent-encoded; the one that may end a bag does not count.
    #[cfg(feature = "hub")]
    #[inline]
    #[must_use]
    pub(crate) const fn has_slash(self) -> bool {
        self.has_slash
    }

    /// What counts of the properties for the size of a message: the values, decoded, and the names of application
    /// properties (IoT Hub messages: size). Never more than the bag has bytes in the topic.
    #[must_use]
    pub fn message_size(self) -> usize {
        let size = |(name, value): (Cow<'_, str>, Option<Cow<'_, str>>)| {
            let name = if SystemProperty::from_wire(&name).is_some() { 0 } else { name.len() };
            name.saturating_add(value.map_or(0, |value| value.len()))
        };
        self.iter().map(size).fold(0, usize::saturating_add)
    }

    /// Whether there are no properties.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// Names and values, decoded, in order, duplicates kept. A name without `=` has no value.
    pub fn iter(self) -> impl Iterator<Item = (Cow<'a, str>, Option<Cow<'a, str>>)> + Clone {
        self.encoded.split(b'&').map(|pair| {
            let (name, value) = pair.pair();
            (name.decoded(), value.map(Encoded::decoded))
        })
    }
}

/// Appends a property to the property bag at the end of `out`, percent-encoded, with `&` before it where it is not the
/// first. Without a value the bare name is appended.
pub fn encode_property(name: &str, value: Option<&str>, out: &mut String) {
    // An encoded bag contains no slash: what ends in one is a topic that waits for its bag.
    if !out.is_empty() && !out.ends_with('/') {
        out.push('&');
    }
    Escaped(name).append(out);
    if let Some(value) = value {
        out.push('=');
        Escaped(value).append(out);
    }
}

/// The percent-encoded end of a topic while it is written, property by property.
#[cfg(feature = "device")]
pub(crate) struct BagWriter<'o> {
    out: &'o mut String,
    is_empty: bool,
}

#[cfg(feature = "device")]
impl<'o> BagWriter<'o> {
    /// Appends the properties to `out`.
    pub(crate) fn new(out: &'o mut String) -> Self {
        Self { out, is_empty: true }
    }

    /// A system property.
    #[inline]
    pub(crate) fn system(&mut self, property: SystemProperty, value: &str) {
        self.separate();
        self.out.push_str(property.encoded());
        Escaped(value).append(self.out);
    }

    /// An application property; without a value its bare name.
    #[inline]
    pub(crate) fn application(&mut self, name: &str, value: Option<&str>) {
        self.separate();
        Escaped(name).append(self.out);
        if let Some(value) = value {
            self.out.push('=');
            Escaped(value).append(self.out);
        }
    }

    #[inline]
    fn separate(&mut self) {
        if !core::mem::take(&mut self.is_empty) {
            self.out.push('&');
        }
    }
}

macro_rules! system_properties {
    ($($name:ident = $wire:literal, $event_hubs:literal, $doc:literal;)*) => {
        /// A property that means something to the hub (IoT Hub: system properties).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum SystemProperty {
            $(#[doc = concat!("`$.", $wire, "`: ", $doc)] $name,)*
        }

        impl SystemProperty {
            /// Every system property, in the order in which the hub writes them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in a property bag, decoded.
            #[must_use]
            pub const fn wire(self) -> &'static str {
                match self { $(Self::$name => concat!("$.", $wire),)* }
            }

            /// Its name in a property bag, percent-encoded, with the `=` behind it.
            #[cfg(feature = "device")]
            pub(crate) const fn encoded(self) -> &'static str {
                match self { $(Self::$name => concat!("%24.", $wire, "="),)* }
            }

            /// Its name at the service's side, in events and in routing.
            #[must_use]
            pub const fn event_hubs_name(self) -> &'static str {
                match self { $(Self::$name => $event_hubs,)* }
            }

            /// The system property with the decoded name `name`; `None` for an application property.
            #[must_use]
            pub fn from_wire(name: &str) -> Option<Self> {
                match name.strip_prefix("$.") { $(Some($wire) => Some(Self::$name),)* _ => None }
            }
        }
    };
}

system_properties! {
    MessageId = "mid", "message-id", "the id that the sender gave the message";
    Expiry = "exp", "absolute-expiry-time", "when the message expires, ISO 8601";
    To = "to", "to", "the destination";
    CorrelationId = "cid", "correlation-id", "the id of the message that this one answers";
    UserId = "uid", "user-id", "who made the message";
    ContentType = "ct", "content-type", "the media type of the body";
    ContentEncoding = "ce", "content-encoding", "the character set of the body";
    CreationTime = "ctime", "iothub-creation-time-utc", "when the message was made, ISO 8601";
    Output = "on", "iothub-outputname", "the output of an Edge module";
    ConnectionDeviceId = "cdid", "iothub-connection-device-id", "the device that sent to an Edge module";
    ConnectionModuleId = "cmid", "iothub-connection-module-id", "the module that sent to an Edge module";
    MessageSchema = "schema", "iothub-message-schema", "the schema of the body";
    InterfaceId = "ifid", "iothub-interface-id", "the interface of a security message";
    Component = "sub", "dt-subject", "the component of a Plug and Play device";
    DiagnosticId = "diagid", "iothub-diagnostic-id", "the id of a traced message";
    DiagnosticContext = "diagctx", "iothub-diagnostic-context", "the context of a traced message";
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn pairs(bag: &str) -> Vec<(Cow<'_, str>, Option<Cow<'_, str>>)> {
        PropertyBag::parse(bag).unwrap().iter().collect()
    }

    #[test]
    fn a_leading_question_mark_belongs_to_the_first_name() {
        assert_eq!(pairs("?a=1&b=2"), [("?a".into(), Some("1".into())), ("b".into(), Some("2".into()))]);
    }

    #[test]
    fn a_pair_is_cut_at_its_first_equals_sign() {
        assert_eq!(
            pairs("a=b=c&d%3De=%26"),
            [("a".into(), Some("b=c".into())), ("d=e".into(), Some("&".into()))]
        );
    }

    #[test]
    fn duplicates_stay_and_their_order_too() {
        assert_eq!(
            pairs("b=1&a&b="),
            [("b".into(), Some("1".into())), ("a".into(), None), ("b".into(), Some("".into()))]
        );
    }

    #[test]
    fn nothing_but_separators_is_empty() {
        for bag in ["", "/", "&", "&&/"] {
            assert!(PropertyBag::parse(bag).unwrap().is_empty(), "{bag}");
        }
        assert!(!PropertyBag::parse("=").unwrap().is_empty());
    }

    #[test]
    fn text_without_escapes_is_lent_not_copied() {
        let bag = PropertyBag::parse("name=value+1").unwrap();
        assert!(matches!(bag.iter().next(), Some((Cow::Borrowed("name"), Some(Cow::Borrowed("value+1"))))));
    }

    #[test]
    fn what_was_encoded_is_read_back() {
        let properties = [("a/b", Some("1&2")), ("é", None), ("=", Some("")), ("$.mid", Some("% +#\0"))];
        let mut topic = String::from("devices/d/messages/events/");
        let start = topic.len();
        for (name, value) in properties {
            encode_property(name, value, &mut topic);
        }
        let read = pairs(&topic[start..]);
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_ref(), value.as_deref())).collect();
        assert_eq!(read, properties);
    }
}
