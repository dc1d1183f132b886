//! The README holds nothing that was not run.

use std::time::Duration;

use devicebound::device::Message;
use devicebound_tests::fixtures::connected;
use devicebound_tests::station::{Heard, advance};

const README: &str = include_str!("../../README.md");

#[test]
fn telemetry_survives_a_cut_and_the_day_after() {
    let (mut hub, mut device) = connected();
    let ticket = device.telemetry(&mut hub, Message::new(b"21.5"));
    assert_eq!(device.take_heard().last(), Some(&Heard::Acknowledged(ticket)));

    device.cut(&mut hub); // the network is gone
    let ticket = device.telemetry(&mut hub, Message::new(b"21.7"));
    advance(&mut hub, &mut [&mut device], Duration::from_secs(24 * 3600)); // takes milliseconds

    assert!(device.take_heard().contains(&Heard::Acknowledged(ticket)));
    let bodies: Vec<_> = hub.telemetry.iter().map(|message| message.payload.as_slice()).collect();
    assert_eq!(bodies, [b"21.5", b"21.7"]);
}

#[test]
fn the_test_in_the_readme_is_the_one_above() {
    let this = include_str!("readme.rs");
    let start = this.find("#[test]").expect("the test above starts so");
    let end = this.find("#[test]\nfn the_test_in").expect("this test starts so");
    let test = this[start..end].trim();
    assert!(README.contains(test), "copy the test into README.md");
}
