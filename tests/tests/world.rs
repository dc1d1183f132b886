//! The World from a bounded number of seeds, and that it notices what is wrong.

use devicebound_tests::world::{Bytes, Entropy};
use devicebound_tests::world::{Canary, Exhaustive, Marks, Options, Run, Step, World};

/// Seeds that every run of the tests takes; `.ci/run` takes more.
const SEEDS: u64 = 150;
/// Within so many seeds every broken rule is found.
const CANARY_SEEDS: u64 = 300;

#[test]
fn nothing_that_cannot_be_happens_and_all_comes_to_rest() -> Result<(), Box<dyn std::error::Error>> {
    for seed in 0..SEEDS {
        Run::new(seed).go().map_err(|failure| failure.to_string())?;
    }
    Ok(())
}

#[test]
fn every_broken_rule_is_found() {
    let fails = |canary, seed| Run { canary: Some(canary), ..Run::new(seed) }.go().err();
    let mut missed = Vec::new();
    for canary in Canary::ALL {
        match (0..CANARY_SEEDS).find_map(|seed| fails(canary, seed)) {
            Some(failure) => println!("{canary:?}: seed {}, {}", failure.run.seed, failure.breach),
            None => missed.push(canary),
        }
    }
    assert_eq!(missed, []);
}

#[test]
fn a_failure_can_be_replayed_and_shrunk() -> Result<(), Box<dyn std::error::Error>> {
    let broken = |seed| Run { canary: Some(Canary::StoredBeforeSynced), ..Run::new(seed) };
    let failure = (0..CANARY_SEEDS).find_map(|seed| broken(seed).go().err()).ok_or("nothing fails")?;
    let again = failure.run.go().err().ok_or("the same run does not fail")?;
    assert_eq!(again.to_string(), failure.to_string());
    let shrunk = failure.shrunk();
    let left = |run: &Run| run.steps as usize - run.skipped.range(..run.steps).count();
    assert!(left(&shrunk.run) <= 5, "{} steps are left", left(&shrunk.run));
    assert!(!shrunk.lines.is_empty());
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_trace() -> Result<(), Box<dyn std::error::Error>> {
    for seed in 0..10 {
        let first = Run::new(seed).go().map_err(|failure| failure.to_string())?;
        let second = Run::new(seed).go_aloud(|_| {}).map_err(|failure| failure.to_string())?;
        assert_eq!(first, second);
    }
    Ok(())
}

#[test]
fn other_seeds_give_other_traces() -> Result<(), Box<dyn std::error::Error>> {
    let hash = |seed| Run::new(seed).go().map(|summary| summary.hash).map_err(|failure| failure.to_string());
    assert_ne!(hash(1)?, hash(2)?);
    Ok(())
}

/// All orders of six kinds of steps with two devices, up to this many steps; one more takes ten times as long.
const DEPTH: usize = 3;

#[test]
fn every_short_history_of_two_devices_comes_to_rest() -> Result<(), Box<dyn std::error::Error>> {
    const ALPHABET: [Step; 6] =
        [Step::Telemetry, Step::CloudMessage, Step::Report, Step::Cut, Step::DeviceCrash, Step::HubCrash];
    let mut all = Exhaustive::default();
    let mut histories = 0;
    loop {
        let mut history = Vec::new();
        for _ in 0..DEPTH {
            let step = ALPHABET[all.below(6) as usize];
            // The two devices are alike: the first step is the first one's.
            let device = if history.is_empty() || step == Step::HubCrash { 0 } else { all.below(2) as usize };
            history.push((step, device));
        }
        let mut world = World::new(Options::calm(2), Bytes::new(&[]));
        let mut live = || {
            history.iter().try_for_each(|(step, device)| world.act(*step, *device))?;
            world.heal()
        };
        live().map_err(|breach| format!("{history:?}: {breach}"))?;
        histories += 1;
        if !all.advance() {
            break;
        }
    }
    assert_eq!(histories, 6 * 11 * 11);
    Ok(())
}

#[test]
fn every_mark_is_reached_within_a_few_hundred_seeds() -> Result<(), Box<dyn std::error::Error>> {
    let mut marks = Marks::default();
    for seed in 1000.. {
        marks.add(&Run::new(seed).go().map_err(|failure| failure.to_string())?.marks);
        if marks.missing().is_empty() || seed > 1400 {
            break;
        }
    }
    assert_eq!(marks.missing(), <[&str; 0]>::default());
    Ok(())
}
