//! The fields of a packet's body, read with bounds, and the error that all decoders give.

use core::ops::Range;

use super::{PacketId, Text, TopicFilter, TopicName};
use crate::rule::Rule;

/// Bytes that are not MQTT 3.1.1: which rule they break, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule} at bytes {start}..{end}: {}", rule.says())]
pub struct DecodeError {
    rule: Rule,
    start: u32,
    end: u32,
}

impl DecodeError {
    /// The rule that is broken.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        self.rule
    }

    /// The offending bytes, counted from the front of the input. Empty where something is missing.
    #[must_use]
    pub const fn at(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    #[cold]
    pub(super) const fn new(rule: Rule, start: usize, end: usize) -> Self {
        // A packet is at most 268 435 460 bytes long, so that no position in it is cut.
        Self { rule, start: start as u32, end: end as u32 }
    }
}

/// What is left of a packet's body, or of one of its fields. Reads never pass its end.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Where `rest` ends, counted from the front of the packet, so that errors can say where they stand.
    end: usize,
}

impl<'a> Reader<'a> {
    /// The body of a packet that ends at `end`, counted from its front.
    #[inline]
    pub(super) const fn new(rest: &'a [u8], end: usize) -> Self {
        Self { rest, end }
    }

    #[inline]
    pub(super) const fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        let Some((&byte, behind)) = self.rest.split_first() else { return Err(self.error(Rule::BodyLength)) };
        self.rest = behind;
        Ok(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        let Some((&bytes, behind)) = self.rest.split_first_chunk() else {
            return Err(self.error(Rule::BodyLength));
        };
        self.rest = behind;
        Ok(u16::from_be_bytes(bytes))
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        let at_id = *self;
        // [MQTT-2.3.1-1]
        PacketId::new(self.u16()?).ok_or_else(|| at_id.error_in(Rule::PacketIdZero, 0, 2))
    }

    /// A field that its length of two bytes precedes; `rule` says what is broken where it does not fit.
    #[inline]
    pub(super) fn field(&mut self, rule: Rule) -> Result<Self, DecodeError> {
        let Some((field, behind)) = split_field(self.rest) else { return Err(self.error(rule)) };
        self.rest = behind;
        Ok(Self { rest: field, end: self.position() })
    }

    /// Takes `bytes`, if they come next.
    #[inline]
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        self.rest.strip_prefix(bytes).map(|behind| self.rest = behind).is_some()
    }

    /// This whole field as text.
    #[inline]
    pub(super) fn text(self) -> Result<Text<'a>, DecodeError> {
        Text::from_bytes(self.rest).map_err(|fault| self.text_error(fault))
    }

    /// This whole field as a topic name.
    #[inline]
    pub(super) fn topic_name(self) -> Result<TopicName<'a>, DecodeError> {
        TopicName::from_bytes(self.rest).map_err(|fault| self.text_error(fault))
    }

    /// This whole field as a topic filter.
    #[inline]
    pub(super) fn topic_filter(self) -> Result<TopicFilter<'a>, DecodeError> {
        TopicFilter::from_bytes(self.rest).map_err(|fault| self.text_error(fault))
    }

    /// `rule` is broken by all that is left.
    #[cold]
    pub(super) fn error(self, rule: Rule) -> DecodeError {
        DecodeError::new(rule, self.position(), self.end)
    }

    /// `rule` is broken by the next `count` bytes behind the next `skip`.
    #[cold]
    pub(super) fn error_in(self, rule: Rule, skip: usize, count: usize) -> DecodeError {
        let start = self.position().saturating_add(skip);
        DecodeError::new(rule, start, start.saturating_add(count))
    }

    /// An empty field is a fault of its length, which stands before it; any other fault is one of its bytes.
    #[cold]
    fn text_error(self, (rule, at): (Rule, usize)) -> DecodeError {
        if self.is_empty() {
            return DecodeError::new(rule, self.end.saturating_sub(2), self.end);
        }
        self.error_in(rule, at, 1)
    }

    #[inline]
    const fn position(self) -> usize {
        self.end.saturating_sub(self.rest.len())
    }
}

/// Splits a field with a length of two bytes off; `None` where it does not fit.
#[inline]
pub(super) fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(length)))
}
