//! Jobs over the service API.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Client, message};

/// Asks for a job until it is in one of these states.
async fn wait_for(client: &Client, id: &str, states: &[&str]) -> Value {
    loop {
        let (status, job) = client.ask("GET", &format!("/jobs/v2/{id}"), &[], Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{job}");
        if states.iter().any(|state| job["status"] == *state) {
            return job;
        }
        tokio::task::yield_now().await;
    }
}

async fn schedule(client: &Client, id: &str, request: Value) -> (StatusCode, Value) {
    client.ask("PUT", &format!("/jobs/v2/{id}"), &[], request).await
}

async fn rows(client: &Client, condition: &str) -> Value {
    let query = json!({"query": format!("SELECT * FROM devices.jobs WHERE {condition}")});
    client.ask("POST", "/devices/query", &[], query).await.1
}

fn update(condition: &str, tags: Value) -> Value {
    json!({"type": "scheduleUpdateTwin", "updateTwin": {"etag": "*", "tags": tags}, "queryCondition": condition})
}

async fn with_devices(count: usize) -> Client {
    let client = Client::start();
    for number in 0..count {
        client.ask("PUT", &format!("/devices/dev{number}"), &[], json!({})).await;
    }
    client
}

#[tokio::test(flavor = "local")]
async fn a_job_changes_the_twins_that_its_condition_selects_and_tells_what_it_did() {
    let client = with_devices(3).await;
    let (status, receipt) =
        schedule(&client, "j1", update("deviceId IN ['dev0', 'dev2']", json!({"a": 1}))).await;
    assert_eq!(
        (status, receipt),
        (StatusCode::OK, json!({"jobId": "j1", "type": "scheduleUpdateTwin", "status": "queued"}))
    );
    let job = wait_for(&client, "j1", &["completed"]).await;
    assert_eq!(
        job["deviceJobStatistics"],
        json!({"deviceCount": 2, "failedCount": 0, "succeededCount": 2, "runningCount": 0, "pendingCount": 0})
    );
    for (device, expected) in [("dev0", json!({"a": 1})), ("dev1", json!({})), ("dev2", json!({"a": 1}))] {
        let (_, twin) = client.ask("GET", &format!("/twins/{device}"), &[], Value::Null).await;
        assert_eq!(twin["tags"], expected, "{device}");
    }
    let rows = rows(&client, "devices.jobs.jobId = 'j1' AND devices.jobs.status = 'completed'").await;
    let devices: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row["deviceId"]).collect();
    assert_eq!(devices, ["dev0", "dev2"], "{rows}");
    let (status, again) = schedule(&client, "j1", update("*", json!({}))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{again}");
}

#[tokio::test(flavor = "local")]
async fn a_method_that_no_device_answers_fails_for_each_and_the_job_completes() {
    let client = with_devices(2).await;
    let call = json!({"methodName": "reboot", "payload": {"in": 5}, "responseTimeoutInSeconds": 5});
    let request = json!({"type": "scheduleDeviceMethod", "cloudToDeviceMethod": call});
    assert_eq!(schedule(&client, "j", request).await.0, StatusCode::OK);
    let job = wait_for(&client, "j", &["completed"]).await;
    assert_eq!(job["deviceJobStatistics"]["failedCount"], 3, "{job}");
    let rows = rows(&client, "jobId = 'j' AND status = 'failed'").await;
    assert_eq!(rows[0]["error"]["code"], "DeviceNotOnline", "{rows}");
    let (_, twins) = client
        .ask("POST", "/devices/query", &[], json!({"query": "SELECT deviceId FROM devices.jobs"}))
        .await;
    assert!(message(&twins).contains("whole rows only"), "{twins}");
}

#[tokio::test(flavor = "local")]
async fn a_job_of_tomorrow_waits_until_it_is_cancelled() {
    let client = with_devices(1).await;
    let mut request = update("*", json!({"a": 1}));
    let tomorrow = devicebound_hub::clock::unix_time().after(std::time::Duration::from_secs(24 * 3600));
    request["startTime"] = tomorrow.to_string().into();
    schedule(&client, "later", request).await;
    assert_eq!(wait_for(&client, "later", &["queued"]).await["startTime"], tomorrow.to_string());
    let (status, cancelled) = client.ask("POST", "/jobs/v2/later/cancel", &[], Value::Null).await;
    assert_eq!((status, &cancelled["status"]), (StatusCode::OK, &json!("cancelled")), "{cancelled}");
    let (status, again) = client.ask("POST", "/jobs/v2/later/cancel", &[], Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message(&again).contains("is cancelled already"), "{again}");
    let (status, none) = client.ask("POST", "/jobs/v2/none/cancel", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(message(&none).contains("JobNotFound"), "{none}");
}

#[tokio::test(flavor = "local")]
async fn jobs_are_listed_by_type_and_status_page_by_page() {
    let client = with_devices(0).await;
    for id in ["a", "b", "c"] {
        schedule(&client, id, update("deviceId = 'none'", json!({}))).await;
        wait_for(&client, id, &["completed"]).await;
    }
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let headers = [("x-ms-max-item-count", "2"), ("x-ms-continuation", token.as_str())];
        let path = "/jobs/v2/query?jobType=scheduleUpdateTwin&jobStatus=completed";
        let (status, headers, page) = client.exchange("service", "GET", path, &headers, Value::Null).await;
        assert_eq!((status, &headers["x-ms-item-type"]), (StatusCode::OK, &"jobResponse".parse().unwrap()));
        found.extend(page.as_array().unwrap().iter().map(|job| job["jobId"].as_str().unwrap().to_owned()));
        match headers.get("x-ms-continuation") {
            Some(next) => token = next.to_str().unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(found, ["a", "b", "c"]);
    let (_, none) = client.ask("GET", "/jobs/v2/query?jobStatus=running", &[], Value::Null).await;
    assert_eq!(none, json!([]));
    let foreign = [("x-ms-continuation", token.as_str())];
    let (status, error) = client.ask("GET", "/jobs/v2/query", &foreign, Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
}

#[tokio::test(flavor = "local")]
async fn a_job_over_devices_that_vanish_says_so_for_each_of_them() {
    let client = with_devices(1).await;
    client.ask("PUT", "/devices/dev0/modules/m", &[], json!({})).await;
    let call = json!({"methodName": "reboot", "connectTimeoutInSeconds": 2});
    let request = json!({
        "type": "scheduleDeviceMethod", "cloudToDeviceMethod": call, "queryCondition": "FROM devices.modules WHERE moduleId = 'm'",
    });
    schedule(&client, "gone", request).await;
    let job = wait_for(&client, "gone", &["running"]).await;
    assert_eq!(job["deviceJobStatistics"]["deviceCount"], 1, "{job}");
    client.ask("DELETE", "/devices/dev0", &[("if-match", "*")], Value::Null).await;
    wait_for(&client, "gone", &["completed"]).await;
    let rows = rows(&client, "jobId = 'gone'").await;
    assert_eq!((&rows[0]["moduleId"], &rows[0]["status"]), (&json!("m"), &json!("failed")), "{rows}");
}
