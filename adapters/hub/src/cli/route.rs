//! `devicebound route`: the routes of a hub, and what those or the ones in a file do with a message.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::Client;
use super::messages::parse_property;
use super::{Target, json_argument, print_json, say};
use crate::Failure;
use crate::backend::Error;
use crate::backend::routing::{Decision, RoutedMessage, Routing, Source, Verdict};

const ROUTING: &str = "/routing";
/// Largest configuration that is read: more than 100 routes with conditions of 8192 characters.
const FILE_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// List the routes of a hub
    List(ShowArgs),
    /// Add a route to an endpoint that the hub has, or to events, the built-in one
    Add(AddArgs),
    /// Remove a route
    Remove(RemoveArgs),
    /// Print the routing of a hub: endpoints, routes, fallback, enrichments
    Show(ShowArgs),
    /// Give a hub the routing of a file
    Apply(ApplyArgs),
    /// Take all routes and endpoints away
    Clear(ShowArgs),
    /// Print how the endpoints of a hub are, and how far behind
    Health(ShowArgs),
    /// Say which routes a message takes, what each condition reads, and where the message goes
    Test(TestArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Its name: 1 to 64 letters, digits, `-`, `.` and `_`
    name: String,
    /// The name of the endpoint
    endpoint: String,
    /// Which messages; all of the source without it, for example "$body.temperature > 30"
    #[arg(long, value_name = "TEXT", default_value = "true")]
    condition: String,
    /// Where they come from
    #[arg(long, value_name = "NAME", default_value_t = Source::DeviceMessages)]
    source: Source,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The routing, as `az iot hub show --query properties.routing` prints it, with webhooks among the endpoints
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The routing in a file, as `az iot hub show --query properties.routing` prints it; without it, that of a hub that runs
    #[arg(long, value_name = "FILE")]
    routing: Option<PathBuf>,
    /// One condition in place of a file, for example "$body.temperature > 30"
    #[arg(long, value_name = "TEXT", conflicts_with = "routing")]
    condition: Option<String>,
    /// Where the message comes from
    #[arg(long, value_name = "NAME", default_value_t = Source::DeviceMessages)]
    source: Source,
    /// The body
    #[arg(long, value_name = "TEXT", default_value = "")]
    body: String,
    /// An application property; may be given again
    #[arg(short, long = "property", value_name = "NAME=VALUE", value_parser = parse_property)]
    properties: Vec<(String, String)>,
    /// A system property such as contentType=application/json; may be given again
    #[arg(long = "system", value_name = "NAME=VALUE", value_parser = parse_property)]
    system: Vec<(String, String)>,
    /// The twin of who sent it, as JSON with tags and properties
    #[arg(long, value_name = "JSON", default_value = "null")]
    twin: String,
    /// The name that $iothubname stands for
    #[arg(long, value_name = "NAME", default_value = "devicebound")]
    hub_name: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(command: RouteCommand) -> Result<(), Failure> {
    match command {
        RouteCommand::Test(args) => test(args),
        RouteCommand::List(args) => {
            let routing = Client::connect(&args.target)?.json(Method::GET, ROUTING, None)?;
            routes(&routing).iter().chain(routing.get("fallbackRoute")).all(|route| say(line(route)));
            Ok(())
        }
        RouteCommand::Add(args) => {
            let AddArgs { name, endpoint, condition, source, target } = args;
            change(&target, |routes| {
                routes.push(json!({
                    "name": name, "source": source.as_str(), "condition": condition, "endpointNames": [endpoint], "isEnabled": true,
                }));
                Ok(())
            })
        }
        RouteCommand::Remove(args) => change(&args.target, |routes| {
            let is_it = |route: &Value| text(route, "name").eq_ignore_ascii_case(&args.name);
            let place = routes.iter().position(is_it).ok_or_else(|| {
                let cause = format!("the hub has no route {}", args.name);
                Failure::new(cause, "devicebound route list shows those that there are")
            })?;
            routes.remove(place);
            Ok(())
        }),
        RouteCommand::Show(args) => {
            print_json(&Client::connect(&args.target)?.json(Method::GET, ROUTING, None)?);
            Ok(())
        }
        RouteCommand::Apply(args) => apply(&args.target, &read(&args.file)?),
        RouteCommand::Clear(args) => apply(&args.target, &json!({"routes": []})),
        RouteCommand::Health(args) => {
            print_json(&Client::connect(&args.target)?.json(Method::GET, "/routingEndpointsHealth", None)?);
            Ok(())
        }
    }
}

fn text<'r>(route: &'r Value, name: &str) -> &'r str {
    route.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn routes(routing: &Value) -> &[Value] {
    routing.get("routes").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// One route: `hot: DeviceMessages where level = 'storm', to alerts`.
fn line(route: &Value) -> String {
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let name = or(text(route, "name"), "$fallback");
    let source = or(text(route, "source"), Source::DeviceMessages.as_str());
    let condition = or(text(route, "condition"), "true");
    let endpoint = route.pointer("/endpointNames/0").and_then(Value::as_str).unwrap_or_default();
    let off = if route.get("isEnabled") == Some(&Value::Bool(true)) { "" } else { " (disabled)" };
    format!("{name}: {source} where {condition}, to {endpoint}{off}")
}

/// Changes the routes of a hub; all else of its routing stays.
fn change(
    target: &Target,
    change: impl FnOnce(&mut Vec<Value>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut routing = Client::connect(target)?.json(Method::GET, ROUTING, None)?;
    let mut changed = routes(&routing).to_vec();
    change(&mut changed)?;
    if let Some(members) = routing.as_object_mut() {
        members.insert("routes".to_owned(), changed.into());
    }
    apply(target, &routing)
}

fn apply(target: &Target, routing: &Value) -> Result<(), Failure> {
    let applied = Client::connect(target)?.json(Method::PUT, ROUTING, Some(routing))?;
    let warnings = applied.get("warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten().filter_map(Value::as_str) {
        say(format_args!("warning: {warning}"));
    }
    say(match routes(&applied).len() {
        1 => "the hub has 1 route".to_owned(),
        count => format!("the hub has {count} routes"),
    });
    Ok(())
}

fn test(args: TestArgs) -> Result<(), Failure> {
    let routing = match (&args.condition, &args.routing) {
        (Some(condition), _) => Routing::of_condition(args.source, condition).map_err(failure)?,
        (None, Some(file)) => Routing::read(&read(file)?).map_err(failure)?,
        (None, None) => {
            let routing = Client::connect(&args.target)?.json(Method::GET, ROUTING, None)?;
            Routing::read(&routing).map_err(failure)?
        }
    };
    let twin = json_argument("twin", &args.twin)?;
    let message = RoutedMessage::new(args.source, Some(&args.body), args.properties, args.system, twin);
    let decision = routing.decide(&message, &args.hub_name);
    if args.json {
        print_json(&decision.to_json(&message));
        return Ok(());
    }
    tell(&decision, &message);
    if args.condition.is_none() {
        routing.silenced().iter().for_each(|warning| {
            say(format_args!("warning: {warning}"));
        });
    }
    Ok(())
}

fn tell(decision: &Decision<'_>, message: &RoutedMessage) {
    for judged in &decision.judged {
        let (name, endpoint) = (judged.route.name(), judged.route.endpoint());
        say(match judged.verdict {
            Verdict::Matches => format!("{name}: matches, to {endpoint}"),
            other => format!("{name}: {}", other.as_str()),
        });
        judged.explained(message).iter().for_each(|line| {
            say(format_args!("  {line}"));
        });
    }
    for delivery in &decision.deliveries {
        let by =
            delivery.route.map_or_else(|| "as there are no routes".to_owned(), |name| format!("by {name}"));
        say(format_args!("delivered to {}, {by}", delivery.endpoint));
        delivery.enrichments.iter().for_each(|(name, value)| {
            say(format_args!("  with {name} = {value}"));
        });
    }
    if decision.deliveries.is_empty() {
        say("delivered nowhere: no route matches, and the fallback route does not take it");
    }
}

fn read(file: &Path) -> Result<Value, Failure> {
    let shown = file.display();
    let unreadable = |why: String| {
        Failure::new(
            format!("{shown} cannot be read: {why}"),
            "az iot hub show --name HUB --query properties.routing prints what is wanted",
        )
    };
    let length = fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
    if length > FILE_MAX {
        return Err(unreadable(format!("it has {length} bytes, more than {FILE_MAX}")));
    }
    let text = fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| unreadable(format!("it is no JSON: {error}")))
}

fn failure(error: Error) -> Failure {
    let next = error.fix().unwrap_or("correct what the message names").to_owned();
    Failure::new(error.what(), next)
}
