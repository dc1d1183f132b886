//! Azure's service SDK for Python, unmodified, over HTTPS (443); where a device takes part, with Azure's device SDK over TLS
//! (8883) and over WebSocket (443).

use devicebound_testkit::interop::{Certificate, Hub, Sdk};
use devicebound_testkit::site;
use serde_json::{Value, json};

/// Makes a test of each scenario. It is left out, loudly, where 443 may not be had: the SDK knows no other port.
macro_rules! over_https {
    ($($scenario:ident),+ $(,)?) => {
        $(#[test] fn $scenario() {
            let name = concat!("the service SDK, ", stringify!($scenario));
            if let Some(hub) = Hub::on_azure_ports_with_443(site!(), name) {
                let connection_string = hub.service().connection_string().to_owned();
                scenarios::$scenario(&hub, Sdk::service(site!(), &hub, &connection_string));
            }
        })+
    };
}

/// The same with a device, which comes over TLS in one test and over WebSocket in the other.
macro_rules! with_a_device {
    ($($scenario:ident),+ $(,)?) => {
        with_a_device!(with_a_device_over_tls, "tls", $($scenario),+);
        with_a_device!(with_a_device_over_websocket, "websocket", $($scenario),+);
    };
    ($transport:ident, $name:literal, $($scenario:ident),+) => {
        mod $transport {
            use super::{Hub, Sdk, scenarios, site};

            $(#[test] fn $scenario() {
                let name = concat!("the service SDK with a device over ", $name, ", ", stringify!($scenario));
                if let Some(hub) = Hub::on_azure_ports_with_443(site!(), name) {
                    let connection_string = hub.service().connection_string().to_owned();
                    scenarios::$scenario(&hub, Sdk::service(site!(), &hub, &connection_string), $name);
                }
            })+
        }
    };
}

over_https!(
    devices_are_registered_read_changed_and_removed,
    modules_are_registered_read_changed_and_removed,
    a_hundred_devices_are_changed_in_one_request,
    a_twin_is_merged_replaced_and_guarded_by_its_etag,
    twins_are_found_by_queries_page_by_page,
    jobs_are_scheduled_listed_and_cancelled,
    configurations_are_made_changed_applied_and_removed,
    who_has_another_key_or_too_few_rights_is_unauthorized,
);

with_a_device!(
    a_digital_twin_is_read_patched_and_commanded,
    a_device_and_its_module_answer_methods,
    a_device_hears_of_its_desired_properties_and_its_reports_are_read,
    a_connected_device_is_counted_and_found,
    what_became_of_cloud_messages_is_fed_back,
);

mod scenarios {
    use super::*;

