//! A fuzzer's bytes as the choices of a World.

use crate::world::{Bytes, Options, World};

/// Steps of one input.
const STEPS: u32 = 60;

/// A world that draws all that happens from these bytes; when they are used up, nothing goes wrong any more.
///
/// # Panics
/// Where something happens that cannot be.
pub fn world(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let options = Options::draw(&mut bytes, None);
    let mut world = World::new(options, bytes);
    let result = (0..STEPS).try_for_each(|_| world.step()).and_then(|()| world.heal());
    assert!(result.is_ok(), "{result:?}");
}
