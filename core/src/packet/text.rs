//! Text as MQTT carries it: UTF-8 of at most 65 535 bytes without U+0000, topic names and topic filters
//! (MQTT 3.1.1 §1.5.3 and §4.7).

use core::fmt;
use core::str::from_utf8;

use crate::limits::TEXT_MAX;
use crate::rule::Rule;

/// A word of a CONNECT, possibly empty: at most 65 535 bytes of UTF-8 without U+0000 `[MQTT-1.5.3-1]` `[MQTT-1.5.3-2]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(&'a [u8]);

/// The name that a message is published to: 1 to 65 535 bytes of UTF-8, no U+0000, no wildcard `[MQTT-3.3.2-2]`.
///
/// Names are compared byte by byte `[MQTT-4.7.3-4]`; nothing is normalized.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a [u8]);

/// What a client subscribes to: 1 to 65 535 bytes of UTF-8, no U+0000, `+` and `#` only as whole levels and `#`
/// only as the last one (MQTT 3.1.1 §4.7.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// Takes `text` as a field of a packet.
    ///
    /// # Errors
    /// [`Rule::TextLength`] or [`Rule::Utf8Nul`].
    pub fn new(text: &'a str) -> Result<Self, Rule> {
        Self::from_bytes(text.as_bytes()).map_err(|(rule, _)| rule)
    }

    /// Takes the bytes of a length-prefixed field as text; an error comes with the offset of the offending byte.
    #[inline]
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Result<Self, (Rule, usize)> {
        if !is_plain(bytes) || bytes.len() > TEXT_MAX {
            check_text(bytes)?;
        }
        Ok(Self(bytes))
    }

    /// The text as it stands on the wire, without its length.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The text. Costs a pass over the bytes.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        from_utf8(self.0).expect("text is made of checked UTF-8 only")
    }
}

impl<'a> TopicName<'a> {
    /// Takes `text` as a topic name.
    ///
    /// # Errors
    /// [`Rule::EmptyTopic`], [`Rule::TextLength`], [`Rule::Utf8Nul`] or [`Rule::WildcardInTopic`].
    pub fn new(text: &'a str) -> Result<Self, Rule> {
        Self::from_bytes(text.as_bytes()).map_err(|(rule, _)| rule)
    }

    /// Takes the bytes of a length-prefixed field as a topic name; an error comes with the offset of the offending byte.
    #[inline]
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self, (Rule, usize)> {
        if !is_plain(bytes) || bytes.is_empty() || bytes.len() > TEXT_MAX {
            Self::check(bytes)?;
        }
        Ok(Self(bytes))
    }

