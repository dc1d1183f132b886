//! What the World can do to a device, each fault alone, and that it notices a device that does not get over it.

use std::time::Duration;

use devicebound_world::{Breach, Options, Seeded, Step, World};

/// A calm world with a device that is online.
fn world(puback: Duration) -> Result<World<'static>, Breach> {
    let mut options = Options::calm(1);
    options.timing.puback = puback;
    let mut world = World::new(options, Seeded::new(1));
    world.heal()?;
    Ok(world)
}

/// A PUBACK is lost; everything else works.
fn swallowed(puback: Duration) -> Result<(), Breach> {
    let mut world = world(puback)?;
    world.act(Step::SwallowPubAck, 0)?;
    world.act(Step::Telemetry, 0)?;
    world.heal()?;
    assert_eq!(world.marks().count("fault: PUBACK swallowed"), 1);
    Ok(())
}

#[test]
fn a_device_gets_over_a_puback_that_is_lost_and_one_that_waits_for_ever_is_found() {
    assert_eq!(swallowed(Duration::from_secs(30)), Ok(()));
    let day = Duration::from_secs(24 * 3600);
    let found = swallowed(day).expect_err("the device waits for a day").to_string();
    assert!(found.contains("1 tickets open"), "{found}");
}

#[test]
fn a_device_uses_a_credential_that_comes_late_at_once() -> Result<(), Breach> {
    let mut options = Options::calm(1);
    options.timing.refused_min = Duration::from_secs(3600);
    options.timing.refused_max = Duration::from_secs(7200);
    let mut world = World::new(options, Seeded::new(1));
    world.heal()?;
    world.act(Step::LateCredential, 0)?;
    world.run(Duration::from_secs(60))?;
    world.heal()?;
    assert_eq!(world.marks().count("fault: credential came late"), 1);
    Ok(())
}

#[test]
fn a_device_gets_over_an_address_that_does_not_answer() -> Result<(), Breach> {
    let mut world = world(Duration::from_secs(30))?;
    world.act(Step::Unanswered, 0)?;
    world.act(Step::Cut, 0)?;
    world.act(Step::Telemetry, 0)?;
    world.run(Duration::from_secs(5))?; // the next attempt comes after one or two
    world.heal()?;
    assert!(world.marks().count("fault: address does not answer") > 0);
    Ok(())
}
