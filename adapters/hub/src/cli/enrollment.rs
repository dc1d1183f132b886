//! `devicebound enrollment`, `enrollment-group` and `registration`: the local Device Provisioning Service.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use devicebound::iothub::provisioning::{RegistrationId, derive_key};
use devicebound::iothub::sas::SymmetricKey;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::{Client, identity_path};
use super::{Target, json_argument, print_json, say};
use crate::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum EnrollmentCommand {
    /// Let one device in by its registration id, and print its keys; an enrollment that is there is replaced
    Add(Box<AddArgs>),
    /// List the enrollments
    List(ListArgs),
    /// Show an enrollment, with its registration
    Show(ShowArgs),
    /// Remove an enrollment; the device's registration and its device in the hub stay
    Remove(OneEntry),
}

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Let devices in that have a key derived from the group's, or a certificate that leads to the group's
    Add(Box<AddArgs>),
    /// List the groups
    List(ListArgs),
    /// Show a group
    Show(ShowArgs),
    /// Derive the key of one device from the group's primary key
    Key(KeyArgs),
    /// Remove a group; registrations of its devices stay
    Remove(OneEntry),
}

#[derive(Debug, Subcommand)]
pub(super) enum RegistrationCommand {
    /// List the registrations of a group, or of one device
    List(ListRegistrationsArgs),
    /// Show where a device was assigned to
    Show(OneEntry),
    /// Forget a registration: the next one of the device is a first one
    Remove(OneEntry),
}

#[derive(Debug, Args)]
pub(super) struct OneEntry {
    /// The registration id, or the group's id
    id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The registration id, or the group's id
    id: String,
    /// Show keys as well
    #[arg(long)]
    keys: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// A line of JSON for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct ListRegistrationsArgs {
    /// The group's id, or the registration id of an individual enrollment
    id: String,
    /// A line of JSON for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// The group's id
    id: String,
    /// The registration id of the device, as the device writes it
    registration_id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The registration id, or the group's id
    id: String,
    /// The id that the device gets in the hub; by default the registration id. For one device only
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    /// The primary key in base64; by default the service makes both keys
    #[arg(long, value_name = "BASE64", requires = "secondary_key")]
    primary_key: Option<String>,
    /// The secondary key in base64
    #[arg(long, value_name = "BASE64", requires = "primary_key")]
    secondary_key: Option<String>,
    /// The device's certificate, or for a group the one that stands behind those of its devices: a PEM file
    #[arg(long, value_name = "FILE", conflicts_with = "primary_key")]
    certificate: Option<PathBuf>,
    /// A second certificate, for the time when the first ends
    #[arg(long, value_name = "FILE", requires = "certificate")]
    secondary_certificate: Option<PathBuf>,
    /// An authority that the hub knows by name (device-ca is its own). For a group only
    #[arg(long, value_name = "NAME", conflicts_with_all = ["certificate", "primary_key"])]
    authority: Option<String>,
    /// The twin that a new device begins with: {"tags":{…},"properties":{"desired":{…}}}
    #[arg(long, value_name = "JSON")]
    initial_twin: Option<String>,
    /// How a hub is chosen
    #[arg(long, value_enum)]
    allocation: Option<Allocation>,
    /// A hub that devices may be assigned to; may be given again
    #[arg(long = "hub-name", value_name = "NAME")]
    hubs: Vec<String>,
    /// Where to ask which hub a device gets
    #[arg(long, value_name = "URL", required_if_eq("allocation", "custom"))]
    webhook: Option<String>,
    /// What happens when a device registers again
    #[arg(long, value_enum, default_value_t = Reprovisioning::Migrate)]
    reprovision: Reprovisioning,
    /// Issue certificates to devices that ask for one
    #[arg(long)]
    issue_certificates: bool,
    /// Refuse its devices
    #[arg(long)]
    disabled: bool,
    /// One line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Allocation {
    Hashed,
    GeoLatency,
    Static,
    Custom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reprovisioning {
    /// It may get another hub, and keeps its twin
    Migrate,
    /// It may get another hub, and begins with the initial twin
    Reset,
    /// It keeps its hub
    Never,
}

const ENROLLMENTS: &str = "enrollments";
const GROUPS: &str = "enrollmentGroups";
const REGISTRATIONS: &str = "registrations";

pub(super) fn run(command: EnrollmentCommand) -> Result<(), Failure> {
    match command {
        EnrollmentCommand::Add(args) => add(ENROLLMENTS, "registrationId", &args),
        EnrollmentCommand::List(args) => list(ENROLLMENTS, "registrationId", &args),
        EnrollmentCommand::Show(args) => show(ENROLLMENTS, &args),
        EnrollmentCommand::Remove(one) => remove(ENROLLMENTS, &one),
    }
}

pub(super) fn run_group(command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::Add(args) => add(GROUPS, "enrollmentGroupId", &args),
        GroupCommand::List(args) => list(GROUPS, "enrollmentGroupId", &args),
        GroupCommand::Show(args) => show(GROUPS, &args),
        GroupCommand::Key(args) => key(&args),
        GroupCommand::Remove(one) => remove(GROUPS, &one),
    }
}

