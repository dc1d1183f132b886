//! Percent-encoding (RFC 3986 §2.1) as the hub wants it: everything but unreserved characters, upper-case hex.
//! A `+` is a plus, never a space.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;
use core::str::from_utf8;

use percent_encoding::{
    AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode, percent_encode_byte, utf8_percent_encode,
};

use super::scan::Scan;

/// All but the unreserved characters of RFC 3986 §2.3: `A-Z a-z 0-9 - . _ ~`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whether a byte stands for itself: [`RESERVED`], the other way round, for who asks about each byte that is sent.
#[inline]
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What cannot stand in the name of a method within a topic: wildcards, what ends the name, and the `%` of an escape.
const METHOD: &AsciiSet = &CONTROLS.add(b' ').add(b'#').add(b'%').add(b'+').add(b'/').add(b'?');

/// Appends the name of a method, with no more encoded than must be.
pub(super) fn append_method(name: &str, out: &mut String) {
    out.extend(utf8_percent_encode(name, METHOD));
}

/// Text that is percent-encoded when it is displayed.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl Escaped<'_> {
    /// Appends what would be displayed, which costs less than to display it.
    #[inline]
    pub(super) fn append(self, out: &mut String) {
        let mut run = 0;
        for (at, &byte) in self.0.as_bytes().iter().enumerate() {
            if is_unreserved(byte) {
                continue;
            }
            // A run is ASCII. Within a character there is none, and nothing is appended.
            out.push_str(self.0.get(run..at).unwrap_or_default());
            out.push_str(percent_encode_byte(byte));
            run = at.wrapping_add(1);
        }
        out.push_str(self.0.get(run..).unwrap_or_default());
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        utf8_percent_encode(self.0, RESERVED).try_for_each(|part| f.write_str(part))
    }
}

/// Text that stands percent-encoded in a topic, a user name or a token: UTF-8 as it stands and decoded.
///
/// It is held as bytes because topics are compared as bytes; both texts are made on demand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoded<'a>(&'a [u8]);

impl<'a> Encoded<'a> {
    pub(super) const EMPTY: Self = Self(b"");

    /// Takes a part of a text, cut at ASCII characters; `None` where its escapes decode to something else than UTF-8.
    #[inline]
    pub(super) fn new(part: &'a [u8]) -> Option<Self> {
        Self::scanned(part, &Scan::of(part))
    }

    /// As [`new`](Self::new), with what was found in `part`: nothing is decoded where no escape can break it.
    #[inline]
    pub(super) fn scanned(part: &'a [u8], scan: &Scan) -> Option<Self> {
        (!scan.escape_beyond_ascii || is_utf8(percent_decode(part))).then_some(Self(part))
    }

    pub(super) const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn as_str(self) -> &'a str {
        from_utf8(self.0).expect("a part of a text, cut at ASCII characters, is text")
    }

    /// The text decoded; escapes that are none stay as they stand. Allocates only where there are escapes.
    pub(super) fn decoded(self) -> Cow<'a, str> {
        percent_decode(self.0).decode_utf8_lossy()
    }

    /// The parts between the `separator`s, the empty ones left out. Each decodes to UTF-8 because none of the escapes
    /// of a character is cut: a raw ASCII character ends an escaped one.
    pub(super) fn split(self, separator: u8) -> impl Iterator<Item = Self> + Clone {
        self.0.split(move |&byte| byte == separator).filter(|part| !part.is_empty()).map(Self)
    }

    /// Name and value of a pair, cut at its first `=`; no value where there is no `=`.
    pub(super) fn pair(self) -> (Self, Option<Self>) {
        match split_once(self.0, b'=') {
            Some((name, value)) => (Self(name), Some(Self(value))),
            None => (self, None),
        }
    }
}

impl fmt::Debug for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What stands before and behind the first `separator`.
pub(super) fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == separator)?;
    let (before, from) = bytes.split_at_checked(at)?;
    Some((before, from.split_first()?.1))
}

#[cold]
fn is_utf8(mut bytes: impl Iterator<Item = u8>) -> bool {
    while let Some(lead) = bytes.next() {
        let length = match lead {
            0x00..=0x7F => continue,
            0x80..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
        };
        let mut character = [lead, 0, 0, 0];
        for slot in character.iter_mut().take(length).skip(1) {
            match bytes.next() {
                Some(byte) => *slot = byte,
                None => return false,
            }
        }
        if character.get(..length).is_none_or(|character| from_utf8(character).is_err()) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_decode_to_utf8_or_are_refused() {
        for good in ["", "%41", "%c3%A9", "é%e2%82%ac", "%F0%9F%98%80", "%8", "%zz", "%", "%00", "a%8"] {
            assert!(Encoded::new(good.as_bytes()).is_some(), "{good}");
        }
        for bad in
            ["%80", "%C3", "%C3%28", "%C3x", "%C3é", "%ED%A0%80", "%C0%80", "%F5%80%80%80", "%e2%82", "%FF"]
        {
            assert!(Encoded::new(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_escape_beyond_ascii_is_seen_at_every_place_of_every_length() {
        for length in 3..=40 {
            for at in 0..=length - 3 {
                let mut text = "a%7F".repeat(10).into_bytes();
                text.truncate(length);
                assert!(Encoded::new(&text).is_some(), "{at} of {length}");
                text[at..at + 3].copy_from_slice(b"%80");
                assert!(Encoded::new(&text).is_none(), "{at} of {length}");
            }
        }
    }

    #[test]
    fn what_is_appended_is_what_is_displayed() {
        let ascii: String = (0..=0x7F).map(char::from).collect();
        for text in ["", "a", "/", "a/b", "//", "é", "aéb/", "日\u{1F600}z", &ascii] {
            let mut appended = String::from("before");
            Escaped(text).append(&mut appended);
            assert_eq!(appended, alloc::format!("before{}", Escaped(text)));
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_stand() {
        for (text, decoded) in [("%zz%4", "%zz%4"), ("a%20b+c%", "a b+c%"), ("%2541", "%41")] {
            assert_eq!(Encoded::new(text.as_bytes()).unwrap().decoded(), decoded);
        }
    }
}
