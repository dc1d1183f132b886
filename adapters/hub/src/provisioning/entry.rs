//! Enrollments and enrollment groups: one record each, as it was written and with what the service has added.

use devicebound::iothub::Identity;
use devicebound::iothub::provisioning::RegistrationId;
use devicebound::time::UnixTime;
use serde_json::{Map, Value, json};

use super::attestation::Attestation;
use super::error::Refusal;
use super::identifiers::{guid, moment};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An enrollment of one device.
    Individual,
    /// An enrollment group.
    Group,
}

impl Kind {
    /// The member that names an entry.
    pub(super) const fn id_member(self) -> &'static str {
        match self {
            Self::Individual => "registrationId",
            Self::Group => "enrollmentGroupId",
        }
    }

    /// The kind on a header.
    pub(super) const fn item_type(self) -> &'static str {
        match self {
            Self::Individual => "enrollment",
            Self::Group => "enrollmentGroup",
        }
    }

    /// The list in a bulk request, and the collection of a query.
    pub(super) const fn collection(self) -> &'static str {
        match self {
            Self::Individual => "enrollments",
            Self::Group => "enrollmentGroups",
        }
    }

    /// Members that an entry may have and that are kept as they are.
    fn members(self) -> impl Iterator<Item = &'static str> {
        let of_all = [
            "capabilities",
            "iotHubHostName",
            "initialTwin",
            "allocationPolicy",
            "iotHubs",
            "customAllocationDefinition",
            "credentialPolicyName",
        ];
        let own: &[&str] = match self {
            Self::Individual => &["deviceId", "optionalDeviceInformation"],
            Self::Group => &[],
        };
        of_all.into_iter().chain(own.iter().copied())
    }
}

/// What happens when a device registers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reprovisioning {
    /// It is allocated anew.
    pub(super) updates_hub: bool,
    /// It keeps its twin; else it begins with the initial one.
    pub(super) migrates: bool,
}

/// How a hub is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Allocation {
    /// By the id, over these hubs.
    Hashed(Vec<String>),
    /// The first of these.
    Static(Vec<String>),
    /// A webhook says, among these.
    Custom { url: String, hubs: Vec<String> },
}

/// One enrollment or group.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// As it was written first.
    pub(super) id: String,
    /// As the service shows it, keys included.
    pub(super) json: Map<String, Value>,
    pub(super) attestation: Attestation,
    pub(super) enabled: bool,
    pub(super) device_id: Option<String>,
    pub(super) reprovisioning: Reprovisioning,
    pub(super) allocation: Allocation,
    /// Desired properties and tags that a new device begins with.
    pub(super) initial_twin: (Map<String, Value>, Map<String, Value>),
    /// A certificate is issued where one is asked for.
    pub(super) issues_certificates: bool,
}

fn wrong(what: &str) -> Refusal {
    Refusal::bad_request(what)
}

fn text<'v>(body: &'v Map<String, Value>, name: &str) -> Result<Option<&'v str>, Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!("{name} is text"))),
    }
}

fn object<'v>(value: Option<&'v Value>, name: &str) -> Result<Option<&'v Map<String, Value>>, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(members)) => Ok(Some(members)),
        Some(_) => Err(wrong(&format!("{name} is a JSON object"))),
    }
}

