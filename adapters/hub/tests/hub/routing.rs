//! Routes to webhooks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use axum::http::StatusCode;
use devicebound_hub::store::Store as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::{Client, message};
use crate::common::{Hub, connect_as, puback, publish};

/// A webhook that answers each request in turn as it is told, the last answer for ever.
struct Webhook {
    url: String,
    /// The value of `aeg-event-type`, and the event.
    requests: mpsc::UnboundedReceiver<(String, Value)>,
}

/// An answer: status and body. Status 0 is none at all.
type Answers = fn(usize, &Value) -> (u16, String);

impl Webhook {
    fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (told, requests) = mpsc::unbounded_channel();
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let (kind, body) = read(stream.as_ref().unwrap());
                let (status, answer) = answers(index, &body[0]);
                if told.send((kind, body[0].clone())).is_err() {
                    return;
                }
                let location = if status == 302 { "Location: http://127.0.0.1:9/\r\n" } else { "" };
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{location}Connection: close\r\nContent-Length: {}\r\n\r\n",
                    answer.len()
                );
                if status != 0 {
                    stream.unwrap().write_all((head + &answer).as_bytes()).unwrap();
                }
            }
        });
        Self { url, requests }
    }

    async fn next(&mut self) -> (String, Value) {
        self.requests.recv().await.unwrap()
    }
}

fn read(stream: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut kind) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "aeg-event-type" => value.clone_into(&mut kind),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (kind, serde_json::from_slice(&body).unwrap())
}

fn taken(_: usize, _: &Value) -> (u16, String) {
    (200, String::new())
}

/// A route of this condition to a webhook, with two enrichments.
fn routing(url: &str, condition: &str) -> Value {
    json!({
        "endpoints": {"webhooks": [{"name": "hook", "url": url}]},
        "routes": [{"name": "r", "source": "DeviceMessages", "condition": condition, "endpointNames": ["hook"], "isEnabled": true}],
        "enrichments": [
            {"key": "site", "value": "$twin.tags.site", "endpointNames": ["hook"]},
            {"key": "hub", "value": "$iothubname", "endpointNames": ["hook"]},
        ],
    })
}

async fn put(client: &Client, routing: Value) -> Value {
    let (status, answer) = client.ask("PUT", "/routing", &[], routing).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

/// Sends telemetry of `demo`, and waits for each acknowledgement.
async fn send(client: &Client, bodies: &[&str]) {
    let mut device = client.hub.connected(&connect_as("demo", 0, None)).await;
    for (index, body) in bodies.iter().enumerate() {
        let id = u16::try_from(index).unwrap() + 1;
        device.send(&publish(id, body.as_bytes())).await;
        assert_eq!(device.receive().await, Some(puback(id)));
    }
}

fn with_routing(hub: Hub, folder: Option<&Path>) -> Client {
    let documents = hub.store.clone().documents().unwrap();
    let folder = folder.map(Path::to_owned);
    Client::with(hub, axum::Router::new(), |backend| backend.with_routing(&documents, folder).unwrap())
}

/// All files below a folder, with their text.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match std::fs::read_to_string(&path) {
            Ok(text) => found.push((path, text)),
            Err(_) => found.extend(files(&path)),
        }
    }
    found
}

async fn health(client: &Client) -> Value {
    client.ask("GET", "/routingEndpointsHealth", &[], Value::Null).await.1["value"][0].clone()
}

