//! What the runner of the World is asked to do, in words.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Day, Run, Storm};

/// How the runner is used.
pub const USAGE: &str = "usage: world [--seed N] [--steps N] [--devices N] [--trace]
       world --from N [--seconds N] [--seeds N] [--steps N] [--devices N]
       world --input FILE
       world --histories DEPTH
       world --day [--devices N] [--hours N]
       world --storm [--devices N] [--outage SECONDS] [--seed N]

  --seed N        run this seed
  --steps N       steps before the faults stop, 1 to 1000000; 200 where it is not given
  --devices N     devices, 1 to 1000000; drawn from 1 to 5 where it is not given, 1000 for a day, 100000 for a storm
  --trace         print all that happens, in the words of the dialect

  --from N        run this seed and those after it, without end or as far as the next two say
  --seconds N     for so long
  --seeds N       so many, and as many more as --seconds leaves time for

  --input FILE    run what the fuzzer has found: fuzz/artifacts/world/...
  --histories N   run every history of two devices and six kinds of step that is N steps long, 1 to 7
  --day           let devices work: telemetry each minute, a method each hour, keep alive, a new token each hour
  --hours N       for so many hours, 1 to 1000; 24 where it is not given
  --storm         take the hub away under its devices, and see who is back when
  --outage N      for so many seconds, 0 to 86400; 30 where it is not given";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// One run.
    One {
        /// Which.
        run: Run,
        /// Print all that happens.
        trace: bool,
    },
    /// One run after another.
    Many {
        /// The first of them.
        first: Run,
        /// For so long.
        time: Option<Duration>,
        /// So many at least.
        seeds: Option<u64>,
    },
    /// A run from the bytes of a file.
    Input(PathBuf),
    /// Every history that is so many steps long.
    Histories(u32),
    /// A fleet works.
    Day(Day),
    /// A fleet loses its hub.
    Storm(Storm),
}

/// Why it is not known what is to be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCommand(String);

fn bad<T>(why: impl Into<String>) -> Result<T, BadCommand> {
    Err(BadCommand(why.into()))
}

/// What the fuzzer has found and written to a file.
///
/// # Errors
/// Why it cannot be read.
pub fn read_input(path: &Path) -> Result<Vec<u8>, BadCommand> {
    fs::read(path).or_else(|error| bad(format!("cannot read the input {}: {error}", path.display())))
}

/// An option that takes a number, and which.
const NUMBERS: [(&str, u64, u64); 9] = [
    ("--seed", 0, u64::MAX),
    ("--from", 0, u64::MAX),
    ("--steps", 1, 1_000_000),
    ("--devices", 1, 1_000_000),
    ("--seconds", 1, 1_000_000),
    ("--seeds", 1, 1_000_000_000),
    ("--histories", 1, 7),
    ("--hours", 1, 1000),
    ("--outage", 0, 86_400),
];
/// What chooses a mode, and the options that go with it.
const MODES: [(&str, &[&str]); 5] = [
    ("--from", &["--seconds", "--seeds", "--steps", "--devices"]),
    ("--input", &[]),
    ("--histories", &[]),
    ("--day", &["--devices", "--hours"]),
    ("--storm", &["--devices", "--outage", "--seed"]),
];
/// What goes with no mode.
const ONE: [&str; 4] = ["--seed", "--steps", "--devices", "--trace"];

/// Options in the order in which they came, each with what follows it.
#[derive(Debug, Default)]
struct Options(Vec<(&'static str, u64, String)>);

impl Options {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, ..)| *given == name)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(given, ..)| *given == name).map(|(_, number, _)| *number)
    }

    fn small<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        self.number(name).and_then(|number| T::try_from(number).ok())
    }

    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, BadCommand> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            if options.has(&word) {
                return bad(format!("{word} is given twice"));
            }
            let option = if let Some((name, least, most)) = NUMBERS.iter().find(|(name, ..)| *name == word) {
                let Some(value) = words.next() else { return bad(format!("{word} needs a number")) };
                match value.parse().ok().filter(|value| (least..=most).contains(&value)) {
                    Some(number) => (*name, number, value),
                    None => {
                        return bad(format!("{word} takes a number from {least} to {most}, not {value:?}"));
                    }
                }
            } else {
                match word.as_str() {
                    "--trace" => ("--trace", 1, String::new()),
                    "--day" => ("--day", 1, String::new()),
                    "--storm" => ("--storm", 1, String::new()),
                    "--input" => match words.next() {
                        Some(path) => ("--input", 1, path),
                        None => return bad("--input needs a file"),
                    },
                    _ => return bad(format!("there is no option {word}")),
                }
            };
            options.0.push(option);
        }
        Ok(options)
    }
}

