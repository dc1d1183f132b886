//! The configuration from its JSON, as Azure Resource Manager has it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::container::{Container, FORMAT, is_folder, is_format};
use super::enrichment::Enrichment;
use super::source::Source;
use super::{BUILT_IN, Route};
use crate::backend::Error;
use crate::backend::query::Condition;

/// Routes of a hub (Azure: IoT Hub quotas, "message routing": 100 routes).
const ROUTES_MAX: usize = 100;
/// Endpoints beside the built-in one (Azure: IoT Hub quotas: 10 custom endpoints).
const ENDPOINTS_MAX: usize = 10;
/// Enrichments of a hub (Azure: "Message enrichments", limits).
const ENRICHMENTS_MAX: usize = 10;
/// Longest name of a route or an endpoint (Azure Resource Manager: pattern `^[A-Za-z0-9-._]{1,64}$`).
const NAME_MAX: usize = 64;
/// Longest URL of a webhook (own limit).
const URL_MAX: usize = 2048;
/// Names that no endpoint of the configuration can have (Azure Resource Manager).
const RESERVED: [&str; 3] = [BUILT_IN, "fileNotifications", "$default"];
/// What Azure has for endpoints.
const ENDPOINT_LISTS: [&str; 5] =
    ["eventHubs", "serviceBusQueues", "serviceBusTopics", "storageContainers", "cosmosDBSqlContainers"];
/// The endpoints that are folders here.
const CONTAINERS: &str = "storageContainers";
/// The endpoints that this hub calls itself; Azure has them at Event Grid.
const WEBHOOKS: &str = "webhooks";
/// The name of the route for what no other one matches.
const FALLBACK: &str = "$fallback";

/// Routes, fallback and enrichments of a hub.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Routing {
    pub(super) routes: Vec<Route>,
    /// `None`: off.
    pub(super) fallback: Option<Route>,
    pub(super) enrichments: Vec<Enrichment>,
    /// Those of the endpoints that this hub delivers to.
    pub(super) destinations: Vec<Destination>,
    /// Those that it does not.
    pub(super) elsewhere: Vec<String>,
    /// A condition or an enrichment may ask for the twin, which is looked up then.
    pub(super) reads_twin: bool,
}

/// An endpoint that this hub delivers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Webhook(Webhook),
    Container(Container),
}

impl Destination {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Webhook(webhook) => &webhook.name,
            Self::Container(container) => &container.name,
        }
    }
}

/// An endpoint that takes events by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Webhook {
    pub(super) name: String,
    pub(super) url: String,
    /// It is asked whether it wants events before it gets any, as Event Grid does.
    pub(super) validates: bool,
}

impl Routing {
    /// Reads `routing`, or what has it: `properties`, or the whole hub, as `az iot hub show` prints it.
    ///
    /// # Errors
    /// 400004 with the member that is wrong.
    pub(crate) fn read(json: &Value) -> Result<Self, Error> {
        let routing = Self::member(json).as_object().ok_or_else(|| {
            Error::invalid("the routing is not a JSON object")
                .with_fix("write {\"endpoints\":{},\"routes\":[]}")
        })?;
        let is_known = |name: &&str| routing.contains_key(*name);
        if !["endpoints", "routes", "fallbackRoute", "enrichments"].iter().any(is_known) {
            return Err(Error::invalid(
                "the routing has none of endpoints, routes, fallbackRoute, enrichments",
            )
            .with_fix("print it with: az iot hub show --name HUB --query properties.routing"));
        }
        let (endpoints, destinations) = endpoints(routing)?;
        let is_elsewhere = |name: &&String| destinations.iter().all(|known| known.name() != name.as_str());
        let elsewhere = endpoints.iter().filter(is_elsewhere).cloned().collect();
        let mut routes: Vec<Route> = Vec::new();
        for (index, json) in list(routing, "routes", ROUTES_MAX)?.iter().enumerate() {
            let route = Route::read(json, &format!("routes[{index}]"), &endpoints)?;
            if routes.iter().any(|known| known.name.eq_ignore_ascii_case(&route.name)) {
                return Err(Error::invalid(format!("two routes have the name {}", route.name))
                    .with_fix("give each route a name of its own"));
            }
            routes.push(route);
        }
        let fallback = match routing.get("fallbackRoute") {
            None | Some(Value::Null) => None,
            Some(json) => Some(Route::fallback(json)?),
        };
        let enrichments = list(routing, "enrichments", ENRICHMENTS_MAX)?;
        let read =
            |(index, json): (usize, &Value)| enrichment(json, &format!("enrichments[{index}]"), &endpoints);
        let enrichments = enrichments.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let reads_twin = Self::member(json).to_string().to_ascii_lowercase().contains("$twin");
        Ok(Self { routes, fallback, enrichments, destinations, reads_twin, elsewhere })
    }