    pub(super) fn devices_are_registered_read_changed_and_removed(hub: &Hub, mut sdk: Sdk) {
        let made = sdk.call("create_device_with_sas", json!(["dev1", "", "", "enabled"]));
        assert_eq!(
            (&made["deviceId"], &made["authentication"]["type"]),
            (&json!("dev1"), &json!("sas")),
            "{made}"
        );
        assert_eq!(sdk.call("get_device", json!(["dev1"])), made);
        assert_eq!(
            sdk.refused("create_device_with_sas", json!(["dev1", "", "", "enabled"])),
            refusal(409, "DeviceAlreadyExists")
        );

        let keys = ["MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA=="];
        let change = |etag: &Value| json!(["dev1", etag, keys[0], keys[1], "disabled", false, "stolen"]);
        assert_eq!(
            sdk.refused("update_device_with_sas", change(&json!("other"))),
            refusal(412, "PreconditionFailed")
        );
        let changed = sdk.call("update_device_with_sas", change(&made["etag"]));
        assert_eq!(
            changed["authentication"]["symmetricKey"],
            json!({"primaryKey": keys[0], "secondaryKey": keys[1]})
        );
        assert_eq!((&changed["status"], &changed["statusReason"]), (&json!("disabled"), &json!("stolen")));
        assert_eq!(changed["generationId"], made["generationId"]);

        let certificate = Certificate::self_signed(hub.state(), "dev2");
        let thumbprint = &certificate.thumbprint;
        let made = sdk.call("create_device_with_x509", json!(["dev2", thumbprint, thumbprint, "enabled"]));
        assert_eq!(made["authentication"]["x509Thumbprint"]["primaryThumbprint"], *thumbprint, "{made}");
        let changed = sdk.call("update_device_with_sas", json!(["dev2", null, "", "", "enabled"]));
        assert_eq!(changed["authentication"]["type"], "sas", "{changed}");
        assert!(changed["authentication"]["symmetricKey"]["primaryKey"].is_string(), "{changed}");

        let made = sdk.call("create_device_with_certificate_authority", json!(["dev3", "enabled"]));
        assert_eq!(made["authentication"]["type"], "certificateAuthority", "{made}");
        sdk.call("update_device_with_certificate_authority", json!(["dev3", made["etag"], "disabled"]));

        let listed = sdk.call("get_devices", json!([]));
        assert_eq!(names(&listed, "deviceId"), ["demo", "dev1", "dev2", "dev3"]);
        assert_eq!(names(&sdk.call("get_devices", json!([1])), "deviceId"), ["demo"]);

        assert_eq!(
            sdk.refused("delete_device", json!(["dev1", "other"])),
            refusal(412, "PreconditionFailed")
        );
        sdk.call("delete_device", json!(["dev1"]));
        sdk.call("delete_device", json!(["dev2", changed["etag"]]));
        assert_eq!(sdk.refused("get_device", json!(["dev1"])), refusal(404, "DeviceNotFound"));
        assert_eq!(sdk.refused("delete_device", json!(["dev1"])), refusal(404, "DeviceNotFound"));
        assert_eq!(sdk.refused("get_twin", json!(["dev1"])), refusal(404, "DeviceNotFound"));
        sdk.end();
    }

    pub(super) fn modules_are_registered_read_changed_and_removed(_: &Hub, mut sdk: Sdk) {
        assert_eq!(
            sdk.refused("create_module_with_sas", json!(["none", "m", "", "", ""])),
            refusal(404, "DeviceNotFound")
        );
        sdk.call("create_module_with_sas", json!(["demo", "m1", "", "", ""]));
        let thumbprint = "AB".repeat(20);
        sdk.call("create_module_with_x509", json!(["demo", "m2", "", thumbprint, thumbprint]));
        assert_eq!(
            sdk.refused("create_module_with_sas", json!(["demo", "m1", "", "", ""])),
            refusal(409, "ModuleAlreadyExistsOnDevice")
        );
        assert_eq!(names(&sdk.call("get_modules", json!(["demo"])), "moduleId"), ["m1", "m2"]);

        let module = sdk.call("get_module", json!(["demo", "m1"]));
        let key = "MDEyMzQ1Njc4OWFiY2RlZg==";
        let changed = sdk.call("update_module_with_sas", json!(["demo", "m1", "", module["etag"], key, key]));
        assert_eq!(changed["authentication"]["symmetricKey"]["primaryKey"], key, "{changed}");
        assert_eq!(
            sdk.refused("delete_module", json!(["demo", "m1", module["etag"]])),
            refusal(412, "PreconditionFailed")
        );
        sdk.call("delete_module", json!(["demo", "m1", changed["etag"]]));
        assert_eq!(sdk.refused("get_module", json!(["demo", "m1"])), refusal(404, "ModuleNotFound"));
        sdk.call("delete_device", json!(["demo"]));
        assert_eq!(sdk.refused("get_module", json!(["demo", "m2"])), refusal(404, "ModuleNotFound"));
        sdk.end();
    }

