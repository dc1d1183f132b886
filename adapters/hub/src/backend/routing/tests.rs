use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const JSON: [(&str, &str); 2] =
    [("contentType", "Application/JSON; charset=utf-8"), ("contentEncoding", "UTF-8")];

fn message() -> RoutedMessage {
    RoutedMessage::new(
        Source::DeviceMessages,
        Some(r#"{"temperature": 31, "wind": [{"speed": 9}], "Case": 1}"#),
        pairs(&[("level", "storm"), ("priority", "7"), ("dt", "x")]),
        pairs(&[JSON[0], JSON[1], ("connectionDeviceId", "pump")]),
        json!({"tags": {"site": "north", "at": {"x": 1}}, "properties": {"desired": {"limit": 30}, "reported": {}}}),
    )
}

fn routing() -> Value {
    json!({
        "endpoints": {"eventHubs": [{"name": "hot"}], "storageContainers": [{"name": "cold", "containerName": "archive"}], "webhooks": null, "cosmosDBSqlContainers": null},
        "routes": [
            {"name": "warm", "source": "devicemessages", "condition": "$body.temperature > $twin.properties.desired.limit", "endpointNames": ["hot"], "isEnabled": true},
            {"name": "again", "source": "DeviceMessages", "condition": null, "endpointNames": ["hot"], "isEnabled": true},
            {"name": "off", "source": "DeviceMessages", "endpointNames": ["cold"], "isEnabled": false},
            {"name": "none", "source": "DeviceMessages", "condition": "$body.pressure > 1", "endpointNames": ["cold"], "isEnabled": true},
            {"name": "twins", "source": "TwinChangeEvents", "endpointNames": ["events"], "isEnabled": true},
        ],
        "fallbackRoute": {"name": "$fallback", "source": "DeviceMessages", "condition": "true", "endpointNames": ["events"], "isEnabled": true},
        "enrichments": [
            {"key": "hub", "value": "$iothubname", "endpointNames": ["hot"]},
            {"key": "site", "value": "$twin.tags.site", "endpointNames": ["hot", "events"]},
            {"key": "at", "value": "$twin.tags.at", "endpointNames": ["hot"]},
            {"key": "floor", "value": "$twin.tags.floor", "endpointNames": ["hot"]},
            {"key": "cold", "value": "yes", "endpointNames": ["cold"]},
        ],
    })
}

fn holds(condition: &str) -> Option<bool> {
    Condition::read(condition).unwrap_or_else(|error| panic!("{condition}: {error}")).holds(&message())
}

#[test]
fn conditions_read_properties_system_properties_body_and_twin() {
    for (condition, expected) in [
        ("level = 'storm'", Some(true)),
        ("LEVEL = \"storm\"", Some(true)),
        ("as_number(priority) > 5 AND NOT level = 'calm'", Some(true)),
        ("priority > 5", None),
        ("missing = 'a' OR level = 'storm'", Some(true)),
        ("missing <> 'a'", None),
        ("IS_DEFINED(missing)", Some(false)),
        ("$connectionDeviceId = 'pump' AND $contenttype = 'Application/JSON; charset=utf-8'", Some(true)),
        ("$level = 'storm'", Some(true)),
        ("$dt = 'x'", Some(true)),
        ("$body.temperature = 31 AND $BODY.wind[0].speed < 10", Some(true)),
        ("$body.case = 1", None),
        ("$body = 1", None),
        ("$body[0] = 1", None),
        ("$twin.tags.site IN ['north', 'south']", Some(true)),
        ("$twin.properties.desired.limit + 1 = $body.temperature", Some(true)),
        ("$twin = null", None),
        ("$twin.tags.at.x = 1", Some(true)),
        ("starts_with(level, 'sto') AND LENGTH(level) = 5", Some(true)),
    ] {
        assert_eq!(holds(condition), expected, "{condition}");
    }
}

#[test]
fn a_body_that_does_not_say_that_it_is_json_is_undefined_and_the_reason_is_told() {
    let judged = |system: &[(&str, &str)], body: &str| {
        let routing = Routing::of_condition(Source::DeviceMessages, "$body.a = 1").unwrap();
        let message =
            RoutedMessage::new(Source::DeviceMessages, Some(body), Vec::new(), pairs(system), Value::Null);
        let decision = routing.decide(&message, "hub");
        (decision.judged[0].verdict, decision.judged[0].explained(&message).join(" "))
    };
    assert_eq!(judged(&JSON, r#"{"a": 1}"#), (Verdict::Matches, "$body.a = 1".to_owned()));
    for (system, body, said) in [
        (&[][..], r#"{"a": 1}"#, "contentType is not there; send application/json"),
        (&[("contentType", "text/plain"), JSON[1]], r#"{"a": 1}"#, "contentType is `text/plain`"),
        (&JSON[..1], r#"{"a": 1}"#, "contentEncoding is not there; send utf-8"),
        (&JSON, "{", "the body is no JSON"),
        (&JSON, "{}", "no such member"),
    ] {
        let (verdict, told) = judged(system, body);
        assert_eq!(verdict, Verdict::Undefined, "{told}");
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn a_message_goes_to_an_endpoint_once_with_the_enrichments_for_it() {
    let routing = Routing::read(&routing()).unwrap();
    let message = message();
    let decision = routing.decide(&message, "my-hub");
    let verdicts: Vec<Verdict> = decision.judged.iter().map(|judged| judged.verdict).collect();
    use Verdict::{Disabled, Matches, NotNeeded, OtherSource, Undefined};
    assert_eq!(verdicts, [Matches, Matches, Disabled, Undefined, OtherSource, NotNeeded]);
    let enrichments =
        pairs(&[("hub", "my-hub"), ("site", "north"), ("at", r#"{"x":1}"#), ("floor", "$twin.tags.floor")]);
    assert_eq!(decision.deliveries, [Delivery { endpoint: "hot", route: Some("warm"), enrichments }]);
}

#[test]
fn the_fallback_takes_device_messages_alone_and_without_routes_all_of_them_are_built_in() {
    let mut json = routing();
    json["routes"] = json!([{"name": "r", "source": "DeviceMessages", "condition": "false", "endpointNames": ["hot"], "isEnabled": true}]);
    let to = |json: &Value, source| {
        let message = RoutedMessage::new(source, None, Vec::new(), Vec::new(), Value::Null);
        let routing = Routing::read(json).unwrap();
        let decision = routing.decide(&message, "hub");
        decision.deliveries.iter().map(|delivery| delivery.endpoint.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(to(&json, Source::DeviceMessages), ["events"]);
    assert_eq!(to(&json, Source::TwinChange), [""; 0]);
    json["fallbackRoute"]["isEnabled"] = false.into();
    assert_eq!(to(&json, Source::DeviceMessages), [""; 0]);
    json["routes"] = json!([]);
    json["fallbackRoute"] = Value::Null;
    assert_eq!(to(&json, Source::DeviceMessages), ["events"]);
    assert_eq!(to(&json, Source::DeviceLifecycle), [""; 0]);
}

#[test]
fn routes_that_silence_the_built_in_endpoint_are_told() {
    let mut json = routing();
    let warnings = |json: &Value| Routing::read(json).unwrap().silenced().unwrap_or_default();
    assert!(warnings(&json).contains("that a route matches do not reach the built-in endpoint; fix:"));
    json["fallbackRoute"] = Value::Null;
    assert!(warnings(&json).contains("no device message reaches the built-in endpoint"));
    json["routes"][1]["endpointNames"] = json!(["events"]);
    assert_eq!(warnings(&json), "");
    assert_eq!(warnings(&json!({"routes": []})), "");
}

#[test]
fn what_azure_would_refuse_is_refused_with_its_member() {
    let whole = json!({"name": "hub", "properties": {"routing": routing()}});
    assert_eq!(Routing::read(&whole).unwrap(), Routing::read(&routing()).unwrap());
    for (path, value, said) in [
        (
            "/endpoints/webhooks",
            json!([{"name": "w", "url": "ftp://x"}]),
            "webhooks[0]: url must be a URL with http or https",
        ),
        (
            "/endpoints/webhooks",
            json!([{"name": "w", "url": "http://x", "validate": 1}]),
            "validate must be true or false",
        ),
        ("/endpoints/storageContainers/0/containerName", json!("../up"), "containerName must be 3 to 63"),
        ("/endpoints/storageContainers/0/fileNameFormat", json!("{mm}"), "fileNameFormat must be made of"),
        ("/endpoints/storageContainers/0/encoding", json!("csv"), "encoding must be json, avro"),
        ("/endpoints/storageContainers/0/batchFrequencyInSeconds", json!(5), "a number from 60 to 720"),
        ("/routes/0/name", json!("a b"), "routes[0]: the name `a b` cannot be taken"),
        ("/routes/0/name", json!("AGAIN"), "two routes have the name again"),
        ("/routes/0/source", json!("Telemetry"), "none of the sources DeviceMessages, "),
        ("/routes/0/condition", json!("a = "), "routes[0] is wrong at character 5: expected a property"),
        ("/routes/0/condition", json!(1), "condition must be a text"),
        ("/routes/0/endpointNames", json!(["hot", "cold"]), "exactly one endpoint"),
        (
            "/routes/0/endpointNames",
            json!(["lake"]),
            "leads to `lake`, which is no endpoint; there are events, hot, cold",
        ),
        ("/routes/0/isEnabled", json!("yes"), "isEnabled must be true or false"),
        ("/routes", json!({}), "routes must be a list"),
        ("/fallbackRoute/endpointNames", json!(["hot"]), "the fallback route leads to events"),
        ("/endpoints/eventHubs/0/name", json!("EVENTS"), "none of events"),
        ("/endpoints/eventHubs/0/name", json!("cold"), "endpoints.storageContainers[0]"),
        ("/enrichments/0/endpointNames", json!([]), "one endpoint or more"),
        ("/enrichments/0/endpointNames", json!(["lake"]), "no endpoint"),
        ("/enrichments", json!(vec![json!({}); 11]), "at most 10 enrichments, not 11"),
        ("/routes", json!(vec![json!({}); 101]), "at most 100 routes, not 101"),
        ("/endpoints/eventHubs", json!(vec![json!({}); 11]), "at most 10 eventHubs"),
    ] {
        let mut json = routing();
        let (parent, member) = path.rsplit_once('/').unwrap();
        match json.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[member.parse::<usize>().unwrap()] = value,
            object => object[member] = value,
        }
        let error = Routing::read(&json).unwrap_err().to_string();
        assert!(error.contains(said), "{path}: {error}");
    }
    for nothing in [json!([]), json!({"a": 1}), Value::Null] {
        assert!(Routing::read(&nothing).is_err(), "{nothing}");
    }
}

proptest! {
    /// A message never goes to an endpoint twice, nor anywhere that no route leads to.
    #[test]
    fn however_many_routes_match_each_endpoint_gets_a_message_once(
        routes in proptest::collection::vec((0_usize..3, any::<bool>(), 0_usize..4), 0..20), falls_back: bool
    ) {
        let endpoints = ["events", "hot", "cold"];
        let conditions = ["true", "false", "missing = 1", "level = 'storm'"];
        let mut json = routing();
        json["routes"] = routes.iter().enumerate().map(|(index, (to, is_enabled, condition))| json!({
            "name": format!("r{index}"), "source": "DeviceMessages", "condition": conditions[*condition],
            "endpointNames": [endpoints[*to]], "isEnabled": is_enabled,
        })).collect();
        json["fallbackRoute"]["isEnabled"] = falls_back.into();
        let matches = |(_, is_enabled, condition): &&(usize, bool, usize)| *is_enabled && [0, 3].contains(condition);
        let mut expected: Vec<&str> = routes.iter().filter(matches).map(|(to, ..)| endpoints[*to]).collect();
        if expected.is_empty() && (falls_back || routes.is_empty()) {
            expected.push("events");
        }
        expected.sort_unstable();
        expected.dedup();
        let (routing, message) = (Routing::read(&json).unwrap(), message());
        let decision = routing.decide(&message, "hub");
        let mut found: Vec<&str> = decision.deliveries.iter().map(|delivery| delivery.endpoint).collect();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
