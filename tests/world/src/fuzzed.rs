//! Bytes, such as a fuzzer's, as the choices of a World.

use super::{Breach, Bytes, Options, World};

/// Steps of one input.
const STEPS: u32 = 60;

/// Runs a world that draws all that happens from `data`; after the last byte nothing goes wrong any more.
///
/// # Errors
/// What cannot be, and was.
pub fn run_bytes(data: &[u8]) -> Result<(), Breach> {
    run(&mut new(data))
}

/// Runs the same world as [`run_bytes`], and gives its options and each line of its trace to `each`.
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
