//! Many identities at a time: queries, bulk requests, statistics.

use axum::http::StatusCode;
use devicebound::hub::{HubConfig, Scale, Tier};
use devicebound_hub::observe::view::View;
use serde_json::{Value, json};

use crate::client::{Client, message};
use crate::common::{Hub, connect};

/// A hub with `demo` and, with tags, `dev0` to `dev{count - 1}`.
async fn with_devices(count: usize) -> Client {
    let client = Client::start();
    let entry = |number: usize| {
        let site = if number.is_multiple_of(2) { "north" } else { "south" };
        json!({"id": format!("dev{number}"), "importMode": "create", "tags": {"site": site, "floor": number}})
    };
    let (status, _) = client.ask("POST", "/devices", &[], (0..count).map(entry).collect()).await;
    assert_eq!(status, StatusCode::OK);
    client
}

impl Client {
    async fn query(&self, text: &str, headers: &[(&str, &str)]) -> (StatusCode, Option<String>, Value) {
        let body = json!({"query": text});
        let (status, headers, rows) = self.exchange("service", "POST", "/devices/query", headers, body).await;
        let token = headers.get("x-ms-continuation").map(|token| token.to_str().unwrap().to_owned());
        (status, token, rows)
    }

    async fn ids(&self, text: &str) -> Vec<String> {
        let (status, _, rows) = self.query(text, &[]).await;
        assert_eq!(status, StatusCode::OK, "{text}: {rows}");
        ids(&rows)
    }

    async fn bulk(&self, entry: Value) -> (StatusCode, Value) {
        self.ask("POST", "/devices", &[], json!([entry])).await
    }
}

