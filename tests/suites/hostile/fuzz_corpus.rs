//! The fuzz targets without a fuzzer: the committed corpus, through the same bodies.
//!
//! `DEVICEBOUND_WRITE_SEEDS=1 cargo test -p devicebound-suites --test hostile fuzz_corpus` writes the seeds anew from the
//! vectors. What a fuzzer found wrong is added to the corpus by hand, under a name that says what it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use devicebound_testkit::fuzz::{TARGETS, seeds};

fn fuzz(place: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../..", "fuzz", place].iter().collect()
}

fn names_in(place: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz(place)).expect("the folder is there");
    let name = |entry: fs::DirEntry| entry.path().file_stem().map(|name| name.to_string_lossy().into_owned());
    entries.filter_map(|entry| name(entry.expect("the folder can be read"))).collect()
}

#[test]
fn every_input_of_the_corpus_keeps_what_its_target_promises() {
    for (target, body) in TARGETS {
        for entry in fs::read_dir(fuzz("corpus").join(target)).expect("each target has a corpus") {
            let path = entry.expect("the folder can be read").path();
            // Shown only when the body panics: there is no other way to know the input.
            println!("{}", path.display());
            body(&fs::read(&path).expect("the input can be read"));
        }
    }
}

#[test]
fn the_corpus_holds_the_seeds_that_the_vectors_give() {
    let write = std::env::var_os("DEVICEBOUND_WRITE_SEEDS").is_some();
    for (target, _) in TARGETS {
        let folder = fuzz("corpus").join(target);
        let seeds = seeds(target);
        assert!(seeds.len() >= 4, "{target} has {} seeds", seeds.len());
        for (name, seed) in seeds {
            if write {
                fs::create_dir_all(&folder).expect("the folder can be made");
                fs::write(folder.join(&name), &seed).expect("the seed can be written");
            }
            let committed = fs::read(folder.join(&name)).unwrap_or_default();
            assert!(committed == seed, "{target}/{name}: write the seeds anew, see above");
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_a_fuzzer_and_there_are_no_others() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(targets, names_in("corpus"));
    assert_eq!(targets, names_in("fuzz_targets"));
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).expect("the manifest is there");
    for target in &targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is in fuzz/Cargo.toml");
    }
}
