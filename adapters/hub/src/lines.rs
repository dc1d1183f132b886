//! The lines that tell what happens on a connection: the same in the live view and in `devicebound explain`.

use devicebound::Rule;
use devicebound::explain::Sender;
use devicebound::session::{Close, CloseReason};

/// So many of the offending bytes are shown.
const OFFENDING_MAX: usize = 48;
/// The column that what belongs to a line above is indented to.
const INDENT: usize = 37;

/// A packet: when, whose connection, which way, what it means. What a peer chose cannot move the cursor.
pub(crate) fn packet(time: &str, name: &str, sender: Sender, text: &str) -> String {
    let (name, text) = (printable(name), printable(text));
    let arrow = match sender {
        Sender::Device => "──▶",
        Sender::Hub => "◀──",
    };
    format!("{time:12} {name:24} {arrow} {text}")
}

/// The end of a connection: the rule, the offending bytes if there are any, and how to mend it.
pub(crate) fn closed(time: &str, name: &str, close: &Close, offending: &[u8]) -> String {
    let (name, rule) = (printable(name), close.rule());
    let mut text = format!("{time:12} {name:24} ─╳─ {}: {}", close.reason(), rule.says());
    if !offending.is_empty() {
        text.push_str(&format!("\n{:INDENT$} bytes: {}", "", shown(offending)));
    }
    if close.reason() != CloseReason::Disconnected {
        text.push_str(&format!("\n{:INDENT$} mend:  {}", "", mend(rule)));
    }
    text
}

/// Something about a connection that is neither a packet nor the breach of a rule.
pub(crate) fn remark(time: &str, name: &str, text: &str) -> String {
    let name = printable(name);
    format!("{time:12} {name:24}  ·  {text}")
}

/// How to mend a breach, and where the rule stands.
pub(crate) fn mend(rule: Rule) -> String {
    format!("{} ({})", rule.mend(), rule.source())
}

/// The bytes in hex, and as text where they are text.
fn shown(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .take(OFFENDING_MAX)
        .map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' })
        .collect();
    format!("{}  {text}", hex(bytes))
}

/// The first bytes in hex, and how many more there are.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text: Vec<String> = bytes.iter().take(OFFENDING_MAX).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > OFFENDING_MAX {
        text.push(format!("… {} more", bytes.len() - OFFENDING_MAX));
    }
    text.join(" ")
}

/// Text of a peer, with whatever could move a cursor escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::new();
    for c in text.chars() {
        if c.is_control() { printable.extend(c.escape_debug()) } else { printable.push(c) }
    }
    printable
}