/// Asks until this holds of the endpoint.
async fn until(client: &Client, holds: impl Fn(&Value) -> bool) {
    while !holds(&health(client).await) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_webhook_gets_what_matches_as_event_grid_sends_it_with_enrichments() {
    let client = Client::start();
    let mut webhook = Webhook::start(taken);
    send(&client, &["before"]).await;
    client.ask("PATCH", "/twins/demo", &[], json!({"tags": {"site": "north"}})).await;
    let answer =
        put(&client, routing(&webhook.url, "$connectionDeviceId = 'demo' AND $twin.tags.site = 'north'"))
            .await;
    assert!(
        answer["warnings"][0].as_str().unwrap().contains("no device message reaches the built-in endpoint"),
        "{answer}"
    );
    send(&client, &["one"]).await;
    let (kind, event) = webhook.next().await;
    assert_eq!(
        (kind.as_str(), &event["eventType"]),
        ("Notification", &json!("Microsoft.Devices.DeviceTelemetry"))
    );
    assert_eq!((&event["subject"], &event["id"]), (&json!("devices/demo"), &json!("devicebound-2")));
    assert_eq!(event["data"]["body"], "b25l", "what was sent before the route was there is not routed");
    assert_eq!(event["data"]["properties"], json!({"site": "north", "hub": "devicebound"}));
    assert_eq!(event["data"]["systemProperties"]["iothub-connection-device-id"], "demo");
    until(&client, |health| health["lag"] == 0 && health["healthStatus"] == "healthy").await;
    let (_, metrics) = client.ask("GET", "/metrics", &[], Value::Null).await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        r#"devicebound_endpoint_lag{endpoint="hook"} 0"#,
        r#"devicebound_endpoint_delivered_total{endpoint="hook"} 1"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let (_, shown) = client.ask("GET", "/routing", &[], Value::Null).await;
    assert_eq!(shown, answer);
    put(&client, shown).await;
}

#[tokio::test(flavor = "local")]
async fn what_a_webhook_fails_to_take_is_sent_again_in_order_and_what_it_refuses_is_a_dead_letter() {
    // The first event fails once, the second is refused, the third has no answer once.
    let answers: Answers = |index, _| {
        let status = [500, 200, 400, 0];
        (*status.get(index).unwrap_or(&204), String::new())
    };
    let client = Client::start();
    let mut webhook = Webhook::start(answers);
    put(&client, routing(&webhook.url, "true")).await;
    send(&client, &["1", "2", "3"]).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(webhook.next().await.1["id"].clone());
    }
    assert_eq!(ids, [1, 1, 2, 3, 3].map(|cursor| json!(format!("devicebound-{cursor}"))));
    until(&client, |health| health["delivered"] == 2 && health["deadLettered"] == 1 && health["lag"] == 0)
        .await;
    let log = &client.hub.engine.operations.log;
    let told: Vec<String> = (0..log.newest())
        .filter_map(|cursor| log.after(cursor))
        .map(|entry| entry.line.to_string())
        .collect();
    for said in ["endpointUnhealthy", "endpointHealthy", "messages 2 to 2 are not delivered: it answered 400"]
    {
        assert!(told.iter().any(|line| line.contains(said)), "{told:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_nobody_serves_holds_up_no_other_and_loses_nothing() {
    let client = Client::start();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}/", nobody.local_addr().unwrap());
    drop(nobody);
    let mut webhook = Webhook::start(taken);
    let mut both = routing(&webhook.url, "true");
    both["endpoints"]["webhooks"] =
        json!([{"name": "dead", "url": dead}, {"name": "hook", "url": webhook.url}]);
    let mut second = both["routes"][0].clone();
    (second["name"], second["endpointNames"]) = (json!("second"), json!(["dead"]));
    both["routes"].as_array_mut().unwrap().push(second);
    put(&client, both.clone()).await;
    send(&client, &["1", "2"]).await;
    for id in ["devicebound-1", "devicebound-2"] {
        assert_eq!(webhook.next().await.1["id"], id);
    }
    until(&client, |dead| dead["healthStatus"] == "unhealthy" && dead["lag"] == 2).await;
    // Its URL is corrected, and it goes on where it was.
    let mut revived = Webhook::start(taken);
    both["endpoints"]["webhooks"][0]["url"] = revived.url.clone().into();
    put(&client, both).await;
    for id in ["devicebound-1", "devicebound-2"] {
        assert_eq!(revived.next().await.1["id"], id);
    }
}

#[tokio::test(flavor = "local")]
async fn routes_and_the_place_of_an_endpoint_outlive_the_hub() {
    let client = Client::start();
    let mut webhook = Webhook::start(taken);
    put(&client, routing(&webhook.url, "true")).await;
    let (_, before) = client.ask("GET", "/routing", &[], Value::Null).await;
    let next = with_routing(Hub::start_on(&client.hub.store), None);
    let (_, after) = next.ask("GET", "/routing", &[], Value::Null).await;
    assert_eq!(after, before);
    send(&next, &["1"]).await;
    assert_eq!(webhook.next().await.1["data"]["body"], "MQ==");
}

#[tokio::test(flavor = "local")]
async fn a_webhook_that_is_to_be_validated_must_send_the_code_back() {
    let client = Client::start();
    let validated = |url: &str| {
        let mut routing = routing(url, "true");
        routing["endpoints"]["webhooks"][0]["validate"] = true.into();
        routing
    };
    let echo: Answers =
        |_, event| (200, json!({"validationResponse": event["data"]["validationCode"]}).to_string());
    let mut webhook = Webhook::start(echo);
    put(&client, validated(&webhook.url)).await;
    let (kind, event) = webhook.next().await;
    assert_eq!(kind, "SubscriptionValidation");
    assert_eq!(event["eventType"], "Microsoft.EventGrid.SubscriptionValidationEvent");
    for (answers, said) in [
        (taken as Answers, "no JSON"),
        (|_, _| (200, r#"{"validationResponse":"x"}"#.to_owned()), "is not the validationCode"),
        (|_, _| (302, String::new()), "it answered 302"),
    ] {
        let webhook = Webhook::start(answers);
        let (status, answer) = client.ask("PUT", "/routing", &[], validated(&webhook.url)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(message(&answer).contains(said), "{answer}");
    }
    // The one before is still there.
    let (_, shown) = client.ask("GET", "/routing", &[], Value::Null).await;
    assert_eq!(shown["endpoints"]["webhooks"][0]["url"], webhook.url);
}

#[tokio::test(flavor = "local")]
async fn a_routing_that_cannot_be_stored_or_is_wrong_changes_nothing() {
    let client = Client::start();
    let mut wrong = routing("http://localhost/", "level = ");
    let (status, answer) = client.ask("PUT", "/routing", &[], wrong.clone()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message(&answer).contains("routes[0] is wrong at character 9"), "{answer}");
    client.hub.store.fail();
    wrong["routes"][0]["condition"] = Value::Null;
    let (status, _) = client.ask("PUT", "/routing", &[], wrong).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let (_, shown) = client.ask("GET", "/routing", &[], Value::Null).await;
    assert_eq!(shown, json!({"endpoints": {}, "routes": [], "enrichments": [], "warnings": []}));
    let (status, _) = client.ask_as("device", "PUT", "/routing", &[], json!({})).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_container_gets_a_file_of_json_lines_when_its_batch_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let client = with_routing(Hub::start(), Some(folder.path()));
    let container = json!({"name": "hook", "containerName": "archive", "encoding": "JSON", "batchFrequencyInSeconds": 60});
    let mut to_container = routing("http://localhost/", "true");
    to_container["endpoints"] =
        json!({"storageContainers": [container, {"name": "avro", "containerName": "other"}]});
    let answer = put(&client, to_container).await;
    assert!(
        answer["warnings"][1].as_str().unwrap().contains("the endpoint avro is not served here"),
        "{answer}"
    );
    send(&client, &["one", "two"]).await;
    let archive = folder.path().join("archive");
    while health(&client).await["delivered"] != 2 {
        assert_eq!(health(&client).await["deadLettered"], 0);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let mut records: Vec<Value> = Vec::new();
    // One file, or two: the clock runs ahead while the store is busy.
    for (path, text) in files(&archive) {
        let place = path.strip_prefix(&archive).unwrap().to_str().unwrap();
        assert!(place.starts_with("devicebound/0") && place.split('/').count() == 7, "{place}");
        assert!(text.ends_with("\r\n"), "{text:?}");
        records.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    records.sort_by_key(|record| record["EnqueuedTimeUtc"].to_string());
    let bodies: Vec<&Value> = records.iter().map(|record| &record["Body"]).collect();
    assert_eq!(bodies, ["b25l", "dHdv"]);
    assert_eq!(records[0]["Properties"], json!({"site": "$twin.tags.site", "hub": "devicebound"}));
    assert_eq!(records[0]["SystemProperties"]["connectionDeviceId"], "demo");
    until(&client, |health| health["lag"] == 0).await;
}
