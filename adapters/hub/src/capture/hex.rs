//! Bytes written as hex, with or without marks of who sent them.
//!
//! A line holds bytes in any common form: `10 12 00 04`, `10120004`, `0x10, 0x12`, or a line of a hex dump with its offset
//! (`0000: …`) and its text column. `>` in front marks what the device sent, `<` what the hub sent; where no line has a mark,
//! the packets tell. Lines that start with `#` are remarks.

use devicebound::explain::Sender;

/// Bytes of one sender, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Who sent them; `None` where no mark says so.
    pub(super) sender: Option<Sender>,
    pub(super) bytes: Vec<u8>,
}

/// Bytes in a line of a dump, in the form that all programs use.
const DUMP_WIDTH: usize = 16;

/// A line that is not hex.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not hex: `{what}`")]
pub struct HexError {
    /// Counted from 1.
    pub line: usize,
    /// What is no byte, cut to a readable length.
    pub what: String,
}

/// The chunks of a text, up to the first line that is not hex.
pub(super) fn chunks(text: &str) -> (Vec<Chunk>, Result<(), HexError>) {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (sender, rest) = mark(line);
        match bytes(rest) {
            // A line without a mark goes on where the line above ended.
            Ok(bytes) => match chunks.last_mut() {
                Some(last) if sender.is_none() || sender == last.sender => last.bytes.extend(bytes),
                _ => chunks.push(Chunk { sender, bytes }),
            },
            Err(what) => {
                let what = what.chars().take(20).collect();
                return (chunks, Err(HexError { line: index.saturating_add(1), what }));
            }
        }
    }
    (chunks, Ok(()))
}

/// The mark at the front of a line, in any length: `>`, `-->`, `──▶`.
fn mark(line: &str) -> (Option<Sender>, &str) {
    let rest = line.trim_start_matches(['<', '>', '-', '─', '◀', '▶']);
    let marks = line.get(..line.len() - rest.len()).unwrap_or_default();
    let sender = if marks.contains(['>', '▶']) {
        Some(Sender::Device)
    } else if marks.contains(['<', '◀']) {
        Some(Sender::Hub)
    } else {
        None
    };
    (sender, rest)
}

/// The bytes of a line without its mark; the part that is no hex where there is one.
fn bytes(line: &str) -> Result<Vec<u8>, &str> {
    let (line, is_dump) = without_offset(line.trim());
    let mut bytes = Vec::new();
    // Two spaces part the columns of a dump: one or two of bytes, then their text.
    for column in line.split("  ").filter(|column| !column.trim().is_empty()) {
        if is_dump && bytes.len() >= DUMP_WIDTH {
            break;
        }
        match column
            .split([' ', '\t', ',', ':'])
            .filter(|part| !part.is_empty())
            .map(word)
            .collect::<Result<Vec<_>, _>>()
        {
            Ok(words) => bytes.extend(words.concat()),
            Err(_) if !bytes.is_empty() => break,
            Err(part) => return Err(part),
        }
    }
    Ok(bytes)
}

/// Cuts the offset of a hex dump off: digits and a colon, or four to eight digits and two spaces.
fn without_offset(line: &str) -> (&str, bool) {
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_hexdigit()).len();
    let (offset, rest) = line.split_at(digits);
    match rest.strip_prefix(':') {
        Some(rest) if offset.len() >= 4 => (rest, true),
        None if (4..=8).contains(&offset.len()) && rest.starts_with("  ") => (rest, true),
        _ => (line, false),
    }
}

/// The bytes of one word: an even number of digits.
fn word(part: &str) -> Result<Vec<u8>, &str> {
    let digits = part.strip_prefix("0x").unwrap_or(part);
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let [high, low] = pair else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        Some(digit(*high)? << 4 | digit(*low)?)
    });
    pairs.collect::<Option<Vec<u8>>>().filter(|bytes| !bytes.is_empty()).ok_or(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Option<Sender>, Vec<u8>)> {
        let (chunks, result) = chunks(text);
        assert_eq!(result, Ok(()));
        chunks.into_iter().map(|chunk| (chunk.sender, chunk.bytes)).collect()
    }

    #[test]
    fn all_common_forms_of_hex_are_taken() {
        for text in [
            "c0 00 D0 00",
            "C000d000",
            "0xc0, 0x00, 0xd0, 0x00",
            "c0:00:d0:00",
            "c0 00\n# a remark\n\nd0 00",
            "00000000: c000 d000                                ....",
            "0000  c0 00 d0 00   ....",
            "00000000  c0 00 d0 00                                       |....|",
        ] {
            assert_eq!(read(text), [(None, vec![0xc0, 0, 0xd0, 0])], "{text}");
        }
    }

    #[test]
    fn the_text_column_of_a_dump_is_left_out_even_if_it_looks_like_hex() {
        let text = "00000000: 6162 6364 6162 6364 6162 6364 6162 6364  abcdabcdabcdabcd";
        assert_eq!(read(text), [(None, b"abcdabcdabcdabcd".to_vec())]);
    }

    #[test]
    fn marks_tell_who_sent_it() {
        let expected =
            [(Some(Sender::Device), vec![0xc0, 0]), (Some(Sender::Hub), vec![0xd0, 0])].map(|chunk| chunk);
        assert_eq!(read("> c0 00\n< d0 00"), expected);
        assert_eq!(read("──▶ c0\n00\n<-- d000"), expected);
    }

    #[test]
    fn what_is_not_hex_is_named_with_its_line() {
        let (before, result) = chunks("c0 00\nhello world");
        assert_eq!(before.len(), 1);
        assert_eq!(result, Err(HexError { line: 2, what: "hello".to_owned() }));
        assert!(chunks("c0 0").1.is_err());
        assert!(chunks("ж").1.is_err());
    }
}
