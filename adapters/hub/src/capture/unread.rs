//! What of a capture could not be read, and how often: it is told by name at the end.

use std::collections::BTreeMap;
use std::fmt;

/// Kinds of frames that are told apart; further ones are counted together. A hostile file could have thousands.
const KINDS_MAX: usize = 40;

/// Why a frame gives no TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unread {
    /// Frames of a link type that is not read.
    Link(u16),
    /// An encapsulation that is not read, or that is encrypted.
    Encapsulation(&'static str),
    /// An EtherType that nothing here knows.
    EtherType(u16),
    /// IP fragments.
    Fragment,
    /// The frame ends within the headers.
    Cut,
    /// A header that contradicts itself.
    Damaged(&'static str),
    /// A frame of an interface that the file does not describe.
    NoInterface,
    /// Traffic that carries no TCP, as any network has it.
    Other(&'static str),
    /// An IP protocol that carries no TCP and has no name here.
    Protocol(u8),
}

/// The frames that were not read, by the reason.
#[derive(Debug, Default)]
pub(super) struct Summary {
    counts: BTreeMap<Unread, u64>,
    further: u64,
    /// Segments whose payload was cut by the capture.
    cut: u64,
    snap_length: u32,
}

impl Summary {
    pub(super) fn count(&mut self, why: Unread) {
        if self.counts.len() < KINDS_MAX || self.counts.contains_key(&why) {
            let count = self.counts.entry(why).or_default();
            *count = count.saturating_add(1);
        } else {
            self.further = self.further.saturating_add(1);
        }
    }

    pub(super) fn cut(&mut self, snap_length: u32) {
        self.cut = self.cut.saturating_add(1);
        self.snap_length = self.snap_length.max(snap_length);
    }

    /// A line for each reason; ordinary traffic that is no TCP shares one.
    pub(super) fn tell(&self, tell: &mut dyn FnMut(&str)) {
        let mut others = Vec::new();
        for (why, count) in &self.counts {
            match why {
                Unread::Other(_) | Unread::Protocol(_) => others.push(format!("{count} {why}")),
                _ => tell(&format!("{} not read: {why}", frames(*count))),
            }
        }
        if self.further > 0 {
            tell(&format!("{} not read: further kinds", frames(self.further)));
        }
        if !others.is_empty() {
            tell(&format!("frames without TCP: {}", others.join(", ")));
        }
        if self.cut > 0 {
            let limit = match self.snap_length {
                0 => String::new(),
                length => format!(" (its limit is {length} bytes a frame)"),
            };
            tell(&format!("{} cut short by the capture{limit}: capture with -s 0", frames(self.cut)));
        }
    }
}

fn frames(count: u64) -> String {
    if count == 1 { "1 frame was".to_owned() } else { format!("{count} frames were") }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => match link_name(*link) {
                Some(name) => {
                    write!(f, "link type {link}, {name}; capture where the traffic is Ethernet or IP")
                }
                None => write!(f, "link type {link}; capture where the traffic is Ethernet or IP"),
            },
            Self::Encapsulation(name) => write!(f, "{name}; capture where this encapsulation has ended"),
            Self::EtherType(number) => write!(f, "EtherType {number:#06x}"),
            Self::Fragment => {
                f.write_str("IP fragments, which are not put together; lower the MSS, or capture elsewhere")
            }
            Self::Cut => f.write_str("they end within their headers; capture with -s 0"),
            Self::Damaged(what) => write!(f, "damaged {what}"),
            Self::NoInterface => f.write_str("the file does not describe their interface"),
            Self::Other(name) => f.write_str(name),
            Self::Protocol(number) => write!(f, "IP protocol {number}"),
        }
    }
}

/// Names of the link types that people have and that are not read.
const fn link_name(link: u16) -> Option<&'static str> {
    Some(match link {
        6 => "token ring",
        7 => "ARCNET",
        8 => "SLIP",
        10 => "FDDI",
        11 | 100 | 123 => "ATM",
        105 => "IEEE 802.11",
        107 => "frame relay",
        114 => "LocalTalk",
        117 => "pflog",
        119 => "IEEE 802.11 with a Prism header",
        127 => "IEEE 802.11 with a radiotap header",
        147..=162 => "of a user's own",
        163 => "IEEE 802.11 with an AVS header",
        187 | 201 | 251 | 254 | 255 => "Bluetooth",
        189 | 220 | 249 | 266 => "USB",
        190 | 227 => "CAN",
        192 => "PPI",
        195 | 215 | 230 | 283 => "IEEE 802.15.4",
        224 => "fibre channel",
        225 | 256 => "fibre channel with frame delimiters",
        239 => "NFLOG",
        242 | 247 => "InfiniBand",
        244 => "MPEG transport stream",
        253 => "netlink",
        265 => "NFC",
        270 => "LoRaTap",
        272 => "nRF sniffer",
        292 => "DPAA2",
        _ => return None,
    })
}
