//! From a capture file to the TCP segments in it.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// No frame of a capture is larger: libpcap's own bound is 256 KiB for all links that carry IP.
const FRAME_MAX: usize = 512 * 1024;

/// One TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// Milliseconds since 1970.
    pub(super) time: u64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// As much of the payload as was captured.
    pub(super) payload: &'a [u8],
}

/// What the frames of one interface are.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Linktype,
    /// Time stamps to the second.
    resolution: u64,
    /// Seconds to be added.
    offset: i64,
}

/// Gives each TCP segment of a pcap or pcapng file, in order. Other frames are passed over.
///
/// # Errors
/// What is wrong with the file, after the segments before it were given.
pub(super) fn each_segment(file: &[u8], give: &mut dyn FnMut(Segment<'_>)) -> Result<(), String> {
    let mut reader = create_reader(FRAME_MAX, file).map_err(|error| describe(&error))?;
    let mut interfaces = Vec::new();
    loop {
        match reader.next() {
            Ok((taken, block)) => {
                if let Some((time, link, frame)) = frame(&block, &mut interfaces)
                    && let Some(segment) = segment(time, link, frame)
                {
                    give(segment);
                }
                reader.consume(taken);
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => reader.refill().map_err(|error| describe(&error))?,
            Err(error) => return Err(describe(&error)),
        }
    }
}

fn describe(error: &PcapError<&[u8]>) -> String {
    match error {
        PcapError::Eof => "it is empty".to_owned(),
        PcapError::UnexpectedEof | PcapError::Incomplete(_) => "it breaks off in the middle".to_owned(),
        PcapError::BufferTooSmall => format!("a frame is larger than {FRAME_MAX} bytes"),
        PcapError::HeaderNotRecognized => "it does not begin as one".to_owned(),
        PcapError::ReadError | PcapError::NomError(..) | PcapError::OwnedNomError(..) => {
            "a block in it is damaged".to_owned()
        }
    }
}

/// Time in milliseconds, link type and bytes of a block that is a frame.
fn frame<'b>(
    block: &'b PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
) -> Option<(u64, Linktype, &'b [u8])> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            *interfaces = vec![Interface { link: header.network, resolution, offset: 0 }];
            None
        }
        PcapBlockOwned::Legacy(block) => {
            let interface = interfaces.first()?;
            let fraction = u64::from(block.ts_usec).saturating_mul(1000) / interface.resolution;
            let time = u64::from(block.ts_sec).saturating_mul(1000).saturating_add(fraction);
            Some((time, interface.link, block.data))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
            let resolution = block.ts_resolution().filter(|resolution| *resolution > 0).unwrap_or(1_000_000);
            interfaces.push(Interface { link: block.linktype, resolution, offset: block.ts_offset() });
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            let interface = interfaces.get(usize::try_from(block.if_id).ok()?)?;
            let stamp = u128::from(block.ts_high) << 32 | u128::from(block.ts_low);
            let time = u64::try_from(stamp * 1000 / u128::from(interface.resolution)).ok()?;
            let time = time.saturating_add_signed(interface.offset.saturating_mul(1000));
            let captured = usize::try_from(block.caplen).ok()?.min(block.data.len());
            Some((time, interface.link, block.data.get(..captured)?))
        }
        PcapBlockOwned::NG(Block::SimplePacket(block)) => {
            let captured = usize::try_from(block.origlen).ok()?.min(block.data.len());
            Some((0, interfaces.first()?.link, block.data.get(..captured)?))
        }
        PcapBlockOwned::NG(_) => None,
    }
}

fn segment(time: u64, link: Linktype, frame: &[u8]) -> Option<Segment<'_>> {
    let packet = match link {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(frame).ok()?,
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => LaxSlicedPacket::from_ip(frame).ok()?,
        // The address family in four bytes, in the order of the machine that captured; the IP version tells as much.
        Linktype::NULL | Linktype::LOOP => LaxSlicedPacket::from_ip(frame.get(4..)?).ok()?,
        // `tcpdump -i any`: the protocol stands in the last, and in the second form in the first two bytes of the header.
        Linktype::LINUX_SLL => cooked(frame.get(14..16)?, frame.get(16..)?),
        Linktype::LINUX_SLL2 => cooked(frame.get(..2)?, frame.get(20..)?),
        _ => return None,
    };
    let (from, to): (IpAddr, IpAddr) = match packet.net? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
    Some(Segment {
        time,
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        syn: tcp.syn(),
        ack: tcp.ack(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        payload: tcp.payload(),
    })
}

fn cooked<'f>(protocol: &[u8], payload: &'f [u8]) -> LaxSlicedPacket<'f> {
    let protocol = protocol.iter().fold(0, |number: u16, byte| number << 8 | u16::from(*byte));
    LaxSlicedPacket::from_ether_type(EtherType(protocol), payload)
}
