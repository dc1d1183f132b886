//! Azure's device SDK for Python, unmodified, over TLS (8883) and over WebSocket (443).

use devicebound_testkit::interop::{Certificate, Device, Hub, Sdk};
use devicebound_testkit::site;
use serde_json::json;

/// Makes two tests of a scenario, one for each transport. The one over WebSocket is left out, loudly, where 443 may not
/// be had: the SDK knows no other port.
macro_rules! over_tls_and_websocket {
    ($($scenario:ident),+ $(,)?) => {
        mod over_tls {
            $(#[test] fn $scenario() { super::$scenario(super::Hub::on_azure_ports(super::site!()), "tls"); })+
        }
        mod over_websocket {
            $(#[test] fn $scenario() {
                let name = concat!("the SDK over WebSocket, ", stringify!($scenario));
                if let Some(hub) = super::Hub::on_azure_ports_with_443(super::site!(), name) {
                    super::$scenario(hub, "websocket");
                }
            })+
        }
    };
}

over_tls_and_websocket!(
    telemetry_arrives_with_its_awkward_properties,
    cloud_messages_come_with_their_properties_and_are_completed,
    the_twin_is_read_reported_to_and_notified_about,
    a_direct_method_is_answered,
    a_certificate_is_as_good_as_a_key,
    a_module_has_a_twin_and_methods_and_telemetry_of_its_own,
    a_wrong_key_is_a_credential_error,
    everything_still_comes_after_the_hub_was_restarted,
    everything_still_comes_after_the_token_was_renewed,
);

