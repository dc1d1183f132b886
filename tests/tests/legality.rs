//! The table of legal packets, and the picture of it in the docs.

use std::fmt::Write as _;

use devicebound::packet::PacketType;
use devicebound::session::legality::{Phase, Role, check};

const PACKETS: [PacketType; 14] = [
    PacketType::Connect,
    PacketType::ConnAck,
    PacketType::Publish,
    PacketType::PubAck,
    PacketType::PubRec,
    PacketType::PubRel,
    PacketType::PubComp,
    PacketType::Subscribe,
    PacketType::SubAck,
    PacketType::Unsubscribe,
    PacketType::UnsubAck,
    PacketType::PingReq,
    PacketType::PingResp,
    PacketType::Disconnect,
];

/// The table as it stands in `core/src/session/legality.md`.
fn table() -> String {
    let mut table = String::from(
        "\n| packet | to the hub, opening | to the hub, open | to the device, opening | to the device, open |\n|---|---|---|---|---|\n",
    );
    for packet in PACKETS {
        write!(table, "| {} ", format!("{packet:?}").to_uppercase()).expect("a String takes all");
        for (role, phase) in [
            (Role::Hub, Phase::Opening),
            (Role::Hub, Phase::Open),
            (Role::Device, Phase::Opening),
            (Role::Device, Phase::Open),
        ] {
            let cell = match check(role, phase, packet) {
                Ok(()) => "**legal**".to_owned(),
                Err(rule) => rule.id().to_owned(),
            };
            write!(table, "| {cell} ").expect("a String takes all");
        }
        table.push_str("|\n");
    }
    table
}

#[test]
fn the_table_in_the_docs_is_the_table_in_the_code() {
    let documented = include_str!("../../core/src/session/legality.md");
    assert_eq!(documented, table(), "write the table on the right to core/src/session/legality.md");
}

#[test]
fn the_hub_takes_nothing_but_connect_first_and_never_again() {
    for packet in PACKETS {
        let is_connect = packet == PacketType::Connect;
        assert_eq!(check(Role::Hub, Phase::Opening, packet).is_ok(), is_connect, "{packet:?}");
    }
    assert!(check(Role::Hub, Phase::Open, PacketType::Connect).is_err());
}
