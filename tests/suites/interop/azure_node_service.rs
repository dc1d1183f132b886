//! Azure's service SDK for Node, unmodified, over HTTPS (443): jobs, configurations, queries and digital twins, as Azure's own
//! end-to-end tests use them.

use devicebound_testkit::interop::{Hub, Sdk};
use devicebound_testkit::site;
use serde_json::{Value, json};

fn with_hub(name: &str, test: impl FnOnce(&Hub, Sdk)) {
    if let Some(hub) = Hub::on_azure_ports_with_443(site!(), name) {
        let sdk = Sdk::node_service(site!(), &hub);
        test(&hub, sdk);
    }
}

/// Asks for a job until it has this status.
fn until(sdk: &mut Sdk, id: &str, status: &str) -> Value {
    loop {
        let job = sdk.call("jobs.getJob", json!([id]));
        if job["status"] == status {
            return job;
        }
        assert!(["queued", "running"].iter().any(|going| job["status"] == *going), "{job}");
    }
}

#[test]
fn jobs_are_queued_completed_cancelled_and_listed_page_by_page() {
    with_hub("jobs of the Node SDK", |hub, mut sdk| {
        let patch = json!({"tags": {"rolled": "out"}});
        let now = json!({"date": 0});
        let made = sdk.call("jobs.scheduleTwinUpdate", json!(["twins", "deviceId = 'demo'", patch, now, 60]));
        assert_eq!(made["status"], "queued", "{made}");
        assert_eq!(until(&mut sdk, "twins", "completed")["deviceJobStatistics"]["succeededCount"], 1);
        assert_eq!(hub.service().get("/twins/demo")["tags"], json!({"rolled": "out"}));

        let method = json!({"methodName": "reboot", "payload": {"in": 5}, "responseTimeoutInSeconds": 15, "timeoutInSeconds": 30});
        let hour = json!({"date": 3600});
        let later =
            sdk.call("jobs.scheduleDeviceMethod", json!(["later", "deviceId = 'demo'", method, hour, 60]));
        assert_eq!(later["status"], "queued", "{later}");
        sdk.call("jobs.cancelJob", json!(["later"]));
        until(&mut sdk, "later", "cancelled");
        sdk.call("jobs.scheduleTwinUpdate", json!(["again", "*", patch, now, 60]));
        until(&mut sdk, "again", "completed");
        let pages =
            sdk.run(json!({"do": "jobs", "type": "scheduleUpdateTwin", "status": "completed", "size": 1}));
        let ids: Vec<&Value> = pages.as_array().unwrap().iter().map(|page| &page[0]["jobId"]).collect();
        assert_eq!(ids, ["twins", "again"], "{pages}");
        sdk.end();
    });
}

#[test]
fn configurations_come_back_as_they_were_sent_and_are_applied() {
    with_hub("configurations of the Node SDK", |hub, mut sdk| {
        let content = json!({"deviceContent": {"properties.desired.chiller": {"speed": 3, "name": "north"}}});
        let body = json!({
            "id": "chiller", "content": content, "schemaVersion": "1.0", "targetCondition": "", "priority": 10,
            "labels": {"app": "hvac"}, "metrics": {"queries": {"all": "SELECT deviceId FROM devices"}},
        });
        sdk.call("registry.addConfiguration", json!([body]));
        let shown = sdk.call("registry.getConfiguration", json!(["chiller"]));
        assert_eq!(
            (&shown["content"], &shown["metrics"]["results"]),
            (&content, &json!({"all": 1})),
            "{shown}"
        );
        let mut changed = shown;
        changed["targetCondition"] = "deviceId = 'demo'".into();
        sdk.call("registry.updateConfiguration", json!([changed]));
        changed["priority"] = 11.into();
        sdk.call("registry.updateConfiguration", json!([changed, true]));
        let desired = |hub: &Hub| hub.service().get("/twins/demo")["properties"]["desired"].clone();
        while desired(hub).get("chiller").is_none() {}
        assert_eq!(desired(hub)["chiller"], json!({"speed": 3, "name": "north"}));
        let found = json!({"do": "query", "query": "SELECT * FROM devices WHERE configurations.[[chiller]].status = 'Applied'"});
        assert_eq!(sdk.run(found)[0][0]["deviceId"], "demo");
        let all = sdk.call("registry.getConfigurations", json!([]));
        assert_eq!((&all[0]["id"], &all[0]["priority"]), (&json!("chiller"), &json!(11)), "{all}");
        sdk.call("registry.removeConfiguration", json!(["chiller"]));
        while desired(hub).get("chiller").is_some() {}
        sdk.end();
    });
}

#[test]
fn queries_end_with_their_last_page_and_digital_twins_are_read_and_patched() {
    with_hub("queries and digital twins of the Node SDK", |hub, mut sdk| {
        for number in 0..4 {
            hub.service().put(&format!("/devices/dev{number}"), &json!({}));
        }
        let pages = sdk.run(json!({"do": "query", "query": "SELECT * FROM devices WHERE STARTSWITH(deviceId, 'dev')", "size": 2}));
        let sizes: Vec<usize> =
            pages.as_array().unwrap().iter().map(|page| page.as_array().unwrap().len()).collect();
        assert_eq!(sizes, [2, 2], "{pages}");
        let counted =
            sdk.run(json!({"do": "query", "query": "SELECT COUNT() AS n, MAX(version) AS v FROM devices"}));
        assert_eq!(counted, json!([[{"n": 5, "v": 2}]]));

        let patch = json!([{"op": "add", "path": "/target", "value": 21}]);
        sdk.call("twins.updateDigitalTwin", json!(["dev0", patch]));
        let twin = sdk.call("twins.getDigitalTwin", json!(["dev0"]));
        assert_eq!((&twin["$dtId"], &twin["target"]), (&json!("dev0"), &json!(21)), "{twin}");
        sdk.end();
    });
}
