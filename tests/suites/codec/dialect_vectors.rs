//! The hub's dialect against `tests/vectors/topics.json`, `sas.json` and `connection_strings.json`.

#![allow(clippy::panic, reason = "a case that the test does not know must fail it")]

use std::time::Duration;

use devicebound::Rule;
use devicebound::iothub::sas::{self, Demand, Policy, Rights, SasError, SasToken, SymmetricKey};
use devicebound::iothub::topic::{self, FromDevice, FromHub, TopicError};
use devicebound::iothub::{
    ConnectionString, Credential, Escaped, Identity, Kind, PropertyBag, Subscription, SystemProperty,
    Username, UsernameError,
};
use devicebound::packet::{TopicFilter, TopicName};
use devicebound::time::UnixTime;
use devicebound_world::vectors::{Members, load, name, text};
use serde_json::{Map, Value, json};

/// Where the vectors leave the answer open and ours is not the one in the file.
fn own_answer(name: &str) -> Option<Value> {
    match name {
        "c2d-leading-question" => {
            let properties = json!([["?prop1", null], ["prop2", ""], ["prop3", "a string"]]);
            Some(json!({"kind": "c2d", "properties": properties, "system": {}, "app": properties}))
        }
        "filter-refuse-hash" => Some(json!({"accept": true, "kind": "c2d"})),
        "filter-one-method-wildcard" => Some(json!({"accept": true, "kind": "methods"})),
        _ => None,
    }
}

/// The cases of which [`own_answer`] knows.
const OWN_ANSWERS: usize = 3;

#[test]
fn every_topic_case_gets_its_answer() {
    let mut own_answers = 0;
    for case in &load("topics") {
        let members = Members::of(case);
        let answer = match text(&members["op"]).as_str() {
            "build" => json!({"topic": build(&text(&members["kind"]), &members["input"])}),
            "parse_publish" => publish(&text(&members["topic"]), identity(&members["identity"])),
            "parse_delivery" => delivery(&text(&members["topic"]), identity(&members["identity"])),
            "filter" => filter(&text(&members["filter"]), identity(&members["identity"])),
            "username" => username(&text(&members["username"]), &text(&members["client_id"])),
            "match" => json!({"match": matches(&text(&members["filter"]), &text(&members["topic"]))}),
            "filter_syntax" => json!({"valid": TopicFilter::new(&text(&members["filter"])).is_ok()}),
            other => panic!("unknown op {other}"),
        };
        members.get("expect");
        members.all_read();
        match own_answer(name(case)) {
            None => assert!(is_expected(&answer, &members["expect"]), "{}: {answer}", name(case)),
            Some(own) => {
                assert!(members["may_differ"] == true || members["may_accept"] == true, "{}", name(case));
                assert_eq!(answer, own, "{}", name(case));
                own_answers += 1;
            }
        }
    }
    assert_eq!(own_answers, OWN_ANSWERS);
}

#[test]
fn every_sas_case_gets_its_answer() {
    for case in &load("sas") {
        let members = Members::of(case);
        let expect = members.get("expect");
        members.get("may_be"); // any refusal passes for any other
        match text(&members["op"]).as_str() {
            "hmac" => {
                let signature = key(&members["key"]).signature(text(&members["message"]).as_bytes());
                assert_eq!(json!({"signature": signature}), *expect, "{}", name(case));
            }
            "sign" => sign(&members, name(case)),
            "bad_key" => {
                assert!(SymmetricKey::from_base64(&text(&members["key"])).is_err(), "{}", name(case))
            }
            "parse" => {
                assert_eq!(parse_token(&text(&members["token"])), *expect, "{}", name(case));
            }
            "verify" => {
                let outcome = verify(&members);
                let expect = Members::of(expect);
                assert_eq!(outcome.is_ok(), expect["result"] == "ok", "{}: {outcome:?}", name(case));
                expect.all_read();
            }
            other => panic!("unknown op {other}"),
        }
        members.all_read();
    }
}

