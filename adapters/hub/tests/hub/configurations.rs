//! Automatic configurations over the service API.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Client, message};

async fn put(client: &Client, id: &str, etag: &[(&str, &str)], body: Value) -> (StatusCode, Value) {
    client.ask("PUT", &format!("/configurations/{id}"), etag, body).await
}

fn configuration(condition: &str, priority: u32, desired: Value) -> Value {
    json!({"content": {"deviceContent": desired}, "targetCondition": condition, "priority": priority})
}

/// Asks for a twin until `wanted` of it is so.
async fn twin_until(client: &Client, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (_, twin) = client.ask("GET", &format!("/twins/{path}"), &[], Value::Null).await;
        if wanted(&twin) {
            return twin;
        }
        tokio::task::yield_now().await;
    }
}

fn desired(twin: &Value) -> Value {
    let mut desired = twin["properties"]["desired"].clone();
    let members = desired.as_object_mut().unwrap();
    members.remove("$metadata");
    members.remove("$version");
    desired
}

async fn tag(client: &Client, device: &str, tags: Value) {
    let (status, twin) = client.ask("PATCH", &format!("/twins/{device}"), &[], json!({"tags": tags})).await;
    assert_eq!(status, StatusCode::OK, "{twin}");
}

#[tokio::test(flavor = "local")]
async fn what_a_twin_comes_to_match_is_applied_and_what_it_leaves_is_withdrawn() {
    let client = Client::start();
    let set = json!({"properties.desired.chiller": {"speed": 3}, "properties.desired.mode": "eco"});
    let (status, made) =
        put(&client, "north", &[], configuration("tags.site = 'north'", 1, set.clone())).await;
    assert_eq!((status, &made["content"]["deviceContent"]), (StatusCode::OK, &set), "{made}");
    assert_eq!((&made["schemaVersion"], &made["etag"]), (&json!("2.0"), &json!("MQ==")));

    client.ask("PATCH", "/twins/demo", &[], json!({"properties": {"desired": {"own": 1}}})).await;
    tag(&client, "demo", json!({"site": "north"})).await;
    let applied = |twin: &Value| twin["configurations"]["north"]["status"] == "Applied";
    let twin = twin_until(&client, "demo", applied).await;
    assert_eq!(desired(&twin), json!({"own": 1, "chiller": {"speed": 3}, "mode": "eco"}));
    let query =
        json!({"query": "SELECT deviceId FROM devices WHERE configurations.[[north]].status = 'Applied'"});
    let (_, found) = client.ask("POST", "/devices/query", &[], query).await;
    assert_eq!(found, json!([{"deviceId": "demo"}]));
    let (_, shown) = client.ask("GET", "/configurations/north", &[], Value::Null).await;
    assert_eq!(shown["systemMetrics"]["results"], json!({"targetedCount": 1, "appliedCount": 1}), "{shown}");

    tag(&client, "demo", json!({"site": "south"})).await;
    let twin = twin_until(&client, "demo", |twin| twin.get("configurations").is_none()).await;
    assert_eq!(desired(&twin), json!({"own": 1}));
}

