//! `devicebound explain` on captures that are made here, byte by byte.

use devicebound::explain::Sender;
use devicebound::packet::{ConnAck, Packet};
use devicebound_hub::capture::{Conversation, explain_file, explain_hex};
use devicebound_hub::clock::unix_time;
use devicebound_hub::observe::view::{Format, View};
use etherparse::PacketBuilder;
use proptest::prelude::*;

use crate::common::{
    ACCEPTED, DISCONNECT, Hub, PINGREQ, PINGRESP, bytes, connect, connect_as, puback, publish,
};

/// PUBLISH to `a` at QoS 2.
const QOS_2: &[u8] = &[0x34, 5, 0, 1, b'a', 0, 1];
const PORT: u16 = 1883;

/// A capture of one connection: frames with their times in milliseconds.
pub(crate) struct Capture {
    pub(crate) frames: Vec<(u64, Vec<u8>)>,
    time: u64,
    /// The next sequence numbers of device and hub.
    sequences: [u32; 2],
    pub(crate) port: u16,
}

impl Capture {
    /// With the three-way handshake.
    pub(crate) fn new() -> Self {
        Self::new_on(PORT)
    }

    /// With the three-way handshake, on a port of its own.
    pub(crate) fn new_on(port: u16) -> Self {
        let mut capture = Self { port, ..Self::in_the_middle() };
        capture.frame(Sender::Device, &[], "S");
        capture.frame(Sender::Hub, &[], "S.");
        capture
    }

    fn in_the_middle() -> Self {
        Self { frames: Vec::new(), time: unix_time().as_millis(), sequences: [u32::MAX - 20, 7], port: PORT }
    }

    pub(crate) fn sends(&mut self, sender: Sender, payload: &[u8]) -> &mut Self {
        self.frame(sender, payload, ".");
        self
    }

    pub(crate) fn frame(&mut self, sender: Sender, payload: &[u8], flags: &str) {
        let (from, to, index) = match sender {
            Sender::Device => (40_000, self.port, 0),
            Sender::Hub => (self.port, 40_000, 1),
        };
        let sequence = self.sequences[index];
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([127, 0, 0, 1], [127, 0, 0, 1], 64);
        let mut builder = builder.tcp(from, to, sequence, 1000);
        for flag in flags.chars() {
            builder = match flag {
                'S' => builder.syn(),
                'F' => builder.fin(),
                'R' => builder.rst(),
                _ => builder.ack(0),
            };
        }
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        let counted = payload.len() + usize::from(flags.contains(['S', 'F']));
        self.sequences[index] = sequence.wrapping_add(u32::try_from(counted).unwrap());
        self.frames.push((self.time, frame));
        self.time += 10;
    }

    pub(crate) fn pcap(&self) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(0xa1b2_c3d4_u32.to_le_bytes());
        file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]); // version 2.4, Ethernet
        for (time, frame) in &self.frames {
            let length = u32::try_from(frame.len()).unwrap();
            let (secs, micros) = (time / 1000, time % 1000 * 1000);
            for number in [secs as u32, micros as u32, length, length] {
                file.extend(number.to_le_bytes());
            }
            file.extend(frame);
        }
        file
    }

    pub(crate) fn pcapng(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut block = |kind: u32, body: &[u8]| {
            let padding = (4 - body.len() % 4) % 4;
            let length = u32::try_from(12 + body.len() + padding).unwrap().to_le_bytes();
            file.extend(kind.to_le_bytes());
            file.extend(length);
            file.extend(body);
            file.extend(vec![0; padding]);
            file.extend(length);
        };
        let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        section.extend([1, 0, 0, 0]);
        section.extend([0xff; 8]);
        block(0x0a0d_0d0a, &section);
        block(1, &[1, 0, 0, 0, 0, 0, 4, 0]); // Ethernet
        for (time, frame) in &self.frames {
            let stamp = time * 1000;
            let length = u32::try_from(frame.len()).unwrap();
            let mut body = Vec::new();
            for number in [0, (stamp >> 32) as u32, stamp as u32, length, length] {
                body.extend(number.to_le_bytes());
            }
            body.extend(frame);
            block(6, &body);
        }
        file
    }

    fn lines(&self) -> Vec<String> {
        lines_of(&self.pcap())
    }
}

