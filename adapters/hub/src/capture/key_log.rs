//! Session secrets in the format of `SSLKEYLOGFILE`: a label, the client's random and the secret on each line.

use std::collections::HashMap;

/// The random of a ClientHello, which names a session.
pub(super) type Random = [u8; 32];

/// The secret of a session, as its line has it.
pub(super) type Secret = Vec<u8>;

/// No secret is longer: SHA-384 has 48 bytes, as has the master secret of TLS 1.2.
const SECRET_MAX: usize = 64;

/// The secrets that are read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Label {
    /// The master secret of TLS 1.2.
    ClientRandom,
    ClientEarly,
    ClientHandshake,
    ServerHandshake,
    ClientTraffic,
    ServerTraffic,
}

impl Label {
    const ALL: [Self; 6] = [
        Self::ClientRandom,
        Self::ClientEarly,
        Self::ClientHandshake,
        Self::ServerHandshake,
        Self::ClientTraffic,
        Self::ServerTraffic,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ClientRandom => "CLIENT_RANDOM",
            Self::ClientEarly => "CLIENT_EARLY_TRAFFIC_SECRET",
            Self::ClientHandshake => "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            Self::ServerHandshake => "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            Self::ClientTraffic => "CLIENT_TRAFFIC_SECRET_0",
            Self::ServerTraffic => "SERVER_TRAFFIC_SECRET_0",
        }
    }
}

/// The secrets of all sessions.
#[derive(Default)]
pub struct KeyLog {
    secrets: HashMap<(Label, Random), Secret>,
    lines: usize,
    unread: Option<usize>,
}

/// How many, and never which.
impl std::fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyLog").field("secrets", &self.secrets.len()).finish_non_exhaustive()
    }
}

impl KeyLog {
    /// Reads the text of a key log, beside what was read before. Lines of other labels are passed over.
    pub fn read(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            self.lines = self.lines.saturating_add(1);
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            let (label, random, secret) = (words.next(), words.next(), words.next());
            let known = Label::ALL.into_iter().find(|known| Some(known.name()) == label);
            let random = random.and_then(bytes).and_then(|random| Random::try_from(random).ok());
            let secret = secret.and_then(bytes).filter(|secret| secret.len() <= SECRET_MAX);
            match (known, random, secret) {
                (Some(label), Some(random), Some(secret)) if words.next().is_none() => {
                    self.secrets.insert((label, random), secret);
                }
                (None, Some(_), Some(_)) => {}
                _ => {
                    self.unread.get_or_insert(self.lines);
                }
            }
        }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// The first line, counted from 1, that is no line of a key log.
    #[must_use]
    pub const fn unread_line(&self) -> Option<usize> {
        self.unread
    }

    pub(super) fn secret(&self, label: Label, random: &Random) -> Option<&Secret> {
        self.secrets.get(&(label, *random))
    }
}

/// The bytes of an even number of hex digits.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = hex.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_log_is_read_with_remarks_and_what_is_no_line_of_one_is_named() {
        let random = "ab".repeat(32);
        let mut log = KeyLog::default();
        log.read(
            format!(
                "# remark\r\nCLIENT_RANDOM {random} {}\r\n\r\nEXPORTER_SECRET {random} 00\n",
                "01".repeat(48)
            )
            .as_bytes(),
        );
        assert_eq!(log.secret(Label::ClientRandom, &[0xab; 32]), Some(&vec![1; 48]));
        assert_eq!((log.secret(Label::ClientTraffic, &[0xab; 32]), log.unread_line()), (None, None));
        log.read(b"CLIENT_RANDOM abc 00\n");
        assert_eq!(log.unread_line(), Some(6));
        assert!(!format!("{log:?}").contains("171"), "secrets are not printed");
    }
}