#[tokio::test(flavor = "local")]
async fn the_highest_priority_wins_each_path_and_the_next_one_follows_it() {
    let client = Client::start();
    let low = json!({"properties.desired.a": 1, "properties.desired.b.x": 1});
    let high = json!({"properties.desired.a": 2});
    let all = json!({"properties.desired.b": {"y": 9}});
    put(&client, "low", &[], configuration("*", 1, low)).await;
    put(&client, "all", &[], configuration("*", 0, all)).await;
    put(&client, "high", &[], configuration("*", 7, high)).await;
    let twin =
        twin_until(&client, "demo", |twin| twin["configurations"]["high"]["status"] == "Applied").await;
    assert_eq!(desired(&twin), json!({"a": 2, "b": {"x": 1}}));
    assert_eq!(twin["configurations"]["all"]["status"], "Targeted", "another has all that it would set");

    let (status, _) = client.ask("DELETE", "/configurations/high", &[], Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let twin = twin_until(&client, "demo", |twin| twin["configurations"].get("high").is_none()).await;
    assert_eq!(desired(&twin), json!({"a": 1, "b": {"x": 1}}));
    let (_, shown) = client.ask("GET", "/configurations?top=1", &[], Value::Null).await;
    assert_eq!(shown[0]["id"], "low", "the most important is listed first");
}

#[tokio::test(flavor = "local")]
async fn modules_are_configured_by_a_condition_over_modules_and_counted_by_metrics() {
    let client = Client::start();
    for module in ["m1", "m2"] {
        client.ask("PUT", &format!("/devices/demo/modules/{module}"), &[], json!({})).await;
    }
    let metrics = json!({"queries": {"all": "SELECT moduleId FROM devices.modules", "total": "SELECT COUNT() FROM devices"}});
    let body = json!({
        "content": {"moduleContent": {"properties.desired.level": 4}}, "priority": 1, "metrics": metrics,
        "targetCondition": "from devices.modules where moduleId = 'm2'",
    });
    let (status, made) = put(&client, "modules", &[], body).await;
    assert_eq!(
        (status, &made["metrics"]["results"]),
        (StatusCode::OK, &json!({"all": 2, "total": 1})),
        "{made}"
    );
    let twin = twin_until(&client, "demo/modules/m2", |twin| twin.get("configurations").is_some()).await;
    assert_eq!(desired(&twin), json!({"level": 4}));
    let (_, other) = client.ask("GET", "/twins/demo/modules/m1", &[], Value::Null).await;
    assert_eq!(desired(&other), json!({}));
}

#[tokio::test(flavor = "local")]
async fn a_configuration_that_removes_its_own_reason_does_not_change_a_twin_for_ever() {
    let client = Client::start();
    let set = json!({"properties.desired.x": 1});
    put(&client, "loop", &[], configuration("NOT IS_DEFINED(properties.desired.x)", 1, set)).await;
    let (mut last, mut quiet) = (0, 0);
    while quiet < 2000 {
        let (_, twin) = client.ask("GET", "/twins/demo", &[], Value::Null).await;
        let version = twin["properties"]["desired"]["$version"].as_u64().unwrap();
        quiet = if version == last { quiet + 1 } else { 0 };
        last = version;
    }
    assert!((2..20).contains(&last), "version {last}");
}

#[tokio::test(flavor = "local")]
async fn what_a_configuration_cannot_mean_is_refused_with_the_reason() {
    let client = Client::start();
    let good = configuration("*", 1, json!({"properties.desired.a": 1}));
    let (_, made) = put(&client, "c", &[], good.clone()).await;
    let with = |members: Value| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    };
    for (id, body, said) in [
        ("Upper", with(json!({})), "lower case"),
        (
            "d",
            with(json!({"targetCondition": "tags.a ="})),
            "targetCondition: the query is wrong at character 9",
        ),
        ("d", with(json!({"targetCondition": "from devices.modules"})), "belong together"),
        ("d", with(json!({"content": {}})), "exactly one of"),
        ("d", with(json!({"priority": -1})), "priority"),
        ("d", with(json!({"labels": {"a": 1}})), "labels"),
        ("d", with(json!({"metrics": {"queries": {"q": "SELECT"}}})), "metrics.queries.q"),
    ] {
        let (status, error) = put(&client, id, &[], body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
        assert!(message(&error).contains(said), "{said}: {error}");
    }
    assert_eq!(put(&client, "c", &[], good.clone()).await.0, StatusCode::CONFLICT);
    assert_eq!(put(&client, "d", &[("if-match", "*")], good.clone()).await.0, StatusCode::NOT_FOUND);
    let etag = format!("\"{}\"", made["etag"].as_str().unwrap());
    let (status, changed) = put(&client, "c", &[("if-match", &etag)], with(json!({"priority": 9}))).await;
    assert_eq!((status, &changed["priority"], &changed["etag"]), (StatusCode::OK, &json!(9), &json!("Mg==")));
    assert_eq!(
        put(&client, "c", &[("if-match", &etag)], good.clone()).await.0,
        StatusCode::PRECONDITION_FAILED
    );
    let other = with(json!({"content": {"deviceContent": {"properties.desired.a": 2}}}));
    let (status, error) = put(&client, "c", &[("if-match", "*")], other).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message(&error).contains("cannot be changed"), "{error}");

    let tested = json!({"targetCondition": "tags.a =", "customMetricQueries": {"good": "SELECT * FROM devices", "bad": "SELECT"}});
    let (_, tested) = client.ask("POST", "/configurations/testQueries", &[], tested).await;
    assert!(tested["targetConditionError"].as_str().unwrap().contains("character 9"), "{tested}");
    assert_eq!(tested["customMetricQueryErrors"].as_object().unwrap().len(), 1, "{tested}");
}

#[tokio::test(flavor = "local")]
async fn a_content_is_applied_to_an_edge_device_and_its_modules_once() {
    let client = Client::start();
    let edge = json!({"capabilities": {"iotEdge": true}});
    client.ask("PUT", "/devices/edge", &[], edge).await;
    client.ask("PUT", "/devices/edge/modules/$edgeAgent", &[], json!({})).await;
    let content = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1"}}}});
    let (status, refused) =
        client.ask("POST", "/devices/demo/applyConfigurationContent", &[], content.clone()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message(&refused).contains("no Edge device"), "{refused}");
    let (status, _) =
        client.ask("POST", "/devices/edge/applyConfigurationContent", &[], content.clone()).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (_, twin) = client.ask("GET", "/twins/edge/modules/$edgeAgent", &[], Value::Null).await;
    assert_eq!(desired(&twin), json!({"schemaVersion": "1.1"}));

    let body = json!({
        "content": {"modulesContent": {"$edgeAgent": {"properties.desired.runtime": {"type": "docker"}}}},
        "targetCondition": "tags.site = 'north'", "priority": 1,
    });
    put(&client, "deployment", &[], body).await;
    tag(&client, "edge", json!({"site": "north"})).await;
    let path = "edge/modules/$edgeAgent";
    let twin = twin_until(&client, path, |twin| twin.get("configurations").is_some()).await;
    assert_eq!(desired(&twin), json!({"schemaVersion": "1.1", "runtime": {"type": "docker"}}));
}
