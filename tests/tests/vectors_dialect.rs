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
use devicebound_tests::vectors::{load, name, text};
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
    for case in load("topics") {
        let answer = match text(&case["op"]).as_str() {
            "build" => json!({"topic": build(&text(&case["kind"]), &case["input"])}),
            "parse_publish" => publish(&text(&case["topic"]), identity(&case["identity"])),
            "parse_delivery" => delivery(&text(&case["topic"]), identity(&case["identity"])),
            "filter" => filter(&text(&case["filter"]), identity(&case["identity"])),
            "username" => username(&text(&case["username"]), &text(&case["client_id"])),
            "match" => json!({"match": matches(&text(&case["filter"]), &text(&case["topic"]))}),
            "filter_syntax" => json!({"valid": TopicFilter::new(&text(&case["filter"])).is_ok()}),
            other => panic!("unknown op {other}"),
        };
        match own_answer(name(&case)) {
            None => assert!(is_expected(&answer, &case["expect"]), "{}: {answer}", name(&case)),
            Some(own) => {
                assert!(case["may_differ"] == true || case["may_accept"] == true, "{}", name(&case));
                assert_eq!(answer, own, "{}", name(&case));
                own_answers += 1;
            }
        }
    }
    assert_eq!(own_answers, OWN_ANSWERS);
}

#[test]
fn every_sas_case_gets_its_answer() {
    for case in load("sas") {
        let expect = &case["expect"];
        match text(&case["op"]).as_str() {
            "hmac" => {
                let signature = key(&case["key"]).signature(text(&case["message"]).as_bytes());
                assert_eq!(signature, expect["signature"], "{}", name(&case));
            }
            "sign" => sign(&case),
            "bad_key" => assert!(SymmetricKey::from_base64(&text(&case["key"])).is_err(), "{}", name(&case)),
            "parse" => {
                assert_eq!(parse_token(&text(&case["token"])), *expect, "{}", name(&case));
            }
            "verify" => {
                let outcome = verify(&case);
                assert_eq!(outcome.is_ok(), expect["result"] == "ok", "{}: {outcome:?}", name(&case));
            }
            other => panic!("unknown op {other}"),
        }
    }
}

#[test]
fn every_connection_string_case_gets_its_answer() {
    for case in load("connection_strings") {
        let (input, expect) = (text(&case["input"]), &case["expect"]);
        match ConnectionString::parse(&input) {
            Ok(parsed) => assert_eq!(connection_fields(&parsed), *expect, "{}", name(&case)),
            Err(error) => assert!(expect["error"].is_string(), "{}: {error}", name(&case)),
        }
    }
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
    let device_id = value["device_id"].as_str().expect("an identity has a device id");
    Identity::new(device_id, value["module_id"].as_str()).expect("the identities of the vectors are right")
}

fn build(kind: &str, input: &Value) -> String {
    let (mut out, rid) = (String::new(), input["rid"].as_str().map(Escaped));
    let rid = || rid.expect("a request has a rid");
    let version = |name: &str| input[name].as_u64();
    match kind {
        "telemetry" => topic::telemetry_topic(identity(input), bag(input), &mut out),
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
                identity(input),
                input["api_version"].as_str(),
                params,
            );
        }
        _ => {
            let kind = kind.strip_prefix("subscribe_").expect("nothing else is built");
            let subscription = Subscription::ALL.into_iter().find(|known| subscription_kind(*known) == kind);
            let filter = subscription.and_then(|subscription| subscription.filter(identity(input)));
            return filter.expect("the identity can subscribe to it");
        }
    }
    TopicName::new(&out).expect("what is built is a topic name");
    out
}

fn bag(input: &Value) -> impl Iterator<Item = (&str, Option<&str>)> {
    pairs(&input["properties"])
}

fn pairs(list: &Value) -> impl Iterator<Item = (&str, Option<&str>)> {
    let list = list.as_array().expect("pairs are a list");
    list.iter().map(|pair| (pair[0].as_str().expect("a pair has a name"), pair[1].as_str()))
}

fn number<T: TryFrom<i64>>(input: &Value) -> T {
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
        Err(UsernameError::Malformed) => json!({"error": "malformed"}),
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

fn sign(case: &Value) {
    let (key, expect) = (key(&case["key"]), &case["expect"]);
    let resource = text(&case["resource_uri"]);
    let token = sas::sign(&resource, &key, seconds(&case["expiry"]), case["policy"].as_str());
    assert_eq!(token, expect["token"], "{}", name(case));
    let signature = key.signature(text(&expect["string_to_sign"]).as_bytes());
    assert_eq!(signature, expect["signature"], "{}", name(case));
    let parsed = SasToken::parse(&token).expect("what is signed is a token");
    assert!(parsed.is_signed_with(&key), "{}", name(case));
    assert_eq!(parsed.resource(), resource, "{}", name(case));
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

fn verify(case: &Value) -> Result<(), SasError> {
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
    let names = value["rights"].as_array().expect("rights are a list").iter().map(text);
    let rights = names.map(|name| Rights::from_name(&name).expect("a right that Azure knows"));
    Policy {
        name: name.clone(),
        keys: vec![key(&value["key"])],
        rights: rights.fold(Rights::NONE, |all, right| all | right),
    }
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
