//! The lines that tell what happens on a connection: the same in the live view and in `devicebound explain`.

use devicebound::Rule;
use devicebound::explain::Sender;
use devicebound::hub::{Comparison, Warning};
use devicebound::limits::{MESSAGE_MAX, REMAINING_LENGTH_MAX};
use devicebound::packet::{Decoded, Packet, decode};
use devicebound::session::{Close, CloseReason};

use crate::observe::printable::printable;

/// So many of the offending bytes are shown.
const OFFENDING_MAX: usize = 48;
/// So many characters of what a peer chose are shown where it may be long.
const TEXT_MAX: usize = 256;
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

/// The end of a connection, as it is told.
#[derive(Clone, Copy, Debug)]
pub struct End<'e> {
    /// Why.
    pub close: &'e Close,
    /// The bytes that are to blame, if any.
    pub offending: &'e [u8],
    /// What came and what it was compared with, if anything was.
    pub comparison: Option<&'e Comparison>,
}

impl<'e> End<'e> {
    /// An end for which no bytes are to blame.
    #[must_use]
    pub const fn of(close: &'e Close) -> Self {
        Self { close, offending: &[], comparison: None }
    }
}

/// The end of a connection: the rule, the offending bytes if there are any, what came and what was expected where
/// something was compared, and how to fix it.
pub(crate) fn closed(time: &str, name: &str, end: End<'_>) -> String {
    let End { close, offending, comparison } = end;
    let (name, rule) = (printable(name), close.rule());
    let sign = if is_in_order(close.reason()) { " · " } else { "─╳─" };
    let mut text = format!("{time:12} {name:24} {sign} {}: {}", close.reason(), rule.says());
    if let Some(size) = announced(rule, offending) {
        text.push_str(&detail("size:", &size));
    } else if !offending.is_empty() {
        text.push_str(&format!("\n{:INDENT$} bytes: {}", "", shown(offending)));
    }
    push_comparison(&mut text, comparison);
    if close.reason() != CloseReason::Disconnected {
        text.push_str(&format!("\n{:INDENT$} fix:   {}", "", fix(rule)));
    }
    text
}

/// Something that was taken, and that the real hub may not take.
pub(crate) fn warned(time: &str, name: &str, warning: &Warning) -> String {
    let (name, rule) = (printable(name), warning.rule);
    let mut text = format!("{time:12} {name:24}  !  warning, {rule}: {}", rule.says());
    push_comparison(&mut text, warning.comparison.as_ref());
    text.push_str(&format!("\n{:INDENT$} fix:   {}", "", fix(rule)));
    text
}

fn push_comparison(text: &mut String, comparison: Option<&Comparison>) {
    let Some(Comparison { received, expected }) = comparison else { return };
    for (label, what) in [("received:", received), ("expected:", expected)] {
        text.push_str(&format!("\n{:INDENT$} {label} {}", "", printable(what)));
    }
}

/// Something about a connection that is neither a packet nor the breach of a rule.
pub(crate) fn remark(time: &str, name: &str, text: &str) -> String {
    let name = printable(name);
    format!("{time:12} {name:24}  ·  {text}")
}

/// A line that belongs to the one above.
pub(crate) fn detail(label: &str, text: &str) -> String {
    format!("\n{:INDENT$} {label:6} {}", "", printable(text))
}

/// Whether an end is one that nobody has to do anything about.
fn is_in_order(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::Disconnected | CloseReason::Ended(Rule::HubStopping | Rule::TokenRenewal))
}

/// How large a message is that is too large: as its packet announced (the offending bytes are those of the length, MQTT 3.1.1
/// §2.2.3), or as it came.
fn announced(rule: Rule, offending: &[u8]) -> Option<String> {
    let mut packet = offending;
    let size = match rule {
        Rule::PacketSize if (1..=4).contains(&offending.len()) => {
            let size = offending.iter().rev().fold(0_u32, |size, byte| size << 7 | u32::from(byte & 0x7f));
            format!("{size} bytes announced (length {})", hex(offending))
        }
        Rule::MessageSize => match decode(&mut packet, REMAINING_LENGTH_MAX) {
            Ok(Decoded::Packet(Packet::Publish(publish))) => {
                format!("{} bytes of body", publish.payload.len())
            }
            Ok(_) | Err(_) => return None,
        },
        _ => return None,
    };
    Some(format!("{size}; a message has at most {MESSAGE_MAX}"))
}

/// How to fix a breach, and where the rule stands.
pub(crate) fn fix(rule: Rule) -> String {
    format!("{} ({})", rule.fix(), rule.source())
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

/// As much of a text of unknown length as a line shows.
pub(crate) fn cut(text: &str) -> &str {
    text.char_indices().nth(TEXT_MAX).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}
