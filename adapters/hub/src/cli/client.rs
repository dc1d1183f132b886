//! The service API from the other side: one request at a time, errors in words.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devicebound::iothub::sas::{self, SymmetricKey};
use devicebound::iothub::{ConnectionString, Credential};
use devicebound::time::UnixTime;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use ureq::http::{Method, Request, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::Target;
use crate::Failure;
use crate::clock::unix_time;
use crate::state::StateDir;

/// The newest api-version whose shapes the service API has.
const API_VERSION: &str = "2021-04-12";
/// A token is made for each request and needs to live no longer than that.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
const FEEDBACK: &str = "/messages/serviceBound/feedback";
/// Rows that a query asks for at a time: as many as a hub gives.
const PAGE: usize = 1000;
/// More than a page has, in bytes: a hub ends it at 8 MiB.
const PAGE_SIZE_MAX: u64 = 16 * 1024 * 1024;
/// Everything that RFC 3986 does not leave as it is.
pub(super) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A connection to the service API of one hub.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    /// `https://host:port`.
    base: String,
    host_name: String,
    policy: String,
    key: SymmetricKey,
}

impl Client {
    /// Finds the hub that is meant.
    pub(super) fn connect(target: &Target) -> Result<Self, Failure> {
        let place = match &target.connection_string {
            Some(text) => Place::named(text, target)?,
            None => Place::of_state(&target.state_path())?,
        };
        let next = "use the service connection string that `devicebound hub` printed";
        let string = ConnectionString::parse(&place.connection_string)
            .map_err(|error| Failure::new(format!("bad connection string: {error}"), next))?;
        let (Some(policy), Credential::Key(key)) = (string.key_name(), string.credential()) else {
            let cause = "this connection string is not one for services: it has no SharedAccessKeyName with SharedAccessKey";
            return Err(Failure::new(cause, next));
        };
        Ok(Self {
            agent: agent(place.ca.as_deref())?,
            base: place.base.unwrap_or_else(|| format!("https://{}", string.host_name())),
            host_name: string.host_name().to_owned(),
            policy: policy.to_owned(),
            key: key.clone(),
        })
    }

    /// The host name that stands in the connection strings of this hub's devices.
    pub(super) fn host_name(&self) -> &str {
        &self.host_name
    }

