//! Messages: their sections, read and written (AMQP 1.0 §3.2).

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::Rule;
use crate::performative::descriptor;
use crate::types::{Compound, Malformed, Map, Reader, Value, Writer as _};

/// A message that borrows the bytes that it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// What the sender tells all who handle the message.
    pub annotations: Option<Map<'a>>,
    /// The immutable properties.
    pub properties: Properties<'a>,
    /// The application's own.
    pub application_properties: Option<Map<'a>>,
    /// The body.
    pub body: Body<'a>,
}

/// The body of a message (§3.2.6 to §3.2.8).
#[derive(Clone, Debug, PartialEq)]
pub enum Body<'a> {
    /// There is none: pyamqp sends requests without.
    None,
    /// The bytes of all data sections.
    Data(Cow<'a, [u8]>),
    /// One value.
    Value(Value<'a>),
    /// Sequences of values; what is in them was checked and is not kept.
    Sequence,
}

/// The properties section (§3.2.4); what is absent is null.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the section")]
pub struct Properties<'a> {
    /// A string, ulong, uuid or binary.
    pub message_id: Value<'a>,
    pub user_id: Option<&'a [u8]>,
    pub to: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub reply_to: Option<&'a str>,
    /// As [`message_id`](Self::message_id).
    pub correlation_id: Value<'a>,
    pub content_type: Option<&'a str>,
    pub content_encoding: Option<&'a str>,
    /// Milliseconds since 1970.
    pub absolute_expiry_time: Option<i64>,
    /// Milliseconds since 1970.
    pub creation_time: Option<i64>,
}

impl Default for Properties<'_> {
    fn default() -> Self {
        Self {
            message_id: Value::Null,
            user_id: None,
            to: None,
            subject: None,
            reply_to: None,
            correlation_id: Value::Null,
            content_type: None,
            content_encoding: None,
            absolute_expiry_time: None,
            creation_time: None,
        }
    }
}

impl<'a> Message<'a> {
    /// The message that these bytes are.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Rule> {
        Self::read(bytes).map_err(|Malformed(rule)| rule)
    }

    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        const SECTIONS: Malformed = Malformed(Rule::Sections);
        let mut message = Self {
            annotations: None,
            properties: Properties::default(),
            application_properties: None,
            body: Body::None,
        };
        let mut reader = Reader::new(bytes);
        let mut last = 0;
        while !reader.rest().is_empty() {
            let Value::Described(section) = reader.value()? else { return Err(SECTIONS) };
            let code = descriptor::of(section.descriptor()).ok_or(SECTIONS)?;
            // In the order of their descriptors; only data and sequences may come more than once (§3.2).
            let may_repeat = matches!(code, descriptor::DATA | descriptor::SEQUENCE) && last == code;
            let has_body = !matches!(message.body, Body::None);
            let is_other_body = (descriptor::DATA..=descriptor::VALUE).contains(&code) && has_body;
            if !may_repeat && (code <= last || is_other_body) {
                return Err(SECTIONS);
            }
            last = code;
            message.section(code, section.value())?;
        }
        Ok(message)
    }

    fn section(&mut self, code: u8, value: Value<'a>) -> Result<(), Malformed> {
        const SECTIONS: Malformed = Malformed(Rule::Sections);
        match (code, value) {
            (descriptor::HEADER, Value::List(_))
            | (descriptor::DELIVERY_ANNOTATIONS | descriptor::FOOTER, Value::Map(_)) => {}
            (descriptor::MESSAGE_ANNOTATIONS, Value::Map(map)) => self.annotations = Some(map),
            (descriptor::PROPERTIES, Value::List(list)) => self.properties = Properties::read(list.iter())?,
            (descriptor::APPLICATION_PROPERTIES, Value::Map(map)) => self.application_properties = Some(map),
            (descriptor::DATA, Value::Binary(bytes)) => match &mut self.body {
                Body::Data(data) => data.to_mut().extend_from_slice(bytes),
                body => *body = Body::Data(Cow::Borrowed(bytes)),
            },
            (descriptor::SEQUENCE, Value::List(_)) => self.body = Body::Sequence,
            (descriptor::VALUE, value) => self.body = Body::Value(value),
            _ => return Err(SECTIONS),
        }
        Ok(())
    }

    /// An application property by its name.
    #[must_use]
    pub fn application_property(&self, name: &str) -> Option<Value<'a>> {
        self.application_properties.and_then(|map| map.get(name))
    }
}

