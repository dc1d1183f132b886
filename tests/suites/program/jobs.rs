//! Jobs of a hub that is killed: what was acknowledged is there when it starts again, and goes on.

#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use devicebound_hub::clock::unix_time;
use devicebound_testkit::interop::{Hub, PATIENCE};
use devicebound_testkit::site;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn schedule(hub: &Hub, id: &str, request: &Value) {
    let receipt = hub.service().put(&format!("/jobs/v2/{id}"), request);
    assert_eq!(receipt["status"], "queued", "{receipt}");
}

fn until(hub: &Hub, id: &str, status: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let job = hub.service().get(&format!("/jobs/v2/{id}"));
        if job["status"] == status {
            return job;
        }
        assert!(Instant::now() < deadline, "not {status}: {job}");
    }
}

#[test]
fn jobs_that_wait_run_and_have_ended_are_there_after_a_kill_and_go_on() {
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("dev1");
    let update = |tags: Value| json!({"type": "scheduleUpdateTwin", "updateTwin": {"tags": tags}, "queryCondition": "deviceId = 'dev1'"});
    schedule(&hub, "ended", &update(json!({"ended": 1})));
    until(&hub, "ended", "completed");
    let call = json!({"methodName": "reboot", "connectTimeoutInSeconds": 300});
    schedule(&hub, "runs", &json!({"type": "scheduleDeviceMethod", "cloudToDeviceMethod": call}));
    until(&hub, "runs", "running");
    let mut later = update(json!({"later": 1}));
    later["startTime"] = unix_time().after(Duration::from_secs(1)).to_string().into();
    schedule(&hub, "waits", &later);

    kill_process(Pid::from_raw(hub.pid()).expect("it is not 0"), Signal::KILL).expect("the hub runs");
    hub.has_crashed();
    hub.start_again();

    assert_eq!(until(&hub, "ended", "completed")["deviceJobStatistics"]["succeededCount"], 1);
    until(&hub, "waits", "completed");
    let tags = hub.service().get(&format!("/twins/{}", device.id))["tags"].clone();
    assert_eq!(tags, json!({"ended": 1, "later": 1}));
    let runs = until(&hub, "runs", "running");
    assert_eq!(runs["deviceJobStatistics"]["deviceCount"], 2, "{runs}");
    let cancelled = hub.service().try_post("/jobs/v2/runs/cancel", b"");
    assert_eq!(cancelled.map(|(status, _)| status).ok(), Some(200));
    until(&hub, "runs", "cancelled");
}
