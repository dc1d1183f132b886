//! From a capture file to its frames: pcap and pcapng, in either byte order, with time stamps of any resolution.

use pcap_parser::pcapng::{InterfaceDescriptionBlock, SecretsType, UnknownBlock};
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

/// No frame of a capture is larger: libpcap's own bound is 256 KiB for all links that carry IP.
const FRAME_MAX: usize = 512 * 1024;
/// First bytes of a pcapng file.
const PCAPNG: &[u8] = &[0x0a, 0x0d, 0x0d, 0x0a];
/// The packet block of pcapng before version 1.0, which some programs still write.
const OBSOLETE_PACKET_BLOCK: u32 = 2;
/// Files that are mistaken for captures, by their first bytes.
const OTHER_FILES: [(&[u8], &str); 9] = [
    (&[0x1f, 0x8b], "it is compressed with gzip: gunzip it first"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "it is compressed with xz: unxz it first"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "it is compressed with zstd: unzstd it first"),
    (b"BZh", "it is compressed with bzip2: bunzip2 it first"),
    (&[b'P', b'K', 3, 4], "it is a zip archive: unpack it first"),
    (b"snoop\0\0\0", "it is a snoop file: convert it with editcap -F pcapng IN OUT"),
    (b"btsnoop\0", "it is a capture of Bluetooth, which carries no TCP"),
    (b"GMBU", "it is a file of Microsoft Network Monitor: convert it with editcap -F pcapng IN OUT"),
    (b"RTSS", "it is a file of Microsoft Network Monitor: convert it with editcap -F pcapng IN OUT"),
];

/// One frame as it was captured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'b> {
    /// Milliseconds since 1970; simple packet blocks of pcapng have no time.
    pub(super) time: Option<u64>,
    /// The link type, see <https://www.tcpdump.org/linktypes.html>.
    pub(super) link: u16,
    pub(super) bytes: &'b [u8],
    /// How the capture limits a frame's length, where it does.
    pub(super) snap_length: u32,
}

/// What a block of a capture file holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'b> {
    Frame(Frame<'b>),
    /// A TLS key log (`SSLKEYLOGFILE`) that was put into the file.
    KeyLog(&'b [u8]),
    /// A frame of an interface that the file does not describe.
    NoInterface,
}

/// What the frames of one interface are.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    snap_length: u32,
    /// Time stamps to the second.
    resolution: u64,
    /// Seconds to be added.
    offset: i64,
}

/// What has been read of the file's structure.
#[derive(Debug, Default)]
struct Structure {
    interfaces: Vec<Interface>,
    is_big_endian: bool,
}

/// Whether the file may hold session secrets.
pub(super) fn may_hold_secrets(file: &[u8]) -> bool {
    file.starts_with(PCAPNG)
}