    pub(super) fn a_hundred_devices_are_changed_in_one_request(_: &Hub, mut sdk: Sdk) {
        let entry = |number: usize, mode: &str| {
            json!({
                "model": "ExportImportDevice", "id": format!("bulk-{number:03}"), "importMode": mode, "status": "enabled",
                "tags": {"number": number}, "properties": {"desired": {"interval": 5}},
            })
        };
        let entries = |mode: &str, numbers: std::ops::Range<usize>| {
            json!([numbers.map(|number| entry(number, mode)).collect::<Vec<_>>()])
        };
        let made = sdk.call("bulk_create_or_update_devices", entries("create", 0..100));
        assert_eq!(made, json!({"isSuccessful": true, "errors": [], "warnings": []}));
        let statistics = sdk.call("get_device_registry_statistics", json!([]));
        assert_eq!(
            statistics,
            json!({"totalDeviceCount": 101, "enabledDeviceCount": 101, "disabledDeviceCount": 0})
        );
        let twin = sdk.call("get_twin", json!(["bulk-042"]));
        assert_eq!(
            (&twin["tags"]["number"], &twin["properties"]["desired"]["interval"]),
            (&json!(42), &json!(5))
        );

        let again = sdk.call("bulk_create_or_update_devices", entries("create", 99..101));
        assert_eq!(again["isSuccessful"], false, "{again}");
        let error = &again["errors"][0];
        assert_eq!(
            (&error["deviceId"], &error["errorCode"]),
            (&json!("bulk-099"), &json!("DeviceAlreadyExists"))
        );
        assert!(sdk.call("get_device", json!(["bulk-100"])).is_object(), "the other entry was carried out");
        // The SDK takes a 400 for an answer like any other.
        let refused = sdk.call("bulk_create_or_update_devices", entries("delete", 0..101));
        assert!(refused["Message"].as_str().unwrap_or_default().contains("at most 100"), "{refused}");
        sdk.call("bulk_create_or_update_devices", entries("delete", 0..100));
        assert_eq!(names(&sdk.call("get_devices", json!([])), "deviceId"), ["bulk-100", "demo"]);
        sdk.end();
    }

    pub(super) fn a_twin_is_merged_replaced_and_guarded_by_its_etag(_: &Hub, mut sdk: Sdk) {
        let twin = sdk.call("get_twin", json!(["demo"]));
        assert_eq!((&twin["version"], &twin["status"]), (&json!(2), &json!("enabled")), "{twin}");
        let body = |tags: Value, desired: Value| json!({"model": "Twin", "tags": tags, "properties": {"desired": desired}});
        let merged = sdk.call(
            "update_twin",
            json!(["demo", body(json!({"a": 1, "b": {"c": 2}}), json!({"x": 1, "y": 2})), twin["etag"]]),
        );
        assert_eq!(
            (&merged["tags"], members(&merged)),
            (&json!({"a": 1, "b": {"c": 2}}), json!({"x": 1, "y": 2}))
        );
        let stale = json!(["demo", body(json!({}), json!({"x": 9})), twin["etag"]]);
        assert_eq!(sdk.refused("update_twin", stale.clone()), refusal(412, "PreconditionFailed"));
        assert_eq!(sdk.refused("replace_twin", stale), refusal(412, "PreconditionFailed"));
        let merged = sdk.call("update_twin", json!(["demo", body(json!({"a": null}), json!({"y": null}))]));
        assert_eq!((&merged["tags"], members(&merged)), (&json!({"b": {"c": 2}}), json!({"x": 1})));
        let replaced = sdk
            .call("replace_twin", json!(["demo", body(json!({"z": 3}), json!({"w": [1]})), merged["etag"]]));
        assert_eq!((&replaced["tags"], members(&replaced)), (&json!({"z": 3}), json!({"w": [1]})));
        assert_eq!(replaced["properties"]["desired"]["$version"], 4, "{replaced}");
        // Whoever has read a twin may send the whole of it back.
        let mut back = sdk.call("get_twin", json!(["demo"]));
        back["model"] = json!("Twin");
        assert_eq!(members(&sdk.call("replace_twin", json!(["demo", back]))), json!({"w": [1]}));

        sdk.call("create_device_with_sas", json!(["dev1", "", "", "enabled"]));
        sdk.call("create_module_with_sas", json!(["dev1", "m1", "", "", ""]));
        let merged =
            sdk.call("update_module_twin", json!(["dev1", "m1", body(json!({"a": 1}), json!({"x": 1}))]));
        assert_eq!((&merged["moduleId"], members(&merged)), (&json!("m1"), json!({"x": 1})));
        let replaced = sdk.call(
            "replace_module_twin",
            json!(["dev1", "m1", body(json!({}), json!({"y": 1})), merged["etag"]]),
        );
        assert_eq!(members(&replaced), json!({"y": 1}));
        assert_eq!(sdk.call("get_module_twin", json!(["dev1", "m1"])), replaced);
        assert_eq!(sdk.refused("get_module_twin", json!(["dev1", "m2"])), refusal(404, "ModuleNotFound"));
        assert_eq!(
            sdk.refused("update_twin", json!(["demo", body(json!({"a.b": 1}), json!({}))])),
            refusal(400, "ArgumentInvalid")
        );
        sdk.end();
    }

