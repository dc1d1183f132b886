//! `tests/conformance.md` against the tests, the vectors, the rules and the sources that it speaks of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use devicebound::Rule;
use devicebound_world::vectors;

const MANIFEST: &str = include_str!("../../conformance.md");
/// How many numbered statements MQTT 3.1.1 has (appendix B).
const STATEMENTS: usize = 141;
/// Where tests stand.
const SOURCES: [&str; 3] = ["core/src", "tests/suites", "adapters"];
/// The files of vectors that are referred to, and the tests that run all of their cases.
const RUNNERS: [(&str, &str); 4] = [
    ("packets_valid", "packet_vectors::every_valid_case_decodes_to_its_fields"),
    ("packets_invalid", "packet_vectors::every_invalid_case_is_refused_and_nothing_is_taken"),
    ("sessions", "scenarios/sessions/mod::every_session_vector_holds_against_the_hub_machine"),
    ("topics", "dialect_vectors::every_topic_case_gets_its_answer"),
];

/// A row of the table.
struct Statement {
    id: &'static str,
    says: &'static str,
    binds: &'static str,
    here: &'static str,
    shown_by: Vec<&'static str>,
}

fn statements() -> Vec<Statement> {
    let rows = MANIFEST.lines().filter(|line| line.starts_with("| MQTT-"));
    let statement = |row: &'static str| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, says, binds, here, shown_by] = cells[..] else { unreachable!("{row} has five cells") };
        let shown_by = if shown_by == "-" { Vec::new() } else { shown_by.split("<br>").collect() };
        let shown_by = shown_by.into_iter().map(|reference: &str| reference.trim_matches('`')).collect();
        Statement { id, says, binds, here, shown_by }
    };
    rows.map(statement).collect()
}

/// The four numbers of a statement, which have the order of the standard; `None` for the id of an unnumbered sentence.
fn numbers(id: &str) -> Option<[u32; 4]> {
    let (section, number) = id.strip_prefix("MQTT-")?.split_once('-')?;
    let numbers = section.split('.').chain([number]).map(|number| number.parse().ok());
    numbers.collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// The ids of statements that stand in `text`.
fn ids_in(text: &str) -> impl Iterator<Item = &str> {
    let candidates = text.match_indices("MQTT-").map(|(at, _)| &text[at..]);
    let ids = candidates.map(|rest| {
        let end = rest[5..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-');
        rest[..end.map_or(rest.len(), |end| end + 5)].trim_end_matches(['.', '-'])
    });
    ids.filter(|id| numbers(id).is_some())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every Rust source that tests stand in, by its path without `.rs`.
fn sources() -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    let mut folders: Vec<_> = SOURCES.map(|source| root().join(source)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                let name = path.with_extension("").to_string_lossy().replace('\\', "/");
                sources.insert(name, text);
            }
        }
    }
    sources
}

/// The names of the tests in a source that are not left out.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some((name, _)) = function.and_then(|function| function.split_once('(')) {
            if is_test {
                tests.insert(name);
            }
            is_test = false;
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_test = false;
        }
    }
    tests
}

/// Whether `file::test` is a test of the one source whose path ends so.
fn is_test(reference: &str, sources: &BTreeMap<String, String>) -> bool {
    let Some((file, test)) = reference.rsplit_once("::") else { return false };
    let end = format!("/{file}");
    sources.iter().filter(|(path, _)| path.ends_with(&end)).any(|(_, source)| tests_in(source).contains(test))
}

/// Whether `vectors#case` is a case that a test runs.
fn is_case(reference: &str) -> bool {
    let Some((file, case)) = reference.split_once('#') else { return false };
    RUNNERS.iter().any(|(known, _)| *known == file)
        && vectors::load(file).iter().any(|known| vectors::name(known) == case)
}

#[test]
fn every_statement_of_the_standard_is_listed_once_and_in_order() {
    let ids: Vec<_> = statements()
        .iter()
        .map(|statement| numbers(statement.id).unwrap_or_else(|| unreachable!("{} is an id", statement.id)))
        .collect();
    assert_eq!(ids.len(), STATEMENTS);
    assert!(ids.is_sorted_by(|one, next| one < next));
    // Within a section, the numbers run from 1 without a gap.
    for pair in ids.windows(2) {
        let [one, next] = [pair[0], pair[1]];
        let expected = if one[..3] == next[..3] { one[3] + 1 } else { 1 };
        assert_eq!(next[3], expected, "{next:?}");
    }
}

#[test]
fn every_statement_that_binds_here_is_shown_by_a_test_that_is_there() {
    let sources = sources();
    for Statement { id, says, binds, here, shown_by } in statements() {
        assert!(!says.is_empty(), "{id}");
        assert!(
            binds.split(", ").all(|who| ["codec", "client", "server", "both"].contains(&who)),
            "{id}: {binds}"
        );
        let applies = here.starts_with("applies") || here.starts_with("deviates: ");
        assert!(applies || here.starts_with("n.a."), "{id}: {here}");
        let needs_a_test = applies || binds.contains("codec");
        assert!(!needs_a_test || !shown_by.is_empty(), "{id} has no test");
        for reference in shown_by {
            assert!(is_test(reference, &sources) || is_case(reference), "{id}: there is no {reference}");
        }
    }
    for (file, runner) in RUNNERS {
        assert!(is_test(runner, &sources), "{file}: there is no {runner}");
    }
}

#[test]
fn every_statement_that_is_cited_is_in_the_list() {
    let listed: BTreeSet<_> = statements().iter().map(|statement| statement.id).collect();
    let sources = sources();
    for (path, source) in &sources {
        for id in ids_in(source) {
            assert!(listed.contains(id), "{path} names {id}");
        }
    }
    let rules = Rule::ALL.iter().map(|rule| rule.id()).filter(|id| numbers(id).is_some());
    assert!(rules.clone().count() > 20);
    rules.for_each(|id| assert!(listed.contains(id), "a rule is named {id}"));
    for (file, _) in RUNNERS {
        for case in vectors::load(file) {
            let statement = case["statement"].as_str().unwrap_or_default();
            ids_in(statement)
                .for_each(|id| assert!(listed.contains(id), "{file}#{} names {id}", vectors::name(&case)));
        }
    }
}

#[test]
fn a_source_is_searched_for_its_tests() {
    let source = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test]\nasync fn two() {}\n    #[test]\n    fn three(x in any()) {}\n#[test]\n#[ignore]\nfn four() {}";
    assert_eq!(tests_in(source), ["one", "three", "two"].into());
    let ids: Vec<_> =
        ids_in("[MQTT-3.1.2-24], MQTT-2.2.1, MQTT-3.2.2.1, MQTT-2.2.3-BODY and MQTT-4.8.0-1.").collect();
    assert_eq!(ids, ["MQTT-3.1.2-24", "MQTT-4.8.0-1"]);
}
