//! Every request of the API, with the token of every policy, of devices and of modules.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use devicebound::hub::{Authentication, ClientCertificate};
use devicebound::iothub::sas::{self, Rights, SymmetricKey};
use devicebound_hub::clock::unix_time;
use devicebound_hub::service::Peer;
use devicebound_hub::service::endpoint::Right;
use devicebound_hub::service::endpoints::ENDPOINTS;
use devicebound_hub::transport::tls::TlsPeer;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::client::Client;
use crate::common::{Hub, key};

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LetIn {
    RegistryRead,
    RegistryWrite,
    ServiceConnect,
    /// The device itself, and DeviceConnect.
    Device,
    Anybody,
}

/// What Azure's documents ask for, written down by itself: method, path, who is let in, and what they are answered.
const EXPECTED: &[(&str, &str, LetIn, u16)] = &[
    ("GET", "/devices", LetIn::RegistryRead, 200),
    ("POST", "/devices", LetIn::RegistryWrite, 400),
    ("POST", "/devices/query", LetIn::ServiceConnect, 400),
    ("POST", "/devices/keys/regenerate", LetIn::RegistryWrite, 400),
    ("GET", "/devices/{id}", LetIn::RegistryRead, 200),
    ("PUT", "/devices/{id}", LetIn::RegistryWrite, 400),
    ("DELETE", "/devices/{id}", LetIn::RegistryWrite, 412),
    ("GET", "/devices/{id}/modules", LetIn::RegistryRead, 200),
    ("GET", "/devices/{id}/modules/{module}", LetIn::RegistryRead, 200),
    ("PUT", "/devices/{id}/modules/{module}", LetIn::RegistryWrite, 400),
    ("DELETE", "/devices/{id}/modules/{module}", LetIn::RegistryWrite, 412),
    ("GET", "/statistics/devices", LetIn::RegistryRead, 200),
    ("GET", "/statistics/service", LetIn::RegistryRead, 200),
    ("GET", "/twins/{id}", LetIn::ServiceConnect, 200),
    ("PATCH", "/twins/{id}", LetIn::ServiceConnect, 400),
    ("PUT", "/twins/{id}", LetIn::ServiceConnect, 400),
    ("GET", "/twins/{id}/modules/{module}", LetIn::ServiceConnect, 200),
    ("PATCH", "/twins/{id}/modules/{module}", LetIn::ServiceConnect, 400),
    ("PUT", "/twins/{id}/modules/{module}", LetIn::ServiceConnect, 400),
    ("POST", "/twins/{id}/methods", LetIn::ServiceConnect, 400),
    ("POST", "/twins/{id}/modules/{module}/methods", LetIn::ServiceConnect, 400),
    ("GET", "/digitaltwins/{id}", LetIn::ServiceConnect, 200),
    ("PATCH", "/digitaltwins/{id}", LetIn::ServiceConnect, 400),
    ("POST", "/digitaltwins/{id}/commands/{command}", LetIn::ServiceConnect, 400),
    ("POST", "/digitaltwins/{id}/components/{component}/commands/{command}", LetIn::ServiceConnect, 400),
    ("GET", "/configurations", LetIn::RegistryRead, 200),
    ("POST", "/configurations/testQueries", LetIn::RegistryRead, 400),
    ("GET", "/configurations/{configuration}", LetIn::RegistryRead, 404),
    ("PUT", "/configurations/{configuration}", LetIn::RegistryWrite, 400),
    ("DELETE", "/configurations/{configuration}", LetIn::RegistryWrite, 404),
    ("POST", "/devices/{id}/applyConfigurationContent", LetIn::RegistryWrite, 400),
    ("GET", "/jobs/v2/query", LetIn::ServiceConnect, 200),
    ("PUT", "/jobs/v2/{job}", LetIn::ServiceConnect, 400),
    ("GET", "/jobs/v2/{job}", LetIn::ServiceConnect, 404),
    ("POST", "/jobs/v2/{job}/cancel", LetIn::ServiceConnect, 404),
    ("POST", "/devices/{id}/messages/deviceBound", LetIn::ServiceConnect, 204),
    ("DELETE", "/devices/{id}/commands", LetIn::ServiceConnect, 200),
    ("GET", "/messages/serviceBound/feedback", LetIn::ServiceConnect, 204),
    ("DELETE", "/messages/serviceBound/feedback/{lock}", LetIn::ServiceConnect, 412),
    ("POST", "/messages/serviceBound/feedback/{lock}/abandon", LetIn::ServiceConnect, 412),
    ("GET", "/messages/serviceBound/filenotifications", LetIn::ServiceConnect, 400),
    ("DELETE", "/messages/serviceBound/filenotifications/{lock}", LetIn::ServiceConnect, 400),
    ("POST", "/messages/serviceBound/filenotifications/{lock}/abandon", LetIn::ServiceConnect, 400),
    ("GET", "/eventHubEndpoints/events/ConsumerGroups", LetIn::ServiceConnect, 200),
    ("GET", "/eventHubEndpoints/events/ConsumerGroups/{name}", LetIn::ServiceConnect, 404),
    ("PUT", "/eventHubEndpoints/events/ConsumerGroups/{name}", LetIn::RegistryWrite, 400),
    ("DELETE", "/eventHubEndpoints/events/ConsumerGroups/{name}", LetIn::RegistryWrite, 404),
    ("GET", "/routing", LetIn::RegistryRead, 200),
    ("PUT", "/routing", LetIn::RegistryWrite, 400),
    ("GET", "/routingEndpointsHealth", LetIn::RegistryRead, 200),
    ("POST", "/devices/{id}/messages/events", LetIn::Device, 204),
    ("GET", "/devices/{id}/messages/deviceBound", LetIn::Device, 204),
    ("DELETE", "/devices/{id}/messages/deviceBound/{lock}", LetIn::Device, 412),
    ("POST", "/devices/{id}/messages/deviceBound/{lock}/abandon", LetIn::Device, 412),
    ("POST", "/devices/{id}/files", LetIn::Device, 400),
    ("POST", "/devices/{id}/files/notifications", LetIn::Device, 400),
    ("POST", "/devices/{id}/files/notifications/{correlation}", LetIn::Device, 400),
    ("GET", "/messages/events", LetIn::ServiceConnect, 200),
    ("GET", "/timeline", LetIn::ServiceConnect, 200),
    ("GET", "/settings", LetIn::ServiceConnect, 200),
    ("GET", "/certificates", LetIn::ServiceConnect, 200),
    ("GET", "/connections/{id}", LetIn::ServiceConnect, 200),
    ("GET", "/connections/{id}/modules/{module}", LetIn::ServiceConnect, 200),
    ("GET", "/queues/{id}", LetIn::ServiceConnect, 200),
    ("GET", "/rules", LetIn::ServiceConnect, 200),
    ("GET", "/operations", LetIn::ServiceConnect, 200),
    ("GET", "/streams", LetIn::ServiceConnect, 400),
    ("GET", "/messages/operationsMonitoringEvents", LetIn::ServiceConnect, 200),
    ("POST", "/faults/{id}", LetIn::ServiceConnect, 400),
    ("POST", "/faults/{id}/modules/{module}", LetIn::ServiceConnect, 400),
    ("GET", "/health/live", LetIn::Anybody, 200),
    ("GET", "/health/ready", LetIn::Anybody, 200),
    ("GET", "/metrics", LetIn::ServiceConnect, 200),
];

