//! What no codec can do without: to find where packets end, and to copy.

use std::hint::black_box;

use super::{Decoder, Encoder, Progress, Step, frame};

/// Finds where packets end, and nothing else.
#[derive(Default)]
pub(crate) struct Scan {
    bytes: Vec<u8>,
    at: usize,
}

impl Decoder for Scan {
    fn append(&mut self, bytes: &[u8]) {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn decode(&mut self) -> Progress {
        let mut rest = &self.bytes[self.at..];
        let progress = Progress::of(|| match black_box(frame(rest)) {
            Some((_, header, length)) => {
                rest = &rest[header + length..];
                Step::Packet
            }
            None => Step::Incomplete,
        });
        self.at = self.bytes.len() - rest.len();
        progress
    }
}

/// Copies what came.
#[derive(Default)]
pub(crate) struct Copy {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Decoder for Copy {
    fn append(&mut self, bytes: &[u8]) {
        self.from.clear();
        self.from.extend_from_slice(bytes);
    }

    fn decode(&mut self) -> Progress {
        self.to.clear();
        self.to.extend_from_slice(&self.from);
        black_box(&self.to);
        Progress::default()
    }

    /// The chunks are copied into one buffer; there is nothing else to be done.
    fn stream(&mut self, bytes: &[u8], size: usize) -> usize {
        self.to.clear();
        for chunk in bytes.chunks(size) {
            self.to.extend_from_slice(chunk);
            black_box(&self.to);
        }
        0
    }
}

/// Copies pieces one by one.
struct Pieces {
    pieces: Vec<&'static [u8]>,
    to: Vec<u8>,
}

impl Encoder for Pieces {
    fn prepare(&mut self) {
        self.to.clear();
    }

    fn encode(&mut self) {
        for piece in &self.pieces {
            self.to.extend_from_slice(piece);
            black_box(&self.to);
        }
    }

    fn written(&self) -> Vec<u8> {
        self.to.clone()
    }
}

/// Copies all packets at once.
pub(crate) fn copy_all(bytes: &'static [u8]) -> Box<dyn Encoder> {
    Box::new(Pieces { pieces: vec![bytes], to: Vec::new() })
}

/// Copies packet by packet.
pub(crate) fn copy_frames(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let mut rest = bytes;
    let pieces = std::iter::from_fn(|| {
        let (_, header, length) = frame(rest)?;
        let (piece, behind) = rest.split_at(header + length);
        rest = behind;
        Some(piece)
    });
    Box::new(Pieces { pieces: pieces.collect(), to: Vec::new() })
}
