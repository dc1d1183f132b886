//! `devicebound explain` on the captures that `tests/captures/make.py` made, which shares no code with what reads them.

use std::path::PathBuf;

use devicebound_hub::capture::explain_file;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

fn captures() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "tests", "captures"].iter().collect()
}

fn lines_of(file: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let bytes = std::fs::read(captures().join(file)).expect("the capture can be read");
    let read = explain_file(&bytes, &mut |line| lines.push(line.to_owned()));
    read.unwrap_or_else(|error| panic!("{file}: {error}"));
    lines
}

/// What is wrong with the lines, if anything is.
fn fault(lines: &[String], expected: &Value) -> Option<String> {
    let texts = |name: &str| -> Vec<String> {
        let texts = expected[name].as_array().expect("a list of texts");
        texts.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
    };
    let mut rest = lines.iter();
    let missing = texts("told").into_iter().find(|part| !rest.any(|line| line.contains(part)));
    let superfluous = texts("never").into_iter().find(|part| lines.iter().any(|line| line.contains(part)));
    match (missing, superfluous) {
        (None, None) => None,
        (missing, superfluous) => Some(format!("missing: {missing:?}, superfluous: {superfluous:?}")),
    }
}

#[test]
fn every_capture_of_the_corpus_is_told_as_it_was_made() {
    let text = std::fs::read_to_string(captures().join("expected.json")).expect("it can be read");
    let expected: Value = serde_json::from_str(&text).expect("it is JSON");
    let expected = expected.as_object().expect("it is an object");
    let mut faults = Vec::new();
    for (file, expected) in expected {
        let lines = lines_of(file);
        if let Some(fault) = fault(&lines, expected) {
            faults.push(format!("{file}: {fault}\n{}", lines.join("\n")));
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), expected.len(), faults.join("\n\n"));
    assert!(expected.len() >= 100, "the corpus is there");
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(captures()).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|suffix| suffix == "pcap" || suffix == "pcapng"));
    files.sort();
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_damage_of_a_capture_makes_it_panic_or_moves_the_cursor(
        file in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..12),
        cut in any::<Index>(),
        repeated in any::<bool>(),
    ) {
        let files = files();
        let mut bytes = std::fs::read(&files[file.index(files.len())]).expect("it can be read");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if repeated {
            let front = bytes[..cut.index(bytes.len())].to_vec();
            bytes.extend(front);
        } else {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        // Whether it can be read is another matter.
        let _ = explain_file(&bytes, &mut |line| {
            assert!(!line.is_empty() && line.chars().all(|char| !char.is_control() || char == '\n'), "{line:?}");
        });
    }
}