impl Entry {
    /// Reads the body of a PUT, or one of a bulk request, for the entry `id`; `before` is the one that is there.
    pub(super) fn read(
        kind: Kind,
        id: &str,
        body: &Value,
        before: Option<&Self>,
        now: UnixTime,
    ) -> Result<Self, Refusal> {
        let body = body.as_object().ok_or_else(|| wrong("the body is a JSON object"))?;
        RegistrationId::new(id).map_err(|error| wrong(&format!("{}: {error}", kind.id_member())))?;
        if text(body, kind.id_member())?.is_some_and(|named| !named.eq_ignore_ascii_case(id)) {
            return Err(wrong(&format!("{} in the body is not the one in the path", kind.id_member())));
        }
        let (_, attestation) =
            Attestation::read(body.get("attestation"), before.map(|entry| &entry.attestation))?;
        let mut json = Map::new();
        json.insert(kind.id_member().to_owned(), before.map_or(id, |entry| &entry.id).into());
        json.insert("attestation".to_owned(), attestation);
        for name in kind.members() {
            if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
                json.insert(name.to_owned(), value.clone());
            }
        }
        let status = text(body, "provisioningStatus")?.unwrap_or("enabled").to_ascii_lowercase();
        json.insert("provisioningStatus".to_owned(), status.into());
        let policy = object(body.get("reprovisionPolicy"), "reprovisionPolicy")?;
        let flag = |name: &str| match policy.and_then(|policy| policy.get(name)) {
            None | Some(Value::Null) => Ok(true),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(wrong(&format!("reprovisionPolicy.{name} is true or false"))),
        };
        let policy = json!({"updateHubAssignment": flag("updateHubAssignment")?, "migrateDeviceData": flag("migrateDeviceData")?});
        json.insert("reprovisionPolicy".to_owned(), policy);
        json.insert("etag".to_owned(), format!("\"{}\"", guid()?).into());
        let created = before.and_then(|entry| entry.json.get("createdDateTimeUtc")).cloned();
        json.insert("createdDateTimeUtc".to_owned(), created.unwrap_or_else(|| moment(now).into()));
        json.insert("lastUpdatedDateTimeUtc".to_owned(), moment(now).into());
        Self::of_json(kind, json)
    }

    /// The entry that `json` is, as the service keeps it.
    pub(super) fn of_json(kind: Kind, json: Map<String, Value>) -> Result<Self, Refusal> {
        let id = text(&json, kind.id_member())?.unwrap_or_default().to_owned();
        let device_id = text(&json, "deviceId")?.filter(|id| !id.is_empty()).map(str::to_owned);
        if let Some(device_id) = &device_id {
            Identity::new(device_id, None).map_err(|error| wrong(&format!("deviceId: {error}")))?;
        }
        let enabled = match text(&json, "provisioningStatus")? {
            Some("disabled") => false,
            Some("enabled") => true,
            _ => return Err(wrong("provisioningStatus is enabled or disabled")),
        };
        let policy = json.get("reprovisionPolicy");
        let flag =
            |name: &str| policy.and_then(|policy| policy.get(name)).and_then(Value::as_bool).unwrap_or(true);
        let reprovisioning =
            Reprovisioning { updates_hub: flag("updateHubAssignment"), migrates: flag("migrateDeviceData") };
        Ok(Self {
            kind,
            id,
            attestation: Attestation::read(json.get("attestation"), None)?.0,
            enabled,
            device_id,
            reprovisioning,
            allocation: Allocation::read(&json)?,
            initial_twin: initial_twin(&json)?,
            issues_certificates: text(&json, "credentialPolicyName")?.is_some_and(|name| !name.is_empty()),
            json,
        })
    }

    /// The name under which it is found.
    pub(super) fn key(&self) -> String {
        self.id.to_ascii_lowercase()
    }

    pub(super) fn etag(&self) -> &str {
        self.json.get("etag").and_then(Value::as_str).unwrap_or_default()
    }

    /// As the service shows it; keys only where they were just made, or are asked for.
    pub(super) fn shown(&self, with_keys: bool) -> Map<String, Value> {
        let mut json = self.json.clone();
        if !with_keys && let Some(attestation) = json.get_mut("attestation") {
            *attestation = Attestation::without_keys(attestation);
        }
        json
    }
}

impl Allocation {
    fn read(json: &Map<String, Value>) -> Result<Self, Refusal> {
        let hubs = match json.get("iotHubs") {
            None => Vec::new(),
            Some(Value::Array(hubs)) => {
                let names = hubs.iter().map(|hub| hub.as_str().map(str::to_owned));
                names.collect::<Option<Vec<_>>>().ok_or_else(|| wrong("iotHubs is a list of host names"))?
            }
            Some(_) => return Err(wrong("iotHubs is a list of host names")),
        };
        let own = text(json, "iotHubHostName")?.filter(|name| !name.is_empty());
        let definition = object(json.get("customAllocationDefinition"), "customAllocationDefinition")?;
        let url = definition.map_or(Ok(None), |definition| text(definition, "webhookUrl"))?;
        match text(json, "allocationPolicy")?.map(str::to_ascii_lowercase).as_deref() {
            // Where no policy is named, a host name is one.
            None if own.is_some() => Ok(Self::Static(own.into_iter().map(str::to_owned).collect())),
            // All hubs are as near as each other.
            None | Some("hashed" | "geolatency") => Ok(Self::Hashed(hubs)),
            Some("static") => Ok(Self::Static(own.map_or(hubs, |own| vec![own.to_owned()]))),
            Some("custom") => Ok(Self::Custom { url: url.unwrap_or_default().to_owned(), hubs }),
            Some(_) => Err(wrong("allocationPolicy is hashed, geoLatency, static or custom")),
        }
    }
}

type Twin = (Map<String, Value>, Map<String, Value>);

/// Desired properties and tags of an initial twin.
pub(super) fn initial_twin(json: &Map<String, Value>) -> Result<Twin, Refusal> {
    let Some(twin) = object(json.get("initialTwin"), "initialTwin")? else { return Ok(Twin::default()) };
    let properties = object(twin.get("properties"), "initialTwin.properties")?;
    let desired = properties.and_then(|properties| properties.get("desired"));
    let section = |value, name| {
        let members = object(value, name)?.cloned().unwrap_or_default();
        // Who read an entry and sends it back may send these along.
        let own = |(name, _): &(String, Value)| !matches!(name.as_str(), "$version" | "$metadata");
        Ok::<_, Refusal>(members.into_iter().filter(own).collect::<Map<_, _>>())
    };
    let twin =
        (section(desired, "initialTwin.properties.desired")?, section(twin.get("tags"), "initialTwin.tags")?);
    // What could be no twin is refused here, and not when a device registers.
    for part in [&twin.0, &twin.1] {
        devicebound::iothub::twin::validate(part).map_err(|error| wrong(&format!("initialTwin: {error}")))?;
    }
    Ok(twin)
}
