//! From a frame to the TCP segment in it, through whatever it is wrapped in.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxIpSlice, TcpSlice};

use super::file::Frame;
use super::unread::Unread;

/// Encapsulations around one segment: VLANs, labels and tunnels. Real ones have five at most.
const DEPTH_MAX: usize = 16;
/// EtherTypes below are the lengths of IEEE 802.3 frames.
const ETHER_TYPE_MIN: u16 = 0x0600;

/// One TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// Milliseconds since 1970, if the capture has the time.
    pub(super) time: Option<u64>,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    /// The next sequence number that its sender expects from the other side.
    pub(super) acknowledges: Option<u32>,
    pub(super) ack: bool,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// As much of the payload as was captured.
    pub(super) payload: &'a [u8],
    /// Bytes of the payload that were on the wire and are not in the capture.
    pub(super) cut: u32,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum Layer {
    Ethernet,
    EtherType(u16),
    Ppp,
    Pppoe,
    Mpls,
    Ip,
    Gre,
    Udp,
}

/// What is found below a layer.
enum Found<'a> {
    Layer(Layer, &'a [u8]),
    Segment(Segment<'a>),
}

type Step<'a> = Result<Found<'a>, Unread>;

/// The TCP segment in a frame.
///
/// # Errors
/// Why there is none.
pub(super) fn segment<'a>(frame: &Frame<'a>) -> Result<Segment<'a>, Unread> {
    let mut step = first(frame.link, frame.bytes)?;
    for _ in 0..DEPTH_MAX {
        step = match step {
            Found::Segment(segment) => return Ok(Segment { time: frame.time, ..segment }),
            Found::Layer(layer, bytes) => below(layer, bytes)?,
        };
    }
    Err(Unread::Encapsulation("more than 16 encapsulations in each other"))
}

/// What the link type says about the first bytes (<https://www.tcpdump.org/linktypes.html>).
fn first(link: u16, frame: &[u8]) -> Step<'_> {
    match link {
        1 => Ok(Found::Layer(Layer::Ethernet, frame)),
        // 12 and 14 are the numbers of raw IP inside some systems.
        12 | 14 | 101 | 228 | 229 => Ok(Found::Layer(Layer::Ip, frame)),
        // The address family in four bytes, in the order of the machine that captured; the IP version tells as much.
        0 | 108 => Ok(Found::Layer(Layer::Ip, rest(frame, 4)?)),
        9 | 50 => Ok(Found::Layer(Layer::Ppp, frame)),
        51 => Ok(Found::Layer(Layer::Pppoe, frame)),
        // One byte says which way it went; in the second form it stands in the address field.
        204 => Ok(Found::Layer(Layer::Ppp, rest(frame, 1)?)),
        166 => Ok(Found::Layer(Layer::Ppp, rest(frame, 2)?)),
        104 => ether_type(frame, 2, 4),
        // `tcpdump -i any`, both forms.
        113 => ether_type(frame, 14, 16),
        276 => ether_type(frame, 0, 20),
        // IP over IEEE 1394, and what macOS puts around IPsec.
        138 => ether_type(frame, 16, 18),
        109 => Ok(Found::Layer(Layer::Ip, rest(frame, 12)?)),
        258 => pktap(frame),
        _ => Err(Unread::Link(link)),
    }
}

/// What macOS puts around frames of any interface: the header's length and the link type of what follows.
fn pktap(frame: &[u8]) -> Step<'_> {
    let field = |at: usize| -> Result<u32, Unread> {
        let bytes = frame.get(at..at + 4).ok_or(Unread::Cut)?;
        bytes.try_into().map(u32::from_le_bytes).map_err(|_| Unread::Cut)
    };
    let link = u16::try_from(field(8)?).map_err(|_| Unread::Damaged("PKTAP headers"))?;
    if link == 258 {
        return Err(Unread::Damaged("PKTAP headers"));
    }
    first(link, rest(frame, usize::try_from(field(0)?).map_err(|_| Unread::Cut)?)?)
}

fn below(layer: Layer, bytes: &[u8]) -> Step<'_> {
    match layer {
        Layer::Ethernet => ether_type(bytes, 12, 14),
        Layer::EtherType(number) => by_ether_type(number, bytes),
        Layer::Ppp => ppp(bytes),
        // Version and type, code, session, length.
        Layer::Pppoe => Ok(Found::Layer(Layer::Ppp, rest(bytes, 6)?)),
        Layer::Mpls => mpls(bytes),
        Layer::Ip => ip(bytes),
        Layer::Gre => gre(bytes),
        Layer::Udp => udp(bytes),
    }
}

/// A two-byte EtherType at `at`, and what it speaks of from `payload` on.
fn ether_type(bytes: &[u8], at: usize, payload: usize) -> Step<'_> {
    Ok(Found::Layer(Layer::EtherType(number(bytes, at)?), rest(bytes, payload)?))
}