    /// Asks and returns the JSON of the answer; null when it has none.
    pub(super) fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let headers = [("Content-Type", "application/json; charset=utf-8".to_owned())];
        self.send(method, path, &headers, body.as_bytes())
    }

    /// The same with headers and body as they are given.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Value, Failure> {
        let mut response = self.exchange(method, path, headers, body)?;
        let text = response.body_mut().read_to_string().map_err(|error| self.unreachable(&error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| self.not_a_hub(&error.to_string()))
    }

    /// Puts an identity that was read in place of the one that is there, unless that was changed in between.
    pub(super) fn change(&self, path: &str, identity: &Value) -> Result<Value, Failure> {
        let etag = identity.get("etag").and_then(Value::as_str).unwrap_or("*");
        let headers = [("If-Match", format!("\"{etag}\"")), ("Content-Type", "application/json".to_owned())];
        self.send(Method::PUT, path, &headers, identity.to_string().as_bytes())
    }

    /// All rows that a query finds, page by page, until `each` says false.
    pub(super) fn query(&self, text: &str, each: impl FnMut(&Value) -> bool) -> Result<(), Failure> {
        self.query_at("/devices/query", text, each)
    }

    /// The same of what a path finds.
    pub(super) fn query_at(
        &self,
        path: &str,
        text: &str,
        mut each: impl FnMut(&Value) -> bool,
    ) -> Result<(), Failure> {
        let body = json!({"query": text}).to_string();
        let mut token = String::new();
        loop {
            let headers = [("x-ms-continuation", token), ("x-ms-max-item-count", PAGE.to_string())];
            let mut response = self.exchange(Method::POST, path, &headers, body.as_bytes())?;
            let next = response.headers().get("x-ms-continuation").and_then(|token| token.to_str().ok());
            let next = next.map(str::to_owned);
            let body = response.body_mut().with_config().limit(PAGE_SIZE_MAX).reader();
            let rows: Vec<Value> =
                serde_json::from_reader(body).map_err(|error| self.not_a_hub(&error.to_string()))?;
            let goes_on = rows.iter().all(&mut each);
            match next.filter(|_| goes_on) {
                Some(next) => token = next,
                None => return Ok(()),
            }
        }
    }

    /// The next batch of feedback, and the lock that it is under; `None` where there is none.
    pub(super) fn feedback(&self) -> Result<Option<(Vec<Value>, String)>, Failure> {
        let mut response = self.exchange(Method::GET, FEEDBACK, &[], &[])?;
        let lock = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        let Some(lock) = lock.map(|etag| etag.trim_matches('"').to_owned()) else { return Ok(None) };
        let text = response.body_mut().read_to_string().map_err(|error| self.unreachable(&error))?;
        let reports = serde_json::from_str(&text).map_err(|error| self.not_a_hub(&error.to_string()))?;
        Ok(Some((reports, lock)))
    }

    /// Says that a batch of feedback was read: it does not come again.
    pub(super) fn complete_feedback(&self, lock: &str) -> Result<(), Failure> {
        self.exchange(Method::DELETE, &format!("{FEEDBACK}/{lock}"), &[], &[]).map(drop)
    }

    /// An answer that goes on.
    pub(super) fn stream(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        Ok(self.exchange(Method::GET, path, &[], &[])?.into_body().into_reader())
    }

    fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Response<ureq::Body>, Failure> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let uri: Uri =
            format!("{}{path}{separator}api-version={API_VERSION}", self.base).parse().map_err(|error| {
                Failure::new(
                    format!("{} is no address: {error}", self.base),
                    "write --hub HOST or --hub HOST:PORT",
                )
            })?;
        let token = self.service_token(unix_time().after(TOKEN_LIFE));
        let mut request = Request::builder().method(method).uri(uri).header("Authorization", token);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(body).map_err(|error| {
            Failure::new(
                format!("this cannot be sent: {error}"),
                "use printable ASCII in property names and values",
            )
        })?;
        let mut response = self.agent.run(request).map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let name =
            response.headers().get("iothub-errorcode").and_then(|name| name.to_str().ok()).map(str::to_owned);
        let name = name.unwrap_or_else(|| response.status().to_string());
        let text = response.body_mut().read_to_string().unwrap_or_default();
        Err(refused(&name, &text))
    }

    /// A token of the policy, for the service API.
    pub(super) fn service_token(&self, expiry: UnixTime) -> String {
        sas::sign(&self.host_name, &self.key, expiry, Some(&self.policy))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let is_tls = match error {
            ureq::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
            error => matches!(error, ureq::Error::Tls(_) | ureq::Error::Rustls(_)),
        };
        let next = if is_tls {
            "name the hub's authority: --ca FILE, the ca.pem of its state folder"
        } else {
            "start a hub: devicebound hub; or name another with --state, or --connection-string and --hub"
        };
        Failure::new(format!("no hub answers at {}: {error}", self.base), next)
    }

    fn not_a_hub(&self, detail: &str) -> Failure {
        Failure::new(
            format!("what answers at {} is no hub: {detail}", self.base),
            "check --hub and the host name in the connection string",
        )
    }
}

/// Where a hub is and how to get in.
struct Place {
    connection_string: String,
    base: Option<String>,
    ca: Option<PathBuf>,
}

impl Place {
    fn named(connection_string: &str, target: &Target) -> Result<Self, Failure> {
        let base = target.hub.as_ref().map(|hub| format!("https://{}", hub.trim_start_matches("https://")));
        Ok(Self { connection_string: connection_string.to_owned(), base, ca: target.ca.clone() })
    }

    /// What a hub that runs wrote into its state folder.
    fn of_state(folder: &Path) -> Result<Self, Failure> {
        let value = service_of(folder)?;
        let field = |name| value.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            connection_string: field("connectionString").ok_or_else(|| no_hub(folder))?,
            base: field("url"),
            ca: field("ca").map(PathBuf::from),
        })
    }
}

/// A text of what a hub that runs wrote into its state folder.
pub(super) fn text_of_service(folder: &Path, name: &str) -> Result<String, Failure> {
    let service = service_of(folder)?;
    service.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| no_hub(folder))
}

fn service_of(folder: &Path) -> Result<Value, Failure> {
    if !folder.is_dir() {
        return Err(no_hub(folder));
    }
    let text = StateDir::open(folder)?.read("service.json")?.ok_or_else(|| no_hub(folder))?;
    serde_json::from_str(&text).map_err(|_| no_hub(folder))
}

