#!/usr/bin/env python3
"""Makes the captures of this folder, byte by byte, and what `devicebound explain` is to say of them.

    python3 tests/captures/make.py          # writes *.pcap, *.pcapng and expected.json
    python3 tests/captures/make.py --check  # fails where the folder holds something else

No library takes part, so what writes a capture here shares no code with what reads it.
"""

import json
import pathlib
import struct
import sys

FOLDER = pathlib.Path(__file__).parent
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DEVICE, HUB = "device", "hub"
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

# --- MQTT ---


def text(string):
    data = string.encode()
    return struct.pack(">H", len(data)) + data


def packet(first, body):
    length, n = b"", len(body)
    while True:
        n, low = n >> 7, n & 127
        length += bytes([low | (128 if n else 0)])
        if not n:
            return bytes([first]) + length + body


TOKEN = "SharedAccessSignature sr=localhost%2Fdevices%2Fdemo&sig=" + "A" * 43 + "%3D&se=4000000000"
CONNECT = packet(
    0x10,
    text("MQTT") + bytes([4, 0xC2]) + struct.pack(">H", 60) + text("demo") + text("localhost/demo/?api-version=2021-04-12") + text(TOKEN),
)
CONNACK = bytes([0x20, 2, 0, 0])
DISCONNECT = bytes([0xE0, 0])
PINGREQ, PINGRESP = bytes([0xC0, 0]), bytes([0xD0, 0])


def telemetry(packet_id, body, device="demo"):
    return packet(0x32, text(f"devices/{device}/messages/events/") + struct.pack(">H", packet_id) + body)


def puback(packet_id):
    return bytes([0x40, 2]) + struct.pack(">H", packet_id)


# --- IP and TCP ---

V4 = {DEVICE: bytes([192, 0, 2, 1]), HUB: bytes([192, 0, 2, 2])}
V6 = {DEVICE: bytes.fromhex("20010db8000000000000000000000001"), HUB: bytes.fromhex("20010db8000000000000000000000002")}
PORTS = {DEVICE: 40_000, HUB: 1883}


def other(side):
    return HUB if side == DEVICE else DEVICE