#[test]
fn every_connection_string_case_gets_its_answer() {
    for case in &load("connection_strings") {
        let members = Members::of(case);
        assert_eq!(members["op"], "parse", "{}", name(case));
        let (input, expect) = (text(&members["input"]), members.get("expect"));
        members.all_read();
        match ConnectionString::parse(&input) {
            Ok(parsed) => assert_eq!(connection_fields(&parsed), *expect, "{}", name(case)),
            Err(error) => assert!(is_error(expect), "{}: {error}", name(case)),
        }
    }
}

/// Whether an error is all that is expected.
fn is_error(expect: &Value) -> bool {
    let members = Members::of(expect);
    members["error"].is_string() && members.unread().is_empty()
}

/// Whether `answer` is `expect`, or one of the errors that pass as well.
fn is_expected(answer: &Value, expect: &Value) -> bool {
    let also = expect["or"].as_array().is_some_and(|errors| errors.contains(&answer["error"]));
    let mut expect = expect.clone();
    if let Some(members) = expect.as_object_mut() {
        members.remove("or");
    }
    also || *answer == expect
}

fn identity(value: &Value) -> Identity<'_> {
    let members = Members::of(value);
    let identity = identity_of(&members);
    members.all_read();
    identity
}

/// The identity among other members.
fn identity_of<'a>(members: &Members<'a>) -> Identity<'a> {
    let device_id = members.get("device_id").as_str().expect("an identity has a device id");
    Identity::new(device_id, members.get("module_id").as_str())
        .expect("the identities of the vectors are right")
}

fn build(kind: &str, input: &Value) -> String {
    let input = Members::of(input);
    let topic = build_from(kind, &input);
    input.all_read();
    topic
}

fn build_from(kind: &str, input: &Members<'_>) -> String {
    let (mut out, rid) = (String::new(), input.get("rid").as_str().map(Escaped));
    let rid = || rid.expect("a request has a rid");
    let version = |name: &str| input[name].as_u64();
    match kind {
        "telemetry" => topic::telemetry_topic(identity_of(input), bag(input), &mut out),
        "c2d" => topic::cloud_message_topic(&text(&input["device_id"]), bag(input), &mut out),
        "twin_get" => topic::twin_get_topic(rid(), &mut out),
        "twin_patch_reported" => topic::twin_patch_topic(rid(), version("if_version"), &mut out),
        "twin_response" => topic::twin_response_topic(number(input), rid(), version("version"), &mut out),
        "desired_patch" => {
            topic::desired_patch_topic(version("version").expect("a patch has a version"), &mut out);
        }
        "method_request" => topic::method_request_topic(&text(&input["method"]), rid(), &mut out),
        "method_response" => topic::method_response_topic(number(input), rid(), &mut out),
        "username" => {
            let params = pairs(&input["params"]).map(|(name, value)| (name, value.unwrap_or_default()));
            return Username::build(
                &text(&input["host"]),
                identity_of(input),
                input["api_version"].as_str(),
                params,
            );
        }
        _ => {
            let kind = kind.strip_prefix("subscribe_").expect("nothing else is built");
            let subscription = Subscription::ALL.into_iter().find(|known| subscription_kind(*known) == kind);
            let filter = subscription.and_then(|subscription| subscription.filter(identity_of(input)));
            return filter.expect("the identity can subscribe to it");
        }
    }
    TopicName::new(&out).expect("what is built is a topic name");
    out
}

fn bag<'a>(input: &Members<'a>) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
    pairs(input.get("properties"))
}

fn pairs(list: &Value) -> impl Iterator<Item = (&str, Option<&str>)> {
    let list = list.as_array().expect("pairs are a list");
    list.iter().map(|pair| (pair[0].as_str().expect("a pair has a name"), pair[1].as_str()))
}

fn number<T: TryFrom<i64>>(input: &Members<'_>) -> T {
    let status = input["status"].as_i64().and_then(|status| status.try_into().ok());
    status.expect("the status fits")
}

