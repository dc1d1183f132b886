//! What the machine does to a hub: it takes away its disk, its descriptors or its time, or asks it to stop. Rows E3, E4, E7
//! and E8 of the fault matrix, on the real program.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use devicebound::Device;
use devicebound::device::{Action, DeviceConfig, Message, Ticket, Timing};
use devicebound::packet::QoS;
use devicebound_blocking::{Client, Tls, TlsSocket};
use devicebound_testkit::interop::service::Method;
use devicebound_testkit::interop::{Hub, PATIENCE, hub};
use devicebound_testkit::site;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;

/// A device at a real hub, and what became of what it has sent.
struct Sensor {
    client: Client<TlsSocket>,
    connections: u32,
    losses: Vec<String>,
    sent: BTreeMap<String, String>,
    acknowledged: Vec<String>,
}

impl Sensor {
    fn new(hub: &Hub, device: &hub::Device, adjust: impl FnOnce(DeviceConfig) -> DeviceConfig) -> Self {
        let config = DeviceConfig::from_connection_string(&device.connection_string());
        let [reconnect_min, reconnect_max] = [10, 100].map(Duration::from_millis);
        let timing = Timing { reconnect_min, reconnect_max, ..Timing::default() };
        let config = adjust(config.expect("the string is good").with_timing(timing));
        let port = hub.mqtt_port().parse().expect("a port is a number");
        let tls = Tls::with_authorities_file(hub.ca()).expect("the CA can be read").with_port(port);
        let client = Client::new(Device::new(config).expect("the config is good"), tls);
        Self { client, connections: 0, losses: Vec::new(), sent: BTreeMap::new(), acknowledged: Vec::new() }
    }

    fn send(&mut self, body: &str) {
        let ticket = self.client.device().telemetry(Message::new(body.as_bytes()));
        self.sent.insert(ticket.expect("few messages are open").to_string(), body.to_owned());
    }

    /// Goes on until `enough`.
    fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(self) {
            assert!(Instant::now() < deadline, "{what}: not in {PATIENCE:?}; lost: {:?}", self.losses);
            self.turn(Duration::from_millis(100));
        }
    }

    fn until_acknowledged(&mut self) {
        self.until("all messages are acknowledged", |sensor| sensor.sent.is_empty());
    }

    /// Goes on for about so long.
    fn turn(&mut self, time: Duration) {
        self.client.wait_timeout(time);
        let (device, mut incoming) = self.client.split();
        while let Some(next) = incoming.next(device) {
            match next {
                Ok(Action::Connected { .. }) => self.connections += 1,
                Ok(Action::Acknowledged(ticket)) => {
                    self.acknowledged.extend(self.sent.remove(&Ticket::to_string(&ticket)));
                }
                Ok(_) => {}
                Err(offline) => self.losses.push(offline.to_string()),
            }
        }
    }
}

fn pid(hub: &Hub) -> Pid {
    Pid::from_raw(hub.pid()).expect("it is not 0")
}

/// Limits a resource of a running hub; `None` takes the limit away again.
fn limit(hub: &Hub, resource: Resource, current: Option<u64>) {
    let old = prlimit(Some(pid(hub)), resource, Rlimit { current, maximum: None });
    // An ordinary user may not raise the hard limit to none, and need not touch it.
    if old.is_err() {
        let own = rustix::process::getrlimit(resource);
        let current = current.or(own.maximum);
        prlimit(Some(pid(hub)), resource, Rlimit { current, maximum: own.maximum })
            .expect("the hub is a process of this user");
    }
}

/// The bodies of all telemetry that is stored, as far as these are among them.
fn stored(hub: &Hub, awaited: &[String]) -> Vec<String> {
    let stream = hub.service().telemetry();
    let mut stored: Vec<String> = Vec::new();
    while !awaited.iter().all(|body| stored.contains(body)) {
        stored.push(stream.next_message().text().to_owned());
    }
    stored
}

