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
    let documented = include_str!("../../../core/src/session/legality.md");
    assert_eq!(documented, table(), "write the table on the right to core/src/session/legality.md");
}

/// The states of a connection, by what arrives, as they stand in `core/src/session/states.md`.
fn states() -> String {
    let mut states = String::from("\n```text\n");
    for (role, name) in [(Role::Hub, "to the hub"), (Role::Device, "to the device")] {
        let legal = |phase| PACKETS.into_iter().filter(move |packet| check(role, phase, *packet).is_ok());
        let names = |packets: Vec<PacketType>| {
            packets.iter().map(|packet| format!("{packet:?}").to_uppercase()).collect::<Vec<_>>().join(", ")
        };
        let opens = names(legal(Phase::Opening).collect());
        let (ends, stays): (Vec<_>, Vec<_>) =
            legal(Phase::Open).partition(|packet| *packet == PacketType::Disconnect);
        let ends = if ends.is_empty() { "anything else".to_owned() } else { names(ends) + ", anything else" };
        let start = format!("{name:<13}  opening ── {opens} ──▶ open ");
        let (margin, indent) = (" ".repeat(15), " ".repeat(start.chars().count()));
        writeln!(states, "{start}─┬─ {} ──▶ open", names(stays)).expect("a String takes all");
        writeln!(states, "{indent} └─ {ends} ──▶ closed").expect("a String takes all");
        writeln!(states, "{margin}opening ── anything else ──▶ closed").expect("a String takes all");
    }
    states + "```\n"
}

#[test]
fn the_states_in_the_guide_are_those_of_the_code() {
    let documented = include_str!("../../../core/src/session/states.md");
    assert_eq!(documented, states(), "write the states on the right to core/src/session/states.md");
}

#[test]
fn the_hub_takes_nothing_but_connect_first_and_never_again() {
    for packet in PACKETS {
        let is_connect = packet == PacketType::Connect;
        assert_eq!(check(Role::Hub, Phase::Opening, packet).is_ok(), is_connect, "{packet:?}");
    }
    assert!(check(Role::Hub, Phase::Open, PacketType::Connect).is_err());
}
