//! Text, topics and ids, of every kind that is allowed.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Characters on which text handling goes wrong: first and last of each length in UTF-8, controls, noncharacters, marks.
const EDGES: [char; 16] = [
    '\u{1}',
    '\u{1F}',
    '\u{7F}',
    '\u{80}',
    '\u{7FF}',
    '\u{800}',
    '\u{D7FF}',
    '\u{E000}',
    '\u{FEFF}',
    '\u{FFFD}',
    '\u{FFFF}',
    '\u{10000}',
    '\u{10FFFF}',
    '%',
    '&',
    '=',
];

/// What an id is made of, but for the wildcards, with which no topic can be written.
const ID: &[u8] = b"abcXYZ0189-:.%_*?!(),=@;$'";

fn character() -> impl Strategy<Value = char> {
    prop_oneof![
        6 => (b' '..=b'~').prop_map(char::from),
        2 => select(&EDGES[..]),
        2 => any::<char>().prop_filter("text has no U+0000", |&character| character != '\0'),
    ]
}

/// Text without U+0000, mostly short, now and then around the lengths at which lengths take a byte more.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        30 => vec(character(), 0..24).prop_map(String::from_iter),
        3 => (character(), 60..130_usize).prop_map(|(character, count)| character.to_string().repeat(count)),
        1 => (0..=2_usize).prop_map(|less| "x".repeat(65_535 - less)),
    ]
}

/// A topic name.
pub(crate) fn topic_name() -> impl Strategy<Value = String> {
    text().prop_map(|text| {
        let name = text.replace(['+', '#'], "/");
        if name.is_empty() { "/".to_owned() } else { name }
    })
}

/// A topic filter, with wildcards where they may stand.
pub(crate) fn topic_filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        3 => vec(character(), 0..6).prop_map(|level| String::from_iter(level).replace(['+', '#', '/'], "")),
        1 => Just("+".to_owned()),
    ];
    (vec(level, 1..6), any::<bool>()).prop_map(|(mut levels, all_below)| {
        if all_below {
            levels.push("#".to_owned());
        }
        let filter = levels.join("/");
        if filter.is_empty() { "#".to_owned() } else { filter }
    })
}

/// The id of a device or module that can be used over MQTT.
pub(crate) fn id() -> impl Strategy<Value = String> {
    vec(select(ID).prop_map(char::from), 1..=128).prop_map(String::from_iter)
}

/// Name and value of a property; not both missing, as that is no property.
pub(crate) fn properties() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
    let short = || vec(character(), 0..8).prop_map(String::from_iter);
    let property = (short(), proptest::option::of(short()));
    vec(property.prop_filter("an empty pair is skipped", |pair| *pair != (String::new(), None)), 0..6)
}

/// `text` with a few characters changed, taken out, put in or doubled: nearly what it was.
pub(crate) fn spoilt(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0..4_u8, prop_oneof![character(), Just('\0')]);
    (text, vec(change, 0..4)).prop_map(|(text, changes)| {
        let mut characters: Vec<char> = text.chars().collect();
        for (at, kind, character) in changes {
            let at = at.index(characters.len() + 1);
            match kind {
                0 => characters.insert(at, character),
                1 if at < characters.len() => drop(characters.remove(at)),
                2 if at < characters.len() => characters[at] = character,
                _ => characters.extend_from_within(at..),
            }
        }
        String::from_iter(characters)
    })
}