fn publish(topic: &str, identity: Identity<'_>) -> Value {
    // The codec refuses a topic name that is none before the dialect sees it.
    let parsed = match TopicName::new(topic) {
        Ok(topic) => FromDevice::parse(topic, identity),
        Err(rule) => Err(TopicError::Malformed(rule)),
    };
    match parsed {
        Ok(FromDevice::Telemetry(bag)) => with_bag(json!({"kind": "telemetry"}), bag),
        Ok(FromDevice::TwinGet { rid }) => json!({"kind": "twin_get", "rid": rid.decoded()}),
        Ok(FromDevice::TwinPatch { rid, if_version }) => {
            let mut answer = json!({"kind": "twin_patch_reported", "rid": rid.decoded()});
            if let Some(version) = if_version {
                answer["if_version"] = json!(version);
            }
            answer
        }
        Ok(FromDevice::MethodResponse { status, rid }) => {
            json!({"kind": "method_response", "status": status, "rid": rid.decoded()})
        }
        Ok(FromDevice::IssueCertificate { rid }) => {
            json!({"kind": "issue_certificate", "rid": rid.decoded()})
        }
        Err(TopicError::ForeignIdentity) => json!({"error": "foreign_identity"}),
        Err(TopicError::Malformed(_)) => json!({"error": "malformed"}),
        Err(TopicError::UnknownTopic | TopicError::UnknownFilter) => json!({"error": "unsupported"}),
    }
}

fn delivery(topic: &str, identity: Identity<'_>) -> Value {
    match FromHub::parse_text(topic, identity) {
        Ok(FromHub::CloudMessage(bag)) => with_bag(json!({"kind": "c2d"}), bag),
        Ok(FromHub::ModuleInput { input, properties }) => {
            with_bag(json!({"kind": "module_input", "input": input}), properties)
        }
        Ok(FromHub::TwinResponse { status, rid, version }) => {
            json!({"kind": "twin_response", "status": status, "rid": rid.decoded(), "version": version})
        }
        Ok(FromHub::DesiredPatch { version }) => json!({"kind": "desired_patch", "version": version}),
        Ok(FromHub::MethodRequest { method, rid }) => {
            json!({"kind": "method_request", "method": method, "rid": rid.decoded()})
        }
        Ok(FromHub::CredentialResponse { status, rid }) => {
            json!({"kind": "credential_response", "status": status, "rid": rid.decoded()})
        }
        Err(TopicError::Malformed(_)) => json!({"error": "malformed"}),
        Err(_) => json!({"error": "no_match"}),
    }
}

fn with_bag(mut answer: Value, bag: PropertyBag<'_>) -> Value {
    let (mut all, mut app, mut system) = (Vec::new(), Vec::new(), Map::new());
    for (name, value) in bag.iter() {
        all.push(json!([name, value]));
        match SystemProperty::from_wire(&name) {
            Some(property) => drop(system.insert(plain_name(property).into(), json!(value))),
            None => app.push(json!([name, value])),
        }
    }
    answer["properties"] = all.into();
    answer["system"] = system.into();
    answer["app"] = app.into();
    answer
}

/// The name of a system property in the vectors.
fn plain_name(property: SystemProperty) -> &'static str {
    match property {
        SystemProperty::MessageId => "message_id",
        SystemProperty::CorrelationId => "correlation_id",
        SystemProperty::UserId => "user_id",
        SystemProperty::To => "to",
        SystemProperty::ContentType => "content_type",
        SystemProperty::ContentEncoding => "content_encoding",
        SystemProperty::Expiry => "expiry",
        SystemProperty::CreationTime => "creation_time",
        SystemProperty::Output => "output",
        SystemProperty::ConnectionDeviceId => "connection_device_id",
        SystemProperty::ConnectionModuleId => "connection_module_id",
        SystemProperty::InterfaceId => "interface_id",
        other => other.event_hubs_name(),
    }
}

fn filter(filter: &str, identity: Identity<'_>) -> Value {
    let granted = TopicFilter::new(filter)
        .map_err(TopicError::Malformed)
        .and_then(|filter| Subscription::of(filter, identity));
    json!({"accept": granted.is_ok(), "kind": granted.ok().map(subscription_kind)})
}

fn subscription_kind(subscription: Subscription) -> &'static str {
    match subscription {
        Subscription::CloudMessages => "c2d",
        Subscription::TwinResponses => "twin_responses",
        Subscription::DesiredPatches => "desired",
        Subscription::Methods => "methods",
        Subscription::CredentialResponses => "issue_answer",
        Subscription::ModuleInputs => "module",
    }
}