fn ids(rows: &Value) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row["deviceId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "local")]
async fn a_query_finds_twins_by_every_part_that_they_have() {
    let client = with_devices(4).await;
    client.ask("PUT", "/devices/dev1/modules/m", &[], json!({})).await;
    let disabled = json!({"status": "disabled"});
    client.ask("PUT", "/devices/dev3", &[("if-match", "*")], disabled).await;
    let _device = client.hub.connected(&connect()).await;
    for (condition, expected) in [
        ("tags.site = 'north' AND tags.floor > 0", &["dev2"][..]),
        ("deviceId = 'dev1'", &["dev1"]),
        ("DEVICEID IN ['dev1', 'dev9']", &["dev1"]),
        ("status = 'disabled'", &["dev3"]),
        ("connectionState = 'Connected'", &["demo"]),
        ("authenticationType = 'sas' AND version = 2", &["demo"]),
        ("properties.desired.$version = 1 AND tags.floor <= 1", &["dev0", "dev1"]),
        ("capabilities.iotEdge", &[]),
        ("moduleId = 'm'", &[]),
    ] {
        assert_eq!(
            client.ids(&format!("SELECT * FROM devices WHERE {condition}")).await,
            expected,
            "{condition}"
        );
    }
    assert_eq!(client.ids("SELECT * FROM devices.modules WHERE moduleId = 'm'").await, ["dev1"]);
    let (_, _, rows) = client
        .query("SELECT deviceId, tags.site AS at, tags.none FROM devices WHERE tags.floor = 1", &[])
        .await;
    assert_eq!(rows, json!([{"deviceId": "dev1", "at": "south"}]));
}

#[tokio::test(flavor = "local")]
async fn pages_go_on_where_the_last_one_ended() {
    let client = with_devices(5).await;
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let headers = [("x-ms-max-item-count", "2"), ("x-ms-continuation", token.as_str())];
        let (_, next, rows) = client.query("SELECT TOP 5 * FROM devices", &headers).await;
        pages.push(ids(&rows));
        // What comes and goes before the place of the token does not matter.
        client.ask("DELETE", "/devices/demo", &[], Value::Null).await;
        match next {
            Some(next) => token = next,
            None => break,
        }
    }
    assert_eq!(pages, [vec!["demo", "dev0"], vec!["dev1", "dev2"], vec!["dev3"]]);
    let (status, _, body) = client.query("SELECT * FROM devices", &[("x-ms-continuation", "nonsense")]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test(flavor = "local")]
async fn a_page_of_large_twins_ends_early_and_nothing_is_left_out() {
    let client = with_devices(0).await;
    let text: Vec<String> = (0..7).map(|_| "x".repeat(4000)).collect();
    // 300 twins of 28 KB are more than the 8 MiB of a page.
    for begin in [0, 100, 200] {
        let entry = |number: usize| {
            let desired = json!({"a": text[0], "b": text[1], "c": text[2], "d": text[3], "e": text[4], "f": text[5], "g": text[6]});
            json!({"id": format!("large{number:03}"), "importMode": "create", "properties": {"desired": desired}})
        };
        for entries in (begin..begin + 100).collect::<Vec<_>>().chunks(25) {
            let (status, body) = client
                .ask("POST", "/devices", &[], entries.iter().map(|number| entry(*number)).collect())
                .await;
            assert_eq!(status, StatusCode::OK, "{body}");
        }
    }
    let (mut found, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let headers = [("x-ms-max-item-count", "1000"), ("x-ms-continuation", token.as_str())];
        let (_, next, rows) =
            client.query("SELECT * FROM devices WHERE STARTSWITH(deviceId, 'large')", &headers).await;
        assert!(
            rows.to_string().len() <= 8 * 1024 * 1024 + 64 * 1024,
            "a page of {} bytes",
            rows.to_string().len()
        );
        found.extend(ids(&rows));
        pages += 1;
        match next {
            Some(next) => token = next,
            None => break,
        }
    }
    assert_eq!(found, (0..300).map(|number| format!("large{number:03}")).collect::<Vec<_>>());
    assert!(pages > 1);
}

#[tokio::test(flavor = "local")]
async fn twins_are_counted_by_groups() {
    let client = with_devices(5).await;
    let (_, _, rows) =
        client.query("SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site", &[]).await;
    assert_eq!(rows, json!([{"site": "north", "n": 3}, {"site": "south", "n": 2}, {"n": 1}]));
    let (_, _, rows) = client.query("SELECT COUNT() AS n FROM devices WHERE tags.floor > 9", &[]).await;
    assert_eq!(rows, json!([{"n": 0}]));
}

#[tokio::test(flavor = "local")]
async fn what_is_no_query_is_refused_with_the_place_where_it_is_wrong() {
    let client = Client::start();
    let (status, _, body) = client.query("SELECT * FROM devices WHERE tags.a ! 1", &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message(&body).starts_with("ErrorCode:ArgumentInvalid;"), "{body}");
    assert!(message(&body).contains("character 36"), "{body}");
    let (status, body) = client.ask("POST", "/devices/query", &[], json!({"sql": "SELECT"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test(flavor = "local")]
async fn an_entry_of_a_bulk_request_does_what_its_mode_says() {
    let client = Client::start();
    let (_, made) = client.ask("PUT", "/devices/a", &[], json!({})).await;
    let etag = made["etag"].as_str().unwrap().to_owned();
    let (ok, bad) = (StatusCode::OK, StatusCode::BAD_REQUEST);
    for (mode, id, extra, status, error) in [
        ("create", "b", json!({"tags": {"x": 1}}), ok, None),
        ("create", "b", json!({}), bad, Some("DeviceAlreadyExists")),
        ("create", "c", json!({"tags": {"x.y": 1}}), bad, Some("ArgumentInvalid")),
        ("update", "c", json!({}), bad, Some("DeviceNotFound")),
        ("update", "b", json!({"status": "disabled"}), ok, None),
        ("updateIfMatchETag", "a", json!({"eTag": "other"}), bad, Some("PreconditionFailed")),
        ("updateIfMatchETag", "a", json!({"eTag": etag, "statusReason": "why"}), ok, None),
        ("createOrUpdate", "c", json!({}), ok, None),
        ("createOrUpdate", "c", json!({"status": "disabled"}), ok, None),
        ("createOrUpdateIfMatchETag", "c", json!({"eTag": "other"}), bad, Some("PreconditionFailed")),
        ("updateTwin", "b", json!({"properties": {"desired": {"y": 2}}}), ok, None),
        ("updateTwinIfMatchETag", "b", json!({"twinETag": "AAAAAAAAAAk="}), bad, Some("PreconditionFailed")),
        ("create", "b", json!({"moduleId": "m"}), ok, None),
        ("deleteIfMatchETag", "a", json!({"eTag": etag}), bad, Some("PreconditionFailed")),
        ("Delete", "a", json!({}), ok, None),
        ("delete", "a", json!({}), bad, Some("DeviceNotFound")),
    ] {
        let mut entry = json!({"id": id, "importMode": mode});
        entry.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let (found, answer) = client.bulk(entry.clone()).await;
        assert_eq!(found, status, "{entry}: {answer}");
        assert_eq!(answer["errors"][0]["errorCode"].as_str(), error, "{entry}: {answer}");
    }
    assert_eq!(client.ids("SELECT deviceId FROM devices WHERE status = 'disabled'").await, ["b", "c"]);
    let (_, twin) = client.ask("GET", "/twins/b", &[], Value::Null).await;
    assert_eq!((&twin["tags"]["x"], &twin["properties"]["desired"]["y"]), (&json!(1), &json!(2)));
    let (_, modules) = client.ask("GET", "/devices/b/modules", &[], Value::Null).await;
    assert_eq!(modules[0]["moduleId"], "m");
}

#[tokio::test(flavor = "local")]
async fn a_bulk_request_that_cannot_be_meant_changes_nothing() {
    let client = Client::start();
    let many: Vec<Value> = (0..101).map(|number| json!({"id": number.to_string()})).collect();
    for body in [
        json!({}),
        json!(many),
        json!([{"id": "a"}, {"id": "a"}]),
        json!([{"id": "a"}, {}]),
        json!([{"id": "a"}, {"id": "b", "importMode": "upsert"}]),
        json!([{"id": "a"}, {"id": "b/c"}]),
        json!([{"id": "a"}, {"id": "b", "importMode": 7}]),
        json!([{"id": "a"}, 7]),
        json!([{"id": "a"}, {"id": "b", "importMode": "deleteIfMatchETag"}]),
    ] {
        let (status, answer) = client.ask("POST", "/devices", &[], body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(message(&answer).starts_with("ErrorCode:ArgumentInvalid;"), "{answer}");
    }
    assert_eq!(client.ids("SELECT * FROM devices").await, ["demo"]);
}

#[tokio::test(flavor = "local")]
async fn devices_are_counted_and_modules_are_not() {
    let client = with_devices(2).await;
    client.ask("PUT", "/devices/dev1/modules/m", &[], json!({})).await;
    client.ask("PUT", "/devices/dev1", &[("if-match", "*")], json!({"status": "disabled"})).await;
    let _device = client.hub.connected(&connect()).await;
    let (_, devices) = client.ask_as("registryRead", "GET", "/statistics/devices", &[], Value::Null).await;
    assert_eq!(devices, json!({"totalDeviceCount": 3, "enabledDeviceCount": 2, "disabledDeviceCount": 1}));
    let (_, service) = client.ask_as("registryRead", "GET", "/statistics/service", &[], Value::Null).await;
    assert_eq!(service, json!({"connectedDeviceCount": 1}));
}

#[tokio::test(flavor = "local")]
async fn keys_stay_until_others_are_named_and_come_where_there_were_none() {
    let client = Client::start();
    let keys = |identity: &Value| identity["authentication"]["symmetricKey"].clone();
    let put = async |body: Value| client.ask("PUT", "/devices/demo", &[("if-match", "*")], body).await.1;
    let before = client.ask("GET", "/devices/demo", &[], Value::Null).await.1;
    let same = put(json!({"authentication": {"type": "sas", "symmetricKey": {"primaryKey": null}}})).await;
    assert_eq!(keys(&same), keys(&before));
    let other = "MDEyMzQ1Njc4OWFiY2RlZg==";
    let half = put(json!({"authentication": {"symmetricKey": {"primaryKey": other}}})).await;
    assert_eq!(keys(&half), json!({"primaryKey": other, "secondaryKey": keys(&before)["secondaryKey"]}));
    let thumbprint = json!({"primaryThumbprint": "ab".repeat(32)});
    let certified = put(json!({"authentication": {"x509Thumbprint": thumbprint}})).await;
    assert_eq!(certified["authentication"]["type"], "selfSigned", "{certified}");
    let again = put(json!({"authentication": {"type": "sas"}})).await;
    assert_eq!(keys(&again)["primaryKey"].as_str().unwrap().len(), 44, "{again}");
}

#[tokio::test(flavor = "local")]
async fn a_list_has_as_many_devices_as_are_asked_for() {
    let client = with_devices(3).await;
    for (top, expected) in [("1", 1), ("3", 3), ("0", 4), ("1001", 4), ("x", 4)] {
        let (_, listed) = client.ask("GET", &format!("/devices?top={top}"), &[], Value::Null).await;
        assert_eq!(ids(&listed).len(), expected, "{top}");
    }
}

#[tokio::test(flavor = "local")]
async fn whatever_is_refused_is_refused_in_azures_shape() {
    let client = Client::start();
    for (method, path, body, status, name) in [
        ("DELETE", "/devices", json!(null), StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        ("GET", "/devices/%FF", json!(null), StatusCode::BAD_REQUEST, "ArgumentInvalid"),
        (
            "PUT",
            "/devices/a",
            json!("x".repeat(2 * 1024 * 1024)),
            StatusCode::PAYLOAD_TOO_LARGE,
            "MessageTooLarge",
        ),
    ] {
        let (found, headers, answer) = client.exchange("iothubowner", method, path, &[], body).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        assert_eq!(headers["iothub-errorcode"], name);
        assert!(message(&answer).starts_with(&format!("ErrorCode:{name};")), "{answer}");
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_tier_limits_queries_and_changes_of_the_registry() {
    let config = HubConfig { tier: Some(Scale { tier: Tier::S1, units: 1 }), ..HubConfig::default() };
    let client = Client::of(Hub::start_as(config, View::default(), 1));
    for _ in 0..20 {
        assert_eq!(client.ids("SELECT * FROM devices").await, ["demo"]);
    }
    let (status, _, body) = client.query("SELECT * FROM devices", &[]).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(message(&body).starts_with("ErrorCode:ThrottlingException;"), "{body}");
    for _ in 0..100 {
        assert_eq!(client.ask("GET", "/devices/demo", &[], Value::Null).await.0, StatusCode::OK);
    }
    let (status, _) = client.ask("PUT", "/devices/new", &[], json!({})).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(flavor = "local")]
async fn keys_are_made_anew_for_those_who_have_keys() {
    let client = with_devices(2).await;
    let certified = json!({"authentication": {"type": "certificateAuthority"}});
    client.ask("PUT", "/devices/dev1", &[("if-match", "*")], certified).await;
    client.ask("PUT", "/devices/dev0/modules/m", &[], json!({})).await;
    let keys = async |path: &str| {
        let (_, shown) = client.ask("GET", path, &[], Value::Null).await;
        let keys = &shown["authentication"]["symmetricKey"];
        [keys["primaryKey"].clone(), keys["secondaryKey"].clone()]
    };
    let regenerate = async |which: &str, devices: Value| {
        let body = json!({"policyKey": which, "devices": devices});
        client.ask("POST", "/devices/keys/regenerate", &[], body).await
    };
    let path = "/devices/dev0";
    let before = keys(path).await;
    let (status, made) = regenerate("primaryKey", json!([{"id": "dev0"}])).await;
    let after = keys(path).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    assert_eq!((before[0] == after[0], before[1] == after[1]), (false, true));
    assert_eq!(made["rotatedKeys"][0]["primaryKey"], after[0], "{made}");
    let module = json!([{"id": "dev0", "moduleId": "m"}, {"id": "dev1"}, {"id": "none"}]);
    let before = keys("/devices/dev0/modules/m").await;
    let (status, made) = regenerate("both", module).await;
    let after = keys("/devices/dev0/modules/m").await;
    assert_eq!(status, StatusCode::MULTI_STATUS, "{made}");
    assert!(before[0] != after[0] && before[1] != after[1]);
    assert_eq!(made["errors"][0]["errorCode"], 400_004, "{made}");
    assert_eq!(made["errors"][1]["errorCode"], 404_001, "{made}");
    assert_eq!(regenerate("both", json!([{"id": "none"}])).await.0, StatusCode::BAD_REQUEST);
    for (which, devices) in [("third", json!([{"id": "dev0"}])), ("both", json!([])), ("both", json!([{}]))] {
        let (status, body) = regenerate(which, devices).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(message(&body).starts_with("ErrorCode:ArgumentInvalid;"), "{body}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_hub_with_a_tier_has_one_worker_however_many_are_asked_for() {
    let config = HubConfig { tier: Some(Scale { tier: Tier::S1, units: 1 }), ..HubConfig::default() };
    let hub = Hub::start_as(config, View::default(), 4);
    assert!((0..100).all(|number| hub.engine.place_of(&format!("device-{number}")) == 0));
}