fn lines_of(file: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    explain_file(file, &mut |line| lines.push(line.to_owned())).unwrap();
    lines
}

fn of_hex(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    explain_hex(text, &mut |line| lines.push(line.to_owned())).unwrap();
    lines
}

/// The words of a line, without time and name.
fn words(line: &str) -> &str {
    line.get(38..).unwrap_or_default()
}

pub(crate) fn assert_told(lines: &[String], parts: &[&str]) {
    let mut rest = lines.iter();
    for part in parts {
        assert!(rest.any(|line| line.contains(part)), "`{part}` is missing in\n{}", lines.join("\n"));
    }
}

#[test]
fn both_file_formats_are_read_with_their_times() {
    let mut capture = Capture::new();
    capture.sends(Sender::Device, &connect()).sends(Sender::Hub, ACCEPTED);
    capture.sends(Sender::Device, &publish(1, b"hello")).sends(Sender::Hub, &puback(1));
    capture.sends(Sender::Device, DISCONNECT).frame(Sender::Device, &[], "F.");
    let lines = capture.lines();
    assert_told(
        &lines,
        &[
            "CONNECT as demo",
            "CONNACK, accepted",
            "telemetry, QoS 1, id 1, hello",
            "PUBACK, id 1",
            "DISCONNECT",
            "closes",
        ],
    );
    let time = devicebound::time::UnixTime::from_millis(capture.frames[2].0).to_string();
    assert!(lines[0].starts_with(&time[11..23]), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("broken")), "{lines:?}");
    assert_eq!(lines_of(&capture.pcapng()), lines);
}

#[test]
fn segments_out_of_order_twice_and_cut_anywhere_make_the_same_packets() {
    let mut whole = Capture::new();
    let mut sent = connect();
    sent.extend(publish(1, b"hello"));
    sent.extend(QOS_2);
    whole.sends(Sender::Device, &sent);
    let expected: Vec<String> = whole.lines().iter().map(|line| words(line).to_owned()).collect();
    assert!(expected.iter().any(|line| line.contains("HUB-D2C-QOS2")), "{expected:?}");

    for size in [1, 3, 50] {
        let mut cut = Capture::new();
        for chunk in sent.chunks(size) {
            cut.sends(Sender::Device, chunk);
        }
        let last = cut.frames.len() - 1;
        cut.frames.swap(last - 1, last);
        let again = cut.frames[3].clone();
        cut.frames.push(again);
        let lines: Vec<String> = cut.lines().iter().map(|line| words(line).to_owned()).collect();
        assert_eq!(lines, expected, "{size} bytes at a time");
    }
}

/// What the live view says about the same bytes.
#[tokio::test(flavor = "local")]
async fn explain_uses_the_words_of_the_live_view() {
    let (view, printed) = View::lines(Format::Text);
    let hub = Hub::start_with(view);
    let mut sent = connect();
    sent.extend(publish(1, b"hello"));
    sent.extend([0x82, 8, 0, 2, 0, 3, b'a', b'/', b'#', 1]);
    let mut device = crate::common::Device::new(hub.transport(64 * 1024));
    device.send(&sent).await;
    while device.receive().await.is_some() {}
    hub.operation(2).await;

    let mut explained = Vec::new();
    let mut conversation = Conversation::from_the_start("device");
    conversation.received(None, Sender::Device, &sent, &mut |line| explained.push(line.to_owned()));
    for line in &explained {
        // The breach itself has a line of its own here.
        if words(line).contains("SUBSCRIBE, id 2") {
            continue;
        }
        let told = std::iter::from_fn(|| printed.try_recv().ok()).any(|shown| words(&shown) == words(line));
        assert!(told, "the live view did not say `{}`", words(line));
    }
    assert_told(&explained, &["HUB-FILTER-UNKNOWN"]);
}

#[test]
fn a_breach_is_named_and_what_follows_is_still_told() {
    let mut capture = Capture::new();
    capture.sends(Sender::Device, &connect()).sends(Sender::Device, QOS_2).sends(Sender::Device, PINGREQ);
    capture.frame(Sender::Hub, &[], "F.");
    assert_told(&capture.lines(), &["QoS 2", "HUB-D2C-QOS2", "PINGREQ", "the hub closes the connection"]);
}

