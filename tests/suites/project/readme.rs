//! The README holds nothing that was not run.

use std::time::Duration;

use devicebound::Device;
use devicebound::device::Message;
use devicebound::time::Instant;
use devicebound_world::fixtures::connected;
use devicebound_world::station::{Heard, advance};
use devicebound_world::{Breach, Logic, Options, Seeded, Step, World};

const README: &str = include_str!("../../../README.md");

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

#[derive(Debug)]
struct Thermostat; // your own logic

impl Logic for Thermostat {
    fn hear(&mut self, now: Instant, heard: &Heard, device: &mut Device, tx: &mut Vec<u8>) {
        match heard {
            Heard::Delivered { delivery, .. } => device.complete(*delivery, tx).expect("it is complete once"),
            Heard::Invoked { id, .. } => {
                device.telemetry(now, Message::new(b"rebooting"), tx).expect("there is room in the outbox");
                let _ = device.respond(now, *id, 200, b"{}", tx); // the connection may be gone
            }
            _ => {}
        }
    }
}

#[test]
fn what_was_answered_was_reported_whatever_the_network_does() -> Result<(), Breach> {
    for seed in 0..50 {
        let faults = vec![Step::Cut, Step::HalfOpen, Step::Stall, Step::HubCrash];
        let options = Options { fault: 4, faults, pace: Duration::from_secs(2), ..Options::calm(1) };
        let mut world = World::new(options, Seeded::new(seed)).with_logic(0, Thermostat);
        for _ in 0..50 {
            world.call_method(0, "reboot", "null")?;
            world.step()?; // time goes by, and anything may happen
        }
        world.heal()?; // no more faults: all is delivered
        assert!(world.telemetry_of(0).count() >= world.answers_of(0).count(), "seed {seed}");
    }
    Ok(())
}

#[test]
fn the_tests_in_the_readme_are_those_above() {
    let this = include_str!("readme.rs");
    let marks = ["#[test]\nfn telemetry", "#[derive(Debug)]\nstruct", "#[test]\nfn the_tests_in"];
    let places = marks.map(|mark| this.find(mark).expect("the tests above start so"));
    for test in [&this[places[0]..places[1]], &this[places[1]..places[2]]] {
        assert!(README.contains(test.trim()), "copy this into README.md: {test}");
    }
}