/// E3. A file that may not grow stands for a disk that is full: both are an error of the same system call.
#[test]
fn a_full_disk_acknowledges_nothing_and_serves_again_when_there_is_space() {
    let mut hub = Hub::on_free_ports(site!());
    let mut sensor = Sensor::new(&hub, &hub.register("sensor"), |config| config);
    let _ = hub.register("other");
    sensor.send("before");
    sensor.until_acknowledged();

    limit(&hub, Resource::Fsize, Some(hub.largest_file()));
    let filler = "x".repeat(100_000);
    for number in 0.. {
        assert!(number < 1000, "100 MB were stored in a file that may not grow");
        sensor.send(&format!("{number} {filler}"));
        sensor.until("acknowledged, or lost", |sensor| sensor.sent.is_empty() || !sensor.losses.is_empty());
        if !sensor.sent.is_empty() {
            break;
        }
    }
    let before = sensor.acknowledged.len();
    // There may still be room for something smaller: now nothing can be written at all, as on a disk that is read-only.
    limit(&hub, Resource::Fsize, Some(0));
    // What is not stored is answered with an error.
    let patch = json!({"properties": {"desired": {"interval": 60}}});
    let refused = hub.service().ask(Method::PATCH, "/twins/sensor", &[], patch.to_string().as_bytes());
    let status = refused.expect("the hub answers").status();
    assert!(status.is_server_error(), "a twin was changed on a full disk: {status}");
    // Nor is anybody registered or removed, and nobody is told so until it is known.
    for (method, path) in [(Method::PUT, "/devices/late"), (Method::DELETE, "/devices/other")] {
        let refused = hub.service().ask(method, path, &[], b"{}").expect("the hub answers").status();
        assert!(refused.is_server_error(), "{path} on a full disk: {refused}");
        let shown = hub.service().ask(Method::GET, path, &[], b"").expect("the hub answers").status();
        assert!(shown.is_server_error(), "{path} was told of before it was known: {shown}");
    }
    sensor.turn(Duration::from_millis(300));
    assert_eq!(sensor.acknowledged.len(), before, "acknowledged on a full disk");

    limit(&hub, Resource::Fsize, None);
    sensor.until_acknowledged();
    hub.service().patch("/twins/sensor", &patch);
    sensor.send("after");
    sensor.until_acknowledged();
    let late = hub.service().ask(Method::GET, "/devices/late", &[], b"").expect("the hub answers").status();
    assert_eq!(late, 404);
    assert_eq!(hub.service().get("/devices/other")["deviceId"], "other");
    let _ = hub.register("late");

    hub.stop();
    hub.start_again();
    let mut stored = stored(&hub, &sensor.acknowledged);
    // The one that found no space was sent again, and may be there from both times.
    stored.dedup();
    assert_eq!(stored, sensor.acknowledged);
    assert_eq!(hub.service().get("/twins/sensor")["properties"]["desired"]["interval"], 60);
}

/// E4.
#[test]
fn a_hub_without_descriptors_serves_whom_it_has_says_so_and_lets_nobody_in_unchecked() {
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("sensor");
    let mut sensor = Sensor::new(&hub, &device, |config| config);
    sensor.send("before");
    sensor.until_acknowledged();

    let open = std::fs::read_dir(format!("/proc/{}/fd", hub.pid())).expect("the hub runs").count();
    limit(&hub, Resource::Nofile, Some(open as u64 + 4));
    let port: u16 = hub.mqtt_port().parse().expect("a port is a number");
    let idle: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("the system takes it")).collect();
    for number in 0..50 {
        sensor.send(&number.to_string());
        sensor.until_acknowledged();
    }
    assert_eq!((sensor.connections, &sensor.losses[..]), (1, &[][..]));
    hub.expect_text("acceptPaused");

    drop(idle);
    let thief = hub::Device { key: hub.register("other").key, ..device };
    let mut thief = Sensor::new(&hub, &thief, |config| config);
    thief.until("refused", |thief| !thief.losses.is_empty());
    assert_eq!(thief.connections, 0);
    assert!(thief.losses[0].contains("refused"), "{:?}", thief.losses);
    let mut next = Sensor::new(&hub, &hub.register("next"), |config| config);
    next.send("let in");
    next.until_acknowledged();
    assert_eq!(hub.service().stored_telemetry().len(), 52);
}

