//! What happened, in the words of the dialect, and its hash.

use std::fmt;

use devicebound::time::Instant;

/// A hash of all that happened, and the lines of it where they are kept.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
    start: Instant,
}

impl Trace {
    /// An empty trace that begins at `start`; its lines are kept or not.
    #[must_use]
    pub const fn new(start: Instant, keep: bool) -> Self {
        // FNV-1a: not to be forged is not asked of it.
        Self { hash: 0xCBF2_9CE4_8422_2325, lines: if keep { Some(Vec::new()) } else { None }, start }
    }

    /// The same for two runs if and only if, but for a chance of 2⁻⁶⁴, the same happened in both.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, where they are kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// Takes bytes into the hash.
    pub fn bytes(&mut self, now: Instant, bytes: &[u8]) {
        let time = now.as_micros().to_be_bytes();
        for byte in time.iter().chain(bytes) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    /// Adds a line.
    pub fn line(&mut self, now: Instant, line: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            let micros = now.since(self.start).as_micros();
            lines.push(format!("{:>6}.{:06}  {line}", micros / 1_000_000, micros % 1_000_000));
        }
    }
}
