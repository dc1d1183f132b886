//! What the hub says to clients of every year, as it stands on the wire: the editions, and the answers to requests.

use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{CallId, LinkId, MethodRequest, Section, TwinUpdate, TwinUpdateError};
use devicebound::iothub::sas::{SymmetricKey, sign};
use devicebound::iothub::twin::merge;
use devicebound::packet::{Connect, Credentials, Decoded, Text, decode};
use devicebound_testkit::packet_json::{encode, seen};
use devicebound_world::fixtures::{HOST, KEYS, hub, send};
use devicebound_world::hub_host::{CallResult, HubHost, START};
use serde_json::{Map, Value, json};

const OLD: &str = "/api-version=2016-11-14";
const NEW: &str = "/?api-version=2021-04-12";

/// A hub, and `dev` online with what stands in its user name behind the device id.
fn online(query: &str) -> (HubHost, LinkId) {
    let mut hub = hub(&["dev"]);
    let link = hub.open();
    let key = SymmetricKey::from_base64(KEYS[0]).expect("the key is base64");
    let token = sign(&format!("{HOST}/devices/dev"), &key, START.after(Duration::from_secs(3600)), None);
    let username = format!("{HOST}/dev{query}");
    let username = Text::new(&username).expect("it is text");
    let credentials = Some(Credentials { username, password: Some(token.as_bytes()) });
    let client_id = Text::new("dev").expect("it is text");
    let mut bytes = Vec::new();
    Connect { clean_session: true, keep_alive: 60, client_id, will: None, credentials }
        .encode(&mut bytes)
        .expect("the fields are short");
    hub.receive(link, &bytes);
    assert_eq!(hub.take_output(link), [0x20, 2, 0, 0], "{query}");
    (hub, link)
}

/// What the hub has sent: of a PUBLISH `topic: payload`, of the others their type.
fn heard(hub: &mut HubHost, link: LinkId) -> Vec<String> {
    let output = hub.take_output(link);
    let (mut rest, mut heard) = (output.as_slice(), Vec::new());
    while let Decoded::Packet(packet) = decode(&mut rest, usize::MAX).expect("a hub sends MQTT") {
        let (packet, payload) = seen(&packet);
        heard.push(match packet["topic"].as_str() {
            Some(topic) => format!("{topic}: {}", String::from_utf8_lossy(&payload)),
            None => packet["type"].as_str().unwrap_or_default().to_owned(),
        });
    }
    heard
}

fn exchange(hub: &mut HubHost, link: LinkId, packet: &Value) -> Vec<String> {
    hub.receive(link, &encode(packet));
    heard(hub, link)
}

/// A PUBLISH at QoS 0.
fn publish(hub: &mut HubHost, link: LinkId, topic: &str, payload: &str) -> Vec<String> {
    exchange(hub, link, &json!({"type": "publish", "qos": 0, "topic": topic, "payload": payload}))
}

fn subscribe(hub: &mut HubHost, link: LinkId, filter: &str) {
    let packet = json!({"type": "subscribe", "packet_id": 1, "filters": [{"filter": filter, "qos": 1}]});
    assert_eq!(exchange(hub, link, &packet), ["suback"]);
}

fn call(hub: &mut HubHost) -> CallId {
    let request = MethodRequest {
        name: "m".to_owned(),
        payload: None,
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::ZERO,
    };
    let device = hub.device("dev");
    let call = hub.hub.invoke(hub.now, device, request).expect("the device is there");
    hub.settle();
    call
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().expect("it is an object")
}

// --- editions ---

#[test]
fn without_an_api_version_there_is_everything_but_the_twin() {
    for query in ["", "/", "/?", "/?api-version=", "/?DeviceClientType=x"] {
        let (mut hub, link) = online(query);
        publish(&mut hub, link, "devices/dev/messages/events/", "hello");
        assert_eq!(hub.telemetry.len(), 1);
        subscribe(&mut hub, link, "devices/dev/messages/devicebound/#");
        send(&mut hub, "m1");
        assert!(matches!(&heard(&mut hub, link)[..], [message] if message.ends_with(": m1")), "{query}");
        subscribe(&mut hub, link, "$iothub/methods/POST/#");
        let call = call(&mut hub);
        let rid = call.get();
        assert_eq!(heard(&mut hub, link), [format!("$iothub/methods/POST/m/?$rid={rid}: null")]);
        publish(&mut hub, link, &format!("$iothub/methods/res/200/?$rid={rid}"), "");
        assert!(matches!(hub.calls.get(&call), Some(CallResult::Answered { status: 200, .. })));

        subscribe(&mut hub, link, "$iothub/twin/res/#");
        for topic in ["$iothub/twin/GET/?$rid=1", "$iothub/twin/PATCH/properties/reported/?$rid=1"] {
            let answer = publish(&mut hub, link, topic, "{}");
            let begin = r#"$iothub/twin/res/400/?$rid=1: {"errorCode":400004,"#;
            assert!(matches!(&answer[..], [answer] if answer.starts_with(begin)), "{query}: {answer:?}");
        }
        assert_eq!((hub.record("dev").twin().reported_version(), hub.closed(link)), (1, None));
    }
}

