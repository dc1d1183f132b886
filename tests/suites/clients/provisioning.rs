//! Devices that know their registration id and one secret, with our own clients and the program `devicebound hub`.

use std::time::Duration;

use devicebound::Device;
use devicebound::device::{Action, DeviceConfig, Message};
use devicebound::iothub::CertificateRequest;
use devicebound::iothub::provisioning::{RegistrationId, derive_key};
use devicebound::iothub::sas::SymmetricKey;
use devicebound::provisioning::{Credential, Failure, Provisioned, ProvisioningConfig};
use devicebound_blocking::{Client, ProvisionError, Tls};
use devicebound_testkit::interop::Hub;
use devicebound_testkit::interop::service::Method;
use devicebound_testkit::site;
use devicebound_tokio::Client as TokioClient;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

/// How a device reaches the hub.
#[derive(Clone, Copy, Debug)]
enum Way {
    Mqtt,
    WebSocket,
}

fn tls(hub: &Hub, way: Way) -> Tls {
    let tls = Tls::with_authorities_file(hub.ca()).expect("the hub has a CA");
    match way {
        Way::Mqtt => tls.with_port(hub.mqtt_port().parse().expect("a port is a number")),
        Way::WebSocket => {
            tls.with_websocket().with_port(hub.https_port().parse().expect("a port is a number"))
        }
    }
}

fn id_scope(hub: &Hub) -> String {
    let text = std::fs::read_to_string(hub.state().join("provisioning.json")).expect("the hub has made it");
    let settings: Value = serde_json::from_str(&text).expect("it is JSON");
    settings["idScope"].as_str().expect("it names the id scope").to_owned()
}

fn config(hub: &Hub, id: &str, credential: Credential) -> ProvisioningConfig {
    let patience = Duration::from_secs(60);
    ProvisioningConfig::new(&id_scope(hub), id, credential).with_host("localhost").with_patience(patience)
}

/// Lets a device in by keys, or a group; gives the primary key.
fn enroll(hub: &Hub, path: &str, more: &Value) -> SymmetricKey {
    let mut body = json!({"attestation": {"type": "symmetricKey"}});
    let more = more.as_object().expect("members");
    body.as_object_mut().expect("an object").extend(more.clone());
    let made = hub.service().put(path, &body);
    let key = made["attestation"]["symmetricKey"]["primaryKey"].as_str().expect("the keys are shown once");
    SymmetricKey::from_base64(key).expect("it is base64")
}

fn blocking(hub: &Hub, way: Way, config: ProvisioningConfig) -> Result<Provisioned, ProvisionError> {
    Client::provision(config, &tls(hub, way))
}

fn tokio(hub: &Hub, way: Way, config: ProvisioningConfig) -> Result<Provisioned, ProvisionError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(TokioClient::provision(config, tls(hub, way)))
}

/// Connects, and sends a message that the hub acknowledges.
fn sends(device: DeviceConfig, tls: Tls) {
    let mut client = Client::new(Device::new(device).expect("it was provisioned"), tls);
    let ticket = client.device().telemetry(Message::new(b"21.5")).expect("there is room");
    'waiting: while client.wait() {
        let (device, mut incoming) = client.split();
        while let Some(next) = incoming.next(device) {
            if next.expect("it connects at once") == Action::Acknowledged(ticket) {
                break 'waiting;
            }
        }
    }
    client.close();
}

