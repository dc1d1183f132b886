//! `devicebound consumer-group`: consumer groups of the Event Hubs-compatible endpoint.

use clap::{Args, Subcommand};
use percent_encoding::utf8_percent_encode;
use serde_json::Value;
use ureq::http::Method;

use super::client::{Client, ESCAPED};
use super::{Target, say};
use crate::Failure;

const GROUPS: &str = "/eventHubEndpoints/events/ConsumerGroups";

#[derive(Debug, Subcommand)]
pub(super) enum ConsumerGroupCommand {
    /// List the consumer groups
    List(ListArgs),
    /// Add a consumer group; one that is there stays
    Add(OneGroup),
    /// Remove a consumer group; those that read with it lose their links
    Remove(OneGroup),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct OneGroup {
    /// Its name: 1 to 50 letters, digits, `.`, `-` and `_`
    name: String,
    #[command(flatten)]
    target: Target,
}

impl OneGroup {
    fn ask(&self, method: Method) -> Result<Value, Failure> {
        let name = utf8_percent_encode(&self.name, ESCAPED);
        Client::connect(&self.target)?.json(method, &format!("{GROUPS}/{name}"), None)
    }
}

pub(super) fn run(command: ConsumerGroupCommand) -> Result<(), Failure> {
    match command {
        ConsumerGroupCommand::List(args) => {
            let list = Client::connect(&args.target)?.json(Method::GET, GROUPS, None)?;
            let groups = list.get("value").and_then(Value::as_array);
            groups.into_iter().flatten().all(|group| if args.json { say(group) } else { say(name(group)) });
        }
        ConsumerGroupCommand::Add(group) => {
            let added = group.ask(Method::PUT)?;
            say(format_args!("consumer group {}", name(&added)));
        }
        ConsumerGroupCommand::Remove(group) => {
            group.ask(Method::DELETE)?;
            say(format_args!("removed {}", group.name));
        }
    }
    Ok(())
}

fn name(group: &Value) -> &str {
    group.get("name").and_then(Value::as_str).unwrap_or_default()
}