    /// `routing` of a hub, of its `properties`, or the JSON itself.
    pub(super) fn member(json: &Value) -> &Value {
        let found = ["/properties/routing", "/routing"].into_iter().find_map(|path| json.pointer(path));
        found.unwrap_or(json)
    }

    /// One route of this source and condition, to an endpoint of its own, beside a fallback that is on.
    ///
    /// # Errors
    /// 400004 for what is no condition.
    pub(crate) fn of_condition(source: Source, condition: &str) -> Result<Self, Error> {
        let route = |name: &str, source, condition, endpoint: &str| Route {
            name: name.to_owned(),
            source,
            condition,
            endpoint: endpoint.to_owned(),
            is_enabled: true,
        };
        let always = read_condition("true", "fallbackRoute")?;
        Ok(Self {
            routes: vec![route("condition", source, read_condition(condition, "the route")?, "endpoint")],
            fallback: Some(route(FALLBACK, Source::DeviceMessages, always, BUILT_IN)),
            ..Self::default()
        })
    }
}

impl Route {
    fn read(json: &Value, at: &str, endpoints: &[String]) -> Result<Self, Error> {
        let name = text(json, "name", at)?;
        if !is_name(name) {
            return Err(wrong_name(at, name));
        }
        let source = text(json, "source", at)?.parse();
        let source = source.map_err(|what: String| Error::invalid(format!("{at}.source: {what}")))?;
        let endpoint = one_endpoint(json, at)?;
        if endpoint != BUILT_IN && !endpoints.iter().any(|known| known == endpoint) {
            return Err(no_endpoint(at, endpoint, endpoints));
        }
        Self::with(json, at, name, source, endpoint)
    }

    fn fallback(json: &Value) -> Result<Self, Error> {
        let at = "fallbackRoute";
        let endpoint = one_endpoint(json, at)?;
        if endpoint != BUILT_IN {
            return Err(Error::invalid(format!("{at} leads to `{}`", endpoint.escape_debug()))
                .with_fix(format!("the fallback route leads to {BUILT_IN}")));
        }
        Self::with(json, at, FALLBACK, Source::DeviceMessages, endpoint)
    }

    fn with(json: &Value, at: &str, name: &str, source: Source, endpoint: &str) -> Result<Self, Error> {
        let condition = match json.get("condition") {
            None | Some(Value::Null) => "true",
            Some(condition) => condition.as_str().ok_or_else(|| wrong(at, "condition", "a text"))?,
        };
        let is_enabled = match json.get("isEnabled") {
            Some(Value::Bool(is_enabled)) => *is_enabled,
            _ => return Err(wrong(at, "isEnabled", "true or false")),
        };
        let condition = read_condition(condition, at)?;
        Ok(Self { name: name.to_owned(), source, condition, endpoint: endpoint.to_owned(), is_enabled })
    }
}

fn read_condition(condition: &str, at: &str) -> Result<Condition, Error> {
    Condition::read(condition).map_err(|error| {
        let what = format!("the condition of {at} is wrong at character {}: {}", error.at(), error.message());
        Error::invalid(what)
    })
}

fn enrichment(json: &Value, at: &str, endpoints: &[String]) -> Result<Enrichment, Error> {
    let (key, value) = (text(json, "key", at)?, text(json, "value", at)?);
    if key.is_empty() || value.is_empty() {
        return Err(wrong(at, "key and value", "texts that are not empty"));
    }
    let names = json.get("endpointNames").and_then(Value::as_array).filter(|names| !names.is_empty());
    let names = names.ok_or_else(|| wrong(at, "endpointNames", "a list of one endpoint or more"))?;
    let mut own = Vec::new();
    for name in names {
        let name = name.as_str().ok_or_else(|| wrong(at, "endpointNames", "a list of texts"))?;
        if name != BUILT_IN && !endpoints.iter().any(|known| known == name) {
            return Err(no_endpoint(at, name, endpoints));
        }
        own.push(name.to_owned());
    }
    Ok(Enrichment { key: key.to_owned(), value: value.to_owned(), endpoints: own })
}

/// The names of all endpoints, and those among them that this hub delivers to.
fn endpoints(routing: &Map<String, Value>) -> Result<(Vec<String>, Vec<Destination>), Error> {
    let empty = Map::new();
    let lists = match routing.get("endpoints") {
        None | Some(Value::Null) => &empty,
        Some(lists) => lists.as_object().ok_or_else(|| wrong("routing", "endpoints", "an object"))?,
    };
    let (mut names, mut destinations): (Vec<String>, Vec<Destination>) = Default::default();
    for kind in ENDPOINT_LISTS.into_iter().chain([WEBHOOKS]) {
        for (index, endpoint) in list(lists, kind, ENDPOINTS_MAX)?.iter().enumerate() {
            let at = format!("endpoints.{kind}[{index}]");
            let name = text(endpoint, "name", &at)?;
            let is_taken = RESERVED.into_iter().chain(names.iter().map(String::as_str));
            if !is_name(name) || is_taken.into_iter().any(|taken| taken.eq_ignore_ascii_case(name)) {
                return Err(wrong_name(&at, name));
            }
            names.push(name.to_owned());
            if kind == WEBHOOKS {
                destinations.push(Destination::Webhook(Webhook::read(endpoint, name, &at)?));
            } else if kind == CONTAINERS {
                destinations.extend(container(endpoint, name, &at)?.map(Destination::Container));
            }
        }
    }
    if names.len() > ENDPOINTS_MAX {
        return Err(too_many("endpoints", ENDPOINTS_MAX, names.len()));
    }
    Ok((names, destinations))
}

