//! What we and the peers take and refuse, beside what MQTT 3.1.1 says.
//!
//! `cargo bench -p devicebound-benches --features peers --bench matrix`

#![allow(dead_code, reason = "the codecs are shared with the bench `peers`, which asks more of them")]

#[path = "peers/codecs/mod.rs"]
mod codecs;

use std::panic::{self, AssertUnwindSafe};

use codecs::{DECODERS, Decoder, Kind, NewDecoder, Progress};
use devicebound_testkit::matrix::{Case, Expectation, cases};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::GenericEvent;
use mqtt_protocol_core::mqtt::packet::{Qos, v3_1_1};
use mqtt_protocol_core::mqtt::{Connection, Version, result_code::ConnectReturnCode, role};

/// What a decoder does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Refused,
    /// It waits for more, although the packet is whole.
    Stalled,
    Panicked,
}

impl Verdict {
    fn of(new: NewDecoder, case: &Case) -> Self {
        let decode = AssertUnwindSafe(|| {
            let mut decoder = new();
            decoder.append(&case.bytes);
            decoder.decode()
        });
        match panic::catch_unwind(decode) {
            Ok(progress) if progress.packets > 0 => Self::Accepted,
            Ok(progress) if progress.refused => Self::Refused,
            Ok(_) => Self::Stalled,
            Err(_) => Self::Panicked,
        }
    }

    fn deviates(self, expectation: Expectation) -> bool {
        match expectation {
            Expectation::Accept => self != Self::Accepted,
            Expectation::Reject => self != Self::Refused,
            Expectation::Either => false,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "acc",
            Self::Refused => "rej",
            Self::Stalled => "stall",
            Self::Panicked => "PANIC",
        }
    }
}

/// The one peer that is a whole machine, too, and so could know more than its codec does. It is a client for what only
/// a server sends, and else a server: one that waits for CONNECT, or that has sent a PUBLISH.
#[derive(Default)]
struct ProtocolCoreConnection(Vec<u8>);

impl ProtocolCoreConnection {
    fn connect() -> v3_1_1::Connect {
        v3_1_1::Connect::builder().client_id("dev").expect("an id").build().expect("CONNECT")
    }

    fn client(received: &[u8]) -> Progress {
        let mut client = Connection::<role::Client>::new(Version::V3_1_1);
        client.checked_send(Self::connect());
        if received.first() != Some(&0x20) {
            client.recv(&mut Cursor::new(&[0x20, 2, 0, 0][..]));
        }
        progress(&client.recv(&mut Cursor::new(received)))
    }

    fn server(received: &[u8]) -> Progress {
        let mut server = Connection::<role::Server>::new(Version::V3_1_1);
        if received.first() != Some(&0x10) {
            server.recv(&mut Cursor::new(Self::connect().to_continuous_buffer().as_slice()));
            let connack = v3_1_1::Connack::builder().session_present(false);
            let connack = connack.return_code(ConnectReturnCode::Accepted).build().expect("CONNACK");
            server.checked_send(connack);
            let id = server.acquire_packet_id().expect("none is in use");
            let publish = v3_1_1::Publish::builder().topic_name("a").expect("a name");
            server.checked_send(publish.qos(Qos::AtLeastOnce).packet_id(id).build().expect("PUBLISH"));
        }
        progress(&server.recv(&mut Cursor::new(received)))
    }
}

fn progress(events: &[GenericEvent<u16>]) -> Progress {
    let packets =
        events.iter().filter(|event| matches!(event, GenericEvent::NotifyPacketReceived(_))).count();
    Progress { packets, refused: events.iter().any(|event| matches!(event, GenericEvent::NotifyError(_))) }
}

impl Decoder for ProtocolCoreConnection {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn decode(&mut self) -> Progress {
        match self.0.first().map(|first| first >> 4) {
            Some(2 | 9 | 11 | 13) => Self::client(&self.0),
            _ => Self::server(&self.0),
        }
    }
}

fn main() {
    // A peer's panic is a verdict, and nothing to print.
    panic::set_hook(Box::new(|_| {}));
    let mut decoders: Vec<_> = DECODERS.into_iter().filter(|(_, kind, _)| *kind != Kind::Limit).collect();
    let connection: NewDecoder = || Box::new(ProtocolCoreConnection::default());
    decoders.push(("mqtt-protocol-core Connection", Kind::Peer, connection));
    let cases = cases();

    print!("| clause | case | expected |");
    decoders.iter().for_each(|(name, ..)| print!(" {name} |"));
    println!("\n|---|---|---|{}", "---|".repeat(decoders.len()));
    let mut deviations = vec![0; decoders.len()];
    for case in &cases {
        print!("| {} | {} | {:?} |", case.clause, case.name, case.expectation);
        for ((_, _, new), deviations) in decoders.iter().zip(&mut deviations) {
            let verdict = Verdict::of(*new, case);
            if verdict.deviates(case.expectation) {
                *deviations += 1;
                print!(" **{}** |", verdict.word());
            } else {
                print!(" {} |", verdict.word());
            }
        }
        println!();
    }
    print!("| | deviations | |");
    deviations.iter().for_each(|count| print!(" {count} |"));
    println!();
}
