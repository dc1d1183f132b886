//! What the hub takes although the real one may not: with a warning, or not at all where it is strict.

use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{HubConfig, LinkId, MethodRequest, ServerName, TlsClient};
use devicebound::iothub::sas::{SymmetricKey, sign};
use devicebound::packet::{Connect, Credentials, Text};
use devicebound::time::UnixTime;
use devicebound_testkit::packet_json::encode;
use devicebound_world::fixtures::{HOST, KEYS, record};
use devicebound_world::hub_host::{HubHost, START, StoreMode};
use serde_json::json;

const NAME: &str = "hub.example.test/dev/?api-version=2021-04-12";

fn host(strict: bool) -> HubHost {
    let known_names = vec![HOST.to_owned()];
    let mut hub = HubHost::new(HubConfig { strict, known_names, ..HubConfig::default() });
    hub.register(record("dev"));
    hub
}

fn key() -> SymmetricKey {
    SymmetricKey::from_base64(KEYS[0]).expect("the key is base64")
}

fn token_for(sr: &str, expiry: UnixTime) -> String {
    sign(sr, &key(), expiry, None)
}

fn good_token() -> String {
    token_for(&format!("{HOST}/devices/dev"), START.after(Duration::from_secs(3600)))
}

fn connect(username: &str, token: &str, keep_alive: u16) -> Vec<u8> {
    let username = Text::new(username).expect("it is text");
    let credentials = Some(Credentials { username, password: Some(token.as_bytes()) });
    let client_id = Text::new("dev").expect("it is text");
    let mut bytes = Vec::new();
    Connect { clean_session: true, keep_alive, client_id, will: None, credentials }
        .encode(&mut bytes)
        .expect("the fields are short");
    bytes
}

fn online(strict: bool) -> (HubHost, LinkId) {
    let mut hub = host(strict);
    let link = hub.open();
    hub.receive(link, &connect(NAME, &good_token(), 60));
    assert_eq!(hub.take_output(link), [0x20, 2, 0, 0]);
    assert_eq!(hub.warnings, []);
    (hub, link)
}

fn rules(hub: &HubHost) -> Vec<Rule> {
    hub.warnings.iter().map(|warning| warning.rule).collect()
}

#[test]
fn a_connect_that_the_real_hub_may_refuse_is_taken_with_a_warning_or_refused_by_a_strict_hub() {
    let expiry = START.after(Duration::from_secs(3600)).as_secs();
    let raw = |sr: &str, encode_signature: bool| {
        let signature = key().signature(format!("{sr}\n{expiry}").as_bytes());
        let signature =
            if encode_signature { devicebound::iothub::Escaped(&signature).to_string() } else { signature };
        format!("SharedAccessSignature sr={sr}&sig={signature}&se={expiry}")
    };
    let resource = format!("{HOST}/devices/dev");
    let millis = token_for(&resource, UnixTime::from_secs(expiry * 1000));
    let foreign = token_for("other.test/devices/dev", UnixTime::from_secs(expiry));
    for (username, token, keep_alive, rule, received) in [
        ("hub.example.test/dev/", &*good_token(), 60, Rule::ApiVersionUnknown, "no api-version"),
        ("hub.example.test/dev/?api-version=banana", &good_token(), 60, Rule::ApiVersionUnknown, "=banana"),
        (NAME, &good_token(), 1768, Rule::KeepAliveRange, "keep alive 1768 s"),
        (NAME, &good_token(), 0, Rule::KeepAliveRange, "keep alive 0 s"),
        (NAME, &millis, 60, Rule::SasExpiryRange, "000"),
        (NAME, &raw(&resource, true), 60, Rule::SasEncoding, "sr=hub.example.test/devices/dev"),
        (NAME, &raw(&resource.replace('/', "%2F"), false), 60, Rule::SasEncoding, "a sig with raw"),
        ("other.test/dev/?api-version=2021-04-12", &foreign, 60, Rule::HostName, "other.test"),
    ] {
        let bytes = connect(username, token, keep_alive);
        let mut hub = host(false);
        let link = hub.open();
        hub.receive(link, &bytes);
        assert_eq!(hub.take_output(link), [0x20, 2, 0, 0], "{rule}");
        assert_eq!(rules(&hub), [rule]);
        let compared = hub.warnings[0].comparison.as_ref().expect("something was compared");
        assert!(compared.received.contains(received), "{compared:?}");

        let mut strict = host(true);
        let link = strict.open();
        strict.receive(link, &bytes);
        assert_eq!(strict.take_output(link), [0x20, 2, 0, 5], "{rule}");
        assert_eq!(strict.closed(link).map(|close| close.rule()), Some(rule));
        assert_eq!(strict.comparisons.len(), 1, "{rule}");
    }
}

