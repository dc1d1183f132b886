//! The words of the Device Provisioning Service against `tests/vectors/dps.json`.

#![allow(clippy::panic, reason = "a case that the test does not know must fail it")]

use std::time::Duration;

use devicebound::iothub::provisioning::{
    Answer, FromDevice, FromService, RegisterBody, RegistrationId, Username, UsernameError, answer_topic,
    check_filter, derive_key, poll_topic, register_topic, resource, sign, verify,
};
use devicebound::iothub::sas::{SasToken, SymmetricKey};
use devicebound::iothub::topic::{self, TopicError};
use devicebound::iothub::{Escaped, Identity};
use devicebound::packet::{TopicFilter, TopicName};
use devicebound::time::UnixTime;
use devicebound_world::vectors::{Members, load, name, word};
use serde_json::{Value, json};

#[test]
fn every_case_gets_its_answer() {
    for object in &load("dps") {
        let case = Members::of(object);
        let answer = match word(&case["op"]) {
            "derive" => derive(&case),
            "sign" => signed(&case),
            "verify" => verified(&case),
            "username" => username(word(&case["username"]), word(&case["client_id"])),
            "build" => json!({"topic": build(word(&case["kind"]), &case["input"])}),
            "parse_publish" => publish(word(&case["topic"])),
            "parse_delivery" => delivery(word(&case["topic"])),
            "filter" => {
                let filter = TopicFilter::new(word(&case["filter"])).expect("the vector is well-formed");
                json!({"granted": check_filter(filter).is_ok()})
            }
            "register_body" => body(word(&case["body"]), word(&case["registration_id"])),
            "answer" => outcome(&case),
            other => panic!("unknown op {other}"),
        };
        let expect = case.get("expect");
        assert!(["dps", ""].contains(&case["service"].as_str().unwrap_or_default()), "{}", name(object));
        case.get("may_be"); // any refusal passes for any other
        case.all_read();
        let is_refused = |answer: &Value| answer["result"] != "ok";
        let is_expected = match word(&case["op"]) {
            // Any refusal passes for any other.
            "verify" => is_refused(&answer) == is_refused(expect),
            // What is not asked for may be there.
            "answer" => expect
                .as_object()
                .expect("the vector is well-formed")
                .iter()
                .all(|(name, value)| answer[name] == *value),
            _ => answer == *expect,
        };
        assert!(is_expected, "{}: {answer} is not {expect}", name(object));
    }
}

fn id(value: &Value) -> RegistrationId<'_> {
    RegistrationId::new(word(value)).expect("the vector is well-formed")
}

fn derive(case: &Members<'_>) -> Value {
    let id = id(case.get("registration_id"));
    match SymmetricKey::from_base64(word(&case["group_key"])) {
        Ok(key) => json!({"device_key": derive_key(&key, id).to_base64()}),
        Err(_) => json!({"error": "bad_key"}),
    }
}

fn signed(case: &Members<'_>) -> Value {
    let key = SymmetricKey::from_base64(word(&case["key"])).expect("the vector is well-formed");
    let (scope, id) = (word(&case["id_scope"]), id(case.get("registration_id")));
    let expiry = case["expiry"].as_u64().expect("the vector is well-formed");
    let token = sign(scope, id, &key, UnixTime::from_secs(expiry));
    let resource = resource(scope, id);
    let parsed = SasToken::parse(&token).expect("the vector is well-formed");
    json!({
        "resource_uri": resource,
        "string_to_sign": format!("{}\n{expiry}", Escaped(&resource)),
        "signature": parsed.signature(),
        "token": token,
    })
}

fn verified(case: &Members<'_>) -> Value {
    let keys: Vec<_> = case["keys"]
        .as_array()
        .expect("the vector is well-formed")
        .iter()
        .map(|key| SymmetricKey::from_base64(word(key)).expect("the vector is well-formed"))
        .collect();
    let token = SasToken::parse(word(&case["token"])).expect("the vector is well-formed");
    let now = UnixTime::from_secs(case["now"].as_u64().expect("the vector is well-formed"));
    let (scope, id) = (word(&case["id_scope"]), id(case.get("registration_id")));
    match verify(&token, scope, id, &keys, now, Duration::ZERO) {
        Ok(_) => json!({"result": "ok"}),
        Err(error) => json!({"result": format!("{error:?}")}),
    }
}

fn username(text: &str, client_id: &str) -> Value {
    match Username::parse(text, client_id) {
        Ok(username) => json!({
            "id_scope": username.id_scope(),
            "registration_id": username.registration_id().as_str(),
            "api_version": username.api_version(),
            "client_version": username.client_version(),
        }),
        Err(UsernameError::NotProvisioning) => json!({"error": "not_provisioning"}),
        Err(UsernameError::IdentityMismatch) => json!({"error": "identity_mismatch"}),
        Err(UsernameError::Malformed | UsernameError::Id(_)) => json!({"error": "malformed"}),
    }
}