#[test]
fn silence_beyond_the_keep_alive_is_named_from_the_times_of_the_capture() {
    let mut capture = Capture::new();
    capture.sends(Sender::Device, &connect_as("demo", 10, None));
    capture.time += 14_000;
    capture.sends(Sender::Device, PINGREQ);
    assert!(!capture.lines().iter().any(|line| line.contains("timed out")));
    capture.time += 16_000;
    capture.sends(Sender::Device, PINGREQ);
    assert_told(&capture.lines(), &["PINGREQ", "timed out, MQTT-3.1.2-24", "PINGREQ"]);
}

#[test]
fn a_token_is_judged_by_its_form_its_scope_and_the_time_of_the_capture() {
    let mut capture = Capture::new();
    capture.time += 2 * 3_600_000; // tokens of these tests are good for one hour
    capture.sends(Sender::Device, &connect());
    assert_told(&capture.lines(), &["CONNECT as demo", "CONNECT refused with 5, HUB-SAS-EXPIRED"]);

    let other = String::from_utf8_lossy(&connect()).contains("devices%2Fdemo");
    assert!(other, "the token is for demo");
    let mut scope = connect();
    let at = scope.windows(14).position(|part| part == b"devices%2Fdemo").unwrap();
    scope[at + 10..at + 14].copy_from_slice(b"evil");
    let mut capture = Capture::new();
    capture.sends(Sender::Device, &scope).sends(Sender::Device, QOS_2);
    assert_told(&capture.lines(), &["HUB-SAS-SCOPE", "HUB-D2C-QOS2"]);
}

#[test]
fn a_capture_that_begins_in_the_middle_takes_the_identity_from_the_topics() {
    let mut capture = Capture::in_the_middle();
    capture.sends(Sender::Device, PINGREQ).sends(Sender::Hub, PINGRESP);
    capture.sends(Sender::Device, &publish(1, b"hello")).sends(Sender::Device, QOS_2);
    let lines = capture.lines();
    assert_told(&lines, &["PINGREQ", "taken from the topic", "telemetry", "HUB-D2C-QOS2"]);
    assert!(!lines.iter().any(|line| line.contains("MQTT-3.1.0-1")), "{lines:?}");
}

#[test]
fn bytes_that_are_missing_are_counted_and_reading_goes_on_behind_them() {
    let mut capture = Capture::new();
    capture.sends(Sender::Device, &connect()).sends(Sender::Device, PINGREQ);
    capture.sends(Sender::Device, &publish(3, b"late"));
    capture.frames.remove(3);
    assert_told(&capture.lines(), &["CONNECT", "2 bytes of the device are missing", "telemetry"]);
}

#[test]
fn tls_and_other_protocols_are_named_and_not_taken_for_mqtt() {
    let mut capture = Capture::new();
    capture.sends(Sender::Device, &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]);
    assert_told(&capture.lines(), &["TLS", "something else than MQTT"]);
    let mut capture = Capture { port: 80, ..Capture::in_the_middle() };
    capture.sends(Sender::Device, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(capture.lines(), ["1 TCP connections carry something else than MQTT"]);
    let mut capture = Capture { port: 4711, ..Capture::in_the_middle() };
    capture.sends(Sender::Device, &connect());
    assert_told(&capture.lines(), &["CONNECT as demo"]);
}

#[test]
fn what_follows_bytes_that_are_no_mqtt_is_not_kept() {
    let mut conversation = Conversation::from_the_start("device");
    let mut lines = Vec::new();
    let chunk = vec![0xff; 64 * 1024];
    for sender in [Sender::Device, Sender::Hub] {
        // 256 MiB: kept and copied with each chunk, they would be 512 GiB of copies.
        for _ in 0..4096 {
            conversation.received(None, sender, &chunk, &mut |line| lines.push(line.to_owned()));
        }
    }
    assert!(lines.len() < 10, "{lines:?}");
}

