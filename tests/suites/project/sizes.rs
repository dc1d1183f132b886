//! A file has one idea and a name that every system takes, and a function fits a screen.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file of the program, its tests included.
const FILE_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_MAX: usize = 60;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Name and length of each function: rustfmt closes it at the column where it begins.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let name = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "fn")?;
        let is_head = words[..at].iter().all(|word| {
            word.starts_with("pub")
                || ["const", "async", "in", "super)"].contains(word)
                || word.ends_with(')')
        });
        is_head.then(|| words.get(at + 1).copied().unwrap_or_default().to_owned())
    };
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = name(line) else { continue };
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let is_one_line = line.ends_with('}') || line.ends_with(';');
        let length = lines[at..].iter().position(|line| *line == end).filter(|_| !is_one_line).unwrap_or(0);
        found.push((name, length + 1));
    }
    found
}

#[test]
fn no_file_of_the_program_is_too_long_and_every_function_fits_a_screen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in
        ["core", "adapters/amqp", "adapters/blocking", "adapters/client", "adapters/hub", "adapters/tokio"]
    {
        sources(&root.join(folder).join("src"), &mut files);
    }
    assert!(files.len() > 200, "only {} files were found", files.len());
    let mut long = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > FILE_MAX {
            long.push(format!("{}: {lines} lines", path.display()));
        }
        let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (name, length) in functions(production) {
            if length > FUNCTION_MAX {
                long.push(format!("{}: fn {name} has {length} lines", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "split them:\n{}", long.join("\n"));
}

#[test]
fn every_file_of_the_program_has_a_name_that_can_be_packaged() {
    fn names(folder: &Path, odd: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c)) {
                odd.push(path.clone());
            }
            if path.is_dir() && !["target", "node_modules"].contains(&&*name) {
                names(&path, odd);
            }
        }
    }
    let mut odd = Vec::new();
    for folder in ["core", "adapters", "tests"] {
        names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder), &mut odd);
    }
    assert!(odd.is_empty(), "rename or remove them: {odd:?}");
}

#[test]
fn the_length_of_a_function_is_found() {
    let text = "pub(crate) async fn one(\n    a: u8,\n) {\n    b();\n}\nconst fn two() {}\nimpl X {\n    fn three() {\n    }\n}\n";
    let found = functions(text);
    let found: Vec<(&str, usize)> = found.iter().map(|(name, length)| (name.as_str(), *length)).collect();
    assert_eq!(found, [("one(", 5), ("two()", 1), ("three()", 2)]);
}
