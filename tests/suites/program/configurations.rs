//! Automatic configurations of a hub that is killed: they and what they have set are there when it starts again.

#![cfg(target_os = "linux")]

use std::time::Instant;

use devicebound_testkit::interop::{Hub, PATIENCE};
use devicebound_testkit::site;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn until(hub: &Hub, what: &str, wanted: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let twin = hub.service().get("/twins/dev1");
        if wanted(&twin) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: not in {PATIENCE:?}: {twin}");
    }
}

#[test]
fn what_a_configuration_has_set_before_a_kill_is_withdrawn_after_it() {
    let mut hub = Hub::on_free_ports(site!());
    let _ = hub.register("dev1");
    let body = json!({
        "content": {"deviceContent": {"properties.desired.speed": 3}}, "targetCondition": "tags.site = 'north'", "priority": 1,
    });
    hub.service().put("/configurations/speed", &body);
    hub.service()
        .patch("/twins/dev1", &json!({"tags": {"site": "north"}, "properties": {"desired": {"own": 1}}}));
    until(&hub, "it is applied", |twin| twin["configurations"]["speed"]["status"] == "Applied");

    kill_process(Pid::from_raw(hub.pid()).expect("it is not 0"), Signal::KILL).expect("the hub runs");
    hub.has_crashed();
    hub.start_again();

    until(&hub, "it is still applied", |twin| {
        twin["configurations"]["speed"]["status"] == "Applied" && twin["properties"]["desired"]["speed"] == 3
    });
    hub.service().patch("/twins/dev1", &json!({"tags": {"site": "south"}}));
    until(&hub, "it is withdrawn", |twin| {
        let desired = &twin["properties"]["desired"];
        twin.get("configurations").is_none() && desired.get("speed").is_none() && desired["own"] == 1
    });
}
