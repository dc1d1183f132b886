//! The table of all requests of the service API. It builds the router, the checks, the metering, the events and the
//! documentation; a request is added here and nowhere else.

use axum::http::Method;
use devicebound::hub::Operation;
use devicebound::iothub::sas::Rights;

use super::endpoint::{Audit, Endpoint, Right};
use super::{
    blobs, bulk, certificates, configurations, connections, consumer_groups, device_http, digital_twins,
    faults, feedback, files, health, jobs, messages, methods, metrics, query, registry, routing, rules,
    settings, statistics, streams, twins,
};
use crate::backend::Backend;

const REGISTRY_READ: Right = Right::Policy(Rights::REGISTRY_READ);
const REGISTRY_WRITE: Right = Right::Policy(Rights::REGISTRY_WRITE);
const SERVICE: Right = Right::Policy(Rights::SERVICE_CONNECT);

const REGISTRY: Option<Operation> = Some(Operation::Registry);

const IDENTITY: &str = "DeviceIdentityOperations";
const IDENTITY_GET: Option<Audit> = Some(Audit::new(IDENTITY, "get"));
const IDENTITY_PUT: Option<Audit> = Some(Audit::new(IDENTITY, "create").or_with_etag("update"));
const IDENTITY_DELETE: Option<Audit> = Some(Audit::new(IDENTITY, "delete"));
const TWINS: &str = "C2DTwinOperations";
const TWIN_READ: Option<Audit> = Some(Audit::new(TWINS, "read"));
const TWIN_UPDATE: Option<Audit> = Some(Audit::new(TWINS, "update"));
const TWIN_REPLACE: Option<Audit> = Some(Audit::new(TWINS, "replace"));
const METHOD: Option<Audit> = Some(Audit::new("DirectMethods", "send"));
const JOBS: &str = "JobsOperations";
const CONFIGURATIONS: &str = "Configurations";
const COMMANDS: &str = "C2DCommands";
const FEEDBACK: Option<Audit> = Some(Audit::new(COMMANDS, "feedback"));
/// Azure resource logs of IoT Hub: file upload operations.
const UPLOAD: Option<Audit> = Some(Audit::new("FileUploadOperations", "ingest"));
/// Category and operations of the activity log (Azure: resource provider operations of `Microsoft.Devices`).
const ADMINISTRATIVE: &str = "Administrative";
const GROUP_WRITE: Option<Audit> =
    Some(Audit::new(ADMINISTRATIVE, "Microsoft.Devices/iotHubs/eventHubEndpoints/consumerGroups/Write"));
const GROUP_DELETE: Option<Audit> =
    Some(Audit::new(ADMINISTRATIVE, "Microsoft.Devices/iotHubs/eventHubEndpoints/consumerGroups/Delete"));

const ROUTING_WRITE: Option<Audit> = Some(Audit::new(ADMINISTRATIVE, "Microsoft.Devices/iotHubs/Write"));

/// One row of the table.
macro_rules! endpoint {
    ($method:ident $path:literal, $right:expr, $operation:expr, $audit:expr, $versioned:ident, $handler:path) => {
        Endpoint {
            method: Method::$method,
            path: $path,
            right: $right,
            operation: $operation,
            audit: $audit,
            versioned: matches!(Version::$versioned, Version::Named),
            handler: |state, call| Box::pin($handler(state, call)),
        }
    };
}

/// Whether a request names an api-version.
enum Version {
    Named,
    Unnamed,
}

