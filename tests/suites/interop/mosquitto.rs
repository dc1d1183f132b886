//! mosquitto's command-line clients.

use std::process::Command;

use devicebound_testkit::interop::{Certificate, Device, Hub, Program};
use devicebound_testkit::site;
use serde_json::json;

/// Starts `mosquitto_pub` or `mosquitto_sub` as that device.
fn mosquitto(tool: &str, hub: &Hub, device: &Device, arguments: &[&str]) -> Program {
    let (user_name, token) = (device.user_name(), device.token("localhost"));
    let identity = ["-i", &device.id, "-u", &user_name, "-P", &token];
    start(tool, hub, &[&identity, arguments].concat())
}

fn start(tool: &str, hub: &Hub, arguments: &[&str]) -> Program {
    let mut command = Command::new(tool);
    command.args(["-V", "mqttv311", "-h", "localhost", "-p", &hub.mqtt_port(), "--cafile", hub.ca()]);
    Program::start(tool, command.args(arguments))
}

fn publish(hub: &Hub, device: &Device, arguments: &[&str]) {
    mosquitto("mosquitto_pub", hub, device, arguments).succeed();
}

#[test]
fn a_message_at_qos_0_arrives() {
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    // Without the slash at the end, as many write it.
    publish(&hub, &device, &["-q", "0", "-t", "devices/mosquito/messages/events", "-m", "hello"]);

    let arrived = hub.service().telemetry().next_message();
    assert_eq!((arrived.device_id.as_str(), arrived.text()), ("mosquito", "hello"));
}