impl<'a> Properties<'a> {
    fn read(mut values: impl Iterator<Item = Value<'a>>) -> Result<Self, Malformed> {
        const FIELD: Malformed = Malformed(Rule::Field);
        let mut next = || values.next().unwrap_or(Value::Null);
        let id = |value: Value<'a>| match value {
            Value::Null | Value::Ulong(_) | Value::Uuid(_) | Value::Binary(_) | Value::String(_) => Ok(value),
            _ => Err(FIELD),
        };
        let text = |value: Value<'a>| match value {
            Value::Null => Ok(None),
            value => value.text().map(Some).ok_or(FIELD),
        };
        let time = |value| match value {
            Value::Null => Ok(None),
            Value::Timestamp(millis) => Ok(Some(millis)),
            _ => Err(FIELD),
        };
        let properties = Self {
            message_id: id(next())?,
            user_id: match next() {
                Value::Null => None,
                Value::Binary(bytes) => Some(bytes),
                _ => return Err(FIELD),
            },
            to: text(next())?,
            subject: text(next())?,
            reply_to: text(next())?,
            correlation_id: id(next())?,
            content_type: text(next())?,
            content_encoding: text(next())?,
            absolute_expiry_time: time(next())?,
            creation_time: time(next())?,
        };
        // Group id, group sequence, reply-to group.
        for _ in 0..3 {
            next();
        }
        if values.next().is_none() { Ok(properties) } else { Err(FIELD) }
    }

    /// Appends the section, all 13 fields of it.
    pub fn write(&self, tx: &mut Vec<u8>) {
        tx.descriptor(descriptor::PROPERTIES);
        let list = tx.begin_list();
        tx.value(self.message_id);
        match self.user_id {
            Some(bytes) => tx.binary(bytes),
            None => tx.null(),
        }
        tx.optional_string(self.to);
        tx.optional_string(self.subject);
        tx.optional_string(self.reply_to);
        tx.value(self.correlation_id);
        for symbol in [self.content_type, self.content_encoding] {
            match symbol {
                Some(text) if text.is_ascii() => tx.symbol(text),
                _ => tx.null(),
            }
        }
        for time in [self.absolute_expiry_time, self.creation_time] {
            match time {
                Some(millis) => tx.timestamp(millis),
                None => tx.null(),
            }
        }
        (0..3).for_each(|_| tx.null());
        tx.end(list, 13);
    }
}

/// Begins the delivery annotations.
pub fn begin_delivery_annotations(tx: &mut Vec<u8>) -> Compound {
    tx.descriptor(descriptor::DELIVERY_ANNOTATIONS);
    tx.begin_map()
}

/// Begins the message annotations.
pub fn begin_annotations(tx: &mut Vec<u8>) -> Compound {
    tx.descriptor(descriptor::MESSAGE_ANNOTATIONS);
    tx.begin_map()
}

/// Begins the application properties.
pub fn begin_application_properties(tx: &mut Vec<u8>) -> Compound {
    tx.descriptor(descriptor::APPLICATION_PROPERTIES);
    tx.begin_map()
}

/// Appends the body as one data section.
pub fn data(tx: &mut Vec<u8>, body: &[u8]) {
    tx.descriptor(descriptor::DATA);
    tx.binary(body);
}

/// What a body of one value begins with.
pub fn begin_value(tx: &mut Vec<u8>) {
    tx.descriptor(descriptor::VALUE);
}