/// What a caller shows, its name, and what that is good for.
struct Credential {
    name: &'static str,
    token: Option<String>,
    certificate: Option<ClientCertificate>,
    rights: Rights,
    is_device: bool,
}

const THUMBPRINT: &str = "ABABABABABABABABABABABABABABABABABABABAB";

fn credentials() -> Vec<Credential> {
    let now = unix_time();
    let later = now.after(std::time::Duration::from_secs(600));
    let token = |name, token: String| Credential {
        name,
        token: Some(token),
        certificate: None,
        rights: Rights::NONE,
        is_device: false,
    };
    let mut all: Vec<Credential> = Rights::DEFAULT_POLICIES
        .iter()
        .map(|(name, rights)| Credential {
            rights: *rights,
            ..token(name, sas::sign("localhost", &key(), later, Some(name)))
        })
        .collect();
    let other = SymmetricKey::from_bytes(&[9; 32]);
    let own = |resource: &str, key: &SymmetricKey| sas::sign(resource, key, later, None);
    all.extend([
        Credential { token: None, ..token("nothing", String::new()) },
        token("no token at all", "Bearer abc".to_owned()),
        token("an unknown policy", sas::sign("localhost", &key(), later, Some("nobody"))),
        token("a policy with another key", sas::sign("localhost", &other, later, Some("iothubowner"))),
        token("a policy's expired token", sas::sign("localhost", &key(), now, Some("iothubowner"))),
        token("a policy for elsewhere", sas::sign("localhost/none", &key(), later, Some("iothubowner"))),
        Credential { is_device: true, ..token("the device", own("localhost/devices/demo", &key())) },
        token("the device with another key", own("localhost/devices/demo", &other)),
        token("the device's key for the hub", own("localhost", &key())),
        token("the device's key for all devices", own("localhost/devices", &key())),
        token("another device", own("localhost/devices/neighbour", &other)),
        token("a module of the device", own("localhost/devices/demo/modules/m", &key())),
        Credential {
            token: None,
            certificate: Some(ClientCertificate {
                sha1: THUMBPRINT.to_owned(),
                common_name: Some("demo".to_owned()),
                is_trusted: true,
                ..ClientCertificate::default()
            }),
            ..token("another device's certificate", String::new())
        },
    ]);
    all
}

