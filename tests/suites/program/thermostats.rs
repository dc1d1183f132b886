//! The examples against `devicebound hub`: the same thermostat on tokio, on blocking sockets, in smol and in a bare mio loop.

use std::collections::BTreeSet;
use std::process::Command;

use devicebound_testkit::interop::program::example;
use devicebound_testkit::interop::{Device, Hub, Program};
use devicebound_testkit::site;
use serde_json::json;

/// How a thermostat is told who it is.
#[derive(Clone, Copy, Debug)]
enum Told {
    ByEnvironment,
    ByStandardInput,
}

fn start(name: &str, hub: &Hub, device: &Device, told: Told, arguments: &[&str]) -> Program {
    let mut command = Command::new(example(name));
    command.args(["--ca", hub.ca()]).args(arguments);
    match told {
        Told::ByEnvironment => {
            Program::start(name, command.env("CONNECTION_STRING", device.connection_string()))
        }
        Told::ByStandardInput => {
            let mut program = Program::start(name, &mut command);
            program.tell(&device.connection_string());
            program.end_input();
            program
        }
    }
}

/// Twin, methods and the end by a reboot.
fn heats_and_reports_and_reboots(name: &str, told: Told, way: fn(&Hub) -> Vec<String>) {
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("hall");
    let way = way(&hub);
    let way: Vec<_> = way.iter().map(String::as_str).collect();
    let arguments = [&["--interval", "0.01"], &way[..]].concat();
    let mut thermostat = start(name, &hub, &device, told, &arguments);
    thermostat.expect_text("hall: online");

    hub.service().patch("/twins/hall", &json!({"properties": {"desired": {"targetTemperature": 23.5}}}));
    thermostat.expect_text("hall: heats to 23.5 °C");
    thermostat.expect_text("hall: reported");
    let twin = hub.service().get("/twins/hall");
    let reported = &twin["properties"]["reported"]["targetTemperature"];
    assert_eq!((&reported["value"], &reported["ac"]), (&json!(23.5), &json!(200)), "{twin}");
    assert_eq!(twin["modelId"], "dtmi:com:example:Thermostat;1", "{twin}");

    let call = |method: &str| {
        let timeouts = json!({"responseTimeoutInSeconds": 30, "connectTimeoutInSeconds": 30});
        let mut request = json!({"methodName": method});
        request.as_object_mut().expect("it is one").extend(timeouts.as_object().expect("it is one").clone());
        hub.service().invoke("hall", &request)
    };
    let report = call("getMaxMinReport");
    assert_eq!(report["status"], 200, "{report}");
    assert!(report["payload"]["maxTemp"].as_f64().is_some_and(|max| max > 20.0), "{report}");
    assert_eq!(call("defrost")["status"], 404);
    assert_eq!(call("reboot")["status"], 200);
    thermostat.succeed();

    let arrived = hub.service().stored_telemetry();
    let first = arrived.first().expect("the first reading comes at once");
    assert_eq!(first.system_properties["content-type"], "application/json");
    assert!(first.text().starts_with(r#"{"temperature":20."#), "{first:?}");
    assert_eq!(hub.expect_closed()["rule"], "MQTT-3.14.4-2", "DISCONNECT was the last");
}

/// Readings that were counted, and no more.
fn sends_its_readings_and_ends(name: &str, told: Told) {
    let hub = Hub::on_free_ports(site!());
    let device = hub.register("hall");
    let port = hub.mqtt_port();
    let arguments = ["--port", &port, "--interval", "0.01", "--count", "5"];
    let mut thermostat = start(name, &hub, &device, told, &arguments);
    thermostat.expect_text("hall: all readings have arrived");
    thermostat.succeed();
    assert_eq!(hub.service().stored_telemetry().len(), 5);
}

fn by_mqtt(hub: &Hub) -> Vec<String> {
    vec!["--port".to_owned(), hub.mqtt_port()]
}

fn by_websocket(hub: &Hub) -> Vec<String> {
    vec!["--websocket".to_owned(), "--port".to_owned(), hub.https_port()]
}

#[test]
fn the_thermostat_on_tokio_heats_and_reports_and_reboots() {
    heats_and_reports_and_reboots("thermostat_on_tokio", Told::ByEnvironment, by_mqtt);
    heats_and_reports_and_reboots("thermostat_on_tokio", Told::ByEnvironment, by_websocket);
}

#[test]
fn the_thermostat_on_blocking_sockets_heats_and_reports_and_reboots() {
    heats_and_reports_and_reboots("thermostat_on_blocking", Told::ByEnvironment, by_mqtt);
    heats_and_reports_and_reboots("thermostat_on_blocking", Told::ByEnvironment, by_websocket);
}

#[test]
fn the_thermostat_in_smol_heats_and_reports_and_reboots() {
    heats_and_reports_and_reboots("thermostat_smol", Told::ByEnvironment, by_mqtt);
}

#[test]
fn the_thermostat_in_a_mio_loop_heats_and_reports_and_reboots() {
    heats_and_reports_and_reboots("thermostat_mio", Told::ByStandardInput, by_mqtt);
}

#[test]
fn each_thermostat_ends_by_itself_when_its_readings_have_arrived() {
    sends_its_readings_and_ends("thermostat_on_tokio", Told::ByEnvironment);
    sends_its_readings_and_ends("thermostat_on_blocking", Told::ByEnvironment);
    sends_its_readings_and_ends("thermostat_smol", Told::ByEnvironment);
    sends_its_readings_and_ends("thermostat_mio", Told::ByStandardInput);
}

#[test]
fn a_thousand_thermostats_in_one_thread_are_online_and_heard() {
    let hub = Hub::for_a_fleet(site!());
    let devices: Vec<_> = (0..1000).map(|number| hub.register(&format!("room-{number}"))).collect();
    let mut command = Command::new(example("thermostat_mio"));
    command.args(["--ca", hub.ca(), "--port", &hub.mqtt_port(), "--quiet", "--count", "1"]);
    let mut thermostats = Program::start("thermostat_mio", &mut command);
    for device in &devices {
        thermostats.tell(&device.connection_string());
    }
    thermostats.end_input();
    thermostats.expect_text("1000 devices are online after");
    thermostats.expect_text("1000 devices have ended after");
    thermostats.succeed();

    let arrived = hub.service().stored_telemetry();
    let heard: BTreeSet<_> = arrived.iter().map(|message| message.device_id.as_str()).collect();
    assert_eq!((arrived.len(), heard.len()), (1000, 1000));
}