pub(super) fn run_registration(command: RegistrationCommand) -> Result<(), Failure> {
    match command {
        RegistrationCommand::List(args) => {
            let path = identity_path(REGISTRATIONS, &args.id) + "/query";
            Client::connect(&args.target)?.query_at(&path, "*", |registration| {
                if args.json {
                    return say(registration);
                }
                let text = |name| field(registration, name);
                let status = text("status");
                say(format_args!(
                    "{status:10} {} {} {}",
                    text("registrationId"),
                    text("assignedHub"),
                    text("deviceId")
                ))
            })
        }
        RegistrationCommand::Show(one) => {
            let client = Client::connect(&one.target)?;
            print_json(&client.json(Method::GET, &identity_path(REGISTRATIONS, &one.id), None)?);
            Ok(())
        }
        RegistrationCommand::Remove(one) => remove(REGISTRATIONS, &one),
    }
}

fn field<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or("-")
}

fn add(collection: &str, id_member: &str, args: &AddArgs) -> Result<(), Failure> {
    let is_group = collection == GROUPS;
    let wrong = |what: &str, next: &str| Err(Failure::new(what.to_owned(), next.to_owned()));
    if is_group && args.device_id.is_some() {
        return wrong(
            "a group has no device id",
            "leave --device-id out: each device has its registration id",
        );
    }
    if !is_group && args.authority.is_some() {
        return wrong("one device is known by its own certificate", "name it: --certificate FILE");
    }
    let client = Client::connect(&args.target)?;
    let made = client.json(
        Method::PUT,
        &identity_path(collection, &args.id),
        Some(&body(id_member, is_group, args)?),
    )?;
    if args.json {
        say(&made);
        return Ok(());
    }
    say(format_args!("{} may register", args.id));
    let keys = made.pointer("/attestation/symmetricKey");
    for name in ["primaryKey", "secondaryKey"] {
        if let Some(key) = keys.and_then(|keys| keys.get(name)).and_then(Value::as_str) {
            say(format_args!("{name:12} {key}"));
        }
    }
    if is_group && keys.is_some() {
        say(format_args!("key of a device: devicebound enrollment-group key {} REGISTRATION_ID", args.id));
    }
    Ok(())
}