fn username(text: &str, client_id: &str) -> Value {
    match Username::parse(text, client_id) {
        Ok(username) => json!({
            "host": username.host(),
            "device_id": username.identity().device_id(),
            "module_id": username.identity().module_id(),
            "api_version": username.api_version(),
            "params": username.params().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
        }),
        Err(UsernameError::Malformed | UsernameError::Provisioning) => json!({"error": "malformed"}),
        Err(UsernameError::ClientIdMismatch | UsernameError::Id(_)) => json!({"error": "client_id_mismatch"}),
    }
}

fn matches(filter: &str, topic: &str) -> bool {
    let filter = TopicFilter::new(filter).expect("the filters to match are right");
    filter.matches(TopicName::new(topic).expect("the topics to match are right"))
}

fn key(value: &Value) -> SymmetricKey {
    SymmetricKey::from_base64(&text(value)).expect("the keys of the vectors are base64")
}

fn seconds(value: &Value) -> UnixTime {
    UnixTime::from_secs(value.as_u64().expect("times are whole seconds"))
}

fn sign(case: &Members<'_>, name: &str) {
    let (key, expect) = (key(&case["key"]), Members::of(case.get("expect")));
    let resource = text(&case["resource_uri"]);
    let token = sas::sign(&resource, &key, seconds(&case["expiry"]), case["policy"].as_str());
    assert_eq!(token, expect["token"], "{name}");
    let signature = key.signature(text(&expect["string_to_sign"]).as_bytes());
    assert_eq!(signature, expect["signature"], "{name}");
    let parsed = SasToken::parse(&token).expect("what is signed is a token");
    assert!(parsed.is_signed_with(&key), "{name}");
    assert_eq!(parsed.resource(), resource, "{name}");
    expect.all_read();
}

fn parse_token(token: &str) -> Value {
    match SasToken::parse(token) {
        Ok(token) => json!({
            "sr": token.resource(),
            "sig": token.signature(),
            "se": token.expiry().as_secs(),
            "skn": token.key_name(),
        }),
        Err(error) => {
            assert_eq!(error.rule(), Rule::SasMalformed);
            json!({"error": "malformed"})
        }
    }
}

fn verify(case: &Members<'_>) -> Result<(), SasError> {
    let keys: Vec<_> = case["device_keys"].as_array().expect("a list of keys").iter().map(key).collect();
    let keys: Vec<_> = keys.iter().collect();
    let policies: Vec<_> =
        case["policies"].as_object().expect("policies by name").iter().map(policy).collect();
    let demand = Demand {
        target: &text(&case["target"]),
        keys: &keys,
        right: Rights::DEVICE_CONNECT,
        now: seconds(&case["now"]),
        skew: Duration::ZERO,
    };
    let find = |name: &str| policies.iter().find(|policy| policy.name == name);
    SasToken::parse(&text(&case["token"]))?.verify(&demand, find).map(|_| ())
}

fn policy((name, value): (&String, &Value)) -> Policy {
    let value = Members::of(value);
    let names = value["rights"].as_array().expect("rights are a list").iter().map(text);
    let rights = names.map(|name| Rights::from_name(&name).expect("a right that Azure knows"));
    let policy = Policy {
        name: name.clone(),
        keys: vec![key(&value["key"])],
        rights: rights.fold(Rights::NONE, |all, right| all | right),
    };
    value.all_read();
    policy
}

fn connection_fields(parsed: &ConnectionString) -> Value {
    let (key, signature) = match parsed.credential() {
        Credential::Key(key) => (Some(key.to_base64()), None),
        Credential::Signature(token) => (None, Some(token)),
        Credential::X509 => (None, None),
    };
    json!({
        "kind": match parsed.kind() {
            Kind::Device => "device",
            Kind::Module => "module",
            Kind::Service => "service",
        },
        "host_name": parsed.host_name(),
        "device_id": parsed.identity().map(Identity::device_id),
        "module_id": parsed.identity().and_then(Identity::module_id),
        "shared_access_key": key,
        "shared_access_key_name": parsed.key_name(),
        "shared_access_signature": signature,
        "gateway_host_name": parsed.gateway_host_name(),
        "x509": matches!(parsed.credential(), Credential::X509),
    })
}
