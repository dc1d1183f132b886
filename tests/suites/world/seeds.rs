//! The World from a bounded number of seeds, and that it notices what is wrong.

use devicebound_world::{Canary, Marks, Run, every_history};

/// Seeds that every run of the tests takes; `.ci/run` takes more.
const SEEDS: u64 = 150;
/// Within so many seeds every broken rule is found.
const CANARY_SEEDS: u64 = 300;
/// The trace hashes of the seeds 1 and 2.
const KNOWN_HASHES: [u64; 2] = [0x04A1_7EAA_986A_7360, 0xAFCC_CD74_ED72_0BAF];

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

/// So deep in every run of the tests; `.ci/long` goes as deep as a minute does.
const DEPTH: u32 = 3;

#[test]
fn every_short_history_of_two_devices_comes_to_rest() {
    assert_eq!(every_history(DEPTH), Ok(6 * 11 * 11));
}

/// Whoever changes what the World draws, or what the machines say, puts the new hash here, after a look at the trace.
#[test]
fn a_seed_gives_the_trace_that_it_gives_on_every_machine() -> Result<(), Box<dyn std::error::Error>> {
    let hash = |seed| Run::new(seed).go().map(|summary| summary.hash).map_err(|failure| failure.to_string());
    assert_eq!([hash(1)?, hash(2)?], KNOWN_HASHES);
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

/// What a device keeps merged is the hub's document, whether that was patched or replaced, on every level.
#[test]
fn the_copy_that_a_device_merges_is_the_hubs_document_for_modules_and_both_api_versions() {
    use std::time::Duration;

    use devicebound_world::{Options, Seeded, Step, World};

    for (modules, api_version) in
        [(false, "2021-04-12"), (false, "2016-11-14"), (true, "2021-04-12"), (true, "2016-11-14")]
    {
        for (seed, follow) in (0..12).zip([false, true].into_iter().cycle()) {
            let faults = vec![Step::Cut, Step::HubCrash, Step::DeviceCrash, Step::RejectCommit];
            let pace = Duration::from_millis(300);
            let calm = Options::calm(2);
            let options = Options { modules, api_version, follow, pace, fault: 10, faults, ..calm };
            let mut world = World::new(options, Seeded::new(seed));
            let went = (0..300).try_for_each(|_| world.step()).and_then(|()| world.heal());
            assert!(went.is_ok(), "modules {modules}, {api_version}, seed {seed}: {went:?}");
        }
    }
}