/// E4. Where no thread can be had any more, nothing needs one: all are started with the hub.
#[test]
fn a_hub_has_all_its_threads_when_it_is_ready() {
    let mut hub = Hub::on_free_ports(site!());
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", hub.pid())).expect("the hub runs");
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.expect("it runs").path().join("comm")).expect("it has a name")
        };
        let mut names: Vec<String> = tasks.map(name).collect();
        names.sort();
        names
    };
    let ready = threads();
    let mut sensor = Sensor::new(&hub, &hub.register("sensor"), |config| config);
    let streams: Vec<_> = (0..8).map(|_| hub.service().telemetry()).collect();
    for number in 0..20 {
        sensor.send(&number.to_string());
        sensor.until_acknowledged();
        let read: Vec<_> = streams.iter().map(|stream| stream.next_message().text().to_owned()).collect();
        assert_eq!(read, vec![number.to_string(); streams.len()]);
    }
    hub.service().patch("/twins/sensor", &json!({"properties": {"desired": {"interval": 60}}}));
    assert_eq!(threads(), ready);
    drop(streams);
    hub.stop();
}

/// E4. A program that the system has no memory for is ended by its allocator, as by a crash: nothing that it acknowledged
/// is missing when its supervisor starts it again, and nobody gets in who has no right to.
#[test]
fn a_hub_that_memory_ran_out_for_has_lost_nothing_when_it_runs_again() {
    const ROOM: u64 = 32 * 1024 * 1024;
    let mut hub = Hub::on_free_ports(site!());
    let device = hub.register("sensor");
    let mut sensor = Sensor::new(&hub, &device, |config| config);
    sensor.send("before");
    sensor.until_acknowledged();

    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.pid())).expect("the hub runs");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let size: u64 = size.and_then(|size| size.trim().parse().ok()).expect("a process has a size");
    limit(&hub, Resource::As, Some(size * 1024 + ROOM));
    let body = "x".repeat(60_000);
    let mut queued: BTreeMap<String, usize> = BTreeMap::new();
    'full: for number in 0.. {
        assert!(number < 100, "300 MB of messages wait in a hub that may have 32 MB");
        let id = format!("receiver-{number}");
        let put = hub.service().ask(Method::PUT, &format!("/devices/{id}"), &[], b"{}");
        if !put.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        queued.insert(id.clone(), 0);
        let path = format!("/devices/{id}/messages/deviceBound");
        for _ in 0..50 {
            match hub.service().try_post(&path, body.as_bytes()) {
                Ok((status, _)) if status < 300 => *queued.entry(id.clone()).or_default() += 1,
                _ => break 'full,
            }
        }
    }
    hub.expect_text("memory allocation of");
    hub.has_crashed();

    hub.start_again();
    for (id, count) in &queued {
        let waiting = &hub.service().get(&format!("/devices/{id}"))["cloudToDeviceMessageCount"];
        // One more may have been stored whose answer did not come.
        let waiting = waiting.as_u64().expect("it is a number") as usize;
        assert!((*count..=count + 1).contains(&waiting), "{id}: {waiting} of {count} messages");
    }
    let mut sensor = Sensor::new(&hub, &device, |config| config);
    sensor.send("after");
    sensor.until_acknowledged();
    let thief = hub::Device { key: hub.register("other").key, ..device };
    let mut thief = Sensor::new(&hub, &thief, |config| config);
    thief.until("refused", |thief| !thief.losses.is_empty());
    assert_eq!(thief.connections, 0);
    let bodies: Vec<_> = hub.service().stored_telemetry().iter().map(|sent| sent.text().to_owned()).collect();
    assert_eq!(bodies, ["before", "after"]);
}

