//! `devicebound hub --config FILE`: each flag is a key of a TOML file, and a variable of the environment.
//!
//! ```text
//!  command line, else DEVICEBOUND_… of the environment, else the file, else the default
//! ```
//!
//! What the file adds is put on the command line before it is read, so that a value is judged by the rules of its flag,
//! wherever it stands. Types: a flag without a value is `true` or `false`; what may be given again is a list.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Subcommand};
use serde_json::Value;
use toml::Table;

use super::say;
use crate::Failure;
use crate::backend::settings::{Setting, Source};

/// The command that has a file.
const HUB: &str = "hub";
/// Flags that no file has.
const OWN: [&str; 3] = ["config", "help", "version"];

/// What is asked of a configuration file.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether a hub would start with this file, as far as that can be told without starting it
    Check {
        /// The TOML file
        file: PathBuf,
    },
    /// Print all settings that would be in force with this file, and where each comes from
    Show {
        /// The TOML file
        file: Option<PathBuf>,
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
}

/// The same program, whose hub can be set by variables, too.
pub(super) fn with_environment(program: Command) -> Command {
    program.mut_subcommand(HUB, |hub| {
        hub.mut_args(|arg| match variable(&arg) {
            Some(name) if arg.get_env().is_none() => arg.env(name).hide_env(true),
            _ => arg,
        })
    })
}

fn variable(arg: &Arg) -> Option<String> {
    let flag = arg.get_long().filter(|flag| !["help", "version"].contains(flag))?;
    Some(format!("DEVICEBOUND_{}", flag.to_ascii_uppercase().replace('-', "_")))
}

/// The arguments with what the file adds that they name, if they name one.
///
/// # Errors
/// When the file cannot be read, is no TOML, or has a key that is no flag.
pub(super) fn complete(program: &Command, mut arguments: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    // What is wrong otherwise is said when all is there.
    let Ok(matches) = program.clone().ignore_errors(true).try_get_matches_from(&arguments) else {
        return Ok(arguments);
    };
    let Some((HUB, hub)) = matches.subcommand() else { return Ok(arguments) };
    if let Some(file) = hub.get_one::<PathBuf>("config") {
        let table = read(file)?;
        arguments.extend(additions(program, hub, &table, file)?);
    }
    Ok(arguments)
}

fn read(file: &Path) -> Result<Table, Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!("cannot read {name}: {error}"), "name a TOML file: --config FILE")
    })?;
    text.parse().map_err(|error: toml::de::Error| {
        let cause = format!("{name} is no TOML: {}", error.to_string().trim_end());
        Failure::new(cause, "a line is a flag without its dashes: tier = \"S1\"")
    })
}

/// What a file adds to a command line.
fn additions(
    program: &Command,
    hub: &ArgMatches,
    table: &Table,
    file: &Path,
) -> Result<Vec<OsString>, Failure> {
    let mut added = Vec::new();
    for (key, value) in table {
        let arg = flag(program, key).ok_or_else(|| unknown(program, key, file))?;
        let is_given = matches!(
            hub.value_source(arg.get_id().as_str()),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        );
        if !is_given {
            added.extend(as_arguments(arg, key, value, file)?);
        }
    }
    Ok(added)
}

/// The flag of the hub that a key names.
fn flag<'p>(program: &'p Command, key: &str) -> Option<&'p Arg> {
    let hub = program.find_subcommand(HUB)?;
    hub.get_arguments().find(|arg| arg.get_long() == Some(key) && !OWN.contains(&key))
}

fn unknown(program: &Command, key: &str, file: &Path) -> Failure {
    let hub = program.find_subcommand(HUB).into_iter();
    let keys = hub.flat_map(Command::get_arguments).filter_map(Arg::get_long);
    let keys: Vec<&str> = keys.filter(|key| !OWN.contains(key)).collect();
    Failure::new(
        format!("{} has a key that is no flag of the hub: {key}", file.display()),
        format!("keys are the flags without their dashes: {}", keys.join(", ")),
    )
}