fn hub() -> Client {
    let hub = Hub::prepared(|store| {
        let keys = || Authentication::Sas { primary: key(), secondary: key() };
        store.register("demo/m", keys());
        let other = SymmetricKey::from_bytes(&[9; 32]);
        store.register("neighbour", Authentication::Sas { primary: other.clone(), secondary: other });
        store.register(
            "certified",
            Authentication::SelfSigned { primary: THUMBPRINT.to_owned(), secondary: None },
        );
    });
    Client::of(hub)
}

impl Client {
    async fn show(&self, method: &str, path: &str, credential: &Credential) -> (StatusCode, Option<String>) {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}{separator}api-version=2021-04-12&follow=false"))
            .header("if-match", "\"none\"")
            .extension(Peer {
                address: ([192, 0, 2, 1], 1).into(),
                tls: TlsPeer {
                    certificate: credential.certificate.clone().map(Into::into),
                    server_name: None,
                },
            });
        if let Some(token) = &credential.token {
            request = request.header("authorization", token);
        }
        let request = request.body(Body::from("[")).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let error = response.headers().get("iothub-errorcode").map(|name| name.to_str().unwrap().to_owned());
        (response.status(), error)
    }
}

#[tokio::test(flavor = "local")]
async fn every_request_is_answered_to_those_who_may_ask_and_to_nobody_else() {
    // The storage checks signatures of its own: see `files`.
    let endpoints = || ENDPOINTS.iter().filter(|endpoint| endpoint.right != Right::BlobSignature);
    assert_eq!(endpoints().count(), EXPECTED.len(), "each request is expected once");
    let client = hub();
    let mut answers = 0;
    for endpoint in endpoints() {
        let method = endpoint.method.as_str();
        let expected = EXPECTED.iter().find(|(m, path, ..)| (*m, *path) == (method, endpoint.path));
        let (_, _, let_in, status) =
            expected.unwrap_or_else(|| panic!("nobody has said who may {method} {}", endpoint.path));
        let path = endpoint
            .path
            .replace("{id}", "demo")
            .replace("{module}", "m")
            .replace("{lock}", "x")
            .replace("{correlation}", "x")
            .replace("{job}", "j")
            .replace("{component}", "c")
            .replace("{command}", "x")
            .replace("{configuration}", "c");
        let path = path.replace("{name}", "x");
        for credential in credentials() {
            let may = match let_in {
                LetIn::RegistryRead => credential.rights.contains(Rights::REGISTRY_READ),
                LetIn::RegistryWrite => credential.rights.contains(Rights::REGISTRY_WRITE),
                LetIn::ServiceConnect => credential.rights.contains(Rights::SERVICE_CONNECT),
                LetIn::Device => credential.is_device || credential.rights.contains(Rights::DEVICE_CONNECT),
                LetIn::Anybody => true,
            };
            let (found, error) = client.show(method, &path, &credential).await;
            let what = format!("{method} {path} with {}: {error:?}", credential.name);
            if may {
                assert_eq!(found.as_u16(), *status, "{what}");
            } else {
                assert_eq!(found, StatusCode::UNAUTHORIZED, "{what}");
                assert_eq!(error.as_deref(), Some("IotHubUnauthorizedAccess"), "{what}");
            }
            answers += 1;
        }
    }
    assert_eq!(answers, EXPECTED.len() * credentials().len());
}

#[tokio::test(flavor = "local")]
async fn who_shows_nothing_does_not_learn_which_devices_there_are() {
    let client = hub();
    client.ask("PUT", "/devices/disabled", &[], serde_json::json!({"status": "disabled"})).await;
    for credential in credentials().iter().filter(|credential| credential.rights == Rights::NONE) {
        for (method, place) in [
            ("POST", "events"),
            ("GET", "deviceBound"),
            ("DELETE", "deviceBound/1-2"),
            ("POST", "deviceBound/1-2/abandon"),
        ] {
            let mut answers = Vec::new();
            // Known by a key, by a certificate, disabled, not there.
            for device in ["neighbour", "certified", "disabled", "unknown"] {
                if credential.name == "another device" && device == "neighbour"
                    || credential.certificate.is_some() && device == "certified"
                {
                    continue; // It is that device.
                }
                let path = format!("/devices/{device}/messages/{place}?api-version=2021-04-12");
                let mut request = Request::builder().method(method).uri(path).extension(Peer {
                    address: ([192, 0, 2, 1], 1).into(),
                    tls: TlsPeer {
                        certificate: credential.certificate.clone().map(Into::into),
                        server_name: None,
                    },
                });
                if let Some(token) = &credential.token {
                    request = request.header("authorization", token);
                }
                let response =
                    client.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                let status = response.status().as_u16();
                let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                answers.push((status, body["Message"].as_str().unwrap().replace(device, "{id}")));
            }
            answers.dedup();
            assert_eq!(answers.len(), 1, "{method} {place} with {}: {answers:?}", credential.name);
            assert_eq!(answers[0].0, 401);
        }
    }
}