    /// Takes bytes that are a topic name by construction.
    #[cfg(feature = "device")]
    pub(crate) const fn from_checked(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[cold]
    fn check(bytes: &[u8]) -> Result<(), (Rule, usize)> {
        check_topic(bytes)?;
        match bytes.iter().position(|&byte| is_wildcard(byte)) {
            None => Ok(()),
            Some(at) => Err((Rule::WildcardInTopic, at)),
        }
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
    #[inline]
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self, (Rule, usize)> {
        // Most filters have their only wildcard at the end.
        let levels = bytes.strip_suffix(b"/#").unwrap_or(bytes);
        if !is_plain(levels) || bytes.is_empty() || bytes.len() > TEXT_MAX {
            check_topic(bytes)?;
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

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
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

/// Checks what topic names and filters have in common.
fn check_topic(bytes: &[u8]) -> Result<(), (Rule, usize)> {
    if bytes.is_empty() {
        return Err((Rule::EmptyTopic, 0));
    }
    check_text(bytes)
}

/// Checks text that is not plain, or that is too long; an error comes with the offset of the offending byte.
#[cold]
fn check_text(bytes: &[u8]) -> Result<(), (Rule, usize)> {
    if bytes.len() > TEXT_MAX {
        return Err((Rule::TextLength, TEXT_MAX));
    }
    // [MQTT-1.5.3-1]
    from_utf8(bytes).map_err(|error| (Rule::Utf8IllFormed, error.valid_up_to()))?;
    // [MQTT-1.5.3-2]
    match bytes.iter().position(|&byte| byte == 0) {
        None => Ok(()),
        Some(at) => Err((Rule::Utf8Nul, at)),
    }
}

/// Whether the bytes are ASCII without U+0000 and without wildcards, as nearly all text is: then nothing in them can be
/// wrong.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    // The last block overlaps the one before, so that no odd bytes are left.
    let Some(last) = bytes.last_chunk::<BLOCK>() else { return is_plain_and_short(bytes) };
    let mut found = last.map(suspicion);
    for block in blocks {
        for (found, &byte) in found.iter_mut().zip(block) {
            *found |= suspicion(byte);
        }
    }
    u128::from_ne_bytes(found) & u128::from_ne_bytes([HIGH; BLOCK]) == 0
}

/// As [`is_plain`], for less than a block.
#[inline]
fn is_plain_and_short(bytes: &[u8]) -> bool {
    let (Some(&first), Some(&last)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return bytes.iter().fold(0, |found, &byte| found | suspicion(byte)) & HIGH == 0;
    };
    let found = suspicion_of_eight(u64::from_ne_bytes(first)) | suspicion_of_eight(u64::from_ne_bytes(last));
    found & eight(HIGH) == 0
}

/// The bit that no byte of ASCII has.
const HIGH: u8 = 0x80;

/// As many bytes as a vector register has on every machine of 64 bits.
const BLOCK: usize = 16;

/// Has its high bit set where a byte is not ASCII, U+0000 or a wildcard. Without a branch, so that a block of bytes is
/// looked at at once.
#[inline]
const fn suspicion(byte: u8) -> u8 {
    let nul = if byte == 0 { 0xFF } else { 0 };
    let wildcard = if byte | WILDCARD_BIT == b'+' { 0xFF } else { 0 };
    byte | nul | wildcard
}

/// Has the high bit of a byte set where one of eight bytes is suspicious.
#[inline]
fn suspicion_of_eight(bytes: u64) -> u64 {
    // Without a zero among them, no byte borrows, and none that had no high bit gets one.
    let zero = |bytes: u64| bytes.wrapping_sub(eight(1)) & !bytes;
    bytes | zero(bytes) | zero((bytes | eight(WILDCARD_BIT)) ^ eight(b'+'))
}

const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The bit in which the wildcards differ.
const WILDCARD_BIT: u8 = b'+' ^ b'#';

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
    fn the_offending_byte_of_a_text_is_named() {
        assert_eq!(Text::from_bytes(b"ab\xC0\x80").unwrap_err(), (Rule::Utf8IllFormed, 2));
        assert_eq!(Text::from_bytes("é\0".as_bytes()).unwrap_err(), (Rule::Utf8Nul, 2));
        assert_eq!(Text::from_bytes("é+#".as_bytes()).unwrap().as_str(), "é+#");
    }

    #[test]
    fn the_offending_byte_of_a_topic_is_named() {
        assert_eq!(TopicName::from_bytes(b"ab\xC3(").unwrap_err(), (Rule::Utf8IllFormed, 2));
        assert_eq!(TopicName::from_bytes(b"ab\xED\xA0\x80").unwrap_err(), (Rule::Utf8IllFormed, 2));
        assert_eq!(TopicName::from_bytes(b"abc\0").unwrap_err(), (Rule::Utf8Nul, 3));
        assert_eq!(TopicName::from_bytes("é/+".as_bytes()).unwrap_err(), (Rule::WildcardInTopic, 3));
        assert_eq!(TopicFilter::from_bytes(b"a/#/b").unwrap_err(), (Rule::MultiLevelWildcard, 2));
        assert_eq!(TopicFilter::from_bytes(b"a/b+/c").unwrap_err(), (Rule::SingleLevelWildcard, 3));
        assert_eq!(TopicFilter::from_bytes(b"+a/#").unwrap_err(), (Rule::SingleLevelWildcard, 0));
        assert_eq!(TopicFilter::from_bytes(b"a/#/#").unwrap_err(), (Rule::MultiLevelWildcard, 2));
        assert_eq!(TopicFilter::from_bytes(b"a\0/#").unwrap_err(), (Rule::Utf8Nul, 1));
        assert_eq!(TopicFilter::from_bytes(b"").unwrap_err(), (Rule::EmptyTopic, 0));
    }

    #[test]
    fn a_byte_that_needs_a_closer_look_is_seen_at_every_place_of_every_length() {
        for length in 1..=40 {
            for at in 0..length {
                let mut bytes = [b'a'; 40];
                for byte in 0..=u8::MAX {
                    bytes[at] = byte;
                    let plain = byte.is_ascii() && byte != 0 && byte != b'+' && byte != b'#';
                    assert_eq!(is_plain(&bytes[..length]), plain, "{byte:#x} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn a_field_is_as_long_as_its_length_can_say() {
        let text = "a".repeat(TEXT_MAX + 1);
        assert!(Text::new(&text[1..]).is_ok());
        assert_eq!(Text::new(&text).unwrap_err(), Rule::TextLength);
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
