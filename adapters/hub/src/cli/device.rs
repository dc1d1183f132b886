//! `devicebound device`: the identity registry.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Client, identity_path};
use super::{Target, print_json, say, say_json};
use crate::Failure;
use crate::state::policies::new_key;

#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    /// Register a device, or a module as DEVICE/MODULE, and print its connection string
    Add(AddArgs),
    /// List the devices
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Find twins by the SQL of IoT Hub, and print each as a line of JSON
    Query(QueryArgs),
    /// Show a device as the registry has it
    Show(OneDevice),
    /// Print a device's keys, or make new ones first
    Keys(KeysArgs),
    /// Let a device connect again
    Enable(OneDevice),
    /// Cut a device and refuse it until it is enabled
    Disable(OneDevice),
    /// Remove a device with its twin and its messages
    Remove(OneDevice),
}

#[derive(Debug, Args)]
pub(super) struct OneDevice {
    /// The device id, or DEVICE/MODULE
    id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The device id, or DEVICE/MODULE
    id: String,
    /// The primary key in base64; by default the hub makes both keys
    #[arg(long, value_name = "BASE64", requires = "secondary_key")]
    primary_key: Option<String>,
    /// The secondary key in base64
    #[arg(long, value_name = "BASE64", requires = "primary_key")]
    secondary_key: Option<String>,
    /// Know the device by its client certificate: SHA-1 or SHA-256 thumbprint in hex
    #[arg(long, value_name = "HEX", conflicts_with = "primary_key")]
    thumbprint: Option<String>,
    /// A second thumbprint, for the next certificate
    #[arg(long, value_name = "HEX", requires = "thumbprint")]
    secondary_thumbprint: Option<String>,
    /// Know the device by a client certificate of an authority that the hub trusts, whose common name is the id
    #[arg(long, conflicts_with_all = ["primary_key", "thumbprint"])]
    certificate_authority: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct QueryArgs {
    /// For example: SELECT * FROM devices WHERE tags.site = 'north'
    query: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    /// The device id, or DEVICE/MODULE
    id: String,
    /// Make a new key; connections that use the old one end
    #[arg(long, value_enum)]
    renew: Option<Renewal>,
    #[command(flatten)]
    target: Target,
}

/// Which keys are made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Renewal {
    Primary,
    Secondary,
    Both,
}

pub(super) fn run(command: DeviceCommand) -> Result<(), Failure> {
    match command {
        DeviceCommand::Add(args) => add(&args),
        DeviceCommand::List { target } => list(&target),
        DeviceCommand::Query(args) => {
            Client::connect(&args.target)?.query(&args.query, |row| say_json(&row.to_string()))
        }
        DeviceCommand::Keys(args) => keys(&args),
        DeviceCommand::Show(one) => {
            let client = Client::connect(&one.target)?;
            print_json(&client.json(Method::GET, &identity_path("devices", &one.id), None)?);
            Ok(())
        }
        DeviceCommand::Enable(one) => set_status(&one, "enabled"),
        DeviceCommand::Disable(one) => set_status(&one, "disabled"),
        DeviceCommand::Remove(one) => {
            let client = Client::connect(&one.target)?;
            let headers = [("If-Match", "*".to_owned())];
            client.send(Method::DELETE, &identity_path("devices", &one.id), &headers, &[])?;
            say(format_args!("removed {}", one.id));
            Ok(())
        }
    }
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let client = Client::connect(&args.target)?;
    let authentication = match (&args.thumbprint, &args.primary_key) {
        (Some(thumbprint), _) => json!({
            "type": "selfSigned",
            "x509Thumbprint": {"primaryThumbprint": thumbprint, "secondaryThumbprint": args.secondary_thumbprint},
        }),
        (None, Some(primary)) => json!({
            "type": "sas",
            "symmetricKey": {"primaryKey": primary, "secondaryKey": args.secondary_key},
        }),
        (None, None) if args.certificate_authority => json!({"type": "certificateAuthority"}),
        (None, None) => json!({"type": "sas"}),
    };
    let (device, module) = match args.id.split_once('/') {
        Some((device, module)) => (device, Some(module)),
        None => (args.id.as_str(), None),
    };
    let mut body = json!({"deviceId": device, "authentication": authentication});
    if let (Some(module), Some(body)) = (module, body.as_object_mut()) {
        body.insert("moduleId".to_owned(), module.into());
    } else if let Some(body) = body.as_object_mut() {
        body.insert("status".to_owned(), "enabled".into());
    }
    let made = client.json(Method::PUT, &identity_path("devices", &args.id), Some(&body))?;
    say(connection_string(&client, &args.id, &made));
    Ok(())
}

fn connection_string(client: &Client, id: &str, identity: &Value) -> String {
    let (device, module) = id
        .split_once('/')
        .map_or((id, String::new()), |(device, module)| (device, format!("ModuleId={module};")));
    let credential = match identity.pointer("/authentication/symmetricKey/primaryKey").and_then(Value::as_str)
    {
        Some(key) => format!("SharedAccessKey={key}"),
        None => "x509=true".to_owned(),
    };
    format!("HostName={};DeviceId={device};{module}{credential}", client.host_name())
}

fn list(target: &Target) -> Result<(), Failure> {
    let query = "SELECT deviceId, status, connectionState FROM devices";
    let text = |device: &Value, field| device.get(field).and_then(Value::as_str).unwrap_or("?").to_owned();
    Client::connect(target)?.query(query, |device| {
        let (connection, status) = (text(device, "connectionState"), text(device, "status"));
        say(format_args!("{connection:12} {status:8} {}", text(device, "deviceId")))
    })
}

fn keys(args: &KeysArgs) -> Result<(), Failure> {
    let client = Client::connect(&args.target)?;
    let path = identity_path("devices", &args.id);
    let mut identity = client.json(Method::GET, &path, None)?;
    let named = |identity: &Value, name: &str| {
        identity
            .pointer(&format!("/authentication/symmetricKey/{name}"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    if named(&identity, "primaryKey").is_none() {
        return Err(Failure::new(
            format!("{} has no keys: it is known by its certificate", args.id),
            format!("see what the registry has: devicebound device show {}", args.id),
        ));
    }
    if let Some(renewal) = args.renew {
        for (name, other) in [("primaryKey", Renewal::Secondary), ("secondaryKey", Renewal::Primary)] {
            if renewal != other
                && let Some(key) = identity.pointer_mut(&format!("/authentication/symmetricKey/{name}"))
            {
                *key = new_key()?.to_base64().into();
            }
        }
        identity = client.change(&path, &identity)?;
    }
    for name in ["primaryKey", "secondaryKey"] {
        say(format_args!("{name:12} {}", named(&identity, name).unwrap_or_default()));
    }
    say(connection_string(&client, &args.id, &identity));
    Ok(())
}

fn set_status(one: &OneDevice, status: &str) -> Result<(), Failure> {
    let client = Client::connect(&one.target)?;
    let path = identity_path("devices", &one.id);
    let mut identity = client.json(Method::GET, &path, None)?;
    if let Some(identity) = identity.as_object_mut() {
        identity.insert("status".to_owned(), status.into());
    }
    client.change(&path, &identity)?;
    say(format_args!("{} is {status}", one.id));
    Ok(())
}
