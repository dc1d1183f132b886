//! Eclipse Paho for Python, 1.6 and 2: the document's own program, and MQTT over WebSocket.

use devicebound_testkit::interop::Hub;
use devicebound_testkit::interop::python::{Packages, Python};
use devicebound_testkit::site;

/// The hub's name in the document's program, which adds `.azure-devices.net` and dials another address here.
const HUB_NAME: &str = "contoso";

#[test]
fn the_documents_own_program_delivers_its_message_with_paho_1_6() {
    the_documents_own_program_delivers_its_message(Packages::AzureAndPaho1);
}

#[test]
fn the_documents_own_program_delivers_its_message_with_paho_2() {
    the_documents_own_program_delivers_its_message(Packages::Paho2);
}

fn the_documents_own_program_delivers_its_message(packages: Packages) {
    let python = Python::with(site!(), packages);
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("MyDevice01");
    let token = device.token(&format!("{HUB_NAME}.azure-devices.net"));
    let arguments = [hub.ca(), &device.id, &token, HUB_NAME, "localhost", &hub.mqtt_port()];
    let mut program = python.start("document_sample.py", &arguments);
    program.expect_text("Device connected with result code: 0");
    // Paho says so when PUBACK has come.
    program.expect_text("Device sent message");
    // It loops for ever, as the document has it.
    program.kill();

    let arrived = hub.service().stored_telemetry();
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    assert_eq!(arrived[0].device_id, "MyDevice01");
    assert_eq!(arrived[0].text(), "{id=123}");
    assert!(arrived[0].properties.is_empty(), "{arrived:?}");
}

#[test]
fn the_documents_own_program_is_told_when_its_token_is_wrong() {
    let python = Python::with(site!(), Packages::AzureAndPaho1);
    let hub = Hub::on_free_ports(site!());
    let (device, other) = (hub.register("MyDevice01"), hub.register("MyDevice02"));
    let token = other.token(&format!("{HUB_NAME}.azure-devices.net"));
    let arguments = [hub.ca(), &device.id, &token, HUB_NAME, "localhost", &hub.mqtt_port()];
    let mut program = python.start("document_sample.py", &arguments);
    program.expect_text("Device connected with result code: 5");
    assert_eq!(hub.service().stored_telemetry(), []);
}

#[test]
fn a_message_whose_frame_needs_a_64_bit_length_arrives_over_websocket_from_paho_1_6() {
    a_message_of_100_kb_arrives_over_websocket(Packages::AzureAndPaho1);
}

#[test]
fn a_message_whose_frame_needs_a_64_bit_length_arrives_over_websocket_from_paho_2() {
    a_message_of_100_kb_arrives_over_websocket(Packages::Paho2);
}

fn a_message_of_100_kb_arrives_over_websocket(packages: Packages) {
    let python = Python::with(site!(), packages);
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("on-websocket");
    let (user_name, token) = (device.user_name(), device.token("localhost"));
    let arguments = [hub.ca(), &device.id, &user_name, &token, "localhost", &hub.https_port(), "100000"];
    let mut program = python.start("paho_websocket.py", &arguments);
    program.expect_text("connected 0");
    program.expect_text("acknowledged");
    program.succeed();

    let arrived = hub.service().stored_telemetry();
    assert_eq!(arrived.len(), 1);
    assert!(arrived[0].body == vec![b'x'; 100_000], "{} bytes", arrived[0].body.len());
}

#[test]
fn a_hundred_messages_in_flight_are_acknowledged_and_stored_in_order() {
    let python = Python::with(site!(), Packages::Paho2);
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("in-a-hurry");
    let (user_name, token) = (device.user_name(), device.token("localhost"));
    let arguments = [hub.ca(), &device.id, &user_name, &token, "localhost", &hub.mqtt_port(), "1000"];
    let mut program = python.start("paho_burst.py", &arguments);
    program.expect_text("in order");
    program.succeed();

    let arrived = hub.service().stored_telemetry();
    let bodies: Vec<_> = arrived.iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(bodies, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>());
}
