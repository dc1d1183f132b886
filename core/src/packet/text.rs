//! Text as MQTT carries it: UTF-8 of at most 65 535 bytes without U+0000, topic names and topic filters
//! (MQTT 3.1.1 §1.5.3 and §4.7).

use core::fmt;
use core::str::from_utf8;

use crate::limits::TEXT_MAX;
use crate::rule::Rule;

/// The name that a message is published to: 1 to 65 535 bytes of UTF-8, no U+0000, no wildcard `[MQTT-3.3.2-2]`.
///
/// Names are compared byte by byte `[MQTT-4.7.3-4]`; nothing is normalized.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a [u8]);

/// What a client subscribes to: 1 to 65 535 bytes of UTF-8, no U+0000, `+` and `#` only as whole levels and `#`
/// only as the last one (MQTT 3.1.1 §4.7.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a [u8]);

impl<'a> TopicName<'a> {
    /// Takes `text` as a topic name.
    ///
    /// # Errors
    /// [`Rule::EmptyTopic`], [`Rule::TextLength`], [`Rule::Utf8Nul`] or [`Rule::WildcardInTopic`].
    pub fn new(text: &'a str) -> Result<Self, Rule> {
        Self::from_bytes(text.as_bytes()).map_err(|(rule, _)| rule)
    }

    /// Takes the bytes of a length-prefixed field as a topic name; an error comes with the offset of the offending byte.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self, (Rule, usize)> {
        if has_wildcard(bytes)? {
            let at = bytes.iter().position(|&byte| is_wildcard(byte)).unwrap_or(0);
            return Err((Rule::WildcardInTopic, at));
        }
        Ok(Self(bytes))
    }

    /// The name as it stands on the wire, without its length.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The name as text. Costs a pass over the bytes.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        from_utf8(self.0).expect("a topic name is made of checked UTF-8 only")
    }
}

impl<'a> TopicFilter<'a> {
    /// Takes `text` as a topic filter.
    ///
    /// # Errors
    /// [`Rule::EmptyTopic`], [`Rule::TextLength`], [`Rule::Utf8Nul`], [`Rule::MultiLevelWildcard`] or
    /// [`Rule::SingleLevelWildcard`].
    pub fn new(text: &'a str) -> Result<Self, Rule> {
        Self::from_bytes(text.as_bytes()).map_err(|(rule, _)| rule)
    }

