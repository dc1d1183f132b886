//! Azure's provisioning client for Python, unmodified, sync and async, over TLS (8883) and over WebSocket (443): individual
//! enrollments and groups, with keys and with certificates; then its device client, with what it was told.

use devicebound::iothub::provisioning::{RegistrationId, derive_key};
use devicebound::iothub::sas::SymmetricKey;
use devicebound_testkit::interop::Hub;
use devicebound_testkit::interop::python::{Packages, Python};
use devicebound_testkit::site;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// The hub on the ports that the SDK knows; `None` where 443 may not be had, which is said.
fn hub(name: &str) -> Option<Hub> {
    Hub::on_azure_ports_with_443(site!(), name)
}

/// Runs the client, and gives its line.
fn register(hub: &Hub, transport: &str, aio: bool, device: &Value) -> Value {
    let settings =
        std::fs::read_to_string(hub.state().join("provisioning.json")).expect("the hub has made it");
    let settings: Value = serde_json::from_str(&settings).expect("it is JSON");
    let mut config = json!({
        "ca": hub.ca(), "host": hub.host(), "idScope": settings["idScope"],
        "transport": transport, "aio": aio, "payload": {"modelId": "dtmi:a;1"},
    });
    let members = device.as_object().expect("members").clone();
    config.as_object_mut().expect("an object").extend(members);
    let python = Python::with(site!(), Packages::AzureAndPaho1);
    let mut program = python.start("azure_provisioning.py", &[&config.to_string()]);
    let line = program.expect("the outcome", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["event"] == "done" || line["event"] == "failed").then_some(line)
    });
    program.succeed();
    line
}

fn primary_key(made: &Value) -> SymmetricKey {
    let key = made["attestation"]["symmetricKey"]["primaryKey"].as_str().expect("PUT shows the keys");
    SymmetricKey::from_base64(key).expect("they are base64")
}

fn assert_assigned(hub: &Hub, line: &Value, device_id: &str) {
    let result = &line["result"];
    assert_eq!((&result["status"], &result["hub"]), (&json!("assigned"), &json!(hub.host())), "{line}");
    assert_eq!(result["deviceId"], device_id, "{line}");
}

#[test]
fn devices_with_keys_are_provisioned_and_connect() {
    let Some(hub) = hub("provisioning with keys") else { return };
    let keys = json!({"type": "symmetricKey"});
    let twin = json!({"tags": {}, "properties": {"desired": {"interval": 5}}});
    let own = json!({"attestation": keys, "deviceId": "thing", "initialTwin": twin});
    let own = primary_key(&hub.service().put("/enrollments/own", &own));
    let group = primary_key(&hub.service().put("/enrollmentGroups/g1", &json!({"attestation": keys})));
    let derived = derive_key(&group, RegistrationId::new("of-a-group").expect("it is one"));
    for (transport, aio) in [("tls", false), ("tls", true), ("websocket", false)] {
        let device = json!({"registrationId": "own", "key": own.to_base64(), "connect": true});
        let line = register(&hub, transport, aio, &device);
        assert_assigned(&hub, &line, "thing");
        assert_eq!(line["result"]["twin"]["desired"]["interval"], 5, "{line}");
        let device = json!({"registrationId": "of-a-group", "key": derived.to_base64(), "connect": true});
        assert_assigned(&hub, &register(&hub, transport, aio, &device), "of-a-group");
    }
    let stranger = json!({"registrationId": "own", "key": derived.to_base64()});
    let line = register(&hub, "tls", false, &stranger);
    assert_eq!((&line["event"], &line["error"]), (&json!("failed"), &json!("ClientError")), "{line}");
    assert!(line["text"].as_str().is_some_and(|text| text.contains("401")), "{line}");
}

#[test]
fn devices_with_certificates_are_provisioned_and_connect() {
    let Some(mut hub) = hub("provisioning with certificates") else { return };
    let folder = hub.state().to_path_buf();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("the folder can be written");
        path.display().to_string()
    };
    let params = |name: &str, is_ca: bool| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    };
    let key = || KeyPair::generate().expect("a key");

    let own_key = key();
    let own = params("own", false).self_signed(&own_key).expect("a certificate");
    let attestation =
        json!({"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": own.pem()}}}});
    hub.service().put("/enrollments/own", &json!({"attestation": attestation, "deviceId": "thing"}));
    let own = json!({
        "registrationId": "own", "connect": true,
        "certificate": write("own.pem", &own.pem()), "certificateKey": write("own.key", &own_key.serialize_pem()),
    });

    let (root_key, middle_key, leaf_key) = (key(), key(), key());
    let root = params("root", true).self_signed(&root_key).expect("a certificate");
    let root_issuer = Issuer::new(params("root", true), root_key);
    let middle = params("middle", true).signed_by(&middle_key, &root_issuer).expect("a certificate");
    let middle_issuer = Issuer::new(params("middle", true), middle_key);
    let leaf = params("leaf", false).signed_by(&leaf_key, &middle_issuer).expect("a certificate");
    let attestation =
        json!({"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": root.pem()}}}});
    hub.service().put("/enrollmentGroups/g1", &json!({"attestation": attestation}));
    let of_a_group = |chain: String| {
        json!({
            "registrationId": "leaf", "connect": true, "certificate": chain,
            "certificateKey": write("leaf.key", &leaf_key.serialize_pem()),
        })
    };
    let chain = write("chain.pem", &(leaf.pem() + &middle.pem()));
    for transport in ["tls", "websocket"] {
        assert_assigned(&hub, &register(&hub, transport, false, &own), "thing");
        assert_assigned(&hub, &register(&hub, transport, false, &of_a_group(chain.clone())), "leaf");
    }
    let device = hub.service().get("/devices/leaf");
    assert_eq!(device["authentication"]["type"], "selfSigned", "by the thumbprint of the leaf");

    let alone = of_a_group(write("leaf.pem", &leaf.pem()));
    assert_eq!(register(&hub, "tls", false, &alone)["event"], "failed", "the intermediate is missing");
    hub.expect_text("DPS-X509-CHAIN");
    let mut other = of_a_group(chain);
    other["registrationId"] = json!("other");
    assert_eq!(register(&hub, "tls", false, &other)["event"], "failed", "its name is leaf");
    hub.expect_text("DPS-X509-NAME");
}