/// All requests of the service API.
#[rustfmt::skip]
pub const ENDPOINTS: &[Endpoint<Backend>] = &[
    endpoint!(GET    "/devices",                        REGISTRY_READ,  REGISTRY, IDENTITY_GET, Named, registry::list),
    endpoint!(POST   "/devices",                        REGISTRY_WRITE, REGISTRY, Some(Audit::new(IDENTITY, "bulk")), Named, bulk::update),
    endpoint!(POST   "/devices/query",                  SERVICE, Some(Operation::Query), Some(Audit::new("TwinQueries", "query")), Named, query::query),
    endpoint!(POST   "/devices/keys/regenerate",        REGISTRY_WRITE, REGISTRY, Some(Audit::new(IDENTITY, "update")), Named, registry::regenerate),
    endpoint!(GET    "/devices/{id}",                   REGISTRY_READ,  REGISTRY, IDENTITY_GET, Named, registry::show),
    endpoint!(PUT    "/devices/{id}",                   REGISTRY_WRITE, REGISTRY, IDENTITY_PUT, Named, registry::put),
    endpoint!(DELETE "/devices/{id}",                   REGISTRY_WRITE, REGISTRY, IDENTITY_DELETE, Named, registry::remove),
    endpoint!(GET    "/devices/{id}/modules",           REGISTRY_READ,  REGISTRY, IDENTITY_GET, Named, registry::modules),
    endpoint!(GET    "/devices/{id}/modules/{module}",  REGISTRY_READ,  REGISTRY, IDENTITY_GET, Named, registry::show),
    endpoint!(PUT    "/devices/{id}/modules/{module}",  REGISTRY_WRITE, REGISTRY, IDENTITY_PUT, Named, registry::put),
    endpoint!(DELETE "/devices/{id}/modules/{module}",  REGISTRY_WRITE, REGISTRY, IDENTITY_DELETE, Named, registry::remove),
    endpoint!(GET    "/statistics/devices",             REGISTRY_READ, None, None, Named, statistics::devices),
    endpoint!(GET    "/statistics/service",             REGISTRY_READ, None, None, Named, statistics::service),

    endpoint!(GET    "/twins/{id}",                     SERVICE, Some(Operation::TwinRead), TWIN_READ, Named, twins::show),
    endpoint!(PATCH  "/twins/{id}",                     SERVICE, None, TWIN_UPDATE, Named, twins::patch),
    endpoint!(PUT    "/twins/{id}",                     SERVICE, None, TWIN_REPLACE, Named, twins::replace),
    endpoint!(GET    "/twins/{id}/modules/{module}",    SERVICE, Some(Operation::TwinRead), TWIN_READ, Named, twins::show),
    endpoint!(PATCH  "/twins/{id}/modules/{module}",    SERVICE, None, TWIN_UPDATE, Named, twins::patch),
    endpoint!(PUT    "/twins/{id}/modules/{module}",    SERVICE, None, TWIN_REPLACE, Named, twins::replace),
    endpoint!(POST   "/twins/{id}/methods",             SERVICE, None, METHOD, Named, methods::invoke),
    endpoint!(POST   "/twins/{id}/modules/{module}/methods", SERVICE, None, METHOD, Named, methods::invoke),

    endpoint!(GET    "/digitaltwins/{id}",              SERVICE, Some(Operation::TwinRead), TWIN_READ, Named, digital_twins::show),
    endpoint!(PATCH  "/digitaltwins/{id}",              SERVICE, None, TWIN_UPDATE, Named, digital_twins::update),
    endpoint!(POST   "/digitaltwins/{id}/commands/{command}", SERVICE, None, METHOD, Named, digital_twins::command),
    endpoint!(POST   "/digitaltwins/{id}/components/{component}/commands/{command}", SERVICE, None, METHOD, Named, digital_twins::command),

    endpoint!(GET    "/configurations",                 REGISTRY_READ,  REGISTRY, Some(Audit::new(CONFIGURATIONS, "read")), Named, configurations::list),
    endpoint!(POST   "/configurations/testQueries",     REGISTRY_READ,  REGISTRY, Some(Audit::new(CONFIGURATIONS, "testQueries")), Named, configurations::test_queries),
    endpoint!(GET    "/configurations/{configuration}", REGISTRY_READ,  REGISTRY, Some(Audit::new(CONFIGURATIONS, "read")), Named, configurations::show),
    endpoint!(PUT    "/configurations/{configuration}", REGISTRY_WRITE, REGISTRY, Some(Audit::new(CONFIGURATIONS, "create").or_with_etag("update")), Named, configurations::put),
    endpoint!(DELETE "/configurations/{configuration}", REGISTRY_WRITE, REGISTRY, Some(Audit::new(CONFIGURATIONS, "delete")), Named, configurations::remove),
    endpoint!(POST   "/devices/{id}/applyConfigurationContent", REGISTRY_WRITE, REGISTRY, Some(Audit::new(CONFIGURATIONS, "apply")), Named, configurations::apply_content),

    endpoint!(GET    "/jobs/v2/query",                  SERVICE, None, Some(Audit::new(JOBS, "query")), Named, jobs::list),
    endpoint!(PUT    "/jobs/v2/{job}",                   SERVICE, None, Some(Audit::new(JOBS, "create")), Named, jobs::schedule),
    endpoint!(GET    "/jobs/v2/{job}",                   SERVICE, None, Some(Audit::new(JOBS, "read")), Named, jobs::show),
    endpoint!(POST   "/jobs/v2/{job}/cancel",            SERVICE, None, Some(Audit::new(JOBS, "cancel")), Named, jobs::cancel),

    endpoint!(POST   "/devices/{id}/messages/deviceBound", SERVICE, None, Some(Audit::new(COMMANDS, "ingress")), Named, messages::send),
    endpoint!(DELETE "/devices/{id}/commands",          SERVICE, None, Some(Audit::new(COMMANDS, "purge")), Named, messages::purge),
    endpoint!(GET    "/messages/serviceBound/feedback", SERVICE, None, FEEDBACK, Named, feedback::receive),
    endpoint!(DELETE "/messages/serviceBound/feedback/{lock}", SERVICE, None, FEEDBACK, Named, feedback::complete),
    endpoint!(POST   "/messages/serviceBound/feedback/{lock}/abandon", SERVICE, None, FEEDBACK, Named, feedback::abandon),

    endpoint!(GET    "/messages/serviceBound/filenotifications", SERVICE, None, None, Named, files::receive),
    endpoint!(DELETE "/messages/serviceBound/filenotifications/{lock}", SERVICE, None, None, Named, files::complete),
    endpoint!(POST   "/messages/serviceBound/filenotifications/{lock}/abandon", SERVICE, None, None, Named, files::abandon),

    // Azure has these at its Resource Manager.
    endpoint!(GET    "/eventHubEndpoints/events/ConsumerGroups", SERVICE, None, None, Named, consumer_groups::list),
    endpoint!(GET    "/eventHubEndpoints/events/ConsumerGroups/{name}", SERVICE, None, None, Named, consumer_groups::show),
    endpoint!(PUT    "/eventHubEndpoints/events/ConsumerGroups/{name}", REGISTRY_WRITE, None, GROUP_WRITE, Named, consumer_groups::add),
    endpoint!(DELETE "/eventHubEndpoints/events/ConsumerGroups/{name}", REGISTRY_WRITE, None, GROUP_DELETE, Named, consumer_groups::remove),

    endpoint!(GET    "/routing",                        REGISTRY_READ,  None, None, Named, routing::show),
    endpoint!(PUT    "/routing",                        REGISTRY_WRITE, None, ROUTING_WRITE, Named, routing::put),
    endpoint!(GET    "/routingEndpointsHealth",         REGISTRY_READ,  None, None, Named, routing::health),

    endpoint!(POST   "/devices/{id}/messages/events",   Right::Device, None, None, Named, device_http::send),
    endpoint!(GET    "/devices/{id}/messages/deviceBound", Right::Device, None, None, Named, device_http::receive),
    endpoint!(DELETE "/devices/{id}/messages/deviceBound/{lock}", Right::Device, None, None, Named, device_http::complete),
    endpoint!(POST   "/devices/{id}/messages/deviceBound/{lock}/abandon", Right::Device, None, None, Named, device_http::abandon),

    endpoint!(POST   "/devices/{id}/files",             Right::Device, None, UPLOAD, Named, files::begin),
    endpoint!(POST   "/devices/{id}/files/notifications", Right::Device, None, UPLOAD, Named, files::end),
    endpoint!(POST   "/devices/{id}/files/notifications/{correlation}", Right::Device, None, UPLOAD, Named, files::end),

    // Azure Storage has these.
    endpoint!(PUT    "/devicebound/uploads/{*blob}",    Right::BlobSignature, None, None, Unnamed, blobs::put),
    endpoint!(GET    "/devicebound/uploads/{*blob}",    Right::BlobSignature, None, None, Unnamed, blobs::get),
    endpoint!(HEAD   "/devicebound/uploads/{*blob}",    Right::BlobSignature, None, None, Unnamed, blobs::head),

    // Not Azure's.
    endpoint!(GET    "/messages/events",                SERVICE, None, None, Unnamed, streams::telemetry),
    endpoint!(GET    "/timeline",                       SERVICE, None, None, Unnamed, streams::timeline),
    endpoint!(GET    "/rules",                          SERVICE, None, None, Unnamed, rules::list),
    endpoint!(GET    "/settings",                       SERVICE, None, None, Unnamed, settings::list),
    endpoint!(GET    "/certificates",                   SERVICE, None, None, Unnamed, certificates::list),
    endpoint!(GET    "/connections/{id}",               SERVICE, None, None, Unnamed, connections::show),
    endpoint!(GET    "/connections/{id}/modules/{module}", SERVICE, None, None, Unnamed, connections::show),
    endpoint!(GET    "/queues/{id}",                    SERVICE, None, None, Unnamed, connections::queue),
    endpoint!(GET    "/operations",                     SERVICE, None, None, Unnamed, streams::operations),
    endpoint!(GET    "/messages/operationsMonitoringEvents", SERVICE, None, None, Unnamed, streams::operations),
    endpoint!(GET    "/streams",                        SERVICE, None, None, Unnamed, streams::joined),
    endpoint!(POST   "/faults/{id}",                    SERVICE, None, None, Unnamed, faults::inject),
    endpoint!(POST   "/faults/{id}/modules/{module}",   SERVICE, None, None, Unnamed, faults::inject),
    endpoint!(GET    "/health/live",                    Right::Anybody, None, None, Unnamed, health::live),
    endpoint!(GET    "/health/ready",                   Right::Anybody, None, None, Unnamed, health::ready),
    endpoint!(GET    "/metrics",                        Right::LocalOr(Rights::SERVICE_CONNECT), None, None, Unnamed, metrics::metrics),
];