    /// Takes the bytes of a length-prefixed field as a topic filter; an error comes with the offset of the offending byte.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self, (Rule, usize)> {
        if has_wildcard(bytes)? {
            wildcards_fill_levels(bytes)?;
        }
        Ok(Self(bytes))
    }

    /// Takes bytes that came out of a filter before.
    pub(super) const fn from_checked(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The filter as it stands on the wire, without its length.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The filter as text. Costs a pass over the bytes.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        from_utf8(self.0).expect("a topic filter is made of checked UTF-8 only")
    }

    /// Whether a message published to `name` is one that this filter asks for (MQTT 3.1.1 §4.7).
    ///
    /// A filter that starts with a wildcard matches no name that starts with `$` `[MQTT-4.7.2-1]`.
    #[must_use]
    pub fn matches(self, name: TopicName<'_>) -> bool {
        if name.0.first() == Some(&b'$') && self.0.first().copied().is_some_and(is_wildcard) {
            return false;
        }
        let mut levels = name.0.split(|&byte| byte == b'/');
        for wanted in self.0.split(|&byte| byte == b'/') {
            if wanted == b"#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == b"+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Takes the bytes of a length-prefixed field as text; an error comes with the offset of the offending byte
/// `[MQTT-1.5.3-1]` `[MQTT-1.5.3-2]`.
pub(crate) fn from_utf8_checked(bytes: &[u8]) -> Result<&str, (Rule, usize)> {
    let text = from_utf8(bytes).map_err(|error| (Rule::Utf8IllFormed, error.valid_up_to()))?;
    match text.bytes().position(|byte| byte == 0) {
        None => Ok(text),
        Some(at) => Err((Rule::Utf8Nul, at)),
    }
}

/// Checks what topic names and filters have in common, and says whether there is a wildcard. One pass without a branch
/// per byte where the text is ASCII, as nearly every topic is.
fn has_wildcard(bytes: &[u8]) -> Result<bool, (Rule, usize)> {
    if bytes.is_empty() {
        return Err((Rule::EmptyTopic, 0));
    }
    if bytes.len() > TEXT_MAX {
        return Err((Rule::TextLength, TEXT_MAX));
    }
    let (mut seen, mut nul, mut wildcard) = (0, false, false);
    for &byte in bytes {
        seen |= byte;
        nul |= byte == 0;
        wildcard |= is_wildcard(byte);
    }
    if nul || !seen.is_ascii() {
        from_utf8_checked(bytes)?;
    }
    Ok(wildcard)
}

const fn is_wildcard(byte: u8) -> bool {
    matches!(byte, b'+' | b'#')
}

/// `[MQTT-4.7.1-2]` `[MQTT-4.7.1-3]`
fn wildcards_fill_levels(filter: &[u8]) -> Result<(), (Rule, usize)> {
    let mut level_start = true;
    let mut rest = filter.iter().enumerate().peekable();
    while let Some((at, &byte)) = rest.next() {
        let next = rest.peek().map(|&(_, &next)| next);
        match byte {
            b'#' if !level_start || next.is_some() => return Err((Rule::MultiLevelWildcard, at)),
            b'+' if !level_start || next.is_some_and(|next| next != b'/') => {
                return Err((Rule::SingleLevelWildcard, at));
            }
            _ => level_start = byte == b'/',
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offending_byte_of_a_topic_is_named() {
        assert_eq!(TopicName::from_bytes(b"ab\xC3(").unwrap_err(), (Rule::Utf8IllFormed, 2));
        assert_eq!(TopicName::from_bytes(b"ab\xED\xA0\x80").unwrap_err(), (Rule::Utf8IllFormed, 2));
        assert_eq!(TopicName::from_bytes(b"abc\0").unwrap_err(), (Rule::Utf8Nul, 3));
        assert_eq!(TopicName::from_bytes("é/+".as_bytes()).unwrap_err(), (Rule::WildcardInTopic, 3));
        assert_eq!(TopicFilter::from_bytes(b"a/#/b").unwrap_err(), (Rule::MultiLevelWildcard, 2));
        assert_eq!(TopicFilter::from_bytes(b"a/b+/c").unwrap_err(), (Rule::SingleLevelWildcard, 3));
        assert_eq!(TopicFilter::from_bytes(b"").unwrap_err(), (Rule::EmptyTopic, 0));
    }

    #[test]
    fn a_topic_is_as_long_as_its_length_field_can_say() {
        let text = "a".repeat(TEXT_MAX + 1);
        assert!(TopicName::new(&text[1..]).is_ok());
        assert_eq!(TopicName::new(&text).unwrap_err(), Rule::TextLength);
    }

    #[test]
    fn a_leading_wildcard_does_not_reach_dollar_topics() {
        let name = TopicName::new("$iothub/twin/res/200/?$rid=1").unwrap();
        for (filter, matches) in
            [("#", false), ("+/twin/res/#", false), ("$iothub/twin/res/#", true), ("$iothub/+/res/+/+", true)]
        {
            assert_eq!(TopicFilter::new(filter).unwrap().matches(name), matches, "{filter}");
        }
    }

    #[test]
    fn a_multi_level_wildcard_takes_its_parent_too() {
        let filter = TopicFilter::new("sport/#").unwrap();
        for (name, matches) in
            [("sport", true), ("sport/", true), ("sport/a/b", true), ("sports", false), ("Sport", false)]
        {
            assert_eq!(filter.matches(TopicName::new(name).unwrap()), matches, "{name}");
        }
    }
}