fn by_ether_type(number: u16, bytes: &[u8]) -> Step<'_> {
    let layer = match number {
        0x0800 | 0x86dd => Layer::Ip,
        // 802.1Q, 802.1ad and what was there before it.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => return ether_type(bytes, 2, 4),
        0x8847 | 0x8848 => Layer::Mpls,
        0x8864 => Layer::Pppoe,
        0x880b => Layer::Ppp,
        0x6558 => Layer::Ethernet,
        // VN-tag and 802.1BR of virtual machines' switches.
        0x8926 => return ether_type(bytes, 4, 6),
        0x893f => return ether_type(bytes, 6, 8),
        0x88e5 => return Err(Unread::Encapsulation("MACsec, which may be encrypted")),
        0x88e7 => return Err(Unread::Encapsulation("provider backbone bridging (802.1ah)")),
        0x88be | 0x22eb => return Err(Unread::Encapsulation("ERSPAN")),
        0x894f => return Err(Unread::Encapsulation("network service headers")),
        0x0806 => return Err(Unread::Other("ARP")),
        0x8863 => return Err(Unread::Other("PPPoE discovery")),
        0x88cc => return Err(Unread::Other("LLDP")),
        0x888e => return Err(Unread::Other("EAPOL")),
        0x8809 => return Err(Unread::Other("slow protocols")),
        // SNAP: the EtherType stands behind five bytes; the 4 of a cooked capture says 802.2 as well.
        ..ETHER_TYPE_MIN if bytes.starts_with(&[0xaa, 0xaa, 3]) => return ether_type(bytes, 6, 8),
        ..ETHER_TYPE_MIN => return Err(Unread::Other("802.2 LLC")),
        _ => return Err(Unread::EtherType(number)),
    };
    Ok(Found::Layer(layer, bytes))
}

/// Address and control may be left out, and the protocol may be compressed to one byte (RFC 1661 §6.5, §6.6).
fn ppp(bytes: &[u8]) -> Step<'_> {
    let bytes = bytes.strip_prefix(&[0xff, 3]).unwrap_or(bytes);
    let first = *bytes.first().ok_or(Unread::Cut)?;
    let (protocol, payload) = if first & 1 == 1 {
        (u16::from(first), rest(bytes, 1)?)
    } else {
        (number(bytes, 0)?, rest(bytes, 2)?)
    };
    match protocol {
        0x0021 | 0x0057 => Ok(Found::Layer(Layer::Ip, payload)),
        0x0281 | 0x0283 => Ok(Found::Layer(Layer::Mpls, payload)),
        0x002d | 0x002f => Err(Unread::Encapsulation("PPP with compressed TCP headers")),
        0x00fd | 0x00fb => Err(Unread::Encapsulation("compressed PPP")),
        0x0053 => Err(Unread::Encapsulation("encrypted PPP")),
        0x003d => Err(Unread::Encapsulation("multilink PPP")),
        _ => Err(Unread::Other("PPP control")),
    }
}

/// Labels up to the last one; the version of IP follows, or the word of a pseudowire.
fn mpls(bytes: &[u8]) -> Step<'_> {
    let mut bytes = bytes;
    loop {
        let is_last = bytes.get(2).ok_or(Unread::Cut)? & 1 == 1;
        bytes = rest(bytes, 4)?;
        if is_last {
            break;
        }
    }
    match bytes.first().ok_or(Unread::Cut)? >> 4 {
        4 | 6 => Ok(Found::Layer(Layer::Ip, bytes)),
        // The control word of Ethernet over MPLS (RFC 4448).
        0 => Ok(Found::Layer(Layer::Ethernet, rest(bytes, 4)?)),
        _ => Err(Unread::Encapsulation("an MPLS pseudowire")),
    }
}

fn ip(bytes: &[u8]) -> Step<'_> {
    if bytes.is_empty() {
        return Err(Unread::Cut);
    }
    let (ip, _) = LaxIpSlice::from_slice(bytes).map_err(|_| match bytes.first().map(|byte| byte >> 4) {
        Some(4 | 6) => Unread::Cut,
        _ => Unread::Damaged("IP headers"),
    })?;
    if ip.is_fragmenting_payload() {
        return Err(Unread::Fragment);
    }
    let payload = ip.payload().payload;
    match ip.payload_ip_number().0 {
        6 => tcp(&ip, bytes.len()).map(Found::Segment),
        4 | 41 => Ok(Found::Layer(Layer::Ip, payload)),
        47 => Ok(Found::Layer(Layer::Gre, payload)),
        137 => Ok(Found::Layer(Layer::Mpls, payload)),
        97 => Ok(Found::Layer(Layer::Ethernet, rest(payload, 2)?)),
        17 => Ok(Found::Layer(Layer::Udp, payload)),
        50 => Err(Unread::Encapsulation("IPsec ESP, which is encrypted")),
        115 => Err(Unread::Encapsulation("L2TP")),
        1 | 58 => Err(Unread::Other("ICMP")),
        2 => Err(Unread::Other("IGMP")),
        132 => Err(Unread::Other("SCTP")),
        89 => Err(Unread::Other("OSPF")),
        112 => Err(Unread::Other("VRRP")),
        number => Err(Unread::Protocol(number)),
    }
}