#[test]
fn a_device_with_a_key_of_its_own_learns_its_hub_over_mqtt_and_websocket_with_both_clients() {
    let hub = Hub::on_free_ports(site!());
    let twin = json!({"deviceId": "thing-1", "initialTwin": {"properties": {"desired": {"interval": 5}}}});
    let key = enroll(&hub, "/enrollments/dev-1", &twin);
    let config = || config(&hub, "dev-1", Credential::Key(key.clone())).with_payload(r#"{"a":1}"#);
    for (provision, way) in [
        (blocking as fn(&_, _, _) -> _, Way::Mqtt),
        (tokio, Way::WebSocket),
        (blocking, Way::WebSocket),
        (tokio, Way::Mqtt),
    ] {
        let provisioned = provision(&hub, way, config()).expect("it is enrolled");
        let assignment = &provisioned.assignment;
        assert_eq!((&*assignment.hub, &*assignment.device_id), ("localhost", "thing-1"), "{way:?}");
        sends(provisioned.device, tls(&hub, way));
    }
    let twin = hub.service().get("/twins/thing-1");
    assert_eq!(twin["properties"]["desired"]["interval"], 5);
    assert_eq!(twin["properties"]["desired"]["$version"], 1, "it was written when the device was made");
}

#[test]
fn devices_of_a_group_have_keys_of_their_own_and_the_groups_key_opens_nothing() {
    let mut hub = Hub::on_free_ports(site!());
    let group = enroll(&hub, "/enrollmentGroups/g1", &json!({}));
    for id in ["dev-a", "Dev-B.2:x"] {
        let derived = derive_key(&group, RegistrationId::new(id).expect("it is one"));
        let provisioned = blocking(&hub, Way::Mqtt, config(&hub, id, Credential::Key(derived)));
        assert_eq!(provisioned.expect("it is of the group").assignment.device_id, id);
    }
    let refused = blocking(&hub, Way::Mqtt, config(&hub, "dev-a", Credential::Key(group)));
    let Err(ProvisionError::Failed(Failure::Refused { status: 401, error })) = refused else {
        unreachable!("{refused:?}")
    };
    assert_eq!((error.code, &*error.message), (401_002, "Unauthorized"));
    hub.expect_text("DPS-GROUP-KEY");
}

#[test]
fn what_is_promised_to_a_device_outlives_the_hubs_crash() {
    let mut hub = Hub::on_free_ports(site!());
    let key = enroll(&hub, "/enrollments/dev-1", &json!({}));
    let config = |hub: &Hub| config(hub, "dev-1", Credential::Key(key.clone()));
    let first = blocking(&hub, Way::Mqtt, config(&hub)).expect("it is enrolled");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(hub.pid()).expect("it runs"),
        rustix::process::Signal::KILL,
    )
    .expect("it may be killed");
    hub.has_crashed();
    hub.start_again();
    let registration = hub.service().get("/registrations/dev-1");
    assert_eq!(registration["deviceId"], "dev-1");
    sends(first.device, tls(&hub, Way::Mqtt));
    assert!(blocking(&hub, Way::Mqtt, config(&hub)).is_ok(), "its enrollment is there, too");
}

/// A key, and a request for a certificate of this name.
fn certificate_request(name: &str) -> (KeyPair, CertificateRequest) {
    let own = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&own).expect("a request");
    let request = CertificateRequest::from_der(request.der()).expect("it is one");
    (own, request)
}