#[test]
fn the_server_name_of_tls_is_compared_with_the_user_name() {
    let of_address = "127.0.0.1/dev/?api-version=2021-04-12";
    for (username, asked, is_odd) in [
        (NAME, ServerName::Unknown, false),
        (NAME, ServerName::Name("HUB.example.test"), false),
        (NAME, ServerName::Name("localhost"), true),
        (NAME, ServerName::Absent, true),
        (of_address, ServerName::Absent, false),
    ] {
        let host_name = username.split('/').next().expect("it has a host");
        let token = token_for(&format!("{host_name}/devices/dev"), START.after(Duration::from_secs(60)));
        let bytes = connect(username, &token, 60);
        for strict in [false, true] {
            let mut hub = HubHost::new(HubConfig { strict, ..HubConfig::default() });
            hub.register(record("dev"));
            let client = TlsClient { server_name: asked, ..TlsClient::default() };
            let outcome = crate::identity::judge(&mut hub, &bytes, client);
            assert_eq!(outcome.is_err(), is_odd && strict, "{username} {asked:?}");
            let warned = hub.hub.poll_warning().map(|(_, warning)| warning.rule);
            assert_eq!(warned, (is_odd && !strict).then_some(Rule::ServerName), "{username} {asked:?}");
        }
    }
}

fn publish(topic: &str, payload: &str) -> Vec<u8> {
    encode(&json!({"type": "publish", "qos": 0, "topic": topic, "payload": payload}))
}

#[test]
fn a_topic_hierarchy_below_the_telemetry_topic_is_taken_with_a_warning() {
    let topic = "devices/dev/messages/events/cmnd/POWER";
    let (mut hub, link) = online(false);
    for _ in 0..3 {
        hub.receive(link, &publish(topic, "x"));
    }
    assert_eq!(hub.telemetry.len(), 3);
    assert_eq!(rules(&hub), [Rule::BagSlash], "once for a connection");
    let compared = hub.warnings[0].comparison.as_ref().expect("something was compared");
    assert_eq!((&*compared.received, &*compared.expected), ("cmnd/POWER", "cmnd%2FPOWER"));

    let (mut strict, link) = online(true);
    strict.receive(link, &publish(topic, "x"));
    assert_eq!(strict.closed(link).map(|close| close.rule()), Some(Rule::BagSlash));
    assert_eq!(strict.telemetry, []);
    for good in ["devices/dev/messages/events/a=b%2Fc/", "devices/dev/messages/events"] {
        let (mut strict, link) = online(true);
        strict.receive(link, &publish(good, "x"));
        assert_eq!((strict.telemetry.len(), strict.closed(link)), (1, None), "{good}");
    }
}

fn answer(hub: &mut HubHost, link: LinkId, body: &str) {
    let filter = json!([{"filter": "$iothub/methods/POST/#", "qos": 0}]);
    hub.receive(link, &encode(&json!({"type": "subscribe", "packet_id": 1, "filters": filter})));
    let request = MethodRequest {
        name: "reboot".to_owned(),
        payload: None,
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::ZERO,
    };
    let device = hub.device("dev");
    let call = hub.hub.invoke(hub.now, device, request).expect("it is online");
    hub.settle();
    hub.take_output(link);
    hub.receive(link, &publish(&format!("$iothub/methods/res/200/?$rid={}", call.get()), body));
}

#[test]
fn a_method_answer_that_is_no_json_is_taken_with_a_warning_and_not_by_a_strict_hub() {
    for (body, is_json) in
        [("rebooting", false), ("{\"a\":", false), ("", true), ("null", true), ("{}", true)]
    {
        let (mut hub, link) = online(false);
        answer(&mut hub, link, body);
        assert_eq!(rules(&hub), if is_json { vec![] } else { vec![Rule::MethodJson] }, "{body}");
        assert_eq!(hub.calls.len(), 1, "the caller has the answer");

        let (mut strict, link) = online(true);
        answer(&mut strict, link, body);
        assert_eq!(strict.closed(link).is_none(), is_json, "{body}");
    }
}

#[test]
fn what_comes_to_nothing_is_told_and_refused_by_nobody() {
    for strict in [false, true] {
        let (mut hub, link) = online(strict);
        for (packet, rule) in [
            (publish("$iothub/twin/GET/?$rid=1", ""), Rule::TwinUnheard),
            (publish("$iothub/methods/res/200/?$rid=77", ""), Rule::MethodUnknown),
            (encode(&json!({"type": "puback", "packet_id": 99})), Rule::UnsolicitedAck),
            (
                encode(&json!({"type": "subscribe", "packet_id": 1, "filters":
                    [{"filter": "$iothub/twin/res/#", "qos": 2}]})),
                Rule::SubscribeQos2,
            ),
            (
                encode(&json!({"type": "publish", "qos": 0, "retain": true, "payload": "x",
                    "topic": "devices/dev/messages/events/"})),
                Rule::Retain,
            ),
        ] {
            hub.warnings.clear();
            hub.receive(link, &packet);
            assert_eq!((rules(&hub), hub.closed(link)), (vec![rule], None), "strict {strict}");
        }
        hub.warnings.clear();
        hub.receive(link, &publish("$iothub/twin/GET/?$rid=2", ""));
        assert_eq!(rules(&hub), [], "there is a subscription now");
        assert_eq!(hub.store, StoreMode::Immediate);
    }
}
