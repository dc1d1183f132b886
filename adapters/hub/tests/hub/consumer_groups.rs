//! Consumer groups over the service API.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Client, message};
use crate::common::Hub;

const GROUPS: &str = "/eventHubEndpoints/events/ConsumerGroups";

async fn names(client: &Client) -> Vec<String> {
    let (status, list) = client.ask("GET", GROUPS, &[], Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{list}");
    let groups = list["value"].as_array().unwrap();
    groups.iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "local")]
async fn a_group_is_added_shown_and_removed_whatever_the_case_of_its_name() {
    let client = Client::start();
    assert_eq!(names(&client).await, ["$Default"]);
    let body = json!({"properties": {"name": "Dash"}});
    let (status, added) = client.ask("PUT", &format!("{GROUPS}/Dash"), &[], body).await;
    assert_eq!((status, &added["name"]), (StatusCode::OK, &json!("Dash")), "{added}");
    assert_eq!(added["type"], "Microsoft.Devices/IotHubs/EventHubEndpoints/ConsumerGroups");
    // To add it again changes nothing.
    let (_, again) = client.ask("PUT", &format!("{GROUPS}/dASH"), &[], Value::Null).await;
    assert_eq!(again, added);
    let (_, shown) = client.ask("GET", &format!("{GROUPS}/dash"), &[], Value::Null).await;
    assert_eq!(shown, added);
    assert_eq!(names(&client).await, ["$Default", "Dash"]);
    let told = client.hub.engine.operations.log.after(0).unwrap().line;
    assert!(told.contains("Administrative") && told.contains("consumerGroups/Write"), "{told}");
    let (status, _) = client.ask("DELETE", &format!("{GROUPS}/DASH"), &[], Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(names(&client).await, ["$Default"]);
}

#[tokio::test(flavor = "local")]
async fn what_cannot_be_a_group_and_one_too_many_are_refused() {
    let client = Client::start();
    let other = json!({"properties": {"name": "b"}});
    for (method, name, body, expected) in [
        ("PUT", "-a", Value::Null, "1 to 50 letters"),
        ("PUT", "a", other, "not the name in the path"),
        ("DELETE", "$Default", Value::Null, "cannot be removed"),
        ("DELETE", "nobody", Value::Null, "no consumer group `nobody`"),
        ("GET", "nobody", Value::Null, "consumer-group list"),
    ] {
        let (status, answer) = client.ask(method, &format!("{GROUPS}/{name}"), &[], body).await;
        assert!(status.is_client_error() && message(&answer).contains(expected), "{status} {answer}");
    }
    for n in 1..20 {
        client.ask("PUT", &format!("{GROUPS}/g{n}"), &[], Value::Null).await;
    }
    let (status, answer) = client.ask("PUT", &format!("{GROUPS}/g20"), &[], Value::Null).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message(&answer).contains("at most 20"), "{answer}");
    assert_eq!(names(&client).await.len(), 20);
}

#[tokio::test(flavor = "local")]
async fn a_group_that_could_not_be_stored_is_not_there() {
    let client = Client::of(Hub::start());
    client.hub.store.fail();
    let (status, _) = client.ask("PUT", &format!("{GROUPS}/dash"), &[], Value::Null).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(names(&client).await, ["$Default"]);
}