def ipv4(side, protocol, payload, options=b"", total=None, fragment=0):
    header = 20 + len(options)
    total = header + len(payload) if total is None else total
    head = struct.pack(">BBHHHBBH", 0x40 | header // 4, 0, total, 1, fragment, 64, protocol, 0)
    return head + V4[side] + V4[other(side)] + options + payload


def ipv6(side, protocol, payload):
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + V6[side] + V6[other(side)] + payload


def udp(to, payload):
    return struct.pack(">HHHH", 50_000, to, 8 + len(payload), 0) + payload


class Stream:
    """One connection: frames with their times, each an IP packet without a link layer."""

    def __init__(self, device=0xFFFF_FFF0, hub=7, ports=None, ip=None):
        self.next = {DEVICE: device, HUB: hub}
        self.ports = ports or PORTS
        self.ip = ip or (lambda side, tcp: ipv4(side, 6, tcp))
        self.time = START_MS
        self.packets = []

    def segment(self, side, payload=b"", flags=ACK, seq=None, ack=None, options=b"", step=10):
        seq = self.next[side] if seq is None else seq & 0xFFFF_FFFF
        ack = self.next[other(side)] if ack is None else ack & 0xFFFF_FFFF
        if not flags & ACK:
            ack = 0
        head = struct.pack(
            ">HHIIBBHHH", self.ports[side], self.ports[other(side)], seq, ack, (20 + len(options)) // 4 << 4, flags, 1000, 0, 0
        )
        end = (seq + len(payload) + (1 if flags & (SYN | FIN) else 0)) & 0xFFFF_FFFF
        if (end - self.next[side]) & 0xFFFF_FFFF < 0x8000_0000:
            self.next[side] = end
        self.packets.append((self.time, self.ip(side, head + options + payload)))
        self.time += step
        return self

    def open(self):
        return self.segment(DEVICE, flags=SYN).segment(HUB, flags=SYN | ACK).segment(DEVICE)

    def device(self, payload, **how):
        return self.segment(DEVICE, payload, flags=how.pop("flags", ACK | PSH), **how)

    def hub(self, payload, **how):
        return self.segment(HUB, payload, flags=how.pop("flags", ACK | PSH), **how)

    def login(self):
        return self.open().device(CONNECT).hub(CONNACK)

    def hello(self):
        self.login().device(telemetry(1, b"hello")).hub(puback(1)).device(DISCONNECT)
        return self.segment(DEVICE, flags=FIN | ACK).segment(HUB, flags=FIN | ACK).segment(DEVICE)

    def drop(self, index=-1):
        del self.packets[index]
        return self

    def swap(self, a, b):
        """Two frames stand in the capture in the other order; the times stay in order."""
        (ta, pa), (tb, pb) = self.packets[a], self.packets[b]
        self.packets[a], self.packets[b] = (ta, pb), (tb, pa)
        return self


# --- links ---


def ethernet(ip, kind=None, tags=b""):
    kind = kind if kind is not None else (0x86DD if ip[0] >> 4 == 6 else 0x0800)
    return bytes(12) + tags + struct.pack(">H", kind) + ip


def ppp(ip, head=b"\xff\x03", compressed=False):
    protocol = 0x57 if ip[0] >> 4 == 6 else 0x21
    return head + (bytes([protocol]) if compressed else struct.pack(">H", protocol)) + ip


def pppoe(ip):
    session = ppp(ip, head=b"")
    return struct.pack(">BBHH", 0x11, 0, 1, len(session)) + session


# --- files ---


def pcap(packets, link=1, order="<", nanos=False, wrap=ethernet, snap=262_144):
    file = struct.pack(order + "IHHiIII", 0xA1B23C4D if nanos else 0xA1B2C3D4, 2, 4, 0, 0, snap, link)
    for ms, ip in packets:
        frame = wrap(ip)
        kept = frame[: snap or len(frame)]
        fraction = ms % 1000 * (1_000_000 if nanos else 1000)
        file += struct.pack(order + "IIII", ms // 1000, fraction, len(kept), len(frame)) + kept
    return file


def block(kind, body, order):
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def option(code, value, order):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link, order, options=b"", snap=262_144):
    options = options + bytes(4) if options else b""
    return block(1, struct.pack(order + "HHI", link, 0, snap) + options, order)


def enhanced(stamp, frame, order, number=0):
    head = struct.pack(order + "IIIII", number, stamp >> 32, stamp & 0xFFFF_FFFF, len(frame), len(frame))
    return block(6, head + frame, order)


def pcapng(packets, order="<", link=1, wrap=ethernet, resolution=None, ticks=lambda ms: ms * 1000):
    options = b"" if resolution is None else option(9, bytes([resolution]), order)
    file = section(order) + interface(link, order, options)
    return file + b"".join(enhanced(ticks(ms), wrap(ip), order) for ms, ip in packets)


# --- the captures ---

HELLO = ["CONNECT as demo", "CONNACK, accepted", "telemetry, QoS 1, id 1, hello", "PUBACK, id 1", "DISCONNECT", "the device closes"]
SPOTLESS = ["broken", "warning", "missing", "lost", "malformed", "belong to"]
captures = {}


def add(name, file, told, never=SPOTLESS):
    suffix = "pcapng" if file.startswith(b"\n\r\r\n") else "pcap"
    assert name not in captures, name
    captures[name] = (f"{name}.{suffix}", file, told, never)


def add_hello(name, file):
    add(name, file, HELLO)


def add_named(name, wrap, told, link=1):
    """All frames are wrapped in something that is not read."""
    add(name, pcap(Stream().hello().packets, link=link, wrap=wrap), told, never=SPOTLESS + ["CONNECT"])


def formats():
    hello = Stream().hello().packets
    add_hello("pcap-little-endian", pcap(hello))
    add_hello("pcap-big-endian", pcap(hello, order=">"))
    add_hello("pcap-nanoseconds", pcap(hello, nanos=True))
    add_hello("pcap-nanoseconds-big-endian", pcap(hello, order=">", nanos=True))
    # Four bytes of check sequence on each frame, and the field says so.
    add_hello("pcap-fcs", pcap(hello, link=0x2400_0001, wrap=lambda ip: ethernet(ip) + b"\xde\xad\xbe\xef"))
    add_hello("pcapng-little-endian", pcapng(hello))
    add_hello("pcapng-big-endian", pcapng(hello, order=">"))
    add_hello("pcapng-nanoseconds", pcapng(hello, resolution=9, ticks=lambda ms: ms * 1_000_000))
    add_hello("pcapng-power-of-two", pcapng(hello, resolution=0x80 | 20, ticks=lambda ms: (ms << 20) // 1000 + 1))
    simple = b"".join(block(3, struct.pack("<I", len(ethernet(ip))) + ethernet(ip), "<") for _, ip in hello)
    add_hello("pcapng-simple-blocks", section("<") + interface(1, "<") + simple)
    for order, name in (("<", "little"), (">", "big")):
        old = b""
        for ms, ip in hello:
            frame, stamp = ethernet(ip), ms * 1000
            head = struct.pack(order + "HHIIII", 0, 0, stamp >> 32, stamp & 0xFFFF_FFFF, len(frame), len(frame))
            old += block(2, head + frame, order)
        add_hello(f"pcapng-obsolete-blocks-{name}-endian", section(order) + interface(1, order) + old)
    half = len(hello) // 2
    add_hello("pcapng-two-sections", pcapng(hello[:half]) + pcapng(hello[half:], order=">"))
    two = section("<") + interface(101, "<") + interface(1, "<", option(9, b"\x03", "<"))
    for index, (ms, ip) in enumerate(hello):
        two += enhanced(ms, ethernet(ip), "<", 1) if index % 2 else enhanced(ms * 1000, ip, "<", 0)
    add_hello("pcapng-two-interfaces", two)
    unknown = enhanced(0, b"x", "<", 7)
    add("pcapng-no-such-interface", section("<") + unknown, ["does not describe their interface"])


def links():
    hello = Stream().hello().packets

    def link(name, number, wrap):
        add_hello(f"link-{name}", pcap(hello, link=number, wrap=wrap))

    tag = lambda kind: struct.pack(">HH", kind, 7)
    link("ethernet-padded", 1, lambda ip: ethernet(ip).ljust(60, b"\0"))
    link("vlan", 1, lambda ip: ethernet(ip, tags=tag(0x8100)))
    link("qinq", 1, lambda ip: ethernet(ip, tags=tag(0x88A8) + tag(0x8100)))
    link("three-vlans", 1, lambda ip: ethernet(ip, tags=tag(0x88A8) + tag(0x9100) + tag(0x8100)))
    link("snap", 1, lambda ip: bytes(12) + struct.pack(">H", 8 + len(ip)) + b"\xaa\xaa\x03\0\0\0\x08\0" + ip)
    link("raw", 101, bytes)
    link("raw-12", 12, bytes)
    link("ipv4", 228, bytes)
    link("null-little-endian", 0, lambda ip: b"\2\0\0\0" + ip)
    link("null-big-endian", 0, lambda ip: b"\0\0\0\2" + ip)
    link("loop", 108, lambda ip: b"\0\0\0\2" + ip)
    link("sll", 113, lambda ip: struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x0800) + ip)
    link("sll-vlan", 113, lambda ip: struct.pack(">HHH8sHHH", 0, 1, 6, bytes(8), 0x8100, 7, 0x0800) + ip)
    link("sll2", 276, lambda ip: struct.pack(">HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, bytes(8)) + ip)
    link("ppp", 9, ppp)
    link("ppp-compressed", 9, lambda ip: ppp(ip, head=b"", compressed=True))
    link("ppp-hdlc", 50, ppp)
    link("ppp-direction", 204, lambda ip: b"\1" + ppp(ip))
    link("pppd", 166, lambda ip: b"\1\3" + ppp(ip, head=b""))
    link("pppoe", 51, pppoe)
    link("cisco-hdlc", 104, lambda ip: b"\x0f\0\x08\0" + ip)
    link("pktap", 258, lambda ip: struct.pack("<III", 20, 1, 1) + bytes(8) + ethernet(ip))
    link("enc", 109, lambda ip: bytes(12) + ip)
    link("ieee1394", 138, lambda ip: bytes(16) + b"\x08\0" + ip)
    link("ethernet-pppoe", 1, lambda ip: ethernet(pppoe(ip), 0x8864))
    link("mpls", 1, lambda ip: ethernet(b"\0\x01\0\x40\0\x02\x01\x40" + ip, 0x8847))
    link("mpls-ethernet", 1, lambda ip: ethernet(b"\0\x01\x01\x40" + bytes(4) + ethernet(ip), 0x8847))


def networks():
    def network(name, ip, **how):
        add_hello(f"ip-{name}", pcap(Stream(ip=ip).hello().packets, **how))

    network("v4-options", lambda side, tcp: ipv4(side, 6, tcp, options=b"\x94\x04\0\0" + b"\1" * 4))
    network("v4-length-0", lambda side, tcp: ipv4(side, 6, tcp, total=0))
    network("v6", lambda side, tcp: ipv6(side, 6, tcp))
    network("v6-null", lambda side, tcp: ipv6(side, 6, tcp), link=0, wrap=lambda ip: struct.pack("<I", 30) + ip)
    network("v6-raw", lambda side, tcp: ipv6(side, 6, tcp), link=229, wrap=bytes)
    network("v6-hop-by-hop", lambda side, tcp: ipv6(side, 0, bytes([6, 0, 1, 4, 0, 0, 0, 0]) + tcp))
    chain = bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes([43, 0, 1, 4, 0, 0, 0, 0]) + bytes([6, 0, 4, 0, 0, 0, 0, 0])
    network("v6-three-extensions", lambda side, tcp: ipv6(side, 0, chain + tcp))
    whole = struct.pack(">BBHI", 6, 0, 0, 9)
    network("v6-atomic-fragment", lambda side, tcp: ipv6(side, 44, whole + tcp))
    stamped = Stream().open()
    for side, payload in ((DEVICE, CONNECT), (HUB, CONNACK), (DEVICE, telemetry(1, b"hello")), (HUB, puback(1)), (DEVICE, DISCONNECT)):
        stamped.segment(side, payload, options=b"\1\1\x08\x0a" + bytes(8))
    stamped.segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-options", pcap(stamped.packets))

    fragments = Stream().login()
    time, ip = Stream().login().device(telemetry(1, b"hello")).packets[-1]
    tcp = ip[20:]
    fragments.packets.append((time, ipv4(DEVICE, 6, tcp[:32], fragment=0x2000)))
    fragments.packets.append((time, ipv4(DEVICE, 6, tcp[32:], fragment=4)))
    add("ip-v4-fragments", pcap(fragments.packets), ["CONNECT as demo", "2 frames were not read: IP fragments"], ["telemetry", "broken"])
    cut = lambda side, tcp: ipv6(side, 44, struct.pack(">BBHI", 6, 0, 1, 9) + tcp)
    add("ip-v6-fragments", pcap(Stream(ip=cut).login().packets), ["5 frames were not read: IP fragments"], ["CONNECT"])


def tunnels():
    def tunnel(name, wrap):
        add_hello(f"tunnel-{name}", pcap(Stream().hello().packets, wrap=lambda ip: ethernet(ipv4(DEVICE, *wrap(ip)))))

    tunnel("gre", lambda ip: (47, b"\0\0\x08\0" + ip))
    tunnel("gre-key-checksum-sequence", lambda ip: (47, b"\xb0\0\x08\0" + bytes(12) + ip))
    tunnel("gre-ethernet", lambda ip: (47, b"\0\0\x65\x58" + ethernet(ip)))
    tunnel("ip-in-ip", lambda ip: (4, ip))
    tunnel("vxlan", lambda ip: (17, udp(4789, b"\x08\0\0\0\0\0\x2a\0" + ethernet(ip))))
    tunnel("vxlan-vlan", lambda ip: (17, udp(8472, b"\x08\0\0\0\0\0\x2a\0" + ethernet(ip, tags=b"\x81\0\0\7"))))
    tunnel("geneve", lambda ip: (17, udp(6081, b"\1\0\x65\x58" + bytes(4) + b"\1\2\3\0" + ethernet(ip))))
    tunnel("gtp-u", lambda ip: (17, udp(2152, struct.pack(">BBHI", 0x30, 255, len(ip), 1) + ip)))
    inner = lambda side, tcp: ipv6(side, 6, tcp)
    six = Stream(ip=lambda side, tcp: ipv4(side, 41, inner(side, tcp))).hello().packets
    add_hello("tunnel-6in4", pcap(six))

    def named(name, told, wrap, link=1):
        add_named(f"named-{name}", wrap, [f"11 frames were not read: {told}"], link)

    tunnel_of = lambda protocol, payload: ethernet(ipv4(DEVICE, protocol, payload))
    named("esp", "IPsec ESP", lambda ip: tunnel_of(50, bytes(8) + ip))
    named("pptp", "PPTP", lambda ip: tunnel_of(47, b"\x30\x01\x88\x0b" + bytes(8) + ip))
    named("erspan", "ERSPAN", lambda ip: tunnel_of(47, b"\x10\0\x88\xbe" + bytes(12) + ethernet(ip)))
    named("wireguard", "WireGuard", lambda ip: tunnel_of(17, udp(51820, b"\4\0\0\0" + bytes(40))))
    named("l2tp", "L2TP", lambda ip: tunnel_of(17, udp(1701, bytes(8) + ip)))
    named("macsec", "MACsec", lambda ip: ethernet(bytes(14) + ip, 0x88E5))
    named("ether-type", "EtherType 0x1234", lambda ip: ethernet(ip, 0x1234))
    named("wifi", "link type 127, IEEE 802.11", lambda ip: bytes(8) + ip, 127)
    named("usb", "link type 220, USB", bytes, 220)
    named("bluetooth", "link type 201, Bluetooth", bytes, 201)
    named("user-link", "link type 150", bytes, 150)
    named("unknown-link", "link type 4321", bytes, 4321)
    named("endless-encapsulation", "more than 16 encapsulations", lambda ip: ethernet(ip, tags=b"\x81\0\0\7" * 20))
    noise = [ethernet(bytes(28), 0x0806), tunnel_of(17, udp(9, b"x")), tunnel_of(1, bytes(8)), bytes(5)]
    noisy = [(START_MS, frame) for frame in noise] + [(ms, ethernet(ip)) for ms, ip in Stream().hello().packets]
    add("named-other-traffic", pcap(noisy, wrap=bytes), HELLO + ["1 frame was not read: they end within their headers", "frames without TCP: 1 ARP, 1 ICMP, 1 UDP"])


def tcp():
    late = Stream().login().device(telemetry(1, b"hello")).hub(puback(1)).device(DISCONNECT)
    late.segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-fin-before-the-last-data", pcap(late.swap(-1, -2).packets))

    again = Stream().login().device(telemetry(1, b"hello")).hub(puback(1))
    at = again.next[DEVICE]
    again.device(DISCONNECT).drop().segment(DEVICE, flags=FIN | ACK).device(DISCONNECT, seq=at)
    add_hello("tcp-retransmission-behind-the-fin", pcap(again.packets))
    known = Stream().hello()
    first = known.packets[5]
    known.packets.append((known.time, first[1]))
    add_hello("tcp-old-segment-behind-the-fin", pcap(known.packets))
    merged = Stream().login().device(telemetry(1, b"hello")).hub(puback(1))
    merged.segment(DEVICE, DISCONNECT, flags=FIN | PSH | ACK)
    add_hello("tcp-fin-with-data", pcap(merged.packets))

    lost = Stream().login().device(telemetry(1, b"hello")).drop().hub(puback(1))
    lost.device(telemetry(2, b"at 27 minutes")).hub(puback(2))
    lost.time += 25 * 60_000
    lost.device(telemetry(3, b"at 25 more")).hub(puback(3))
    size = len(telemetry(1, b"hello"))
    add(
        "tcp-lost-and-acknowledged",
        pcap(lost.packets),
        ["CONNECT as demo", f"{size} bytes of the device are missing", "PUBACK, id 1", "00:00:00.070 demo                     ──▶ telemetry, QoS 1, id 2, at 27 minutes", "PUBACK, id 2", "00:25:00.090 demo                     ──▶ telemetry, QoS 1, id 3, at 25 more"],
        ["broken"],
    )
    tail = Stream().login().device(telemetry(1, b"hello")).drop().segment(DEVICE, flags=FIN | ACK)
    tail.segment(HUB, flags=FIN | ACK)
    add("tcp-lost-before-the-fin", pcap(tail.packets), ["bytes of the device are missing", "the device closes", "cannot be told"], ["broken", "HUB-CONNECTION-LOST"])
    nofin = Stream().login().device(DISCONNECT).segment(DEVICE, flags=FIN | ACK).drop().segment(HUB, flags=FIN | ACK)
    nofin.segment(HUB)
    add("tcp-lost-fin", pcap(nofin.packets), ["DISCONNECT", "(FIN), or 1 byte of the device, is missing", "the hub closes"], ["broken"])
    hole = Stream().login()
    for number in range(1, 9):
        hole.device(telemetry(number, b"x" * 20)).hub(puback(number))
    for index in (15, 11, 7):
        hole.drop(index)
    size = len(telemetry(1, b"x" * 20))
    add("tcp-three-holes", pcap(hole.packets), [f"{size} bytes of the device", "id 3", f"{size} bytes", "id 5", f"{size} bytes", "id 7", "id 8"], ["broken"])
    several = Stream().login()
    for number in range(1, 20):
        several.device(telemetry(number, b"x" * 20)).hub(puback(number))
    hub_only = [p for p in several.packets if p[1][12:16] == V4[HUB]]
    add("tcp-hub-side-only", pcap(hub_only), ["CONNACK, accepted", "PUBACK, id 1", "PUBACK, id 19"], ["broken"])
    device_only = [p for p in several.packets if p[1][12:16] == V4[DEVICE]]
    add("tcp-device-side-only", pcap(device_only), ["CONNECT as demo", "telemetry, QoS 1, id 19"], ["broken"])

    fast = Stream().segment(DEVICE, CONNECT, flags=SYN).segment(HUB, flags=SYN | ACK)
    fast.hub(CONNACK).device(telemetry(1, b"hello")).hub(puback(1)).device(DISCONNECT).segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-fast-open", pcap(fast.packets))
    refused = Stream()
    refused.segment(DEVICE, CONNECT, flags=SYN)
    refused.next[DEVICE] = (0xFFFF_FFF0 + 1) & 0xFFFF_FFFF  # the hub takes the SYN and not the data
    refused.segment(HUB, flags=SYN | ACK).device(CONNECT).hub(CONNACK).device(telemetry(1, b"hello")).hub(puback(1))
    refused.device(DISCONNECT).segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-fast-open-not-taken", pcap(refused.packets))

    def middle():
        stream = Stream()
        stream.device(telemetry(7, b"x" * 40)[25:]).hub(puback(7))
        return stream

    inside = middle().device(telemetry(8, b"whole")).hub(puback(8)).device(PINGREQ).hub(PINGRESP)
    add("tcp-begins-inside-a-packet", pcap(inside.packets), ["belong to a packet whose beginning is not there", "whole", "PUBACK, id 8", "PINGREQ", "PINGRESP"], ["broken", "malformed"])
    binary = Stream().device(bytes(range(256)) * 3).hub(b"\0\1\2\3").device(bytes([0x34, 0xFF, 0xFF, 0xFF, 0xFF])).hub(b"\xff" * 9)
    binary.device(b"\xf0\x01\x02").hub(puback(1))
    add("tcp-begins-inside-binary-data", pcap(binary.packets), ["PUBACK, id 1"], ["broken", "malformed"])
    foreign = Stream().device(telemetry(1, b"a")).hub(puback(1)).device(telemetry(2, b"b", device="other")).hub(puback(2))
    add("tcp-begins-later-with-two-ids", pcap(foreign.packets), ["taken from the topic", "names another device than the one before"], ["broken"])
    quiet = Stream().device(PINGREQ).hub(PINGRESP).segment(HUB, flags=FIN | ACK)
    add("tcp-begins-later-with-a-ping", pcap(quiet.packets), ["PINGREQ", "PINGRESP", "the hub closes"], ["broken", "MQTT-3.1.0-1"])
    body = Stream().login()
    big = telemetry(1, b"y" * 4000)
    for at in range(0, len(big), 500):
        body.device(big[at : at + 500])
    body.segment(HUB).device(telemetry(2, b"behind it")).hub(puback(2)).hub(b"").drop(9)
    add("tcp-lost-inside-a-packet", pcap(body.packets), ["500 bytes of the device are missing", "behind it", "PUBACK, id 2"], ["broken", "malformed"])

    wrap = Stream(device=0xFFFF_FFF0, hub=0xFFFF_FFFD).login()
    for number in range(1, 4):
        wrap.device(telemetry(number, b"hello")).hub(puback(number))
    wrap.swap(-4, -2)
    add("tcp-numbers-wrap-out-of-order", pcap(wrap.packets), ["id 1, hello", "id 2, hello", "id 3, hello", "PUBACK, id 3"])
    cut = Stream().open()
    sent = CONNECT + telemetry(1, b"hello") + DISCONNECT
    for at in range(0, len(sent), 7):
        cut.device(sent[at : at + 7])
    cut.swap(4, 6).swap(9, 10)
    cut.segment(DEVICE, flags=FIN | ACK)
    add("tcp-small-and-out-of-order", pcap(cut.packets), [HELLO[0], HELLO[2], HELLO[4], HELLO[5]])
    over = Stream().open()
    at = over.next[DEVICE]
    over.device(CONNECT[:50]).device(CONNECT[20:], seq=at + 20).hub(CONNACK)
    at = over.next[DEVICE]
    message = telemetry(1, b"hello")
    over.device(message[:9]).device(message, seq=at).device(message[3:12], seq=at + 3).hub(puback(1)).device(DISCONNECT)
    over.segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-overlaps", pcap(over.packets))
    alive = Stream().login()
    for byte in (b"", b"\0"):
        alive.segment(DEVICE, byte, seq=alive.next[DEVICE] - 1).segment(HUB)
        alive.segment(HUB, byte, seq=alive.next[HUB] - 1).segment(DEVICE)
    alive.device(telemetry(1, b"hello")).hub(puback(1)).device(DISCONNECT).segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-keep-alive", pcap(alive.packets))
    probe = Stream().login()
    message = telemetry(1, b"hello")
    probe.device(message[:1]).segment(HUB).device(message[:1], seq=probe.next[DEVICE] - 1).segment(HUB).device(message[1:])
    probe.hub(puback(1)).device(DISCONNECT).segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-window-probe", pcap(probe.packets))
    early = Stream().login().device(telemetry(1, b"hello")).segment(HUB).hub(puback(1)).device(DISCONNECT).segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-acknowledged-before-it-is-seen", pcap(early.swap(5, 6).packets))
    twice = Stream().hello().packets
    add_hello("tcp-every-frame-twice", pcap([p for p in twice for _ in (0, 1)]))

    reset = Stream().login().device(telemetry(1, b"hello")).segment(DEVICE, flags=RST | ACK)
    add("tcp-reset", pcap(reset.packets), ["hello", "the device resets", "HUB-CONNECTION-LOST"], ["missing"])
    early_reset = Stream().login().device(telemetry(1, b"hello")).hub(puback(1)).device(DISCONNECT).segment(DEVICE, flags=RST | ACK)
    add("tcp-reset-before-the-last-data", pcap(early_reset.swap(-1, -2).packets), ["PUBACK, id 1", "DISCONNECT", "the device resets"], ["broken", "missing", "HUB-CONNECTION-LOST"])
    blind = Stream().login().segment(HUB, flags=RST, seq=0x9000_0000).device(telemetry(1, b"hello")).hub(puback(1))
    blind.device(DISCONNECT).segment(DEVICE, flags=FIN | ACK)
    add("tcp-reset-out-of-the-window", pcap(blind.packets), HELLO, SPOTLESS + ["resets"])
    closed = Stream().segment(DEVICE, flags=SYN)
    closed.segment(HUB, flags=RST | ACK, seq=0)
    add("tcp-refused", pcap(closed.packets), ["the connection is refused"], ["broken", "HUB-CONNECTION-LOST"])

    ports = Stream().hello()
    second = Stream(device=1000, hub=2000)
    second.time = ports.time + 1000
    second.hello()
    add("tcp-ports-used-again", pcap(ports.packets + second.packets), HELLO + HELLO)
    crash = Stream().login().device(telemetry(1, b"hello")).hub(puback(1))
    again = Stream(device=1000, hub=2000)
    again.time = crash.time + 1000
    again.login().device(telemetry(1, b"anew")).hub(puback(1))
    add("tcp-ports-used-again-without-an-end", pcap(crash.packets + again.packets), ["hello", "CONNECT as demo", "anew"])
    syns = Stream().segment(DEVICE, flags=SYN)
    syns.next[DEVICE] = 0xFFFF_FFF0
    syns.segment(DEVICE, flags=SYN).segment(HUB, flags=SYN | ACK).segment(DEVICE).device(CONNECT).hub(CONNACK)
    syns.device(telemetry(1, b"hello"))
    syns.packets.append((syns.time, syns.packets[0][1]))
    syns.time += 10
    syns.hub(puback(1)).device(DISCONNECT).segment(DEVICE, flags=FIN | ACK)
    add_hello("tcp-syn-again", pcap(syns.packets))
    late_syn = Stream().login().device(telemetry(1, b"hello")).hub(puback(1)).device(DISCONNECT).segment(DEVICE, flags=FIN | ACK)
    order = late_syn.packets
    order[0], order[3] = (order[0][0], order[3][1]), (order[3][0], order[0][1])
    add_hello("tcp-syn-behind-its-data", pcap(order))
    many = []
    for number in range(60):
        stream = Stream(device=number * 77_777_777 & 0xFFFF_FFFF, ports={DEVICE: 41_000 + number, HUB: 1883})
        stream.time += number
        many += stream.hello().packets
    many.sort(key=lambda packet: packet[0])
    add("tcp-sixty-at-once", pcap(many), ["CONNECT as demo"] * 60 + ["id 1, hello"], SPOTLESS)
    short = Stream().login().device(telemetry(1, b"z" * 300)).hub(puback(1)).device(telemetry(2, b"hello")).hub(puback(2))
    add(
        "tcp-snap-length",
        pcap(short.packets, snap=290),
        ["CONNECT as demo", "bytes of the device are missing", "PUBACK, id 1", "id 2, hello", "PUBACK, id 2", "1 frame was cut short by the capture (its limit is 290 bytes a frame)"],
        ["broken"],
    )
    unheard = Stream().login().device(packet(0x30, text("$iothub/twin/GET/?$rid=1")))
    add("tcp-a-twin-request-without-subscription", pcap(unheard.packets), ["twin GET", "warning, HUB-TWIN-UNHEARD"], ["broken"])
    bug = Stream().login().device(b"\x34\x05\0\1a\0\1").segment(HUB, flags=FIN | ACK)
    add("tcp-a-breach", pcap(bug.packets), ["QoS 2", "rule broken, HUB-D2C-QOS2", "the hub closes"], ["missing"])


def websocket_frame(side, opcode, payload, final=True):
    head = bytes([(128 if final else 0) | opcode])
    mask = b"\x11\x22\x33\x44" if side == DEVICE else b""
    flag = 128 if mask else 0
    size = len(payload)
    head += bytes([flag | size]) if size < 126 else bytes([flag | 126]) + struct.pack(">H", size)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else payload
    return head + mask + masked


UPGRADE = (
    b"GET /$iothub/websocket?iothub-no-client-cert=true HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def contents():
    ports = {DEVICE: 40_000, HUB: 80}
    frame = websocket_frame

    def hello(split):
        stream = Stream(ports=ports).open()
        for side, payloads in (
            (DEVICE, [UPGRADE]),
            (HUB, [UPGRADED]),
            (DEVICE, split(CONNECT)),
            (HUB, [frame(HUB, 2, CONNACK)]),
            (DEVICE, split(telemetry(1, b"hello"))),
            (HUB, [frame(HUB, 9, b"") + frame(HUB, 2, puback(1))]),
            (DEVICE, split(DISCONNECT)),
            (DEVICE, [frame(DEVICE, 8, b"\x03\xe8bye")]),
        ):
            for payload in payloads:
                stream.segment(side, payload)
        return stream.segment(DEVICE, flags=FIN | ACK)

    told = ["MQTT over WebSocket"] + HELLO[:5] + ["the device closes the WebSocket, 1000 bye", "the device closes the connection"]
    add("websocket", pcap(hello(lambda data: [frame(DEVICE, 2, data)]).packets), told)
    pieces = lambda data: [frame(DEVICE, 2, data[:1], final=False), frame(DEVICE, 9, b"ping"), frame(DEVICE, 0, data[1:])]
    add("websocket-fragments", pcap(hello(pieces).packets), told)
    bytewise = lambda data: [bytes([byte]) for byte in frame(DEVICE, 2, data)]
    add("websocket-byte-by-byte", pcap(hello(bytewise).packets), told)
    gap = hello(lambda data: [frame(DEVICE, 2, data)])
    add("websocket-with-a-gap", pcap(gap.drop(7).packets), ["MQTT over WebSocket", "bytes of the device are missing", "PUBACK", "DISCONNECT"], ["broken"])
    wrong = Stream(ports=ports).open().device(UPGRADE.replace(b"/$iothub/websocket", b"/mqtt").replace(b"Sec-WebSocket-Protocol: mqtt\r\n", b""))
    wrong.hub(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    add("websocket-refused", pcap(wrong.packets), ["GET /mqtt", "takes WebSockets on /$iothub/websocket", "subprotocol mqtt", "refuses the WebSocket with 404 Not Found"])
    deflated = Stream(ports=ports).open().device(UPGRADE).hub(UPGRADED).device(b"\xc2\x85\0\0\0\0abcde")
    add("websocket-compressed", pcap(deflated.packets), ["permessage-deflate"], ["broken"])
    http = Stream(ports=ports).open().device(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").hub(b"HTTP/1.1 200 OK\r\n\r\n")
    add("http", pcap(http.packets), ["1 TCP connections carry something else than MQTT"], ["broken", "WebSocket"])
    misplaced = Stream().open().device(b"POST /x HTTP/1.1\r\n\r\n")
    add("http-on-the-port-of-mqtt", pcap(misplaced.packets), ["this is HTTP, on a port of MQTT", "something else than MQTT"], ["broken"])
    proxied = Stream().open().device(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + CONNECT)
    add("proxy-protocol", pcap(proxied.packets), ["the PROXY protocol of a load balancer"], ["broken"])
    amqp = Stream(ports={DEVICE: 40_000, HUB: 5672}).open().device(b"AMQP\3\1\0\0").hub(b"AMQP\3\1\0\0")
    add("amqp", pcap(amqp.packets), ["1 TCP connections carry something else than MQTT"])
    odd = Stream(ports={DEVICE: 40_000, HUB: 4711}).open()
    for byte in CONNECT:
        odd.device(bytes([byte]))
    odd.hub(CONNACK)
    add("mqtt-on-any-port-byte-by-byte", pcap(odd.packets), HELLO[:2])
    later = Stream(ports={DEVICE: 40_000, HUB: 8883}).device(b"\x17\3\3\0\x20" + bytes(32))
    add("tls-that-began-before", pcap(later.packets), ["TLS that began before the capture", "something else than MQTT"], ["broken"])


def main():
    for make in (formats, links, networks, tunnels, tcp, contents):
        make()
    expected = {file: {"told": told, "never": never} for file, _, told, never in captures.values()}
    files = {name: data for name, data, _, _ in captures.values()}
    files["expected.json"] = (json.dumps(expected, indent=1, ensure_ascii=False) + "\n").encode()
    there = {path.name for pattern in ("*.pcap", "*.pcapng", "expected.json") for path in FOLDER.glob(pattern)}
    if "--check" in sys.argv:
        wrong = [name for name, data in files.items() if name not in there or (FOLDER / name).read_bytes() != data]
        wrong += sorted(there - set(files))
        sys.exit(f"made anew they differ: {', '.join(wrong)}" if wrong else 0)
    for name in there - set(files):
        (FOLDER / name).unlink()
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    print(f"{len(captures)} captures, {sum(len(data) for data in files.values())} bytes")


main()