    pub(super) fn twins_are_found_by_queries_page_by_page(hub: &Hub, mut sdk: Sdk) {
        for number in 0..7 {
            let device = format!("/devices/dev{number}");
            hub.service().put(&device, &json!({}));
            hub.service().put(&format!("{device}/modules/m"), &json!({}));
            let site = if number % 2 == 0 { "north" } else { "south" };
            let twin = json!({"tags": {"site": site, "floor": number}, "properties": {"desired": {"interval": number}}});
            hub.service().patch(&format!("/twins/dev{number}"), &twin);
        }
        let specification = |text: &str| json!({"model": "QuerySpecification", "query": text});
        let mut found = |text: &str| {
            let result = sdk.call("query_iot_hub", json!([specification(text)]));
            names(&result["items"], "deviceId")
        };
        assert_eq!(found("SELECT * FROM devices").len(), 8);
        assert_eq!(
            found("SELECT * FROM devices WHERE tags.site = 'north'"),
            ["dev0", "dev2", "dev4", "dev6"]
        );
        assert_eq!(found("SELECT * FROM devices WHERE tags.site != 'north'"), ["dev1", "dev3", "dev5"]);
        assert_eq!(
            found("SELECT * FROM devices WHERE tags.floor >= 5 OR properties.desired.interval < 1"),
            ["dev0", "dev5", "dev6"]
        );
        assert_eq!(
            found("select * from devices where deviceId in ['dev1', 'dev2'] and not tags.floor = 2"),
            ["dev1"]
        );
        assert_eq!(found("SELECT * FROM devices WHERE NOT IS_DEFINED(tags.site)"), ["demo"]);
        assert_eq!(found("SELECT deviceId FROM devices.modules WHERE devices.deviceId = 'dev3'"), ["dev3"]);
        assert_eq!(
            found("SELECT * FROM devices WHERE properties.desired.$version > 1 AND status = 'enabled'").len(),
            7
        );

        let query = specification("SELECT deviceId FROM devices WHERE STARTSWITH(deviceId, 'dev')");
        let (mut pages, mut token) = (Vec::new(), Value::Null);
        loop {
            let page = sdk.call("query_iot_hub", json!([query, token, 3]));
            assert_eq!(page["type"], "Raw");
            pages.push(names(&page["items"], "deviceId"));
            token = page["continuationToken"].clone();
            if token.is_null() {
                break;
            }
        }
        assert_eq!(pages, [vec!["dev0", "dev1", "dev2"], vec!["dev3", "dev4", "dev5"], vec!["dev6"]]);

        let counted = sdk.call(
            "query_iot_hub",
            json!([specification("SELECT COUNT() AS n FROM devices WHERE tags.floor < 3")]),
        );
        assert_eq!(counted["items"], json!([{"n": 3}]));
        let totals = "SELECT tags.site, COUNT() AS n, AVG(tags.floor) AS mean, SUM(tags.floor) AS sum, MIN(tags.floor) AS least, \
                      MAX(tags.floor) AS most FROM devices WHERE tags.floor NIN [6] GROUP BY tags.site";
        let grouped = sdk.call("query_iot_hub", json!([specification(totals)]));
        assert_eq!(
            grouped["items"],
            json!([
                {"site": "north", "n": 3, "mean": 2, "sum": 6, "least": 0, "most": 4},
                {"site": "south", "n": 3, "mean": 3, "sum": 9, "least": 1, "most": 5},
            ])
        );
        let calculated = "SELECT deviceId AS id, tags.[[floor]] FROM devices WHERE (tags.floor + 1) * 2 = 8 AND \
                          UPPER(tags.site) = 'SOUTH' AND CONTAINS(deviceId, 'ev')";
        let calculated = sdk.call("query_iot_hub", json!([specification(calculated)]));
        assert_eq!(calculated["items"], json!([{"id": "dev3", "floor": 3}]));
        let failed = sdk.fail(json!({"do": "query_iot_hub", "arguments": [specification("SELECT * FROM devices WHERE tags.site ==")]}));
        assert_eq!(failed["status"], 400);
        assert!(failed["text"].as_str().unwrap_or_default().contains("character 40"), "{failed}");
        sdk.end();
    }