#[test]
fn the_answers_to_twin_requests_are_those_of_the_edition() {
    let new_body = r#"{"desired":{"$version":1},"reported":{"a":[1,{"b":2}],"$version":2}}"#;
    let old_body = format!(r#"{{"properties":{new_body}}}"#);
    for (query, status, body) in [
        (OLD, 200, old_body.as_str()),
        ("/?api-version=2016-11-14", 200, &old_body),
        (NEW, 204, new_body),
        ("/?api-version=2018-06-30&DeviceClientType=x", 204, new_body),
        ("/?api-version=2099-01-01-preview", 204, new_body),
        // An old SDK for .NET put a slash where & belongs.
        (
            "/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1-preview-003",
            204,
            new_body,
        ),
    ] {
        let (mut hub, link) = online(query);
        subscribe(&mut hub, link, "$iothub/twin/res/#");
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1";
        let answer = publish(&mut hub, link, topic, r#"{"a":[1,{"b":2}]}"#);
        assert_eq!(answer, [format!("$iothub/twin/res/{status}/?$rid=1&$version=2: ")], "{query}");
        let answer = publish(&mut hub, link, "$iothub/twin/GET/?$rid=2", "");
        assert_eq!(answer, [format!("$iothub/twin/res/200/?$rid=2: {body}")], "{query}");
    }
}

#[test]
fn retain_has_the_name_of_the_edition() {
    for (query, name) in [(OLD, "x-opt-retain"), (NEW, "mqtt-retain"), ("", "mqtt-retain")] {
        let (mut hub, link) = online(query);
        let topic = "devices/dev/messages/events/";
        exchange(&mut hub, link, &json!({"type": "publish", "qos": 0, "retain": true, "topic": topic}));
        let expected = [(name.to_owned(), Some("true".to_owned()))];
        assert_eq!(hub.telemetry[0].properties, expected, "{query}");
    }
}

#[test]
fn the_model_of_a_device_is_kept_with_it() {
    for query in ["&model-id=dtmi%3Aa%3Bb%3B1", "&DeviceClientType=x&model-id=dtmi:a;b;1"] {
        let (mut hub, _) = online(&format!("{NEW}{query}"));
        assert_eq!(hub.record("dev").model_id(), Some("dtmi:a;b;1"));
        hub.restart();
        assert_eq!(hub.record("dev").model_id(), Some("dtmi:a;b;1"));
    }
}

// --- twin requests ---

#[test]
fn a_request_id_comes_back_as_it_stands_at_qos_0_and_as_often_as_it_was_used() {
    let (mut hub, link) = online(NEW);
    subscribe(&mut hub, link, "$iothub/twin/res/#");
    for rid in ["a%2fB", "a%2FB", "505e09bb-0", "a%2fB"] {
        let topic = format!("$iothub/twin/GET/?$rid={rid}");
        hub.receive(link, &encode(&json!({"type": "publish", "qos": 0, "topic": topic, "payload": " "})));
        let output = hub.take_output(link);
        assert_eq!(output.first(), Some(&0x30), "QoS 0, though QoS 1 was granted");
        let text = String::from_utf8_lossy(&output);
        assert!(text.contains(&format!("$iothub/twin/res/200/?$rid={rid}{{")), "{text}");
    }
}

#[test]
fn a_patch_of_who_does_not_hear_answers_is_made_without_one() {
    let (mut hub, link) = online(NEW);
    for (id, topic) in
        [(1, "$iothub/twin/PATCH/properties/reported/?$rid=1"), (2, "$iothub/twin/GET/?$rid=2")]
    {
        let packet =
            json!({"type": "publish", "qos": 1, "packet_id": id, "topic": topic, "payload": r#"{"a":1}"#});
        assert_eq!(exchange(&mut hub, link, &packet), ["puback"]);
    }
    assert_eq!(hub.record("dev").twin().reported()["a"], 1);
}

#[test]
fn desired_properties_that_were_put_in_place_are_told_as_the_difference() {
    for edition in [OLD, NEW] {
        let (mut hub, link) = online(edition);
        subscribe(&mut hub, link, "$iothub/twin/PATCH/properties/desired/#");
        let (mut version, mut copy) = (1, serde_json::Map::new());
        for (document, told) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1, "b": 2})),
            (json!({"a": 1, "c": 100}), json!({"b": null, "c": 100})),
            (json!({"a": {"x": 1, "y": [1]}, "c": 100}), json!({"a": {"x": 1, "y": [1]}})),
            (json!({"a": {"y": [2]}, "c": {}}), json!({"a": {"x": null, "y": [2]}, "c": {}})),
            (json!({"a": {"y": [2]}, "c": {}}), json!({})),
            (json!({"a": {}}), json!({"a": {"y": null}, "c": null})),
            (json!({}), json!({"a": null})),
        ] {
            version += 1;
            put_desired(&mut hub, &document);
            let heard = heard(&mut hub, link);
            let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}: ");
            let [body] = heard.as_slice() else { panic!("{heard:?}") };
            let body = body.strip_prefix(&topic).expect("it is a notification of this version");
            let mut patch = object(&serde_json::from_str(body).expect("it is JSON"));
            assert_eq!(patch.remove("$version"), Some(version.into()));
            merge(&mut copy, &patch);
            assert_eq!(Value::Object(patch), told);
            assert_eq!(&copy, hub.record("dev").twin().desired());
            assert_eq!(Value::Object(copy.clone()), document);
        }
    }
}

