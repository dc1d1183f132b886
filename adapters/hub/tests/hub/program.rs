//! The program `devicebound` as somebody runs it.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// A hub that runs on free ports.
struct RunningHub {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    ready: Value,
}

impl RunningHub {
    fn start(state: &Path) -> Self {
        Self::start_with(state, &[])
    }

    fn start_with(state: &Path, arguments: &[&str]) -> Self {
        let mut child = devicebound()
            .args(["hub", "--json", "--listen", "127.0.0.1", "--port", "0", "--https-port", "0", "--state"])
            .arg(state)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        Self { child, lines, ready }
    }

    fn text(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    #[cfg(unix)]
    fn signal(&self, signal: &str) {
        let killed = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
    }

    /// The text of the next line of this event.
    fn told(&mut self, event: &str) -> String {
        loop {
            let line: Value = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
            if line["event"] == event {
                return line["text"].as_str().unwrap().to_owned();
            }
        }
    }

    /// Ends it as a supervisor does.
    #[cfg(unix)]
    fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success(), "SIGTERM ends a hub with success");
    }
}

impl Drop for RunningHub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn devicebound() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devicebound"));
    command.env_remove("DEVICEBOUND_STATE");
    command
}

fn tool(state: &Path, arguments: &[&str]) -> Output {
    devicebound().args(arguments).arg("--state").arg(state).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[cfg(unix)]
#[test]
fn a_second_run_keeps_identities_keys_and_certificates() {
    let state = tempfile::tempdir().unwrap();
    let first = RunningHub::start(state.path());
    printed(&tool(state.path(), &["device", "add", "pump"]));
    for name in ["dashboard", "archive"] {
        printed(&tool(state.path(), &["consumer-group", "add", name]));
    }
    printed(&tool(state.path(), &["consumer-group", "remove", "archive"]));
    let strings =
        ["connectionString", "serviceConnectionString", "ca"].map(|name| first.text(name).to_owned());
    let authority = std::fs::read(first.text("ca")).unwrap();
    first.stop();
    assert!(!state.path().join("service.json").exists(), "nobody is sent to a hub that is gone");

    let second = RunningHub::start(state.path());
    assert_eq!(
        ["connectionString", "serviceConnectionString", "ca"].map(|name| second.text(name).to_owned()),
        strings
    );
    assert_eq!(std::fs::read(second.text("ca")).unwrap(), authority);
    let snippets = printed(&tool(state.path(), &["telemetry", "snippets"]));
    assert!(second.ready["eventHubSnippets"]["python"].as_str().is_some_and(|text| snippets.contains(text)));
    assert!(snippets.matches(second.text("ca")).count() >= 4, "each SDK is told of the CA: {snippets}");
    assert!(printed(&tool(state.path(), &["device", "list"])).contains("pump"));
    assert_eq!(printed(&tool(state.path(), &["consumer-group", "list"])), "$Default\ndashboard\n");
    second.stop();
}

#[test]
fn the_tools_do_the_jobs_of_a_device_explorer() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let hub = RunningHub::start(state);
    let connection_string = printed(&tool(state, &["device", "add", "pump"]));
    assert!(
        connection_string.starts_with("HostName=localhost;DeviceId=pump;SharedAccessKey="),
        "{connection_string}"
    );
    assert!(printed(&tool(state, &["device", "add", "pump/valve"])).contains(";ModuleId=valve;"));
    assert!(printed(&tool(state, &["device", "show", "pump"])).contains(r#""deviceId": "pump""#));
    assert!(
        printed(&tool(state, &["twin", "set", "pump", "desired", r#"{"interval":5}"#]))
            .contains(r#""interval": 5"#)
    );
    printed(&tool(state, &["twin", "set", "pump", "tags", r#"{"site":"north"}"#]));
    assert!(printed(&tool(state, &["twin", "get", "pump"])).contains(r#""site": "north""#));
    printed(&tool(
        state,
        &["c2d", "send", "pump", "hello", "-p", "Größe=1 2", "--ttl", "5m", "--ack", "full"],
    ));
    assert!(printed(&tool(state, &["device", "show", "pump"])).contains(r#""cloudToDeviceMessageCount": 1"#));
    assert!(printed(&tool(state, &["c2d", "purge", "pump"])).contains("took away 1 messages"));
    let feedback = printed(&tool(state, &["c2d", "feedback"]));
    assert!(feedback.contains(r#""statusCode":"Purged""#) && feedback.lines().count() == 1, "{feedback}");
    assert_eq!(printed(&tool(state, &["c2d", "feedback"])), "");
    let found =
        printed(&tool(state, &["device", "query", "SELECT deviceId FROM devices WHERE tags.site = 'north'"]));
    assert_eq!(found, "{\"deviceId\":\"pump\"}\n");
    let keys = printed(&tool(state, &["device", "keys", "pump"]));
    let renewed = printed(&tool(state, &["device", "keys", "pump", "--renew", "primary"]));
    let line = |text: &str, number| text.lines().nth(number).unwrap_or_default().to_owned();
    assert!(keys.contains(connection_string.trim()), "{keys}");
    assert_ne!(line(&keys, 0), line(&renewed, 0));
    assert_eq!(line(&keys, 1), line(&renewed, 1), "the other key stays");
    assert!(
        printed(&tool(state, &["sas", "pump", "--ttl", "15m"]))
            .starts_with("SharedAccessSignature sr=localhost%2F")
    );
    assert_eq!(printed(&tool(state, &["telemetry", "watch", "--no-follow"])), "");
    printed(&tool(state, &["device", "disable", "pump"]));
    assert!(printed(&tool(state, &["device", "list"])).contains("disabled pump"));
    printed(&tool(state, &["device", "enable", "pump"]));
    printed(&tool(state, &["device", "remove", "pump"]));
    // The same from another machine: by connection string, address and authority.
    let elsewhere = devicebound()
        .args(["device", "list", "--connection-string", hub.text("serviceConnectionString")])
        .args(["--hub", hub.text("https"), "--ca", hub.text("ca")])
        .output()
        .unwrap();
    assert!(printed(&elsewhere).contains("demo"));
}

#[test]
fn each_complaint_names_the_cause_and_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let no_hub = complaint(&tool(state, &["device", "list"]));
    assert!(
        no_hub.contains("no hub runs") && no_hub.contains("next: start one: devicebound hub"),
        "{no_hub}"
    );

    let hub = RunningHub::start(state);
    let unknown = complaint(&tool(state, &["device", "show", "nobody"]));
    assert!(unknown.contains("DeviceNotFound") && unknown.contains("device add"), "{unknown}");
    let offline = complaint(&tool(state, &["method", "invoke", "demo", "reboot"]));
    assert!(offline.contains("DeviceNotOnline") && offline.contains("$iothub/methods/POST/#"), "{offline}");
    let modules = complaint(&tool(state, &["c2d", "send", "demo/m", "hi"]));
    assert!(modules.contains("modules have no cloud-to-device messages"), "{modules}");
    let ttl = devicebound().args(["c2d", "send", "demo", "hi", "--ttl", "3d"]).output().unwrap();
    assert!(String::from_utf8_lossy(&ttl.stderr).contains("1s to 2d"), "{ttl:?}");
    let not_json = complaint(&tool(state, &["twin", "set", "demo", "desired", "{interval:5}"]));
    assert!(not_json.contains("not JSON") && not_json.contains("single quotes"), "{not_json}");

    let complaint_of = |arguments: &[&str]| complaint(&devicebound().args(arguments).output().unwrap());
    let second = complaint(&tool(state, &["hub", "--port", "0", "--https-port", "0"]));
    assert!(
        second.contains("another hub uses the state folder") && second.contains("--state DIR"),
        "{second}"
    );
    let other = tempfile::tempdir().unwrap();
    let port = hub.text("mqtt").rsplit_once(':').unwrap().1;
    let taken = complaint(&tool(other.path(), &["hub", "--listen", "127.0.0.1", "--port", port]));
    assert!(taken.contains(&format!("port {port} is in use")) && taken.contains("--port 0"), "{taken}");

    let wrong = complaint_of(&["device", "list", "--connection-string", "HostName"]);
    assert!(wrong.contains("bad connection string") && wrong.contains("devicebound hub"), "{wrong}");
    let key =
        format!("HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey={}=", "A".repeat(43));
    let (https, ca) = (hub.text("https"), hub.text("ca"));
    let refused = complaint_of(&["device", "list", "--connection-string", &key, "--hub", https, "--ca", ca]);
    assert!(refused.contains("HUB-SAS-SIG") && refused.contains("service connection string"), "{refused}");
    let untrusted = complaint_of(&[
        "device",
        "list",
        "--connection-string",
        hub.text("serviceConnectionString"),
        "--hub",
        https,
    ]);
    assert!(untrusted.contains("--ca FILE"), "{untrusted}");
}

#[test]
fn a_token_for_the_service_api_opens_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub = RunningHub::start(folder.path());
    let token = printed(&tool(folder.path(), &["sas", "--service", "--ttl", "5m"]));
    let token = token.trim();
    assert!(token.contains("&skn=iothubowner"), "{token}");
    let certificate = ureq::tls::Certificate::from_pem(&std::fs::read(hub.text("ca")).unwrap()).unwrap();
    let roots = ureq::tls::RootCerts::new_with_certs(&[certificate]);
    let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
    let agent =
        ureq::Agent::new_with_config(ureq::Agent::config_builder().tls_config(tls).proxy(None).build());
    let url = format!("https://{}/devices?api-version=2021-04-12", hub.text("https"));
    let status = agent.get(url).header("Authorization", token).call().unwrap().status();
    assert_eq!(status.as_u16(), 200);
}

#[cfg(unix)]
#[test]
fn nobody_who_reads_the_front_alone_is_told_of_a_broken_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let _hub = RunningHub::start(state);
    printed(&tool(state, &["c2d", "send", "demo", "hi", "--ack", "full"]));
    printed(&tool(state, &["c2d", "purge", "demo"]));
    for arguments in [&["device", "show", "demo"][..], &["device", "list"], &["c2d", "feedback"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = devicebound().args(arguments).arg("--state").arg(state).stdout(writer).output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_certificate_is_good_for_as_long_as_there_are_dates() {
    let folder = tempfile::tempdir().unwrap();
    let made = tool(
        folder.path(),
        &["cert", "device", "pump", "--life", "99999999d", "--out", folder.path().to_str().unwrap()],
    );
    assert!(printed(&made).contains("pump.pem"));
}

#[test]
fn the_view_tells_a_client_without_tls_what_it_did_wrong() {
    let state = tempfile::tempdir().unwrap();
    let mut hub = RunningHub::start(state.path());
    let mut plain = std::net::TcpStream::connect(hub.text("mqtt")).unwrap();
    std::io::Write::write_all(&mut plain, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").unwrap();
    let line: Value = serde_json::from_str(&hub.lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line["event"], "tlsFailed");
    assert!(line["text"].as_str().unwrap().contains("speaks without TLS"), "{line}");
}

#[cfg(unix)]
#[test]
fn a_structured_log_stands_in_for_the_live_view_and_does_not_repeat_it() {
    let state = tempfile::tempdir().unwrap();
    let mut hub = devicebound()
        .args(["hub", "--json", "--log", "json", "--listen", "127.0.0.1", "--port", "0", "--https-port", "0"])
        .arg("--state")
        .arg(state.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(hub.stdout.take().unwrap()).lines();
    let mut logged = BufReader::new(hub.stderr.take().unwrap()).lines();
    let ready: Value = serde_json::from_str(&shown.next().unwrap().unwrap()).unwrap();
    let mut plain = std::net::TcpStream::connect(ready["mqtt"].as_str().unwrap()).unwrap();
    std::io::Write::write_all(&mut plain, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").unwrap();
    let line: Value = serde_json::from_str(&logged.next().unwrap().unwrap()).unwrap();
    assert_eq!((line["event"].as_str(), line["level"].as_str()), (Some("tlsFailed"), Some("WARN")), "{line}");
    Command::new("kill").arg("-TERM").arg(hub.id().to_string()).status().unwrap();
    assert!(hub.wait().unwrap().success());
    assert!(shown.next().is_none(), "the view shows no more than that the hub is ready");
}

#[test]
fn what_happened_can_be_watched_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let _hub = RunningHub::start(state);
    complaint(&tool(state, &["device", "show", "nobody"]));
    let told = printed(&tool(state, &["operations", "watch", "--no-follow"]));
    assert!(told.contains("DeviceIdentityOperations/get 404001"), "{told}");
    let lines =
        printed(&tool(state, &["operations", "watch", "--no-follow", "--json", "--device", "nobody"]));
    let event: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(event["sharedAccessPolicy"], "iothubowner");

    let rule = printed(&devicebound().args(["explain", "hub-d2c-qos2"]).output().unwrap());
    assert!(rule.contains("publish at QoS 1"), "{rule}");
    let bytes = state.join("bytes.hex");
    std::fs::write(&bytes, "> 34 05 00 01 61 00 01\n").unwrap();
    let told = printed(&devicebound().args(["explain", "--hex"]).arg(&bytes).output().unwrap());
    assert!(told.contains("HUB-D2C-QOS2") && told.contains("bytes: 34"), "{told}");
    for nothing in [&["explain", "--hex"][..], &["explain"]] {
        let empty = state.join("empty");
        std::fs::write(&empty, "").unwrap();
        let told = complaint(&devicebound().args(nothing).arg(&empty).output().unwrap());
        assert!(told.contains("tcpdump") && told.contains("--hex"), "{told}");
    }
    let wrong = complaint(&devicebound().args(["explain", "HUB-D2C"]).output().unwrap());
    assert!(wrong.contains("did you mean") && wrong.contains("HUB-D2C-SIZE"), "{wrong}");
}

#[cfg(unix)]
#[test]
fn what_was_used_of_the_daily_quota_outlives_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let (state, file) = (folder.path(), folder.path().join("quota.json"));
    let used = || serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap();
    for messages in [1, 2] {
        let hub = RunningHub::start_with(state, &["--tier", "F1"]);
        printed(&tool(state, &["c2d", "send", "demo", "hello"]));
        hub.stop();
        assert_eq!(used()["messages"], messages);
    }
    let mut all = used();
    all["messages"] = 8000.into();
    std::fs::write(&file, all.to_string()).unwrap();
    let hub = RunningHub::start_with(state, &["--tier", "F1"]);
    let refused = complaint(&tool(state, &["c2d", "send", "demo", "one more"]));
    assert!(refused.contains("QuotaExceeded"), "{refused}");
    hub.stop();

    std::fs::write(&file, "[]").unwrap();
    let damaged = complaint(&tool(state, &["hub", "--tier", "F1", "--port", "0", "--https-port", "0"]));
    assert!(damaged.contains("quota.json holds no count") && damaged.contains("remove it"), "{damaged}");
}

#[test]
fn a_tier_holds_for_the_hub_as_a_whole() {
    let complaint_of = |arguments: &[&str]| {
        let output = devicebound().arg("hub").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = complaint_of(&["--tier", "X1"]);
    assert!(unknown.contains("S1") && unknown.contains("F1"), "{unknown}");
    let several = complaint_of(&["--tier", "S1", "--workers", "2"]);
    assert!(several.contains("cannot be used with"), "{several}");
    assert!(complaint_of(&["--units", "2"]).contains("--tier"));
}

#[test]
fn a_route_is_tested_without_a_hub_and_says_why_a_message_does_not_take_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routing.json");
    let test = |arguments: &[&str]| {
        devicebound().args(["route", "test", "--routing"]).arg(&file).args(arguments).output().unwrap()
    };
    std::fs::write(
        &file,
        r#"{"endpoints":{"eventHubs":[{"name":"hot"}]},
            "routes":[{"name":"warm","source":"DeviceMessages","condition":"$body.t > 30","endpointNames":["hot"],"isEnabled":true}],
            "fallbackRoute":{"condition":"true","endpointNames":["events"],"isEnabled":true},
            "enrichments":[{"key":"hub","value":"$iothubname","endpointNames":["hot"]}]}"#,
    )
    .unwrap();
    let json = ["--system", "contentType=application/json", "--system", "contentEncoding=utf-8"];
    let told = printed(&test(&[&["--body", r#"{"t":31}"#], &json[..]].concat()));
    assert!(
        told.starts_with("warm: matches, to hot\n  $body.t = 31\n$fallback: not needed\ndelivered to hot, by warm\n  with hub = devicebound\nwarning: "),
        "{told}"
    );
    let told = printed(&test(&["--body", r#"{"t":31}"#]));
    assert!(told.contains("$body.t is undefined: contentType is not there; send application/json"), "{told}");
    assert!(told.contains("delivered to events, by $fallback"), "{told}");
    let told: Value =
        serde_json::from_str(&printed(&test(&["--json", "--source", "twinchangeevents"]))).unwrap();
    assert_eq!(
        (&told["routes"][0]["result"], &told["deliveries"]),
        (&"of another source".into(), &serde_json::json!([]))
    );

    let condition = |text: &str| {
        devicebound().args(["route", "test", "-p", "a=1", "--condition", text]).output().unwrap()
    };
    assert!(printed(&condition("a = '1'")).starts_with("condition: matches"));
    let error = complaint(&condition("a = "));
    assert!(error.contains("wrong at character 5: expected a property, found the end"), "{error}");
    std::fs::write(&file, "{").unwrap();
    assert!(complaint(&test(&[])).contains("it is no JSON"));
}

#[test]
fn routes_are_added_listed_removed_and_applied_at_a_hub() {
    let state = tempfile::tempdir().unwrap();
    let _hub = RunningHub::start(state.path());
    let route = |arguments: &[&str]| tool(state.path(), &[&["route"], arguments].concat());
    assert_eq!(printed(&route(&["list"])), "");
    assert_eq!(printed(&route(&["add", "all", "events"])), "the hub has 1 route\n");
    printed(&route(&["add", "hot", "events", "--condition", "level = 'storm'"]));
    assert_eq!(
        printed(&route(&["list"])),
        "all: DeviceMessages where true, to events\nhot: DeviceMessages where level = 'storm', to events\n"
    );
    let told = printed(&route(&["test", "-p", "level=calm"]));
    assert!(told.starts_with("all: matches, to events\nhot: false\n  level = \"calm\"\n"), "{told}");
    assert!(complaint(&route(&["add", "hot", "events"])).contains("two routes have the name hot"));
    assert!(complaint(&route(&["add", "lost", "nowhere"])).contains("no endpoint"));
    assert_eq!(printed(&route(&["remove", "ALL"])), "the hub has 1 route\n");
    assert!(complaint(&route(&["remove", "all"])).contains("no route all"));
    let file = state.path().join("routing.json");
    let webhooks = r#"{"endpoints":{"webhooks":[{"name":"w","url":"http://127.0.0.1:9/"}]},"routes":[{"name":"w","source":"DeviceMessages","endpointNames":["w"],"isEnabled":true}]}"#;
    std::fs::write(&file, webhooks).unwrap();
    let applied = printed(&route(&["apply", file.to_str().unwrap()]));
    assert!(
        applied.contains("warning: at Azure, no device message reaches") && applied.ends_with("1 route\n"),
        "{applied}"
    );
    let health: Value = serde_json::from_str(&printed(&route(&["health"]))).unwrap();
    assert_eq!(
        (&health["value"][0]["endpointId"], &health["value"][0]["healthStatus"]),
        (&"w".into(), &"unknown".into())
    );
    let shown: Value = serde_json::from_str(&printed(&route(&["show"]))).unwrap();
    assert_eq!(shown["routes"][0]["name"], "w");
    assert_eq!(printed(&route(&["clear"])), "the hub has 0 routes\n");
}

#[test]
fn shells_get_completions_and_man_gets_a_page_for_each_command() {
    let completions = |shell: &str| printed(&devicebound().args(["completions", shell]).output().unwrap());
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(completions(shell).contains("consumer-group"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    printed(&devicebound().arg("man").arg(&pages).output().unwrap());
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("devicebound.1").contains("live view"));
    assert!(page("devicebound-hub.1").contains("\\-\\-isolated"));
    let file = pages.join("devicebound.1");
    assert!(
        complaint(&devicebound().arg("man").arg(&file).output().unwrap())
            .contains("cannot write manual pages")
    );
}

#[cfg(unix)]
#[test]
fn a_hub_takes_its_settings_from_a_file_and_says_at_sighup_what_waits_for_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("hub.toml");
    std::fs::write(&file, "name = [\"hub.example\"]\nstrict = true\n").unwrap();
    let folder = state.path().join("state");
    let mut hub = RunningHub::start_with(&folder, &["--config", file.to_str().unwrap()]);
    assert!(hub.text("connectionString").contains("HostName=hub.example;"), "{}", hub.ready);
    std::fs::write(&file, "name = [\"hub.example\"]\nretain-hours = 1\n").unwrap();
    hub.signal("-HUP");
    let told = hub.told("reloaded");
    assert!(told.ends_with("wait for a restart: strict, retain-hours"), "{told}");
    std::fs::write(&file, "strict").unwrap();
    hub.signal("-HUP");
    let told = hub.told("reloaded");
    assert!(told.contains("cannot be taken") && told.contains("is no TOML"), "{told}");
    hub.signal("-TERM");
    assert!(hub.told("stopping").contains("connections are closed"));
    assert!(hub.child.wait().unwrap().success());
}

#[test]
fn a_configuration_file_is_checked_and_what_is_in_force_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.toml");
    let config = |what: &[&str]| devicebound().arg("config").args(what).arg(&file).output().unwrap();
    std::fs::write(&file, "tier = \"S1\"\nunits = 2\n").unwrap();
    assert!(printed(&config(&["check"])).contains("a hub can be started with it"));
    assert!(printed(&config(&["show"])).contains("units = 2  # file\n"));
    let shown: Value = serde_json::from_str(&printed(&config(&["show", "--json"]))).unwrap();
    let units = shown.as_array().unwrap().iter().find(|setting| setting["key"] == "units").unwrap();
    assert_eq!((&units["values"][0], &units["source"]), (&"2".into(), &"file".into()));
    std::fs::write(&file, "units = 0\ntier = \"S1\"\n").unwrap();
    assert!(complaint(&config(&["check"])).contains("--units"));
}