impl Command {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// What is wrong with them, for a person.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, BadCommand> {
        let options = Options::read(words)?;
        let mut modes = MODES.iter().filter(|(mode, _)| options.has(mode));
        let mode = modes.next();
        if let (Some((first, _)), Some((second, _))) = (mode, modes.next()) {
            return bad(format!("{first} and {second} do not go together"));
        }
        let (name, allowed) =
            mode.map_or(("a single run", ONE.as_slice()), |(name, allowed)| (*name, *allowed));
        let stray = options.0.iter().find(|(given, ..)| *given != name && !allowed.contains(given));
        if let Some((stray, ..)) = stray {
            return bad(format!("{stray} does not go with {name}"));
        }
        let run = Run {
            seed: options.number("--from").or(options.number("--seed")).unwrap_or(1),
            steps: options.small("--steps").unwrap_or(200),
            devices: options.small("--devices"),
            ..Run::default()
        };
        let devices = |usual| options.small("--devices").unwrap_or(usual);
        Ok(match name {
            "--from" => Self::Many {
                first: run,
                time: options.number("--seconds").map(Duration::from_secs),
                seeds: options.number("--seeds"),
            },
            "--input" => Self::Input(options.0.into_iter().map(|(.., path)| path).collect()),
            "--histories" => Self::Histories(options.small("--histories").unwrap_or(1)),
            "--day" => {
                Self::Day(Day { devices: devices(1000), hours: options.small("--hours").unwrap_or(24) })
            }
            "--storm" => Self::Storm(Storm {
                devices: devices(100_000),
                outage: Duration::from_secs(options.number("--outage").unwrap_or(30)),
                seed: options.number("--seed").unwrap_or(1),
            }),
            _ => Self::One { run, trace: options.has("--trace") },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Command, String> {
        Command::parse(words.split_whitespace().map(str::to_owned)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_line_of_the_usage_is_understood() {
        let lines = [
            "--seed 7 --steps 20 --devices 3 --trace",
            "--from 1 --seconds 9 --seeds 2000 --steps 9 --devices 1",
            "--input fuzz/artifacts/world/crash",
            "--histories 4",
            "--day --devices 10 --hours 2",
            "--storm --devices 10 --outage 0 --seed 3",
            "",
        ];
        for line in lines {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        assert_eq!(parse("--day"), Ok(Command::Day(Day { devices: 1000, hours: 24 })));
        assert_eq!(parse("--input a/b"), Ok(Command::Input("a/b".into())));
    }

    #[test]
    fn an_input_that_is_not_there_is_named() {
        let why = read_input(Path::new("no/such/input")).map_err(|error| error.to_string());
        assert!(why.is_err_and(|why| why.starts_with("cannot read the input no/such/input: ")));
    }

    #[test]
    fn what_is_wrong_with_the_words_is_said() {
        let cases = [
            ("--sed 7", "there is no option --sed"),
            ("seven", "there is no option seven"),
            ("--seed", "--seed needs a number"),
            ("--seed x", "--seed takes a number from 0 to 18446744073709551615, not \"x\""),
            ("--devices 0", "--devices takes a number from 1 to 1000000, not \"0\""),
            ("--steps 1000001", "--steps takes a number from 1 to 1000000, not \"1000001\""),
            ("--histories 8", "--histories takes a number from 1 to 7, not \"8\""),
            ("--seed 1 --seed 2", "--seed is given twice"),
            ("--seed 1 --from 2", "--seed does not go with --from"),
            ("--from 1 --trace", "--trace does not go with --from"),
            ("--seconds 3", "--seconds does not go with a single run"),
            ("--day --storm", "--day and --storm do not go together"),
            ("--input", "--input needs a file"),
        ];
        for (words, why) in cases {
            assert_eq!(parse(words), Err(why.to_owned()));
        }
    }
}