fn as_arguments(arg: &Arg, key: &str, value: &toml::Value, file: &Path) -> Result<Vec<OsString>, Failure> {
    let wrong = |wanted: &str| {
        let cause = format!("{}: {key} is {wanted}, and not {value}", file.display());
        Failure::new(cause, "see devicebound hub --help")
    };
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        let is_set = value.as_bool().ok_or_else(|| wrong("true or false"))?;
        return Ok(is_set.then(|| format!("--{key}").into()).into_iter().collect());
    }
    let one = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(format!("--{key}={text}").into()),
        toml::Value::Integer(number) => Some(format!("--{key}={number}").into()),
        _ => None,
    };
    match (value, arg.get_action()) {
        (toml::Value::Array(values), ArgAction::Append) => {
            values.iter().map(|value| one(value).ok_or_else(|| wrong("a list of texts"))).collect()
        }
        (value, _) => Ok(vec![one(value).ok_or_else(|| wrong("a text or a whole number"))?]),
    }
}

/// Runs a command about a file.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn run(program: &Command, command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => {
            settings(program, Some(file))?;
            say(format_args!("{}: a hub can be started with it", file.display()));
        }
        ConfigCommand::Show { file, json } => {
            let settings = settings(program, file.as_deref())?;
            if *json {
                say(Value::from_iter(settings.iter().map(Setting::to_json)));
            } else {
                say(settings.iter().map(line).collect::<Vec<_>>().join("\n"));
            }
        }
    }
    Ok(())
}

/// All settings of a hub that is started with this file and with nothing on its command line.
pub(super) fn settings(program: &Command, file: Option<&Path>) -> Result<Vec<Setting>, Failure> {
    let mut arguments: Vec<OsString> = vec!["devicebound".into(), HUB.into()];
    if let Some(file) = file {
        arguments.extend(["--config".into(), file.into()]);
    }
    let arguments = complete(program, arguments)?;
    let matches = program.clone().try_get_matches_from(arguments).map_err(|error| {
        let text = error.to_string();
        let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Failure::new(cause, "correct the file, or the variable of that name; see devicebound hub --help")
    })?;
    in_force(program, &matches)
}

/// All settings of a hub that is started with what was understood.
///
/// # Errors
/// When the file that is named cannot be read any more.
pub(super) fn in_force(program: &Command, matches: &ArgMatches) -> Result<Vec<Setting>, Failure> {
    let Some((HUB, hub)) = matches.subcommand() else { return Ok(Vec::new()) };
    let from_file = hub.get_one::<PathBuf>("config").map(|file| read(file)).transpose()?.unwrap_or_default();
    let flags = program.find_subcommand(HUB).into_iter().flat_map(Command::get_arguments);
    Ok(flags.filter_map(|arg| setting(arg, hub, &from_file)).collect())
}

/// The keys whose values are others than before.
pub(super) fn changed(before: &[Setting], now: &[Setting]) -> Vec<String> {
    let is_other = |(before, now): &(&Setting, &Setting)| before.values != now.values;
    before.iter().zip(now).filter(is_other).map(|(_, now)| now.key.clone()).collect()
}

fn setting(arg: &Arg, hub: &ArgMatches, file: &Table) -> Option<Setting> {
    let key = arg.get_long().filter(|key| !OWN.contains(key))?;
    let id = arg.get_id().as_str();
    let source = match hub.value_source(id) {
        Some(ValueSource::CommandLine) if file.contains_key(key) => Source::File,
        Some(ValueSource::CommandLine) => Source::Flag,
        Some(ValueSource::EnvVariable) => Source::Environment,
        _ => Source::Default,
    };
    let values = hub.get_raw(id).into_iter().flatten();
    let values = values.map(|value| value.to_string_lossy().into_owned()).collect();
    Some(Setting { key: key.to_owned(), values, source })
}

