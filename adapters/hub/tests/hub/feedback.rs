//! What a back end hears of its cloud-to-device messages.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::client::Client;

const FEEDBACK: &str = "/messages/serviceBound/feedback";

impl Client {
    /// Queues a message for `demo` that wants feedback, and takes it away again.
    async fn purge_one(&self, message_id: &str) {
        let headers = [("iothub-ack", "full"), ("iothub-messageid", message_id)];
        let (status, _) = self.ask("POST", "/devices/demo/messages/deviceBound", &headers, json!("x")).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        let (_, purged) = self.ask("DELETE", "/devices/demo/commands", &[], Value::Null).await;
        assert_eq!(purged, json!({"deviceId": "demo", "moduleId": null, "totalMessagesPurged": 1}));
    }

    /// The message ids of a batch, and its lock; empty where there is none.
    async fn batch(&self) -> (Vec<String>, String) {
        let (status, headers, reports) = self.exchange("service", "GET", FEEDBACK, &[], Value::Null).await;
        if status == StatusCode::NO_CONTENT {
            return (Vec::new(), String::new());
        }
        assert_eq!(headers["content-type"], "application/vnd.microsoft.iothub.feedback.json");
        let lock = headers["etag"].to_str().unwrap().trim_matches('"').to_owned();
        let id = |report: &Value| report["originalMessageId"].as_str().unwrap().to_owned();
        (reports.as_array().unwrap().iter().map(id).collect(), lock)
    }

    async fn end_batch(&self, method: &str, path: &str) -> StatusCode {
        self.ask(method, &format!("{FEEDBACK}/{path}"), &[], Value::Null).await.0
    }
}

#[tokio::test(flavor = "local")]
async fn a_batch_is_locked_until_it_is_completed() {
    let client = Client::start();
    assert_eq!(client.batch().await.0, [""; 0]);
    client.purge_one("m1").await;
    let (_, _, reports) = client.exchange("service", "GET", FEEDBACK, &[], Value::Null).await;
    let report = &reports[0];
    for (name, value) in [
        ("originalMessageId", "m1"),
        ("statusCode", "Purged"),
        ("description", "Purged"),
        ("deviceId", "demo"),
        ("deviceGenerationId", "1"),
    ] {
        assert_eq!(report[name], value, "{report}");
    }
    assert!(report["enqueuedTimeUtc"].as_str().unwrap().ends_with('Z'), "{report}");
    assert_eq!(client.batch().await.0, [""; 0], "the batch is locked");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn what_is_abandoned_or_held_too_long_comes_again() {
    let client = Client::start();
    client.purge_one("m1").await;
    let (_, first) = client.batch().await;
    assert_eq!(client.end_batch("POST", &format!("{first}/abandon")).await, StatusCode::NO_CONTENT);
    assert_eq!(client.end_batch("DELETE", &first).await, StatusCode::PRECONDITION_FAILED, "its lock is gone");

    let (again, second) = client.batch().await;
    assert_eq!(again, ["m1"]);
    client.purge_one("m2").await;
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    let (both, third) = client.batch().await;
    assert_eq!(both, ["m1", "m2"]);
    assert_eq!(client.end_batch("DELETE", &second).await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(client.end_batch("DELETE", &third).await, StatusCode::NO_CONTENT);
    assert_eq!(client.batch().await.0, [""; 0], "completed reports do not come again");
    assert_eq!(client.end_batch("DELETE", "nonsense").await, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test(flavor = "local")]
async fn what_comes_while_a_batch_is_read_is_in_the_next() {
    let client = Client::start();
    client.purge_one("m1").await;
    let (_, lock) = client.batch().await;
    client.purge_one("m2").await;
    assert_eq!(client.end_batch("DELETE", &lock).await, StatusCode::NO_CONTENT);
    let (next, lock) = client.batch().await;
    assert_eq!(next, ["m2"]);
    assert_eq!(client.end_batch("DELETE", &lock).await, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "local")]
async fn a_batch_has_at_most_64_reports() {
    let client = Client::start();
    for number in 0..70 {
        client.purge_one(&format!("m{number}")).await;
    }
    let (batch, lock) = client.batch().await;
    assert_eq!((batch.len(), batch[0].as_str(), batch[63].as_str()), (64, "m0", "m63"));
    assert_eq!(client.end_batch("DELETE", &lock).await, StatusCode::NO_CONTENT);
    assert_eq!(client.batch().await.0.len(), 6);
}

#[tokio::test(flavor = "local")]
async fn the_path_of_feedback_is_known_in_lower_case_too() {
    let client = Client::start();
    client.purge_one("m1").await;
    let lower = FEEDBACK.to_lowercase();
    let (status, headers, reports) = client.exchange("service", "GET", &lower, &[], Value::Null).await;
    assert_eq!((status, reports.as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    let lock = headers["etag"].to_str().unwrap().trim_matches('"').to_owned();
    let (status, _) = client.ask("DELETE", &format!("{lower}/{lock}"), &[], Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}
