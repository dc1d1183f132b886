//! Tells the operations log of every request that the documents have a category for.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use devicebound::iothub::sas::SasToken;
use percent_encoding::percent_decode_str;

use super::{Shared, header};
use crate::operations;

/// Rides on the response of a request that failed: Azure's number, and the message.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) number: u32,
    pub(super) message: String,
}

pub(super) async fn record(State(service): Shared, request: Request, next: Next) -> Response {
    let Some((category, operation)) = kind(request.method(), request.uri().path(), request.headers()) else {
        return next.run(request).await;
    };
    let path = request.uri().path().to_owned();
    let headers = request.headers().clone();
    let began = Instant::now();
    let response = next.run(request).await;
    let (device_id, module_id) = subject(&path);
    let policy = header(&headers, "authorization")
        .and_then(|token| SasToken::parse(token).ok()?.key_name().map(|name| name.into_owned()));
    let failed = response.extensions().get::<Failed>();
    service.engine.operations.requested(&operations::Request {
        category,
        operation,
        device_id: &device_id,
        module_id: module_id.as_deref(),
        status: response.status().as_u16(),
        error: failed.map(|failed| (failed.number, failed.message.as_str())),
        duration: began.elapsed(),
        policy: policy.as_deref(),
        user_agent: header(&headers, "user-agent"),
        size: header(&headers, "content-length").and_then(|length| length.parse().ok()),
    });
    response
}

/// Category and operation of a request; `None` where the documents have none.
fn kind(method: &Method, path: &str, headers: &HeaderMap) -> Option<(&'static str, &'static str)> {
    const IDENTITY: &str = "DeviceIdentityOperations";
    const COMMANDS: &str = "C2DCommands";
    const TWINS: &str = "C2DTwinOperations";
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let segments: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let kind = match (method.as_str(), segments.as_slice()) {
        ("POST", ["devices", "query"]) => ("TwinQueries", "query"),
        ("POST", ["devices", _, "messages", "devicebound"]) => (COMMANDS, "ingress"),
        ("DELETE", ["devices", _, "commands"]) => (COMMANDS, "purge"),
        (_, ["messages", "servicebound", "feedback", ..]) => (COMMANDS, "feedback"),
        ("GET", ["devices"] | ["devices", _] | ["devices", _, "modules", ..]) => (IDENTITY, "get"),
        ("POST", ["devices"]) => (IDENTITY, "bulk"),
        ("PUT", ["devices", _] | ["devices", _, "modules", _]) if headers.contains_key("if-match") => {
            (IDENTITY, "update")
        }
        ("PUT", ["devices", _] | ["devices", _, "modules", _]) => (IDENTITY, "create"),
        ("DELETE", ["devices", _] | ["devices", _, "modules", _]) => (IDENTITY, "delete"),
        ("POST", ["twins", .., "methods"]) => ("DirectMethods", "send"),
        ("GET", ["twins", ..]) => (TWINS, "read"),
        ("PATCH", ["twins", ..]) => (TWINS, "update"),
        ("PUT", ["twins", ..]) => (TWINS, "replace"),
        _ => return None,
    };
    Some(kind)
}

/// The device, and the module, that a path is about.
fn subject(path: &str) -> (String, Option<String>) {
    let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next()) {
        (Some("devices"), Some("query")) => (String::new(), None),
        (Some("devices" | "twins"), Some(device)) => {
            let module = (segments.next() == Some("modules")).then(|| segments.next()).flatten();
            (decoded(device), module.map(decoded))
        }
        _ => (String::new(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_category() {
        let plain = HeaderMap::new();
        let mut conditional = HeaderMap::new();
        conditional.insert("if-match", "*".parse().unwrap());
        for (method, path, headers, expected) in [
            (Method::PUT, "/devices/a", &plain, Some(("DeviceIdentityOperations", "create"))),
            (Method::PUT, "/devices/a", &conditional, Some(("DeviceIdentityOperations", "update"))),
            (Method::DELETE, "/devices/a/modules/m", &plain, Some(("DeviceIdentityOperations", "delete"))),
            (Method::POST, "/devices/a/messages/deviceBound", &plain, Some(("C2DCommands", "ingress"))),
            (Method::DELETE, "/devices/a/commands", &plain, Some(("C2DCommands", "purge"))),
            (Method::PATCH, "/twins/a/modules/m", &plain, Some(("C2DTwinOperations", "update"))),
            (Method::POST, "/twins/a/methods", &plain, Some(("DirectMethods", "send"))),
            (Method::POST, "/devices/query", &plain, Some(("TwinQueries", "query"))),
            (Method::GET, "/operations", &plain, None),
            (Method::GET, "/messages/events", &plain, None),
        ] {
            assert_eq!(kind(&method, path, headers), expected, "{method} {path}");
        }
    }

    #[test]
    fn the_subject_of_a_path_is_device_and_module() {
        assert_eq!(subject("/devices/a%23b"), ("a#b".to_owned(), None));
        assert_eq!(subject("/twins/d/modules/m/methods"), ("d".to_owned(), Some("m".to_owned())));
        assert_eq!(subject("/devices/query"), (String::new(), None));
    }
}