#[test]
fn a_large_packet_in_small_segments_is_not_copied_with_each_of_them() {
    let mut conversation = Conversation::from_the_start("device");
    let mut lines = Vec::new();
    let mut hear = |sender, bytes: &[u8]| {
        conversation.received(None, sender, bytes, &mut |line| lines.push(line.to_owned()));
    };
    // The hub of a capture may be any broker: a PUBLISH of 64 MiB, 512 bytes at a time.
    hear(Sender::Hub, &[0x30, 0x80, 0x80, 0x80, 0x20, 0, 1, b'a']);
    for _ in 0..(64 * 1024 * 1024 - 3_usize).div_ceil(512) {
        hear(Sender::Hub, &[b'x'; 512]);
    }
    assert!(lines.iter().any(|line| line.contains("PUBLISH") || line.contains("xxx")), "{lines:?}");
}

#[test]
fn a_refusal_of_the_captured_hub_is_told_with_what_to_look_for() {
    let mut capture = Capture::new();
    let mut refused = Vec::new();
    ConnAck::Refused(devicebound::packet::ConnectReturnCode::NotAuthorized).encode(&mut refused);
    capture.sends(Sender::Device, &connect()).sends(Sender::Hub, &refused);
    assert_told(&capture.lines(), &["CONNACK, refused with 5", "MQTT-3.2.2-5"]);
}

#[test]
fn hex_without_marks_is_sorted_by_what_each_side_sends() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = [&connect(), ACCEPTED, &publish(1, b"x"), &puback(1), PINGREQ, PINGRESP].map(hex).join("\n");
    let lines = of_hex(&text);
    let directions: Vec<bool> = lines.iter().map(|line| line.contains("──▶")).collect();
    assert_eq!(directions, [true, false, true, false, true, false], "{lines:?}");
    assert_told(&of_hex("34 05 00 01 61 00 01"), &["QoS 2", "HUB-D2C-QOS2"]);
}

#[test]
fn what_a_peer_chose_cannot_move_the_cursor() {
    let client_id = devicebound::packet::Text::new("\u{1b}[2J").unwrap();
    let connect = devicebound::packet::Connect {
        clean_session: true,
        keep_alive: 0,
        client_id,
        will: None,
        credentials: None,
    };
    let mut lines = Vec::new();
    let mut conversation = Conversation::from_the_start("device");
    let sent = bytes(Packet::Connect(connect));
    conversation.received(None, Sender::Device, &sent, &mut |line| lines.push(line.to_owned()));
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
}

fn some_packets() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    let packet = prop_oneof![
        Just(connect()),
        Just(publish(1, b"hello")),
        Just(puback(1)),
        Just(ACCEPTED.to_vec()),
        Just(QOS_2.to_vec()),
        Just(PINGREQ.to_vec()),
        Just(DISCONNECT.to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec((any::<bool>(), packet), 0..12)
}

proptest! {
    #[test]
    fn no_conversation_is_too_strange_to_be_told(
        packets in some_packets(),
        middle in any::<bool>(),
        gap in 0..20_usize,
        times in proptest::collection::vec(any::<u64>(), 12),
    ) {
        let mut conversation =
            if middle { Conversation::in_the_middle("d") } else { Conversation::from_the_start("d") };
        let mut tell = |line: &str| assert!(!line.is_empty());
        for (index, ((is_device, packet), time)) in packets.iter().zip(times).enumerate() {
            let sender = if *is_device { Sender::Device } else { Sender::Hub };
            let time = Some(devicebound::time::UnixTime::from_millis(time));
            if index == gap {
                conversation.gap(time, sender, Some(9), &mut tell);
            }
            conversation.received(time, sender, packet, &mut tell);
            if index == gap / 2 {
                conversation.ended(time, sender, false, &mut tell);
            }
        }
        conversation.end(&mut tell);
    }

    #[test]
    fn no_file_makes_it_panic(
        packets in some_packets(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<prop::sample::Index>(),
        ng in any::<bool>(),
    ) {
        let mut capture = Capture::new();
        for (is_device, packet) in &packets {
            capture.sends(if *is_device { Sender::Device } else { Sender::Hub }, packet);
        }
        let mut file = if ng { capture.pcapng() } else { capture.pcap() };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(cut.index(file.len()) + 1);
        // Whether it can be read is another matter.
        let _ = explain_file(&file, &mut |line| assert!(!line.is_empty()));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9a-fx<>#: ,g|\n-]{0,200}|\\PC{0,60}") {
        let _ = explain_hex(&text, &mut |line| assert!(!line.is_empty()));
    }
}