fn build(kind: &str, input: &Value) -> String {
    let input = Members::of(input);
    let (rid, mut out) = (Escaped(word(&input["rid"])), String::new());
    let number = |name: &str| {
        input[name].as_u64().map(|number| u32::try_from(number).expect("the vector is well-formed"))
    };
    let status = u16::try_from(number("status").unwrap_or(0)).expect("the vector is well-formed");
    match kind {
        "register" => register_topic(rid, &mut out),
        "poll" => poll_topic(rid, word(&input["operation_id"]), &mut out),
        "answer" => answer_topic(status, rid, number("retry_after"), &mut out),
        "issue_certificate" => topic::issue_certificate_topic(rid, &mut out),
        "issue_answer" => topic::credential_response_topic(status, rid, &mut out),
        other => panic!("unknown kind {other}"),
    }
    input.all_read();
    out
}

fn publish(text: &str) -> Value {
    let topic = TopicName::new(text).expect("the vector is well-formed");
    let device = Identity::new("dev-1", None).expect("the vector is well-formed");
    match (FromDevice::parse(topic), topic::FromDevice::parse(topic, device)) {
        (Ok(FromDevice::Register { rid }), _) => json!({"kind": "register", "rid": rid.decoded()}),
        (Ok(FromDevice::Poll { rid, operation_id }), _) => {
            json!({"kind": "poll", "rid": rid.decoded(), "operation_id": operation_id})
        }
        (Err(TopicError::Malformed(_)), _) => json!({"error": "malformed"}),
        (_, Ok(topic::FromDevice::IssueCertificate { rid })) => {
            json!({"kind": "issue_certificate", "rid": rid.decoded()})
        }
        (Err(_), _) => json!({"error": "unsupported"}),
    }
}

fn delivery(text: &str) -> Value {
    let topic = TopicName::new(text).expect("the vector is well-formed");
    let device = Identity::new("dev-1", None).expect("the vector is well-formed");
    match (FromService::parse(topic), topic::FromHub::parse(topic, device)) {
        (Ok(FromService { status, rid, retry_after }), _) => json!({
            "kind": "answer", "status": status, "rid": rid.decoded(), "retry_after": retry_after,
        }),
        (_, Ok(topic::FromHub::CredentialResponse { status, rid })) => {
            json!({"kind": "issue_answer", "status": status, "rid": rid.decoded()})
        }
        (Err(TopicError::Malformed(_)), _) | (_, Err(TopicError::Malformed(_))) => {
            json!({"error": "malformed"})
        }
        _ => json!({"error": "no_match"}),
    }
}

fn body(text: &str, registration_id: &str) -> Value {
    match RegisterBody::parse(
        text.as_bytes(),
        RegistrationId::new(registration_id).expect("the vector is well-formed"),
    ) {
        Ok(RegisterBody { payload, csr, .. }) => {
            let payload: Value = payload
                .map_or(Value::Null, |text| serde_json::from_str(&text).expect("the vector is well-formed"));
            json!({"payload": payload, "csr": csr})
        }
        Err(_) => json!({"error": "bad_request"}),
    }
}

fn outcome(case: &Members<'_>) -> Value {
    let number = |name: &str| {
        case[name].as_u64().map(|number| u32::try_from(number).expect("the vector is well-formed"))
    };
    let status = u16::try_from(number("status").expect("the vector is well-formed"))
        .expect("the vector is well-formed");
    match Answer::parse(status, number("retry_after"), word(&case["body"]).as_bytes()) {
        Answer::Poll { operation_id, after } => {
            json!({"outcome": "poll", "operation_id": operation_id, "after_s": after.as_secs()})
        }
        Answer::Assigned(assignment) => json!({
            "outcome": "assigned",
            "hub": assignment.hub,
            "device_id": assignment.device_id,
            "payload": assignment.payload.map_or(Value::Null, |text| serde_json::from_str(&text).expect("the vector is well-formed")),
            "chain": assignment.certificates,
            "connection_profile": assignment.connection_profile,
        }),
        Answer::Failed(error) => json!({"outcome": "failed", "error_code": error.code}),
        Answer::Disabled => json!({"outcome": "disabled"}),
        Answer::Refused { error, .. } => json!({"outcome": "refused", "error_code": error.code}),
        Answer::Again { after, .. } => json!({"outcome": "again", "after_s": after.as_secs()}),
        Answer::Malformed(_) => json!({"outcome": "malformed"}),
    }
}