#[test]
fn a_message_at_qos_1_is_acknowledged_and_arrives_with_the_properties_in_its_topic() {
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    let topic = device.telemetry_topic(
        "$.ct=application%2Fjson&%24.ce=utf-8&%24.mid=m-1&alert=true&caf%c3%a9=100%25&empty=",
    );
    publish(&hub, &device, &["-q", "1", "-t", &topic, "-m", r#"{"temperature":21.5}"#]);

    let arrived = hub.service().stored_telemetry();
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    assert_eq!(arrived[0].text(), r#"{"temperature":21.5}"#);
    assert_eq!(json!(arrived[0].properties), json!({"alert": "true", "café": "100%", "empty": ""}));
    for (name, value) in
        [("content-type", "application/json"), ("content-encoding", "utf-8"), ("message-id", "m-1")]
    {
        assert_eq!(arrived[0].system_properties[name], value, "{name}");
    }
}

#[test]
fn a_retained_message_is_not_kept_but_marked() {
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    publish(&hub, &device, &["-q", "1", "-r", "-t", &device.telemetry_topic(""), "-m", "retained"]);

    let arrived = hub.service().stored_telemetry();
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    assert_eq!(json!(arrived[0].properties), json!({"mqtt-retain": "true"}));
}

#[test]
fn the_will_of_a_client_that_was_killed_arrives_as_telemetry() {
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    let will_topic = device.telemetry_topic("reason=lost");
    let will = ["--will-topic", &will_topic, "--will-payload", "gone", "--will-qos", "1"];
    let subscription = ["-q", "1", "-t", "devices/mosquito/messages/devicebound/#"];
    let mut client = mosquitto("mosquitto_sub", &hub, &device, &[&will[..], &subscription[..]].concat());
    hub.expect_packet("SUBACK");
    client.kill();

    let arrived = hub.service().telemetry().next_message();
    assert_eq!(arrived.text(), "gone");
    assert_eq!(json!(arrived.properties), json!({"reason": "lost", "iothub-MessageType": "Will"}));
}

#[test]
fn no_will_arrives_from_a_client_that_said_goodbye() {
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    let topic = device.telemetry_topic("");
    publish(
        &hub,
        &device,
        &["-q", "1", "-t", &topic, "-m", "first", "--will-topic", &topic, "--will-payload", "gone"],
    );
    publish(&hub, &device, &["-q", "1", "-t", &topic, "-m", "second"]);

    let bodies: Vec<_> =
        hub.service().stored_telemetry().iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(bodies, ["first", "second"]);
}

#[test]
fn a_cloud_message_sent_while_the_device_was_away_comes_before_it_subscribes_again() {
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    let filter = "devices/mosquito/messages/devicebound/#";
    // -E: gone as soon as the subscription is granted; -c: the session stays.
    mosquitto("mosquitto_sub", &hub, &device, &["-c", "-q", "1", "-t", filter, "-E"]).succeed();
    let headers = [("iothub-messageid", "m/1"), ("iothub-app-alert", "high")];
    hub.service().send("mosquito", &headers, "Case=a%20b%26c", "wake up");

    let arguments = ["-d", "-c", "-q", "1", "-t", filter, "-C", "1", "-F", "%q %t %p"];
    let mut client = mosquitto("mosquitto_sub", &hub, &device, &arguments);
    client.succeed();
    let position = |text: &str| client.printed().iter().position(|line| line.contains(text));
    let bag = "%24.mid=m%2F1&%24.to=%2Fdevices%2Fmosquito%2Fmessages%2FdeviceBound&alert=high&Case=a%20b%26c";
    let delivery = position(&format!("1 devices/mosquito/messages/devicebound/{bag} wake up"));
    assert!(delivery.is_some(), "{:#?}", client.printed());
    // The stored subscription brought it, not the new one.
    let suback = position("received SUBACK");
    assert!(
        suback.is_none_or(|suback| position("received PUBLISH").unwrap() < suback),
        "{:#?}",
        client.printed()
    );

    hub.expect_packet("PUBACK");
    let twin = hub.service().get("/twins/mosquito");
    assert_eq!(twin["cloudToDeviceMessageCount"], 0, "{twin}");
}

#[test]
fn a_client_with_the_key_of_another_device_is_not_authorised() {
    let hub = Hub::on_free_ports(site!());
    let (device, other) = (hub.register("mosquito"), hub.register("moth"));
    let impostor = Device { id: device.id, ..other };
    let topic = impostor.telemetry_topic("");
    let mut client = mosquitto("mosquitto_pub", &hub, &impostor, &["-q", "1", "-t", &topic, "-m", "x"]);
    assert!(!client.finish().success());
    assert!(client.printed().iter().any(|line| line.contains("not authorised")), "{:?}", client.printed());
    assert_eq!(hub.service().stored_telemetry(), []);
}

#[test]
fn a_client_with_a_certificate_needs_no_token() {
    let hub = Hub::on_free_ports(site!());
    let certificate = Certificate::self_signed(hub.state(), "certified");
    hub.register_certificate("certified", &certificate);
    let shown = ["--cert", &certificate.certificate, "--key", &certificate.key];
    let identity = ["-i", "certified", "-u", "localhost/certified/?api-version=2021-04-12"];
    let message = ["-q", "1", "-t", "devices/certified/messages/events/", "-m", "hello"];
    start("mosquitto_pub", &hub, &[&shown[..], &identity, &message].concat()).succeed();

    let arrived = hub.service().stored_telemetry();
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    let method = &arrived[0].system_properties["iothub-connection-auth-method"];
    assert!(method.as_str().is_some_and(|method| method.contains(r#""type":"x509""#)), "{method}");
}

#[test]
fn a_client_with_a_certificate_that_nobody_registered_is_not_authorised() {
    let hub = Hub::on_free_ports(site!());
    hub.register_certificate("certified", &Certificate::self_signed(hub.state(), "registered"));
    let other = Certificate::self_signed(hub.state(), "other");
    let shown = ["--cert", &other.certificate, "--key", &other.key];
    let identity = ["-i", "certified", "-u", "localhost/certified/?api-version=2021-04-12"];
    let message = ["-q", "1", "-t", "devices/certified/messages/events/", "-m", "hello"];
    let mut client = start("mosquitto_pub", &hub, &[&shown[..], &identity, &message].concat());
    assert!(!client.finish().success());
    assert!(client.printed().iter().any(|line| line.contains("not authorised")), "{:?}", client.printed());
}

#[test]
fn a_client_that_speaks_mqtt_3_1_is_told_so() {
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    let arguments = ["-V", "mqttv31", "-t", "devices/mosquito/messages/events/", "-m", "x"];
    let mut client = mosquitto("mosquitto_pub", &hub, &device, &arguments);
    assert!(!client.finish().success());
    let told = client.printed().iter().any(|line| line.contains("unacceptable protocol version"));
    assert!(told, "{:?}", client.printed());
}

#[test]
fn a_message_at_qos_2_ends_the_connection_and_the_view_names_the_rule() {
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    let topic = device.telemetry_topic("");
    let mut client = mosquitto("mosquitto_pub", &hub, &device, &["-q", "2", "-t", &topic, "-m", "twice"]);
    let closed = hub.expect_closed();
    assert_eq!(
        (&closed["rule"], &closed["device"]),
        (&json!("HUB-D2C-QOS2"), &json!("mosquito")),
        "{closed}"
    );
    client.kill();
    assert_eq!(hub.service().stored_telemetry(), []);
}

#[test]
fn a_filter_that_iot_hub_has_not_got_ends_the_connection_and_the_view_shows_it() {
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("mosquito");
    let mut client = mosquitto("mosquitto_sub", &hub, &device, &["-t", "devices/mosquito/messages/events/#"]);
    let closed = hub.expect_closed();
    assert_eq!(closed["rule"], "HUB-FILTER-UNKNOWN", "{closed}");
    let filter: Vec<_> =
        b"devices/mosquito/messages/events/#".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(closed["bytes"].as_str().is_some_and(|bytes| bytes.contains(&filter.join(" "))), "{closed}");
    client.kill();
}
