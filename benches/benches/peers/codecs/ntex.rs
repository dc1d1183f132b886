//! ntex-mqtt, which has its own kind of buffer and may hand a payload out in pieces.

use std::hint::black_box;

use devicebound::limits::REMAINING_LENGTH_MAX;
use ntex_bytes::{BytePageSize, BytePages, BytesMut};
use ntex_codec::{Decoder as _, Encoder as _};
use ntex_mqtt::v3::codec::{Codec, Decoded, Encoded};

use super::{Decoder, Encoder, Progress};

pub(crate) struct Ntex {
    buffer: BytesMut,
    codec: Codec,
}

impl Default for Ntex {
    fn default() -> Self {
        let codec = Codec::new();
        // Payloads in one piece: its fastest way here.
        codec.set_min_chunk_size(REMAINING_LENGTH_MAX as u32);
        Self { buffer: BytesMut::new(), codec }
    }
}

impl Decoder for Ntex {
    fn append(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn decode(&mut self) -> Progress {
        let mut packets = 0;
        loop {
            packets += match black_box(&self.codec.decode(&mut self.buffer)) {
                Ok(Some(Decoded::Publish(publish, payload, _))) => {
                    usize::from(publish.payload_size as usize == payload.len())
                }
                Ok(Some(Decoded::PayloadChunk(_, last))) => usize::from(*last),
                Ok(Some(Decoded::Packet(..))) => 1,
                Ok(None) => return Progress { packets, refused: false },
                Err(_) => return Progress { packets, refused: true },
            };
        }
    }
}

struct NtexEncoder {
    codec: Codec,
    packets: Vec<Encoded>,
    given: Vec<Encoded>,
    pages: BytePages,
}

impl Encoder for NtexEncoder {
    fn prepare(&mut self) {
        self.pages.clear();
        self.given.extend(self.packets.iter().cloned());
    }

    fn encode(&mut self) {
        for packet in self.given.drain(..) {
            self.codec.encodev(packet, &mut self.pages).expect("it was decoded");
            black_box(&self.pages);
        }
    }

    fn written(&self) -> Vec<u8> {
        let mut pages = BytePages::new(BytePageSize::Size64);
        self.pages.copy_to(&mut pages);
        pages.freeze().to_vec()
    }
}

pub(crate) fn encode(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let decoder = Codec::new();
    let mut buffer = BytesMut::copy_from_slice(bytes);
    let mut packets = Vec::new();
    while let Some(packet) = decoder.decode(&mut buffer).expect("it is good") {
        packets.push(match packet {
            Decoded::Packet(packet, _) => Encoded::Packet(packet),
            Decoded::Publish(publish, payload, _) => Encoded::Publish(publish, Some(payload)),
            Decoded::PayloadChunk(..) => unreachable!("the payloads are whole"),
        });
    }
    let pages = BytePages::new(BytePageSize::Size64);
    Box::new(NtexEncoder { codec: Codec::new(), packets, given: Vec::new(), pages })
}
