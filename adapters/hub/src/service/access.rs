//! Who may ask for what: every request shows a SAS token, or the certificate of a device, and names the version of the
//! API that it means.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use devicebound::Rule;
use devicebound::hub::Operation;
use devicebound::iothub::sas::{Demand, Rights, SasToken, SymmetricKey};
use percent_encoding::percent_decode_str;

use super::{ApiError, Code, Peer, Service, Shared, header};
use crate::clock::unix_time;

pub(super) async fn authorize(State(service): Shared, request: Request, next: Next) -> Response {
    match service.check(&request).await {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// The device that sends or receives messages itself, which the other requests are not for.
fn asking_device(method: &Method, path: &str) -> Option<String> {
    let mut segments = path.trim_end_matches('/').split('/').skip(1);
    let (Some("devices"), Some(device_id), Some("messages")) =
        (segments.next(), segments.next(), segments.next())
    else {
        return None;
    };
    let of_device = match (segments.next()?, segments.next()) {
        ("events", None) => true,
        // The service sends with POST; with a lock behind it, the path is the device's in any case.
        (place, lock) => {
            place.eq_ignore_ascii_case("deviceBound") && (lock.is_some() || method == Method::GET)
        }
    };
    of_device.then(|| percent_decode_str(device_id).decode_utf8_lossy().into_owned())
}

/// The right that a policy needs for a request.
fn needed_right(method: &Method, path: &str) -> Rights {
    let mut segments = path.trim_end_matches('/').split('/').skip(1);
    let reading = method == Method::GET;
    match (segments.next(), segments.next(), segments.next()) {
        (Some("devices"), Some("query"), None) => Rights::SERVICE_CONNECT,
        (Some("devices"), _, None | Some("modules")) if reading => Rights::REGISTRY_READ,
        (Some("devices"), _, None | Some("modules")) => Rights::REGISTRY_WRITE,
        (Some("statistics"), ..) => Rights::REGISTRY_READ,
        _ => Rights::SERVICE_CONNECT,
    }
}

/// What a request counts as where the hub has a tier; `None` where the hub machine itself counts it, or nobody does.
fn operation(method: &Method, path: &str) -> Option<Operation> {
    let mut segments = path.trim_end_matches('/').split('/').skip(1);
    match (segments.next(), segments.next(), segments.next()) {
        (Some("devices"), Some("query"), None) => Some(Operation::Query),
        (Some("devices"), _, None | Some("modules")) => Some(Operation::Registry),
        (Some("twins"), ..) if method == Method::GET => Some(Operation::TwinRead),
        _ => None,
    }
}

/// All versions have one shape here; Azure refuses requests that name none, and so does this hub, so that a program that
/// works here works there. What Azure does not have needs no version.
fn check_version(path: &str, query: &str) -> Result<(), ApiError> {
    const AZURES: [&str; 5] =
        ["/devices", "/twins", "/statistics", "/messages/serviceBound", "/messages/servicebound"];
    let names_one = |pair: &str| pair.strip_prefix("api-version=").is_some_and(|version| !version.is_empty());
    if !AZURES.iter().any(|azures| path.starts_with(azures)) || query.split('&').any(names_one) {
        return Ok(());
    }
    Err(ApiError::new(Code::InvalidProtocolVersion, "append ?api-version=2021-04-12 to the path"))
}

impl Service {
    fn check(&self, request: &Request) -> impl Future<Output = Result<(), ApiError>> + Send + use<'_> {
        let (method, path) = (request.method(), request.uri().path());
        let token = header(request.headers(), "authorization").map(str::to_owned);
        let version = check_version(path, request.uri().query().unwrap_or_default());
        let device_id = asking_device(method, path);
        let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
        let right = needed_right(method, path);
        let operation = operation(method, path);
        let target = percent_decode_str(path).decode_utf8_lossy().into_owned();
        async move {
            match device_id {
                Some(device_id) => {
                    self.check_device(&device_id, token.as_deref(), certificate.as_ref()).await?
                }
                None => self.check_token(token.as_deref(), &target, right, &[])?,
            }
            version?;
            match operation {
                // A hub that has a tier has one worker, which counts for all.
                Some(operation) => {
                    Ok(self.engine.at("", move |core, now| core.hub.admit(now, operation, 0)).await?)
                }
                None => Ok(()),
            }
        }
    }

    /// Checks a token for a path of this hub. `keys` are those of the device that the path is about, if it asks itself.
    pub(super) fn check_token(
        &self,
        token: Option<&str>,
        path: &str,
        right: Rights,
        keys: &[&SymmetricKey],
    ) -> Result<(), ApiError> {
        let refuse = |detail: String| ApiError::new(Code::Unauthorized, detail);
        let missing = "the Authorization header is missing: send a token made from the service connection string (devicebound sas --service)";
        let token = token.ok_or_else(|| refuse(missing.to_owned()))?;
        // The rules tell a device what to do; whoever shows a token of a policy is none.
        let next = |rule: Rule| match (keys.is_empty(), rule) {
            (true, Rule::SasMalformed | Rule::SasScope | Rule::SasSignature | Rule::SasExpired) => {
                "make a token for the service API: devicebound sas --service"
            }
            _ => rule.mend(),
        };
        let broken = |rule: Rule| refuse(format!("{rule}: {}; {}", rule.says(), next(rule)));
        let token = SasToken::parse(token).map_err(|error| broken(error.rule()))?;
        let resource = token.resource();
        let host = resource.split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if !self.host_names.is_empty()
            && !self.host_names.iter().any(|known| known.eq_ignore_ascii_case(name))
        {
            return Err(broken(Rule::HostName));
        }
        let demand =
            Demand { target: &format!("{host}{path}"), keys, right, now: unix_time(), skew: Duration::ZERO };
        let policy = |name: &str| self.policies.iter().find(|policy| policy.name == name);
        token.verify(&demand, policy).map(|_| ()).map_err(|error| broken(error.rule()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_needs_the_right_that_azure_asks_for() {
        for (method, path, right) in [
            (Method::GET, "/devices", Rights::REGISTRY_READ),
            (Method::GET, "/devices/", Rights::REGISTRY_READ),
            (Method::POST, "/devices", Rights::REGISTRY_WRITE),
            (Method::POST, "/devices/query", Rights::SERVICE_CONNECT),
            (Method::GET, "/devices/a", Rights::REGISTRY_READ),
            (Method::GET, "/devices/a/modules/b", Rights::REGISTRY_READ),
            (Method::PUT, "/devices/a", Rights::REGISTRY_WRITE),
            (Method::DELETE, "/devices/a/modules/b", Rights::REGISTRY_WRITE),
            (Method::POST, "/devices/a/messages/deviceBound", Rights::SERVICE_CONNECT),
            (Method::DELETE, "/devices/a/commands", Rights::SERVICE_CONNECT),
            (Method::GET, "/statistics/devices", Rights::REGISTRY_READ),
            (Method::GET, "/statistics/service", Rights::REGISTRY_READ),
            (Method::GET, "/twins/a", Rights::SERVICE_CONNECT),
            (Method::GET, "/messages/events", Rights::SERVICE_CONNECT),
            (Method::GET, "/messages/serviceBound/feedback", Rights::SERVICE_CONNECT),
        ] {
            assert_eq!(needed_right(&method, path), right, "{method} {path}");
        }
    }

    #[test]
    fn what_a_tier_limits_is_counted() {
        for (method, path, expected) in [
            (Method::PUT, "/devices/a", Some(Operation::Registry)),
            (Method::GET, "/devices/a/modules/m", Some(Operation::Registry)),
            (Method::POST, "/devices", Some(Operation::Registry)),
            (Method::POST, "/devices/query", Some(Operation::Query)),
            (Method::GET, "/twins/a/modules/m", Some(Operation::TwinRead)),
            (Method::PATCH, "/twins/a", None),
            (Method::POST, "/twins/a/methods", None),
            (Method::POST, "/devices/a/messages/deviceBound", None),
        ] {
            assert_eq!(operation(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_device_asks_for_its_own_messages_and_sends_telemetry() {
        for (method, path, device_id) in [
            (Method::POST, "/devices/a/messages/events", Some("a")),
            (Method::GET, "/devices/a%23b/messages/deviceBound", Some("a#b")),
            (Method::DELETE, "/devices/a/messages/devicebound/1-2", Some("a")),
            (Method::POST, "/devices/a/messages/deviceBound/1-2/abandon", Some("a")),
            (Method::POST, "/devices/a/messages/deviceBound", None),
            (Method::GET, "/devices/a", None),
            (Method::GET, "/messages/events", None),
            (Method::DELETE, "/devices/a/commands", None),
        ] {
            assert_eq!(asking_device(&method, path).as_deref(), device_id, "{method} {path}");
        }
    }

    #[test]
    fn a_request_names_the_version_of_the_api() {
        for query in ["api-version=2021-04-12", "top=3&api-version=2030-01-01"] {
            assert!(check_version("/devices", query).is_ok(), "{query}");
        }
        for query in ["", "api-version=", "top=3", "x-api-version=1"] {
            assert!(check_version("/devices", query).is_err(), "{query}");
        }
        assert!(check_version("/messages/serviceBound/feedback", "").is_err());
        assert!(check_version("/messages/servicebound/feedback", "").is_err());
        assert!(check_version("/messages/events", "").is_ok());
    }
}
