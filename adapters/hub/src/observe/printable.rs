//! Text of strangers on a terminal: whatever could move the cursor, hide or reverse what stands around it is escaped.
//!
//! A terminal obeys control characters of ASCII and of ISO 8859-1 (C1, U+0080 to U+009F); software that lays text out obeys
//! the bidirectional and other format characters of Unicode (UAX #9, and Trojan Source, CVE-2021-42574).

use std::fmt::Write as _;
use std::io;

/// Whether a terminal or an editor might obey the character instead of showing it.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' // soft hyphen
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // bidirectional
            | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}' // invisible
            | '\u{2028}' | '\u{2029}' // line and paragraph separators
            | '\u{fff9}'..='\u{fffb}' // interlinear annotation
            | '\u{e0000}'..='\u{e007f}') // tags
}

/// One line of text for people: `\n`, `\u{202e}` and the like stand for what they name.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            printable.extend(c.escape_debug());
        } else if is_obeyed(c) {
            printable.extend(c.escape_unicode());
        } else {
            printable.push(c);
        }
    }
    printable
}

/// The same for text of several lines, whose line ends stay.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// The same for JSON, which means what it meant before: `\u202e`. Line ends stay, as they stand between members alone.
pub(crate) fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for c in json.chars() {
        if is_obeyed(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(printable, "\\u{unit:04x}");
            }
        } else {
            printable.push(c);
        }
    }
    printable
}

/// Passes on what is written to it, a line at a time, with what would be obeyed escaped as in JSON.
#[derive(Debug)]
pub(crate) struct Escaping<W>(pub(crate) W);

impl<W: io::Write> io::Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(printable_json(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What terminals and editors obey: CSI of 7 and of 8 bits, OSC, bidirectional overrides and isolates, marks, separators,
    /// what is invisible, tags.
    const OBEYED: &[char] = &[
        '\0',
        '\u{7}',
        '\u{8}',
        '\r',
        '\u{1b}',
        '\u{7f}',
        '\u{80}',
        '\u{85}',
        '\u{9b}',
        '\u{9d}',
        '\u{9f}',
        '\u{ad}',
        '\u{61c}',
        '\u{180e}',
        '\u{200b}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{206f}',
        '\u{feff}',
        '\u{fff9}',
        '\u{e0001}',
        '\u{e007f}',
    ];

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed_and_the_rest_stays() {
        for c in OBEYED {
            let text = format!("a{c}b");
            for shown in [printable(&text), printable_lines(&text), printable_json(&text)] {
                assert!(!shown.contains(*c) && shown.starts_with("a\\") && shown.ends_with('b'), "{shown:?}");
            }
        }
        let text = "Grüße, 温度 21.5 °C 👩‍🔬 می‌خواهم {\"a\": 1}";
        assert_eq!(printable(text), text);
        assert_eq!(printable_json(text), text);
        assert_eq!(printable("a\nb"), "a\\nb");
        assert_eq!(printable_lines("a\nb\u{9b}"), "a\nb\\u{9b}");
    }

    #[test]
    fn json_means_the_same_after_it_was_made_printable() {
        for c in OBEYED {
            let value = serde_json::json!({"id": format!("x{c}y")});
            let shown = printable_json(&format!("{value:#}"));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