fn put_desired(hub: &mut HubHost, document: &Value) {
    let desired = Some(Section::Replace(object(document)));
    let device = hub.device("dev");
    let update = TwinUpdate { desired, ..TwinUpdate::default() };
    let commit = hub.hub.update_twin(hub.now, device, update).expect("it is good");
    hub.commit(commit);
}

#[test]
fn a_document_that_replaces_a_section_has_no_null_and_the_property_is_named() {
    let (mut hub, _) = online(NEW);
    let device = hub.device("dev");
    let replace = |document: Value| Some(Section::Replace(object(&document)));
    for (update, path) in [
        (TwinUpdate { tags: replace(json!({"my-tag": null})), ..TwinUpdate::default() }, "tags.my-tag"),
        (
            TwinUpdate { desired: replace(json!({"a": {"b": null}})), ..TwinUpdate::default() },
            "properties.desired.a.b",
        ),
    ] {
        let error = hub.hub.update_twin(hub.now, device, update).expect_err("it has a null").to_string();
        assert!(error.contains(path) && error.contains("400004"), "{error}");
    }
    assert_eq!((hub.record("dev").twin().version(), hub.record("dev").twin().desired_version()), (2, 1));
}

#[test]
fn a_reported_property_that_is_refused_is_named_with_its_path() {
    let (mut hub, link) = online(NEW);
    subscribe(&mut hub, link, "$iothub/twin/res/#");
    for (patch, told) in [
        (r#"{"a":{"b#c":1}}"#, "property properties.reported.a.b#c: a name"),
        (r#"{"list":[{"x":null}]}"#, "property properties.reported.list[0].x: an array contains no null"),
        ("[1]", "property properties.reported: an array stands where a JSON object is expected"),
        ("{\"a\":\n tru}", "the body is not JSON at line 2, column 5"),
    ] {
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1";
        hub.receive(link, &encode(&json!({"type": "publish", "qos": 0, "topic": topic, "payload": patch})));
        let answers = heard(&mut hub, link);
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };
        let (_, body) = answer.split_once(": ").expect("it has a body");
        let body: Value = serde_json::from_str(body).expect("the error is JSON");
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(told) && body["errorCode"] == 400_004, "{message}");
    }
}

#[test]
fn tags_have_8_kb_and_desired_properties_32() {
    // Each member has a name of two bytes and a text of 1022.
    let section = |count: u8| {
        let member = |number| (format!("{number:02}"), json!("x".repeat(1022)));
        Some(Section::Patch((0..count).map(member).collect()))
    };
    let (mut hub, _) = online(NEW);
    let device = hub.device("dev");
    let mut update = |update| hub.hub.update_twin(hub.now, device, update).map(drop);
    let tags = |count| TwinUpdate { tags: section(count), ..TwinUpdate::default() };
    let desired = |count| TwinUpdate { desired: section(count), ..TwinUpdate::default() };
    assert_eq!((update(tags(8)), update(desired(32))), (Ok(()), Ok(())));
    let refused = [update(tags(9)), update(desired(33))].map(|outcome| match outcome {
        Err(TwinUpdateError::Document(error)) => error.to_string(),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        refused,
        [
            "property tags: the section would have 9216 bytes, at most 8192 are allowed",
            "property properties.desired: the section would have 33792 bytes, at most 32768 are allowed",
        ]
    );
}

// --- method answers ---

#[test]
fn an_answer_to_a_method_has_at_most_128_kb() {
    for (length, is_closed) in [(131_072, false), (131_073, true)] {
        let (mut hub, link) = online(NEW);
        subscribe(&mut hub, link, "$iothub/methods/POST/#");
        let call = call(&mut hub);
        let topic = format!("$iothub/methods/res/200/?$rid={}", call.get());
        publish(&mut hub, link, &topic, &"1".repeat(length));
        let rule = is_closed.then_some(Rule::MethodSize);
        assert_eq!(hub.closed(link).map(|close| close.rule()), rule);
        assert_eq!(hub.calls.contains_key(&call), !is_closed);
    }
}

#[test]
fn an_answer_that_nobody_waits_for_is_acknowledged_like_any_other() {
    let (mut hub, link) = online(NEW);
    subscribe(&mut hub, link, "$iothub/methods/POST/#");
    let call = call(&mut hub);
    heard(&mut hub, link);
    let answer = |id: u64, rid: &str| json!({"type": "publish", "qos": 1, "packet_id": id, "topic": format!("$iothub/methods/res/200/?$rid={rid}")});
    for (id, rid) in [(1, call.get().to_string()), (2, call.get().to_string()), (3, "unknown".to_owned())] {
        assert_eq!(exchange(&mut hub, link, &answer(id, &rid)), ["puback"]);
    }
    assert_eq!(hub.closed(link), None);
}