fn tcp<'a>(ip: &LaxIpSlice<'a>, captured: usize) -> Result<Segment<'a>, Unread> {
    let payload = ip.payload();
    let tcp = TcpSlice::from_slice(payload.payload)
        .map_err(|_| if payload.incomplete { Unread::Cut } else { Unread::Damaged("TCP headers") })?;
    let (from, to): (IpAddr, IpAddr) = (ip.source_addr(), ip.destination_addr());
    // An IP length of 0 is what a network card fills in later: all that was captured belongs to it.
    let announced = match ip {
        LaxIpSlice::Ipv4(ip) => usize::from(ip.header().total_len()),
        LaxIpSlice::Ipv6(ip) => match ip.header().payload_length() {
            0 => 0,
            length => usize::from(length).saturating_add(40),
        },
    };
    Ok(Segment {
        time: None,
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        // Programs that make captures leave it at 0.
        acknowledges: Some(tcp.acknowledgment_number()).filter(|number| tcp.ack() && *number != 0),
        ack: tcp.ack(),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        payload: tcp.payload(),
        cut: u32::try_from(announced.saturating_sub(captured)).unwrap_or(u32::MAX),
    })
}

/// Generic routing encapsulation (RFC 2784, RFC 2890).
fn gre(bytes: &[u8]) -> Step<'_> {
    let (flags, protocol) = (number(bytes, 0)?, number(bytes, 2)?);
    if flags & 7 != 0 {
        return Err(Unread::Encapsulation("PPTP"));
    }
    if flags & 0x4000 != 0 {
        return Err(Unread::Encapsulation("GRE with source routes"));
    }
    let options = [0x8000, 0x2000, 0x1000].iter().filter(|flag| flags & **flag != 0).count();
    Ok(Found::Layer(Layer::EtherType(protocol), rest(bytes, 4 + 4 * options)?))
}

/// UDP carries no MQTT, but tunnels.
fn udp(bytes: &[u8]) -> Step<'_> {
    let (from, to) = (number(bytes, 0)?, number(bytes, 2)?);
    let payload = rest(bytes, 8)?;
    match (from, to) {
        // VXLAN (RFC 7348), on its port and on the one that Linux had before.
        (_, 4789 | 8472) => Ok(Found::Layer(Layer::Ethernet, rest(payload, 8)?)),
        (_, 6081) => geneve(payload),
        (2152, _) | (_, 2152) => gtp(payload),
        (_, 6635) => Ok(Found::Layer(Layer::Mpls, payload)),
        (500 | 4500, _) | (_, 500 | 4500) => Err(Unread::Encapsulation("IPsec, which is encrypted")),
        (51820, _) | (_, 51820) => Err(Unread::Encapsulation("WireGuard, which is encrypted")),
        (1194, _) | (_, 1194) => Err(Unread::Encapsulation("OpenVPN, which is encrypted")),
        (1701, _) | (_, 1701) => Err(Unread::Encapsulation("L2TP")),
        (3544, _) | (_, 3544) => Err(Unread::Encapsulation("Teredo")),
        (443, _) | (_, 443) => Err(Unread::Other("QUIC")),
        (53, _) | (_, 53) => Err(Unread::Other("DNS")),
        (5353, _) | (_, 5353) => Err(Unread::Other("mDNS")),
        _ => Err(Unread::Other("UDP")),
    }
}

/// Geneve (RFC 8926): the options' length in words, then the EtherType of what it carries.
fn geneve(bytes: &[u8]) -> Step<'_> {
    let options = usize::from(bytes.first().ok_or(Unread::Cut)? & 0x3f) * 4;
    Ok(Found::Layer(Layer::EtherType(number(bytes, 2)?), rest(bytes, 8 + options)?))
}

/// GTP-U of mobile networks (3GPP TS 29.281): messages of type 255 carry IP.
fn gtp(bytes: &[u8]) -> Step<'_> {
    let (flags, kind) = (*bytes.first().ok_or(Unread::Cut)?, *bytes.get(1).ok_or(Unread::Cut)?);
    if flags >> 5 != 1 || kind != 255 {
        return Err(Unread::Other("GTP control"));
    }
    if flags & 4 != 0 {
        return Err(Unread::Encapsulation("GTP-U with extension headers"));
    }
    Ok(Found::Layer(Layer::Ip, rest(bytes, if flags & 3 == 0 { 8 } else { 12 })?))
}

fn number(bytes: &[u8], at: usize) -> Result<u16, Unread> {
    let pair = bytes.get(at..at.saturating_add(2)).ok_or(Unread::Cut)?;
    pair.try_into().map(u16::from_be_bytes).map_err(|_| Unread::Cut)
}

fn rest(bytes: &[u8], from: usize) -> Result<&[u8], Unread> {
    bytes.get(from..).ok_or(Unread::Cut)
}