    pub(super) fn jobs_are_scheduled_listed_and_cancelled(hub: &Hub, mut sdk: Sdk) {
        let request = |id: &str, members: Value| {
            let mut request = json!({"model": "JobRequest", "jobId": id, "maxExecutionTimeInSeconds": 60});
            request
                .as_object_mut()
                .expect("an object")
                .extend(members.as_object().expect("an object").clone());
            request
        };
        let update =
            json!({"etag": "*", "tags": {"rolled": "out"}, "properties": {"desired": {"interval": 9}}});
        let twins = json!({"type": "scheduleUpdateTwin", "updateTwin": update, "queryCondition": "deviceId = 'demo'"});
        let made = sdk.call("jobs.create_scheduled_job", json!(["twins", request("twins", twins.clone())]));
        assert_eq!((&made["jobId"], &made["status"]), (&json!("twins"), &json!("queued")), "{made}");
        assert_eq!(
            sdk.refused("jobs.create_scheduled_job", json!(["twins", request("twins", twins.clone())])),
            refusal(409, "JobAlreadyExists")
        );
        let done = until(&mut sdk, "twins", "completed");
        assert_eq!(
            (&done["deviceJobStatistics"]["succeededCount"], &done["updateTwin"]["tags"]["rolled"]),
            (&json!(1), &json!("out")),
            "{done}"
        );
        let twin = sdk.call("get_twin", json!(["demo"]));
        assert_eq!((&twin["tags"]["rolled"], members(&twin)), (&json!("out"), json!({"interval": 9})));

        let call = json!({"methodName": "reboot", "payload": "now", "responseTimeoutInSeconds": 20, "connectTimeoutInSeconds": 60});
        let method =
            json!({"type": "scheduleDeviceMethod", "cloudToDeviceMethod": call, "queryCondition": "*"});
        sdk.call("jobs.create_scheduled_job", json!(["method", request("method", method)]));
        let running = until(&mut sdk, "method", "running");
        assert_eq!(running["deviceJobStatistics"]["deviceCount"], 1, "{running}");
        let mut later = twins;
        later["startTime"] = "2029-01-01T00:00:00Z".into();
        let refused = sdk.fail(
            json!({"do": "jobs.create_scheduled_job", "arguments": ["later", request("later", later)]}),
        );
        assert!(refused["text"].as_str().unwrap_or_default().contains("30 days"), "{refused}");
        let cancelled = sdk.call("jobs.cancel_scheduled_job", json!(["method"]));
        assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
        until(&mut sdk, "method", "cancelled");
        // The list is an array, as Azure's Node SDK wants it; the Python SDK asks for it and cannot read it.
        let listed = hub.service().get("/jobs/v2/query?jobType=scheduleUpdateTwin&jobStatus=completed");
        assert_eq!(names(&listed, "jobId"), ["twins"], "{listed}");
        let rows = "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'method'";
        let rows = sdk.call("query_iot_hub", json!([{"model": "QuerySpecification", "query": rows}]));
        assert_eq!(
            (&rows["type"], &rows["items"][0]["status"]),
            (&json!("deviceJob"), &json!("canceled")),
            "{rows}"
        );
        sdk.end();
    }

