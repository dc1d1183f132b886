//! `devicebound twin`: read and change a device's twin.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use ureq::http::Method;

use super::client::{Client, identity_path};
use super::{Target, json_argument, print_json};
use crate::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum TwinCommand {
    /// Show the twin of a device, or of DEVICE/MODULE
    Get(GetArgs),
    /// Change desired properties or tags: members are merged, null removes one
    Set(SetArgs),
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The device id, or DEVICE/MODULE
    id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The device id, or DEVICE/MODULE
    id: String,
    /// What to change
    section: Section,
    /// A JSON object
    json: String,
    /// Replace the whole section
    #[arg(long)]
    replace: bool,
    /// Only if the twin still has this etag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Section {
    Desired,
    Tags,
}

pub(super) fn run(command: TwinCommand) -> Result<(), Failure> {
    match command {
        TwinCommand::Get(args) => {
            let client = Client::connect(&args.target)?;
            print_json(&client.json(Method::GET, &identity_path("twins", &args.id), None)?);
        }
        TwinCommand::Set(args) => set(&args)?,
    }
    Ok(())
}

fn set(args: &SetArgs) -> Result<(), Failure> {
    let change = json_argument("change", &args.json)?;
    let body = match args.section {
        Section::Desired => json!({"properties": {"desired": change}}),
        Section::Tags => json!({"tags": change}),
    };
    let mut headers = vec![("Content-Type", "application/json".to_owned())];
    if let Some(etag) = &args.if_match {
        let etag = if etag == "*" { etag.clone() } else { format!("\"{}\"", etag.trim_matches('"')) };
        headers.push(("If-Match", etag));
    }
    let method = if args.replace { Method::PUT } else { Method::PATCH };
    let client = Client::connect(&args.target)?;
    let twin =
        client.send(method, &identity_path("twins", &args.id), &headers, body.to_string().as_bytes())?;
    print_json(&twin);
    Ok(())
}