fn body(id_member: &str, is_group: bool, args: &AddArgs) -> Result<Value, Failure> {
    let (updates, migrates) = match args.reprovision {
        Reprovisioning::Migrate => (true, true),
        Reprovisioning::Reset => (true, false),
        Reprovisioning::Never => (false, true),
    };
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put(id_member, args.id.clone().into());
    put("attestation", attestation(is_group, args)?);
    put("provisioningStatus", if args.disabled { "disabled" } else { "enabled" }.into());
    put("reprovisionPolicy", json!({"updateHubAssignment": updates, "migrateDeviceData": migrates}));
    if let Some(device_id) = &args.device_id {
        put("deviceId", device_id.clone().into());
    }
    if let Some(twin) = &args.initial_twin {
        put("initialTwin", json_argument("initial twin", twin)?);
    }
    if let Some(allocation) = args.allocation {
        let word = match allocation {
            Allocation::Hashed => "hashed",
            Allocation::GeoLatency => "geoLatency",
            Allocation::Static => "static",
            Allocation::Custom => "custom",
        };
        put("allocationPolicy", word.into());
    }
    if !args.hubs.is_empty() {
        put("iotHubs", args.hubs.clone().into());
    }
    if let Some(url) = &args.webhook {
        put("customAllocationDefinition", json!({"webhookUrl": url, "apiVersion": "2019-03-31"}));
    }
    if args.issue_certificates {
        put("credentialPolicyName", "default".into());
    }
    Ok(Value::Object(body))
}

fn attestation(is_group: bool, args: &AddArgs) -> Result<Value, Failure> {
    if let Some(name) = &args.authority {
        return Ok(json!({"type": "x509", "x509": {"caReferences": {"primary": name}}}));
    }
    let Some(primary) = &args.certificate else {
        let keys = json!({"primaryKey": args.primary_key, "secondaryKey": args.secondary_key});
        return Ok(json!({"type": "symmetricKey", "symmetricKey": keys}));
    };
    let read = |path: &Path| {
        std::fs::read_to_string(path).map(|text| json!({"certificate": text})).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}", path.display()), "name a PEM file")
        })
    };
    let secondary = args.secondary_certificate.as_deref().map(read).transpose()?;
    let certificates = json!({"primary": read(primary)?, "secondary": secondary});
    let kind = if is_group { "signingCertificates" } else { "clientCertificates" };
    Ok(json!({"type": "x509", "x509": {kind: certificates}}))
}

fn list(collection: &str, id_member: &str, args: &ListArgs) -> Result<(), Failure> {
    let text = format!("SELECT * FROM {collection}");
    Client::connect(&args.target)?.query_at(&format!("/{collection}/query"), &text, |entry| {
        if args.json {
            return say(entry);
        }
        let kind = entry.pointer("/attestation/type").and_then(Value::as_str).unwrap_or("-");
        say(format_args!("{:8} {kind:12} {}", field(entry, "provisioningStatus"), field(entry, id_member)))
    })
}

fn show(collection: &str, args: &ShowArgs) -> Result<(), Failure> {
    let client = Client::connect(&args.target)?;
    let path = identity_path(collection, &args.id);
    let mut entry = client.json(Method::GET, &path, None)?;
    if args.keys {
        let attestation = client.json(Method::POST, &(path + "/attestationmechanism"), None)?;
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("attestation".to_owned(), attestation);
        }
    }
    print_json(&entry);
    Ok(())
}

fn key(args: &KeyArgs) -> Result<(), Failure> {
    let client = Client::connect(&args.target)?;
    let path = identity_path(GROUPS, &args.id) + "/attestationmechanism";
    let attestation = client.json(Method::POST, &path, None)?;
    let key = attestation.pointer("/symmetricKey/primaryKey").and_then(Value::as_str);
    let key = key.and_then(|key| SymmetricKey::from_base64(key).ok()).ok_or_else(|| {
        Failure::new(
            format!("{} has no keys: its devices have certificates", args.id),
            "give the device a certificate",
        )
    })?;
    let id = RegistrationId::new(&args.registration_id)
        .map_err(|error| Failure::new(error.to_string(), error.rule().fix()))?;
    say(derive_key(&key, id).to_base64());
    Ok(())
}

fn remove(collection: &str, one: &OneEntry) -> Result<(), Failure> {
    let client = Client::connect(&one.target)?;
    client.send(Method::DELETE, &identity_path(collection, &one.id), &[], &[])?;
    say(format_args!("removed {}", one.id));
    Ok(())
}
