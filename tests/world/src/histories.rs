//! Every short history: all orders of a few kinds of step, none left out.

use std::thread;

use super::{Breach, Bytes, Entropy, Exhaustive, Options, Step, World};

/// What may happen in a step.
const ALPHABET: [Step; 6] =
    [Step::Telemetry, Step::CloudMessage, Step::Report, Step::Cut, Step::DeviceCrash, Step::HubCrash];

/// All orders of six kinds of step with two devices, `depth` steps long, each followed by [`World::heal`]. Gives how many
/// there are: 6 · 11ⁿ⁻¹, as a crash of the hub needs no device, and the first step is the first device's, because the
/// two are alike.
///
/// # Errors
/// The first history in which something cannot be, and what that is.
///
/// # Panics
/// Where no thread can be made: each first step has one.
pub fn every_history(depth: u32) -> Result<u64, (Vec<(Step, usize)>, Breach)> {
    thread::scope(|scope| {
        let threads = ALPHABET.map(|first| scope.spawn(move || histories_from(first, depth)));
        threads.into_iter().map(|thread| thread.join().expect("a history ends in a result")).sum()
    })
}

fn histories_from(first: Step, depth: u32) -> Result<u64, (Vec<(Step, usize)>, Breach)> {
    let mut all = Exhaustive::default();
    let mut count = 0;
    loop {
        let mut history = vec![(first, 0)];
        for _ in 1..depth {
            let step = ALPHABET[all.below(6) as usize];
            let device = if step == Step::HubCrash { 0 } else { all.below(2) as usize };
            history.push((step, device));
        }
        let mut world = World::new(Options::calm(2), Bytes::new(&[]));
        let result = history
            .iter()
            .try_for_each(|(step, device)| world.act(*step, *device))
            .and_then(|()| world.heal());
        if let Err(breach) = result {
            return Err((history, breach));
        }
        count += 1;
        if !all.advance() {
            return Ok(count);
        }
    }
}
