//! The command line: the hub itself, and the jobs of a device explorer against a running hub.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::Failure;
use crate::cli::snippets::shell_quoted;
use crate::observe::printable::{printable_json, printable_lines};
use crate::state::StateDir;

mod ca;
mod cert;
mod client;
mod config_file;
mod consumer_group;
mod demo;
mod device;
mod enrollment;
mod event_snippets;
mod explain;
mod fault;
pub(crate) mod hub;
mod log;
mod messages;
mod operations;
mod page;
mod quota;
mod route;
mod sas;
mod shell;
pub mod snippets;
mod telemetry;
mod twin;
mod watch;

/// An Azure IoT Hub on your own machine: MQTT 3.1.1 over TLS and WebSocket, with a live view that says why.
#[derive(Debug, Parser)]
#[command(name = "devicebound", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a hub: ready in under a second, with lines to paste and a live view
    Hub(hub::HubArgs),
    /// Watch a hub and two devices in one process go through everything that the dialect has
    Demo,
    /// Register devices and look them up
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Let devices provision themselves, one by one
    #[command(subcommand)]
    Enrollment(enrollment::EnrollmentCommand),
    /// Let devices provision themselves, by a key or an authority that they share
    #[command(subcommand)]
    EnrollmentGroup(enrollment::GroupCommand),
    /// See which devices have provisioned themselves
    #[command(subcommand)]
    Registration(enrollment::RegistrationCommand),
    /// Read and change a device's twin
    #[command(subcommand)]
    Twin(twin::TwinCommand),
    /// Send a message to a device
    #[command(subcommand)]
    C2d(messages::CloudToDeviceCommand),
    /// Call a method of a device
    #[command(subcommand)]
    Method(messages::MethodCommand),
    /// Watch what devices send
    #[command(subcommand)]
    Telemetry(telemetry::TelemetryCommand),
    /// Add, list and remove consumer groups, with which Event Hubs clients read
    #[command(subcommand)]
    ConsumerGroup(consumer_group::ConsumerGroupCommand),
    /// Show and change the routes of a hub, and test them with a message
    #[command(subcommand)]
    Route(route::RouteCommand),
    /// Watch what begins, fails and ends at the hub, and why
    #[command(subcommand)]
    Operations(operations::OperationsCommand),
    /// Make a SAS token for a device, or for the service API
    Sas(sas::SasArgs),
    /// Print a link to the page of a hub that runs
    Page(page::PageArgs),
    /// Tell SDKs and tools of the hub's CA certificate
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Make certificates for devices
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Let something go wrong for a device, to see how it bears that
    Fault(fault::FaultArgs),
    /// Say what a rule means and how to fix a breach, or what a capture means and where it breaks a rule
    Explain(explain::ExplainArgs),
    /// Check a configuration file of the hub, and show what is in force
    #[command(subcommand)]
    Config(config_file::ConfigCommand),
    /// Print completions for a shell
    Completions(shell::CompletionsArgs),
    /// Write manual pages
    Man(shell::ManArgs),
}

/// Which hub a sub-command talks to: by default the one that runs on the default state folder.
#[derive(Clone, Debug, Args)]
struct Target {
    /// The state folder of a hub that runs on this machine
    #[arg(long, value_name = "DIR", env = "DEVICEBOUND_STATE")]
    state: Option<PathBuf>,
    /// The service connection string that the hub printed, for a hub elsewhere
    #[arg(long, value_name = "TEXT")]
    connection_string: Option<String>,
    /// Where that hub is, if not at its host name and port 443
    #[arg(long, value_name = "HOST[:PORT]", requires = "connection_string")]
    hub: Option<String>,
    /// The certificate of its authority (ca.pem)
    #[arg(long, value_name = "FILE", requires = "connection_string")]
    ca: Option<PathBuf>,
}

impl Target {
    fn state_path(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(StateDir::default_path)
    }
}

/// Runs the program with the arguments of this process.
///
/// Exits with 0 when the command did what it says, 1 when it could not, and 2 when it was not understood.
#[must_use]
pub fn main() -> ExitCode {
    match parse().and_then(|cli| run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", printable_lines(&failure.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// The program as the command line, the environment and a file may set it.
fn program() -> clap::Command {
    config_file::with_environment(Cli::command())
}

/// Exits where the arguments are not understood.
fn parse() -> Result<Cli, Failure> {
    let arguments = config_file::complete(&program(), std::env::args_os().collect())?;
    let matches = program().get_matches_from(arguments);
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Command::Hub(args) = &mut cli.command {
        args.settings = config_file::in_force(&program(), &matches)?;
    }
    Ok(cli)
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Hub(args) => hub::run(args),
        Command::Demo => demo::run(),
        Command::Device(command) => device::run(command),
        Command::Enrollment(command) => enrollment::run(command),
        Command::EnrollmentGroup(command) => enrollment::run_group(command),
        Command::Registration(command) => enrollment::run_registration(command),
        Command::Twin(command) => twin::run(command),
        Command::C2d(command) => messages::run_cloud_to_device(command),
        Command::Method(command) => messages::run_method(command),
        Command::Telemetry(command) => telemetry::run(command),
        Command::ConsumerGroup(command) => consumer_group::run(command),
        Command::Route(command) => route::run(command),
        Command::Operations(command) => operations::run(command),
        Command::Sas(args) => sas::run(&args),
        Command::Page(args) => page::run(&args),
        Command::Ca(command) => ca::run(&command),
        Command::Cert(command) => cert::run(command),
        Command::Fault(args) => fault::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Config(command) => config_file::run(&program(), &command),
        Command::Completions(args) => {
            shell::completions(&args, Cli::command());
            Ok(())
        }
        Command::Man(args) => shell::man(&args, Cli::command()),
    }
}

/// What a line to paste needs behind a command, so that it finds this state folder; nothing where it is the usual one.
fn state_flag(state: &Path) -> String {
    if state == StateDir::default_path() {
        return String::new();
    }
    format!(" --state {}", shell_quoted(&state.display().to_string()))
}

/// The JSON of an argument.
fn json_argument(what: &str, text: &str) -> Result<serde_json::Value, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::new(
            format!("the {what} is not JSON: {error}"),
            r#"write JSON in single quotes, for example '{"interval":5}'; text needs its own quotes: '"text"'"#,
        )
    })
}

/// A duration such as `90s`, `15m`, `1h` or `7d`; a bare number means seconds.
fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "a number and s, m, h or d, for example 1h".to_owned())?;
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        unit => return Err(format!("`{unit}` is none of s, m, h, d")),
    };
    number.checked_mul(unit).map(std::time::Duration::from_secs).ok_or_else(|| "too long".to_owned())
}

/// Prints text for people, what a terminal would obey escaped; false when nobody reads any more (`| head`).
fn say(text: impl Display) -> bool {
    print_raw(&printable_lines(&text.to_string()))
}

/// Prints JSON text; what a terminal would obey is escaped, and it means the same. False when nobody reads any more.
fn say_json(json: &str) -> bool {
    print_raw(&printable_json(json))
}

fn print_raw(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Prints a value for people: indented JSON.
fn print_json(value: &serde_json::Value) {
    say_json(&format!("{value:#}"));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_line_to_paste_names_the_state_folder_unless_it_is_the_usual_one() {
        assert_eq!(state_flag(&StateDir::default_path()), "");
        assert_eq!(state_flag(Path::new("/a b")), " --state '/a b'");
    }

    #[test]
    fn durations_have_units() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "h", "1w", "-1s", "1.5h", "99999999999999999999s", "18446744073709551615d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