/// E7.
#[test]
fn a_hub_that_is_asked_to_stop_under_load_ends_well_and_keeps_what_it_acknowledged() {
    const DEVICES: usize = 10;
    let mut hub = Hub::on_free_ports(site!());
    let identities: Vec<_> = (0..DEVICES).map(|index| hub.register(&format!("sensor-{index}"))).collect();
    let sensors: Vec<_> =
        identities.iter().map(|device| Sensor::new(&hub, device, |config| config)).collect();
    let under_load = Barrier::new(DEVICES + 1);
    let acknowledged: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = sensors
            .into_iter()
            .zip(&identities)
            .map(|(mut sensor, device)| {
                let under_load = &under_load;
                scope.spawn(move || {
                    for number in 0.. {
                        if number == 20 {
                            under_load.wait();
                        }
                        sensor.send(&format!("{} {number}", device.id));
                        sensor.until("acknowledged, or lost", |sensor| {
                            sensor.sent.is_empty() || !sensor.losses.is_empty()
                        });
                        if !sensor.losses.is_empty() {
                            break;
                        }
                    }
                    sensor.acknowledged
                })
            })
            .collect();
        under_load.wait();
        let asked = Instant::now();
        hub.stop();
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
        threads.into_iter().flat_map(|thread| thread.join().expect("it found nothing")).collect()
    });
    hub.start_again();
    let stored = stored(&hub, &acknowledged);
    let mut once: Vec<_> = stored.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), stored.len(), "nothing was sent twice");
}

/// E8. The deadline of every device passes while the hub stands still.
#[test]
fn a_hub_that_stood_still_hears_its_devices_out_before_it_judges_their_silence() {
    const DEVICES: usize = 20;
    const KEEP_ALIVE: u16 = 2;
    /// The hub cuts off who is silent for 3 s.
    const STANDSTILL: Duration = Duration::from_secs(5);
    let hub = Hub::on_free_ports(site!());
    let sensors: Vec<_> = (0..DEVICES)
        .map(|index| {
            Sensor::new(&hub, &hub.register(&format!("sensor-{index}")), |config| {
                let will = Message::new(b"last words");
                config.with_keep_alive(KEEP_ALIVE).with_will(&will, QoS::AtLeastOnce).expect("it is short")
            })
        })
        .collect();
    let (online, runs_again) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for mut sensor in sensors {
            let (online, runs_again) = (&online, &runs_again);
            scope.spawn(move || {
                sensor.send("before");
                sensor.until_acknowledged();
                online.fetch_add(1, Ordering::SeqCst);
                // It goes on saying that it lives, as its keep alive wants.
                sensor.until("the hub runs again", |_| runs_again.load(Ordering::SeqCst));
                sensor.send("after");
                sensor.until_acknowledged();
                assert_eq!((sensor.connections, &sensor.losses[..]), (1, &[][..]));
                sensor.client.close();
            });
        }
        while online.load(Ordering::SeqCst) < DEVICES {
            let _ = hub.service().get("/devices/sensor-0"); // the hub answers
        }
        kill_process(pid(&hub), Signal::STOP).expect("the hub is a process of this user");
        // The fault itself: time goes by, and the hub has no part in it.
        thread::sleep(STANDSTILL);
        kill_process(pid(&hub), Signal::CONT).expect("the hub is a process of this user");
        runs_again.store(true, Ordering::SeqCst);
    });
    let stored = hub.service().stored_telemetry();
    assert_eq!(stored.len(), 2 * DEVICES);
    assert!(stored.iter().all(|message| message.text() != "last words"), "a will was sent of one who lives");
}