#[test]
fn a_certificate_is_renewed_on_the_connection_and_no_message_is_lost() {
    let hub = Hub::on_free_ports(site!());
    let key =
        enroll(&hub, "/enrollments/dev-1", &json!({"credentialPolicyName": "default", "deviceId": "thing"}));
    let (own, request) = certificate_request("dev-1");
    let config = config(&hub, "dev-1", Credential::Key(key)).with_certificate_request(request);
    let provisioned = blocking(&hub, Way::Mqtt, config).expect("it is enrolled");
    let with = |pem: &str, key: &KeyPair| {
        let tls = tls(&hub, Way::Mqtt).with_certificate(pem.as_bytes(), key.serialize_pem().as_bytes());
        tls.expect("key and certificate belong together")
    };
    let first = provisioned.certificates.expect("one was asked for");
    let mut client =
        Client::new(Device::new(provisioned.device).expect("it is"), with(&first.to_pem(), &own));
    // By the registration id and by the device id, each time with a new key.
    for name in ["dev-1", "thing", "dev-1"] {
        let (own, request) = certificate_request(name);
        let device = client.device();
        device.request_certificate(request).expect("none is open");
        let mut tickets = vec![device.telemetry(Message::new(b"before")).expect("there is room")];
        let mut was_issued = false;
        while !(was_issued && tickets.is_empty()) {
            assert!(client.wait());
            let mut issued = None;
            let (device, mut incoming) = client.split();
            while let Some(next) = incoming.next(device) {
                match next {
                    Ok(Action::CertificateIssued(chain)) => issued = Some(chain),
                    Ok(Action::Acknowledged(ticket)) => tickets.retain(|open| *open != ticket),
                    Ok(Action::Connected { .. } | Action::Subscribed(_)) => {}
                    Err(offline) if offline.to_string().contains("DEVICE-TOKEN-RENEWAL") => {}
                    other => unreachable!("{other:?}"),
                }
            }
            drop(incoming);
            if let Some(chain) = issued {
                assert_eq!(chain.common_name(), name);
                client.replace_tls(with(&chain.to_pem(), &own));
                let device = client.device();
                device.replace_credential(devicebound::device::Credential::Certificate).expect("it is one");
                device.plan_certificate_renewal(&chain);
                tickets.push(device.telemetry(Message::new(b"after")).expect("there is room"));
                was_issued = true;
            }
        }
    }
    client.close();
    assert_eq!(hub.service().stored_telemetry().len(), 6);
    let identity = hub.service().get("/devices/thing");
    let thumbprints = &identity["authentication"]["x509Thumbprint"];
    assert_ne!(thumbprints["primaryThumbprint"], thumbprints["secondaryThumbprint"]);
    assert!(thumbprints["secondaryThumbprint"].is_string(), "the one before is good, too");
}

#[test]
fn a_device_that_asks_for_a_certificate_connects_with_it() {
    let hub = Hub::on_free_ports(site!());
    let key =
        enroll(&hub, "/enrollments/dev-1", &json!({"credentialPolicyName": "default", "deviceId": "thing"}));
    let (own, request) = certificate_request("dev-1");
    let config = config(&hub, "dev-1", Credential::Key(key)).with_certificate_request(request);
    let provisioned = tokio(&hub, Way::Mqtt, config).expect("it is enrolled");
    let chain = provisioned.certificates.expect("one was asked for");
    assert_eq!((chain.common_name(), chain.certificates().len()), ("dev-1", 2));
    let pem = chain.to_pem();
    let tls = tls(&hub, Way::Mqtt).with_certificate(pem.as_bytes(), own.serialize_pem().as_bytes());
    sends(provisioned.device, tls.expect("key and certificate belong together"));
}

#[test]
fn a_device_that_is_disabled_unknown_or_of_another_instance_is_told_so() {
    let hub = Hub::on_free_ports(site!());
    let key = enroll(&hub, "/enrollments/dev-1", &json!({"provisioningStatus": "disabled"}));
    let credential = || Credential::Key(key.clone());
    let failure = |config| match blocking(&hub, Way::Mqtt, config) {
        Err(ProvisionError::Failed(failure)) => failure,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(failure(config(&hub, "dev-1", credential())), Failure::Disabled);
    let unknown = failure(config(&hub, "dev-2", credential()));
    assert!(
        matches!(&unknown, Failure::Refused { status: 404, error } if error.code == 404_201),
        "{unknown}"
    );
    let other = ProvisioningConfig::new("0ne00000000", "dev-1", credential()).with_host("localhost");
    assert!(matches!(failure(other), Failure::Connect(_)));
    let nowhere = json!({"iotHubs": ["elsewhere.example.test"]});
    let key = enroll(&hub, "/enrollments/dev-3", &nowhere);
    let unassigned = failure(config(&hub, "dev-3", Credential::Key(key)));
    assert!(matches!(&unassigned, Failure::Failed(error) if error.code == 400_208), "{unassigned}");
    let removed = hub.service().ask(Method::DELETE, "/enrollments/dev-1", &[], b"").expect("the hub answers");
    assert_eq!(removed.status(), 204);
}