fn no_hub(folder: &Path) -> Failure {
    Failure::new(
        format!("no hub runs on the state folder {}", folder.display()),
        format!("start one: devicebound hub --state {}", folder.display()),
    )
}

fn agent(ca: Option<&Path>) -> Result<ureq::Agent, Failure> {
    let roots = match ca {
        None => RootCerts::WebPki,
        Some(path) => {
            let unusable = |error: String| {
                Failure::new(
                    format!("cannot use {}: {error}", path.display()),
                    "name the hub's ca.pem: --ca FILE",
                )
            };
            let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
            RootCerts::new_with_certs(&[certificate])
        }
    };
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        // The hub is on this machine or beside it, whatever proxy the Internet is behind.
        .proxy(None)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build();
    Ok(ureq::Agent::new_with_config(config))
}

/// The hub's answer in words, with what usually helps. `name` is Azure's name of the error.
fn refused(name: &str, body: &str) -> Failure {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    // The provisioning service has the name in lower case.
    let message =
        body.get("Message").or_else(|| body.get("message")).and_then(Value::as_str).unwrap_or_default();
    // The errors of direct methods carry a second JSON text inside the first.
    let inner: Value = serde_json::from_str(message).unwrap_or_default();
    let detail = inner.get("message").and_then(Value::as_str);
    let detail = detail.or_else(|| message.split_once(';').map(|(_, detail)| detail)).unwrap_or(message);
    let next = match name {
        "DeviceNotFound" => "devicebound device list shows the devices; devicebound device add ID makes one",
        "ModuleNotFound" => "register the module: devicebound device add DEVICE/MODULE",
        "DeviceAlreadyExists" | "ModuleAlreadyExistsOnDevice" => {
            "choose another id, or remove it first: devicebound device remove ID"
        }
        "PreconditionFailed" => "read it again and use its new etag",
        "IotHubUnauthorizedAccess" => "use the service connection string that `devicebound hub` printed",
        "DeviceMaximumQueueDepthExceeded" => "let the device take its messages first",
        "DeviceNotOnline" => {
            "connect the device and subscribe $iothub/methods/POST/#, or wait for it: --connect-timeout 60"
        }
        "ArgumentInvalid" | "InvalidMessageExpiryTime" | "MessageTooLarge" => {
            "correct what is said above; devicebound help COMMAND shows the forms"
        }
        "GatewayTimeout" => {
            "see in the hub's live view whether the device answered; give it longer: --timeout 60"
        }
        _ => "see devicebound --help, and the hub's live view",
    };
    Failure::new(format!("{name}: {detail}"), next)
}

/// The path of a device, or of a module (`device/module`), below `collection`.
pub(super) fn identity_path(collection: &str, client_id: &str) -> String {
    let escape = |id| utf8_percent_encode(id, ESCAPED);
    match client_id.split_once('/') {
        None => format!("/{collection}/{}", escape(client_id)),
        Some((device, module)) => format!("/{collection}/{}/modules/{}", escape(device), escape(module)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_escaped_in_paths_and_modules_have_their_own() {
        assert_eq!(identity_path("devices", "a#b?c"), "/devices/a%23b%3Fc");
        assert_eq!(identity_path("twins", "dev/mod"), "/twins/dev/modules/mod");
    }

    #[test]
    fn an_error_of_the_hub_is_told_with_a_way_out() {
        let failure = refused("DeviceNotFound", r#"{"Message":"ErrorCode:DeviceNotFound;no device x"}"#);
        assert_eq!(failure.cause(), "DeviceNotFound: no device x");
        assert!(failure.next().contains("device add"));
        let nested = r#"{"Message":"{\"errorCode\":404103,\"message\":\"not online\"}"}"#;
        let failure = refused("DeviceNotOnline", nested);
        assert!(failure.cause().contains("not online"), "{failure}");
        assert!(failure.next().contains("$iothub/methods/POST/#"), "{failure}");
    }

    #[test]
    fn without_a_running_hub_the_way_to_start_one_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Place::of_state(folder.path()).err().unwrap();
        assert!(failure.next().starts_with("start one: devicebound hub"), "{failure}");
    }
}