    pub(super) fn configurations_are_made_changed_applied_and_removed(_: &Hub, mut sdk: Sdk) {
        let content = json!({"deviceContent": {"properties.desired.chiller": {"speed": 3}}});
        let body = |priority: u32, etag: &Value| {
            json!({
                "model": "Configuration", "id": "chiller", "labels": {"app": "hvac"}, "content": content, "priority": priority,
                "targetCondition": "deviceId = 'demo'", "etag": etag,
                "metrics": {"queries": {"demo": "SELECT * FROM devices WHERE deviceId = 'demo'"}},
            })
        };
        let made = sdk.call("configurations.create_configuration", json!([body(1, &Value::Null)]));
        assert_eq!((&made["content"], &made["schemaVersion"]), (&content, &json!("2.0")), "{made}");
        let twin = loop {
            let twin = sdk.call("get_twin", json!(["demo"]));
            if twin["configurations"].is_object() {
                break twin;
            }
        };
        assert_eq!(
            (&twin["configurations"], members(&twin)),
            (&json!({"chiller": {"status": "Applied"}}), json!({"chiller": {"speed": 3}}))
        );
        let shown = sdk.call("configurations.get_configuration", json!(["chiller"]));
        assert_eq!(
            (&shown["systemMetrics"]["results"], &shown["metrics"]["results"]),
            (&json!({"targetedCount": 1, "appliedCount": 1}), &json!({"demo": 1})),
            "{shown}"
        );
        let changed =
            sdk.call("configurations.update_configuration", json!([body(5, &made["etag"]), made["etag"]]));
        assert_eq!(changed["priority"], 5, "{changed}");
        assert_eq!(
            sdk.refused("configurations.update_configuration", json!([body(6, &made["etag"]), made["etag"]])),
            refusal(412, "PreconditionFailed")
        );
        let listed = sdk.call("configurations.get_configurations", json!([10]));
        assert_eq!(names(&listed, "id"), ["chiller"]);
        let queries = json!({"model": "ConfigurationQueriesTestInput", "targetCondition": "tags.a ="});
        let tested = sdk.call("configurations.test_configuration_queries", json!([queries]));
        assert!(
            tested["targetConditionError"].as_str().unwrap_or_default().contains("character 9"),
            "{tested}"
        );
        sdk.call("configurations.delete_configuration", json!(["chiller"]));
        assert_eq!(
            sdk.refused("configurations.get_configuration", json!(["chiller"])),
            refusal(404, "ConfigurationNotFound")
        );
        while !members(&sdk.call("get_twin", json!(["demo"])))
            .as_object()
            .is_some_and(serde_json::Map::is_empty)
        {}
        sdk.end();
    }

    /// Asks for a job until it has this status.
    fn until(sdk: &mut Sdk, id: &str, status: &str) -> Value {
        loop {
            let job = sdk.call("jobs.get_scheduled_job", json!([id]));
            if job["status"] == status {
                return job;
            }
            assert!(["queued", "running"].iter().any(|going| job["status"] == *going), "{job}");
        }
    }

    pub(super) fn who_has_another_key_or_too_few_rights_is_unauthorized(hub: &Hub, owner: Sdk) {
        owner.end();
        let device = hub.register("dev1");
        let key = device.key.to_base64();
        for (policy, key) in [("iothubowner", &key), ("nobody", &key), ("device", &hub.policy_key("device"))]
        {
            let connection_string =
                format!("HostName={};SharedAccessKeyName={policy};SharedAccessKey={key}", hub.host());
            let mut sdk = Sdk::service(site!(), hub, &connection_string);
            assert_eq!(
                sdk.refused("get_device", json!(["dev1"])),
                refusal(401, "IotHubUnauthorizedAccess"),
                "{policy}"
            );
            sdk.end();
        }
        let key = hub.policy_key("registryRead");
        let connection_string =
            format!("HostName={};SharedAccessKeyName=registryRead;SharedAccessKey={key}", hub.host());
        let mut sdk = Sdk::service(site!(), hub, &connection_string);
        assert_eq!(sdk.call("get_device", json!(["dev1"]))["deviceId"], "dev1");
        assert_eq!(sdk.refused("delete_device", json!(["dev1"])), refusal(401, "IotHubUnauthorizedAccess"));
        assert_eq!(sdk.refused("get_twin", json!(["dev1"])), refusal(401, "IotHubUnauthorizedAccess"));
        sdk.end();
    }