/// What to do instead of asking for a part of Azure's API that this hub does not have. `segments` are decoded.
pub(super) fn instead(segments: &[&str]) -> Option<&'static str> {
    let lower: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let advice = match lower.as_slice() {
        ["jobs", ..] => {
            "this hub has no import and export; register many devices with POST /devices. Other jobs are under /jobs/v2"
        }
        ["devices", _, "modules", _, "messages" | "commands", ..] => {
            "modules have no cloud-to-device messages; call a method, or set desired properties"
        }
        _ => return None,
    };
    Some(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = include_str!("../../docs/endpoints.md");

    fn documentation() -> String {
        let mut text = String::from(
            "# Requests of the service API\n\n\
             Made from the table in `src/service/endpoints.rs`; a test compares them. Whoever changes the table writes this file\n\
             with `BLESS=1 cargo test -p devicebound-hub --lib endpoints`.\n\n\
             | request | who may ask | counted as | event | api-version |\n|---|---|---|---|---|\n",
        );
        for endpoint in ENDPOINTS {
            let name = |rights: Rights| {
                let names = ["RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"];
                names.into_iter().find(|name| Rights::from_name(name) == Some(rights)).unwrap()
            };
            let right = match endpoint.right {
                Right::Policy(rights) => name(rights).to_owned(),
                Right::LocalOr(rights) => format!("{}; from this machine anybody", name(rights)),
                Right::Device => "the device, or DeviceConnect".to_owned(),
                Right::BlobSignature => {
                    "who has the signature of the blob; to read, ServiceConnect".to_owned()
                }
                Right::Anybody => "anybody".to_owned(),
            };
            let operation = endpoint.operation.map_or_else(String::new, |operation| format!("{operation:?}"));
            let audit = endpoint.audit.map_or_else(String::new, |audit| {
                let conditional =
                    audit.conditional.map_or_else(String::new, |other| format!(", with If-Match {other}"));
                format!("{}: {}{conditional}", audit.category, audit.operation)
            });
            let version = if endpoint.versioned { "named" } else { "" };
            text.push_str(&format!(
                "| `{} {}` | {right} | {operation} | {audit} | {version} |\n",
                endpoint.method, endpoint.path
            ));
        }
        text
    }

    #[test]
    fn the_documented_table_is_the_one_that_is_served() {
        let made = documentation();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/endpoints.md"), &made).unwrap();
            return;
        }
        assert_eq!(DOCUMENTED, made, "write docs/endpoints.md anew: BLESS=1");
    }

    #[test]
    fn no_two_endpoints_are_the_same() {
        let mut seen = std::collections::HashSet::new();
        for endpoint in ENDPOINTS {
            let pattern: Vec<&str> = endpoint
                .path
                .split('/')
                .map(|word| if word.starts_with('{') { "{}" } else { word })
                .collect();
            let pattern = pattern.join("/").to_ascii_lowercase();
            assert!(seen.insert((endpoint.method.clone(), pattern)), "{} {}", endpoint.method, endpoint.path);
        }
    }
}
