//! Routes of a hub that is killed: a webhook gets all that matches, at least once and in order.

#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use devicebound_testkit::interop::{Hub, PATIENCE};
use devicebound_testkit::site;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Messages that are sent before the hub is killed, half of which match.
const MESSAGES: u64 = 20;

/// A webhook that takes events while it is well, and tells their bodies.
fn webhook(is_well: &Arc<AtomicBool>) -> (String, Receiver<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let (told, bodies) = channel();
    let is_well = Arc::clone(is_well);
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A hub that is killed breaks off anywhere.
            let Ok(mut stream) = stream else { continue };
            let mut reader = BufReader::new(&stream);
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                let (name, value) = line.split_once(':').unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let is_whole = reader.read_exact(&mut body).is_ok() && length > 0;
            let is_taken = is_whole && is_well.load(Ordering::SeqCst);
            if is_taken {
                let events: Value = serde_json::from_slice(&body).expect("events are JSON");
                let number = events[0]["data"]["body"]["n"].as_u64().expect("the body has a number");
                if told.send(number).is_err() {
                    return;
                }
            }
            let status = if is_taken { "200 OK" } else { "500 Failed" };
            let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, bodies)
}

#[test]
fn a_webhook_gets_what_it_had_not_when_the_hub_was_killed() {
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("dev1");
    let is_well = Arc::new(AtomicBool::new(true));
    let (url, bodies) = webhook(&is_well);
    let routing = json!({
        "endpoints": {"webhooks": [{"name": "hook", "url": url}]},
        "routes": [{"name": "even", "source": "DeviceMessages", "condition": "$body.n % 2 = 0", "endpointNames": ["hook"], "isEnabled": true}],
    });
    hub.service().put("/routing", &routing);
    let send = |n: u64| {
        let headers = [("iothub-contenttype", "application/json"), ("iothub-contentencoding", "utf-8")];
        hub.service().send_telemetry(&device.id, &headers, json!({"n": n}).to_string().as_bytes());
    };
    (0..MESSAGES / 2).for_each(send);
    let first = bodies.recv_timeout(PATIENCE).expect("the webhook is well");
    is_well.store(false, Ordering::SeqCst);
    (MESSAGES / 2..MESSAGES).for_each(send);

    kill_process(Pid::from_raw(hub.pid()).expect("it is not 0"), Signal::KILL).expect("the hub runs");
    hub.has_crashed();
    is_well.store(true, Ordering::SeqCst);
    hub.start_again();

    let mut got = vec![first];
    while got.last() != Some(&(MESSAGES - 2)) {
        got.push(bodies.recv_timeout(PATIENCE).expect("the hub goes on"));
    }
    got.sort_unstable();
    got.dedup();
    assert_eq!(got, (0..MESSAGES).step_by(2).collect::<Vec<_>>());
}