    pub(super) fn a_device_and_its_module_answer_methods(hub: &Hub, mut sdk: Sdk, transport: &str) {
        let device = hub.register("dev1");
        let module = hub.register_module(&device, "m1");
        let method = |name: &str, payload: Value| json!({"model": "CloudToDeviceMethod", "methodName": name, "payload": payload, "responseTimeoutInSeconds": 30});
        let ping = method("ping", json!(1));
        assert_eq!(
            sdk.refused("invoke_device_method", json!(["dev1", ping])),
            refusal(404, "DeviceNotOnline")
        );
        assert_eq!(
            sdk.refused("invoke_device_method", json!(["none", ping])),
            refusal(404, "DeviceNotFound")
        );

        let mut client = Sdk::connected(site!(), hub, transport, &device);
        client.run(json!({"do": "listen"}));
        let payload = json!({"delay": 5, "text": "größer/&?", "status": 207});
        let answer = sdk.call("invoke_device_method", json!(["dev1", method("reboot-now", payload.clone())]));
        assert_eq!(answer, json!({"status": 207, "payload": payload}));
        assert_eq!(client.expect("method")["name"], "reboot-now");
        // The SDK makes an empty text of a payload that is not there.
        let answer = sdk.call("invoke_device_method", json!(["dev1", method("ping", Value::Null)]));
        assert_eq!((&answer["status"], &answer["payload"]), (&json!(200), &json!("")), "{answer}");

        let mut of_module = Sdk::connected(site!(), hub, transport, &module);
        of_module.run(json!({"do": "listen"}));
        let answer =
            sdk.call("invoke_device_module_method", json!(["dev1", "m1", method("ping", json!({"a": 1}))]));
        assert_eq!(answer, json!({"status": 200, "payload": {"a": 1}}));
        assert_eq!(
            sdk.refused("invoke_device_module_method", json!(["dev1", "m2", ping])),
            refusal(404, "ModuleNotFound")
        );
        of_module.end();
        client.end();
        sdk.end();
    }

    pub(super) fn a_digital_twin_is_read_patched_and_commanded(hub: &Hub, mut sdk: Sdk, transport: &str) {
        let device = hub.register("dev1");
        let mut client = Sdk::connected(site!(), hub, transport, &device);
        client.run(json!({"do": "listen"}));
        let reported =
            json!({"target": {"value": 20, "ac": 200, "av": 1}, "thermostat": {"__t": "c", "most": 25}});
        client.run(json!({"do": "report", "patch": reported}));
        let twin = sdk.call("twins.get_digital_twin", json!(["dev1"]));
        assert_eq!(
            (
                &twin["$dtId"],
                &twin["target"],
                &twin["$metadata"]["target"]["ackCode"],
                &twin["thermostat"]["most"]
            ),
            (&json!("dev1"), &json!(20), &json!(200), &json!(25)),
            "{twin}"
        );
        let patch = json!([
            {"op": "add", "path": "/target", "value": 21},
            {"op": "add", "path": "/thermostat/speed", "value": 3},
        ]);
        sdk.call("twins.update_digital_twin", json!(["dev1", patch]));
        let desired = client.expect("desired")["patch"].clone();
        assert_eq!(desired, json!({"target": 21, "thermostat": {"__t": "c", "speed": 3}, "$version": 2}));
        assert_eq!(
            sdk.refused("twins.update_digital_twin", json!(["dev1", patch, "\"other\""])),
            refusal(412, "PreconditionFailed")
        );
        let answer = sdk.call("twins.invoke_command", json!(["dev1", "reboot", {"in": 5}, 5, 30]));
        assert_eq!((answer, client.expect("method")["name"].clone()), (json!({"in": 5}), json!("reboot")));
        sdk.call("twins.invoke_component_command", json!(["dev1", "thermostat", "report", "now"]));
        assert_eq!(client.expect("method")["name"], "thermostat*report");
        assert_eq!(sdk.refused("twins.get_digital_twin", json!(["none"])), refusal(404, "DeviceNotFound"));
        client.end();
        sdk.end();
    }

    pub(super) fn a_device_hears_of_its_desired_properties_and_its_reports_are_read(
        hub: &Hub,
        mut sdk: Sdk,
        transport: &str,
    ) {
        let device = hub.register("dev1");
        let mut client = Sdk::connected(site!(), hub, transport, &device);
        client.run(json!({"do": "listen"}));
        let update = json!({"model": "Twin", "properties": {"desired": {"mode": "eco"}}});
        sdk.call("update_twin", json!(["dev1", update]));
        assert_eq!(client.expect("desired")["patch"], json!({"mode": "eco", "$version": 2}));
        client.run(json!({"do": "report", "patch": {"battery": 60}}));
        let reported = sdk.call("get_twin", json!(["dev1"]))["properties"]["reported"].take();
        assert_eq!((&reported["battery"], &reported["$version"]), (&json!(60), &json!(2)), "{reported}");
        let query = "SELECT * FROM devices WHERE properties.reported.battery > 50";
        let found = sdk.call("query_iot_hub", json!([{"model": "QuerySpecification", "query": query}]));
        assert_eq!(names(&found["items"], "deviceId"), ["dev1"]);
        client.end();
        sdk.end();
    }