/// Gives each item of a pcap or pcapng file, in order.
///
/// # Errors
/// What is wrong with the file, after the items before it were given.
pub(super) fn each_item(file: &[u8], give: &mut dyn FnMut(Item<'_>)) -> Result<(), String> {
    let mut reader = create_reader(FRAME_MAX, file).map_err(|error| describe(&error, file))?;
    let mut structure = Structure::default();
    loop {
        match reader.next() {
            Ok((taken, block)) => {
                if let Some(item) = structure.item(&block) {
                    give(item);
                }
                reader.consume(taken);
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => reader.refill().map_err(|error| describe(&error, file))?,
            Err(error) => return Err(describe(&error, file)),
        }
    }
}

fn describe(error: &PcapError<&[u8]>, file: &[u8]) -> String {
    match error {
        PcapError::Eof => "it is empty".to_owned(),
        PcapError::UnexpectedEof | PcapError::Incomplete(_) => "it breaks off in the middle".to_owned(),
        PcapError::BufferTooSmall => format!("a frame is larger than {FRAME_MAX} bytes"),
        PcapError::HeaderNotRecognized => {
            let known = OTHER_FILES.iter().find(|(magic, _)| file.starts_with(magic));
            known.map_or("it does not begin as one", |(_, what)| what).to_owned()
        }
        PcapError::ReadError | PcapError::NomError(..) | PcapError::OwnedNomError(..) => {
            "a block in it is damaged".to_owned()
        }
    }
}

impl Structure {
    fn item<'b>(&mut self, block: &'b PcapBlockOwned<'_>) -> Option<Item<'b>> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                let link = link_type(header.network.0);
                let snap_length = header.snaplen;
                self.interfaces = vec![Interface { link, snap_length, resolution, offset: 0 }];
                None
            }
            PcapBlockOwned::Legacy(block) => {
                let interface = self.interfaces.first()?;
                let fraction = u64::from(block.ts_usec).saturating_mul(1000) / interface.resolution;
                let time = u64::from(block.ts_sec).saturating_mul(1000).saturating_add(fraction);
                Some(interface.frame(Some(time), block.data))
            }
            PcapBlockOwned::NG(Block::SectionHeader(header)) => {
                *self = Self { interfaces: Vec::new(), is_big_endian: header.big_endian() };
                None
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
                self.interfaces.push(Interface::of(block));
                None
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                let stamp = [block.ts_high, block.ts_low];
                Some(self.frame(block.if_id, stamp, block.caplen, block.data))
            }
            PcapBlockOwned::NG(Block::SimplePacket(block)) => {
                let Some(interface) = self.interfaces.first() else { return Some(Item::NoInterface) };
                let captured = usize::try_from(block.origlen).ok()?.min(block.data.len());
                Some(interface.frame(None, block.data.get(..captured)?))
            }
            PcapBlockOwned::NG(Block::DecryptionSecrets(block)) => {
                let secrets =
                    block.data.get(..usize::try_from(block.secrets_len).ok()?).unwrap_or(block.data);
                (block.secrets_type == SecretsType::TlsKeyLog).then_some(Item::KeyLog(secrets))
            }
            PcapBlockOwned::NG(Block::Unknown(block)) if is_obsolete_packet(block.block_type) => {
                self.obsolete(block)
            }
            PcapBlockOwned::NG(_) => None,
        }
    }

    fn frame<'b>(&self, interface: u32, stamp: [u32; 2], captured: u32, data: &'b [u8]) -> Item<'b> {
        let Some(interface) = usize::try_from(interface).ok().and_then(|index| self.interfaces.get(index))
        else {
            return Item::NoInterface;
        };
        let captured = usize::try_from(captured).map_or(data.len(), |captured| captured.min(data.len()));
        interface.frame(interface.time(stamp), data.get(..captured).unwrap_or(data))
    }

    /// Interface and drops in two bytes each, then the fields of an enhanced packet block.
    fn obsolete<'b>(&self, block: &'b UnknownBlock<'_>) -> Option<Item<'b>> {
        let field = |at: usize| {
            let bytes = block.data.get(at..at.checked_add(4)?)?.try_into().ok()?;
            Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        let interface = if self.is_big_endian { field(0)? >> 16 } else { field(0)? & 0xffff };
        Some(self.frame(interface, [field(4)?, field(8)?], field(12)?, block.data.get(20..)?))
    }
}

impl Interface {
    fn of(block: &InterfaceDescriptionBlock<'_>) -> Self {
        Self {
            link: link_type(block.linktype.0),
            snap_length: block.snaplen,
            resolution: block.ts_resolution().filter(|resolution| *resolution > 0).unwrap_or(1_000_000),
            offset: block.ts_offset(),
        }
    }

    fn time(&self, [high, low]: [u32; 2]) -> Option<u64> {
        let stamp = u128::from(high) << 32 | u128::from(low);
        let time = u64::try_from(stamp * 1000 / u128::from(self.resolution)).ok()?;
        Some(time.saturating_add_signed(self.offset.saturating_mul(1000)))
    }

    const fn frame<'b>(&self, time: Option<u64>, bytes: &'b [u8]) -> Item<'b> {
        Item::Frame(Frame { time, link: self.link, bytes, snap_length: self.snap_length })
    }
}

/// Blocks that pcap-parser does not know keep their type in the byte order of the file.
const fn is_obsolete_packet(kind: u32) -> bool {
    kind == OBSOLETE_PACKET_BLOCK || kind == OBSOLETE_PACKET_BLOCK.swap_bytes()
}

/// The upper half of a pcap file's field tells of frame check sequences, which the lengths in the IP headers leave out anyway.
fn link_type(field: i32) -> u16 {
    let [.., high, low] = field.to_be_bytes();
    u16::from_be_bytes([high, low])
}