/// As it would stand in a file.
fn line(setting: &Setting) -> String {
    let Setting { key, values, source } = setting;
    let quoted = |text: &String| match text.as_str() {
        "true" | "false" => text.clone(),
        number if number.parse::<u64>().is_ok() => text.clone(),
        text => toml::Value::from(text).to_string(),
    };
    match (values.as_slice(), source) {
        ([], _) => format!("# {key} is not set"),
        ([value], source) => format!("{key} = {}  # {}", quoted(value), source.name()),
        (values, source) => {
            let values: Vec<String> = values.iter().map(quoted).collect();
            format!("{key} = [{}]  # {}", values.join(", "), source.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn program() -> Command {
        super::super::Cli::command()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn completed(text: &str, flags: &[&str]) -> Result<Vec<String>, String> {
        let file = file(text);
        let mut arguments: Vec<OsString> = vec!["devicebound".into(), "hub".into(), "--config".into()];
        arguments.push(file.path().into());
        arguments.extend(flags.iter().map(OsString::from));
        let completed = complete(&program(), arguments).map_err(|failure| failure.to_string())?;
        Ok(completed.into_iter().skip(4 + flags.len()).map(|text| text.into_string().unwrap()).collect())
    }

    #[test]
    fn a_key_of_the_file_is_a_flag_and_the_command_line_wins() {
        let text = "tier = \"S1\"\nunits = 2\nstrict = true\nazure-timing = false\nname = [\"a\", \"b\"]\n";
        let all = ["--tier=S1", "--units=2", "--strict", "--name=a", "--name=b"];
        let mut completed_all = completed(text, &[]).unwrap();
        completed_all.sort_unstable();
        let mut expected = all.to_vec();
        expected.sort_unstable();
        assert_eq!(completed_all, expected);
        assert_eq!(completed("units = 2\n", &["--units", "3"]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_flag_no_toml_or_of_another_type_is_named_with_the_way_out() {
        for (text, said) in [
            ("tear = 1", "no flag of the hub: tear"),
            ("config = \"other.toml\"", "no flag of the hub: config"),
            ("tier S1", "is no TOML"),
            ("strict = \"yes\"", "strict is true or false, and not \"yes\""),
            ("units = 1.5", "units is a text or a whole number"),
            ("name = [1.5]", "name is a list of texts"),
        ] {
            let failure = completed(text, &[]).unwrap_err();
            assert!(failure.contains(said), "{text}: {failure}");
        }
    }

    #[test]
    fn all_settings_are_shown_with_where_they_come_from() {
        let file = file("units = 2\ntier = \"S1\"\n");
        let shown = settings(&program(), Some(file.path())).unwrap();
        let line = |key: &str| line(shown.iter().find(|setting| setting.key == key).unwrap());
        assert_eq!(line("units"), "units = 2  # file");
        assert_eq!(line("tier"), "tier = \"S1\"  # file");
        assert_eq!(line("retain-hours"), "retain-hours = 24  # default");
        assert_eq!(line("isolated"), "isolated = false  # default");
        assert_eq!(line("emulator-port"), "# emulator-port is not set");
    }

    #[test]
    fn what_has_changed_in_a_file_is_named() {
        let settings = |text: &str| settings(&program(), Some(file(text).path())).unwrap();
        let before = settings("units = 2\ntier = \"S1\"\n");
        assert_eq!(changed(&before, &settings("tier = \"S1\"\nunits = 2\n")), [""; 0]);
        assert_eq!(changed(&before, &settings("tier = \"S1\"\nstrict = true\n")), ["strict", "units"]);
    }

    #[test]
    fn a_value_of_the_file_is_judged_by_the_rule_of_its_flag() {
        let wrong = file("max-delivery-count = 1000\n");
        let failure = settings(&program(), Some(wrong.path())).unwrap_err().to_string();
        assert!(failure.contains("--max-delivery-count") && failure.contains("1000"), "{failure}");
    }

    #[test]
    fn every_flag_has_a_variable_of_its_own() {
        let program = with_environment(program());
        let hub = program.find_subcommand(HUB).unwrap();
        let variable = |flag: &str| {
            let arg = hub.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
            arg.get_env().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(variable("retain-hours"), "DEVICEBOUND_RETAIN_HOURS");
        assert_eq!(variable("state"), "DEVICEBOUND_STATE");
        assert_eq!(variable("config"), "DEVICEBOUND_CONFIG");
    }
}