    pub(super) fn a_connected_device_is_counted_and_found(hub: &Hub, mut sdk: Sdk, transport: &str) {
        let query = json!([{"model": "QuerySpecification", "query": "SELECT * FROM devices WHERE connectionState = 'Connected'"}]);
        assert_eq!(sdk.call("get_service_statistics", json!([])), json!({"connectedDeviceCount": 0}));
        let device = hub.register("dev1");
        let client = Sdk::connected(site!(), hub, transport, &device);
        assert_eq!(sdk.call("get_service_statistics", json!([])), json!({"connectedDeviceCount": 1}));
        assert_eq!(names(&sdk.call("query_iot_hub", query)["items"], "deviceId"), ["dev1"]);
        assert_eq!(sdk.call("get_device", json!(["dev1"]))["connectionState"], "Connected");
        client.end();
        sdk.end();
    }

    pub(super) fn what_became_of_cloud_messages_is_fed_back(hub: &Hub, mut sdk: Sdk, transport: &str) {
        sdk.call("runtime.receive_feedback_notification", json!([]));
        let device = hub.register("dev1");
        let send = |id: &str| {
            let headers = [("iothub-messageid", id), ("iothub-ack", "full")];
            hub.service().send("dev1", &headers, "", "hello");
        };
        send("purged");
        let purged = sdk.call("messages.purge_cloud_to_device_message_queue", json!(["dev1"]));
        assert_eq!(purged, json!({"deviceId": "dev1", "totalMessagesPurged": 1}));
        let (reports, lock) = feedback(&mut sdk);
        assert_eq!(
            (&reports[0]["originalMessageId"], &reports[0]["statusCode"]),
            (&json!("purged"), &json!("Purged"))
        );
        sdk.call("runtime.abandon_feedback_notification", json!([lock]));
        assert_eq!(
            sdk.refused("runtime.complete_feedback_notification", json!([lock])),
            refusal(412, "MessageLockLost")
        );
        let (_, lock) = feedback(&mut sdk);
        sdk.call("runtime.complete_feedback_notification", json!([lock]));

        let mut client = Sdk::connected(site!(), hub, transport, &device);
        client.run(json!({"do": "listen"}));
        send("completed");
        assert_eq!(client.expect("message")["message_id"], "completed");
        let (reports, lock) = feedback(&mut sdk);
        let report = &reports[0];
        assert_eq!(
            (&report["originalMessageId"], &report["statusCode"]),
            (&json!("completed"), &json!("Success"))
        );
        assert_eq!(report["deviceId"], "dev1");
        sdk.call("runtime.complete_feedback_notification", json!([lock]));
        client.end();
        sdk.end();
    }
}

/// The next batch of feedback and its lock, asked for until it is there. The SDK itself does not show what it received.
fn feedback(sdk: &mut Sdk) -> (Value, String) {
    let mut asked = 0;
    loop {
        let response = sdk.call("messages.receive_feedback_notification", json!([null, true]));
        if response["status"] == 200 {
            let text = response["text"].as_str().unwrap_or_default();
            let reports = serde_json::from_str(text).unwrap_or_default();
            let lock = response["headers"]["etag"].as_str().unwrap_or_default().trim_matches('"').to_owned();
            return (reports, lock);
        }
        asked += 1;
        assert!(asked < 10_000, "no feedback came: {response}");
    }
}

fn refusal(status: u64, name: &str) -> (u64, String) {
    (status, name.to_owned())
}

fn names(items: &Value, member: &str) -> Vec<String> {
    let items = items.as_array().into_iter().flatten();
    items.map(|item| item[member].as_str().unwrap_or_default().to_owned()).collect()
}

/// The desired properties without what the hub adds to them.
fn members(twin: &Value) -> Value {
    let desired = twin["properties"]["desired"].as_object().cloned().unwrap_or_default();
    Value::Object(desired.into_iter().filter(|(name, _)| !name.starts_with('$')).collect())
}