fn telemetry_arrives_with_its_awkward_properties(hub: Hub, transport: &str) {
    let device = hub.register("MyDevice01");
    let mut sdk = Sdk::connected(site!(), &hub, transport, &device);
    let properties = json!({
        "space": "a b", "plus": "1+1=2", "percent": "100%25", "slash": "a/b/", "ampersand": "a&b=c", "hash": "#1?",
        "dollar": "$.mid=x", "quotes": "'\"<>", "umlaut": "Grüße", "emoji": "\u{1f600}", "unreserved": "~-_.!*()",
        "empty": "", "key with space": "1", "key/slash": "2", "key=eq&amp": "3", "schlüssel": "4", "comma;": ",",
    });
    sdk.run(json!({
        "do": "send", "body": r#"{"temperature":21.5}"#, "properties": properties,
        "message_id": "mid-1 /%", "correlation_id": "cid&=+", "user_id": "us er",
        "content_type": "application/json", "content_encoding": "utf-8",
    }));
    sdk.run(json!({"do": "send", "body": ""}));
    sdk.end();

    let arrived = hub.service().stored_telemetry();
    assert_eq!(arrived.len(), 2, "{arrived:?}");
    assert_eq!(arrived[0].device_id, "MyDevice01");
    assert_eq!(arrived[0].text(), r#"{"temperature":21.5}"#);
    assert_eq!(json!(arrived[0].properties), properties);
    for (name, value) in [
        ("message-id", "mid-1 /%"),
        ("correlation-id", "cid&=+"),
        ("user-id", "us er"),
        ("content-type", "application/json"),
        ("content-encoding", "utf-8"),
        ("iothub-connection-device-id", "MyDevice01"),
    ] {
        assert_eq!(arrived[0].system_properties[name], value, "{name}");
    }
    assert_eq!((arrived[1].text(), arrived[1].properties.is_empty()), ("", true), "{arrived:?}");
}

fn cloud_messages_come_with_their_properties_and_are_completed(hub: Hub, transport: &str) {
    let device = hub.register("MyDevice01");
    let mut sdk = Sdk::connected(site!(), &hub, transport, &device);
    sdk.run(json!({"do": "listen"}));
    let headers = [
        ("iothub-messageid", "mid-1 /%"),
        ("iothub-correlationid", "cid&=+"),
        ("iothub-userid", "us er"),
        ("iothub-contenttype", "application/json"),
        ("iothub-contentencoding", "utf-8"),
        ("iothub-ack", "full"),
        ("iothub-app-alert", "high"),
    ];
    let bag = "Space=a%20b&slash=a%2Fb&pair=a%26b%3Dc&plus=1%2B1&percent=%25&uml%C3%A4ut=%C3%BC&empty=";
    hub.service().send(&device.id, &headers, bag, r#"{"interval":5}"#);
    hub.service().send(&device.id, &[], "", "second");

    let message = sdk.expect("message");
    assert_eq!(message["body"], r#"{"interval":5}"#);
    let properties = json!({
        "alert": "high", "Space": "a b", "slash": "a/b", "pair": "a&b=c", "plus": "1+1", "percent": "%",
        "umläut": "ü", "empty": "",
    });
    assert_eq!(message["properties"], properties);
    for (name, value) in [
        ("message_id", "mid-1 /%"),
        ("correlation_id", "cid&=+"),
        ("user_id", "us er"),
        ("content_type", "application/json"),
        ("content_encoding", "utf-8"),
        ("ack", "full"),
    ] {
        assert_eq!(message[name], value, "{name}");
    }
    assert_eq!(sdk.expect("message")["body"], "second");
    // A publish of its own after the acknowledgements: when it is through, they are.
    sdk.run(json!({"do": "send", "body": "done"}));
    let twin = hub.service().get("/twins/MyDevice01");
    assert_eq!(twin["cloudToDeviceMessageCount"], 0, "{twin}");
    sdk.end();
}

fn the_twin_is_read_reported_to_and_notified_about(hub: Hub, transport: &str) {
    let device = hub.register("MyDevice01");
    let mut sdk = Sdk::connected(site!(), &hub, transport, &device);
    hub.service().patch(
        "/twins/MyDevice01",
        &json!({"properties": {"desired": {"interval": 5, "nested": {"a": [1, "ü"]}}}}),
    );
    let twin = sdk.run(json!({"do": "get_twin"}));
    let desired = json!({"interval": 5, "nested": {"a": [1, "ü"]}, "$version": 2});
    assert_eq!(twin, json!({"desired": desired, "reported": {"$version": 1}}));

    sdk.run(json!({"do": "report", "patch": {"battery": 60, "firmware": {"name": "größer", "old": true}}}));
    sdk.run(json!({"do": "report", "patch": {"firmware": {"old": null}}}));
    let reported = &hub.service().get("/twins/MyDevice01")["properties"]["reported"];
    assert_eq!((&reported["battery"], &reported["$version"]), (&json!(60), &json!(3)), "{reported}");
    assert_eq!(reported["firmware"], json!({"name": "größer"}), "{reported}");

    sdk.run(json!({"do": "listen"}));
    hub.service()
        .patch("/twins/MyDevice01", &json!({"properties": {"desired": {"interval": null, "mode": "eco"}}}));
    assert_eq!(sdk.expect("desired")["patch"], json!({"interval": null, "mode": "eco", "$version": 3}));
    let twin = sdk.run(json!({"do": "get_twin"}));
    assert_eq!(twin["desired"], json!({"nested": {"a": [1, "ü"]}, "mode": "eco", "$version": 3}));
    sdk.end();
}

fn a_direct_method_is_answered(hub: Hub, transport: &str) {
    let device = hub.register("MyDevice01");
    let mut sdk = Sdk::connected(site!(), &hub, transport, &device);
    sdk.run(json!({"do": "listen"}));
    let payload = json!({"delay": 5, "text": "größer/&?", "status": 207});
    let answer = hub.service().invoke(&device.id, &json!({"methodName": "reboot-now", "payload": payload}));
    assert_eq!(answer, json!({"status": 207, "payload": payload}));
    let call = sdk.expect("method");
    assert_eq!((&call["name"], &call["payload"]), (&json!("reboot-now"), &payload));

    // Neither a payload nor an answer: null both ways.
    let answer = hub.service().invoke(&device.id, &json!({"methodName": "ping"}));
    assert_eq!(answer, json!({"status": 200, "payload": null}));
    sdk.end();
}

fn a_certificate_is_as_good_as_a_key(hub: Hub, transport: &str) {
    let certificate = Certificate::self_signed(hub.state(), "MyDevice01");
    hub.register_certificate("MyDevice01", &certificate);
    let files =
        json!({"certificate": certificate.certificate, "key": certificate.key, "deviceId": "MyDevice01"});
    let mut sdk = Sdk::device(site!(), &hub, transport, &files);
    sdk.run(json!({"do": "connect"}));
    sdk.run(json!({"do": "send", "body": "certified"}));
    sdk.end();
    let arrived = hub.service().stored_telemetry();
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    assert_eq!((arrived[0].device_id.as_str(), arrived[0].text()), ("MyDevice01", "certified"));
}

fn a_module_has_a_twin_and_methods_and_telemetry_of_its_own(hub: Hub, transport: &str) {
    let device = hub.register("MyDevice01");
    let module = hub.register_module(&device, "mod1");
    let mut sdk = Sdk::connected(site!(), &hub, transport, &module);
    sdk.run(json!({"do": "send", "body": "from a module", "properties": {"a": "b"}}));
    let arrived = hub.service().stored_telemetry();
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    assert_eq!((arrived[0].device_id.as_str(), arrived[0].text()), ("MyDevice01", "from a module"));
    assert_eq!(arrived[0].system_properties["iothub-connection-module-id"], "mod1");

    sdk.run(json!({"do": "report", "patch": {"of": "module"}}));
    assert_eq!(hub.service().get("/twins/MyDevice01/modules/mod1")["properties"]["reported"]["of"], "module");
    assert!(hub.service().get("/twins/MyDevice01")["properties"]["reported"]["of"].is_null());

    sdk.run(json!({"do": "listen"}));
    let answer =
        hub.service().invoke("MyDevice01/modules/mod1", &json!({"methodName": "ping", "payload": 1}));
    assert_eq!(answer, json!({"status": 200, "payload": 1}));
    sdk.end();
}

fn a_wrong_key_is_a_credential_error(hub: Hub, transport: &str) {
    let (device, other) = (hub.register("MyDevice01"), hub.register("MyDevice02"));
    let impostor = Device { id: device.id, ..other };
    let mut sdk =
        Sdk::device(site!(), &hub, transport, &json!({"connectionString": impostor.connection_string()}));
    let failed = sdk.fail(json!({"do": "connect"}));
    assert_eq!(failed["error"], "CredentialError", "{failed}");
    sdk.end();
}

/// The SDK never subscribes again after a reconnection: what a session has subscribed must outlive connection and hub.
fn everything_still_comes_after_the_hub_was_restarted(mut hub: Hub, transport: &str) {
    let device = hub.register("MyDevice01");
    let mut sdk = Sdk::connected(site!(), &hub, transport, &device);
    sdk.run(json!({"do": "listen"}));
    sdk.run(json!({"do": "get_twin"}));
    hub.stop();
    sdk.expect("disconnected");
    hub.start_again();
    sdk.expect("connected");
    everything_comes(&hub, &device, &mut sdk);
    sdk.end();
}

/// Azure's SDK renews its token 120 s before it runs out, with a new connection.
fn everything_still_comes_after_the_token_was_renewed(hub: Hub, transport: &str) {
    let device = hub.register("MyDevice01");
    let identity = json!({"connectionString": device.connection_string(), "tokenSeconds": 125});
    let mut sdk = Sdk::device(site!(), &hub, transport, &identity);
    sdk.run(json!({"do": "connect"}));
    sdk.run(json!({"do": "listen"}));
    sdk.expect("disconnected");
    sdk.expect("connected");
    everything_comes(&hub, &device, &mut sdk);
    sdk.end();
}

fn everything_comes(hub: &Hub, device: &Device, sdk: &mut Sdk) {
    // The device may be between two connections.
    let request = json!({"methodName": "ping", "payload": {"status": 200}, "connectTimeoutInSeconds": 30});
    assert_eq!(hub.service().invoke(&device.id, &request)["status"], 200);
    sdk.expect("method");
    hub.service().send(&device.id, &[], "", "still here?");
    assert_eq!(sdk.expect("message")["body"], "still here?");
    let twin = format!("/twins/{}", device.id);
    let version = &hub.service().patch(&twin, &json!({"properties": {"desired": {"x": 1}}}))["properties"]["desired"]
        ["$version"];
    assert_eq!(sdk.expect("desired")["patch"], json!({"x": 1, "$version": version}));
    sdk.run(json!({"do": "report", "patch": {"y": 2}}));
    assert_eq!(hub.service().get(&twin)["properties"]["reported"]["y"], 2);
    sdk.run(json!({"do": "send", "body": "here"}));
    let last = hub.service().stored_telemetry().pop();
    assert_eq!(last.map(|message| message.text().to_owned()), Some("here".to_owned()));
}
