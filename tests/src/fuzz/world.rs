//! A fuzzer's bytes as the choices of a World.

use crate::world::{Breach, Bytes, Options, World};

/// Steps of one input.
const STEPS: u32 = 60;

/// A world that draws all that happens from these bytes; when they are used up, nothing goes wrong any more.
///
/// # Panics
/// Where something happens that cannot be.
pub fn world(data: &[u8]) {
    let result = run(&mut new(data));
    assert!(result.is_ok(), "{result:?}");
}

/// The same, with the options and all that happens for `each`.
///
/// # Errors
/// What cannot be, and was.
pub fn replay(data: &[u8], mut each: impl FnMut(&str)) -> Result<(), Breach> {
    let mut world = new(data).with_lines();
    each(&world.options().to_string());
    let result = run(&mut world);
    world.trace().lines().iter().map(String::as_str).for_each(each);
    result
}

fn new(data: &[u8]) -> World<'_> {
    let mut bytes = Bytes::new(data);
    let options = Options::draw(&mut bytes, None);
    World::new(options, bytes)
}

fn run(world: &mut World<'_>) -> Result<(), Breach> {
    (0..STEPS).try_for_each(|_| world.step()).and_then(|()| world.heal())
}