/// A container in Azure's shape; `None` where its files would be in Avro, which is Azure's default.
fn container(json: &Value, name: &str, at: &str) -> Result<Option<Container>, Error> {
    let optional = |member: &str, default: &'static str| match json.get(member) {
        None | Some(Value::Null) => Ok(default.to_owned()),
        Some(value) => value.as_str().map(str::to_owned).ok_or_else(|| wrong(at, member, "a text")),
    };
    let number = |member: &str, range: std::ops::RangeInclusive<u64>, default: u64| match json.get(member) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|number| range.contains(number))
            .ok_or_else(|| wrong(at, member, &format!("a number from {} to {}", range.start(), range.end()))),
    };
    let folder = text(json, "containerName", at)?.to_owned();
    if !is_folder(&folder) {
        return Err(wrong(at, "containerName", "3 to 63 lower-case letters, digits and hyphens"));
    }
    let format = optional("fileNameFormat", FORMAT)?;
    if !is_format(&format) {
        let expected = format!("made of letters, digits, - _ . / and all of {FORMAT}, without empty names");
        return Err(wrong(at, "fileNameFormat", &expected));
    }
    let encoding = optional("encoding", "avro")?.to_ascii_lowercase();
    if !["avro", "avrodeflate", "json"].contains(&encoding.as_str()) {
        return Err(wrong(at, "encoding", "json, avro or avrodeflate"));
    }
    let frequency = Duration::from_secs(number("batchFrequencyInSeconds", 60..=720, 300)?);
    let chunk = number("maxChunkSizeInBytes", 10_485_760..=524_288_000, 314_572_800)?;
    let container = Container { name: name.to_owned(), folder, format, frequency, chunk };
    Ok((encoding == "json").then_some(container))
}

impl Webhook {
    fn read(json: &Value, name: &str, at: &str) -> Result<Self, Error> {
        let url = text(json, "url", at)?;
        let is_url = url.parse::<ureq::http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !is_url || url.len() > URL_MAX {
            let expected = format!("a URL with http or https and a host, of at most {URL_MAX} characters");
            return Err(wrong(at, "url", &expected));
        }
        let validates = match json.get("validate") {
            None | Some(Value::Null) => false,
            Some(validates) => validates.as_bool().ok_or_else(|| wrong(at, "validate", "true or false"))?,
        };
        Ok(Self { name: name.to_owned(), url: url.to_owned(), validates })
    }
}

fn one_endpoint<'j>(json: &'j Value, at: &str) -> Result<&'j str, Error> {
    match json.get("endpointNames").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::String(name)]) => Ok(name),
        _ => Err(wrong(at, "endpointNames", "a list of exactly one endpoint")),
    }
}

fn list<'j>(json: &'j Map<String, Value>, name: &str, most: usize) -> Result<&'j [Value], Error> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) if list.len() > most => Err(too_many(name, most, list.len())),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(wrong("routing", name, "a list")),
    }
}

fn text<'j>(json: &'j Value, name: &str, at: &str) -> Result<&'j str, Error> {
    json.get(name).and_then(Value::as_str).ok_or_else(|| wrong(at, name, "a text"))
}

fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_inner)
}

fn wrong(at: &str, member: &str, expected: &str) -> Error {
    Error::invalid(format!("{at}: {member} must be {expected}"))
}

fn wrong_name(at: &str, name: &str) -> Error {
    Error::invalid(format!("{at}: the name `{}` cannot be taken", name.escape_debug())).with_fix(format!(
        "use 1 to {NAME_MAX} letters, digits, `-`, `.` and `_`, once, and none of {}",
        RESERVED.join(", ")
    ))
}

fn no_endpoint(at: &str, name: &str, endpoints: &[String]) -> Error {
    let known: Vec<&str> = [BUILT_IN].into_iter().chain(endpoints.iter().map(String::as_str)).collect();
    Error::invalid(format!("{at} leads to `{}`, which is no endpoint", name.escape_debug()))
        .with_fix(format!("there are {}", known.join(", ")))
}

fn too_many(what: &str, most: usize, found: usize) -> Error {
    Error::invalid(format!("a hub has at most {most} {what}, not {found}"))
}
