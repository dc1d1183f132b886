//! The hub under attack: the real program in a process of its own, with what Linux tells of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use devicebound_testkit::interop::{Device, Service};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

use crate::report::{Kib, Millis, Report};
use crate::wire::Door;
use crate::{Outcome, Trouble};

/// The system counts CPU time in hundredths of a second for programs that read `/proc`, on every architecture (`proc(5)`).
const TICK: Duration = Duration::from_millis(10);
/// So long after a fault no descriptor of it is left over.
const SETTLED_IN: Duration = Duration::from_secs(5);
/// So often a figure is looked at that is waited for.
const GLANCE: Duration = Duration::from_millis(50);
/// Connections that the back end's HTTP client keeps for its next requests, at most: they come and go beside a fault.
const POOLED: usize = 3;
/// Who registers devices at a time: as many as one disk write can serve.
const REGISTRARS: usize = 16;
/// The share of a connection over TLS that is idle, at 10,000 connections: the target that the hub is measured by elsewhere.
pub(crate) const TLS_IDLE: f64 = 12.5;

/// A hub that runs, and the way to it.
pub(crate) struct Ground {
    hub: Child,
    /// The service API.
    pub(crate) service: Service,
    /// The way in for devices.
    pub(crate) door: Arc<Door>,
    /// The way in for HTTPS.
    pub(crate) https: Arc<Door>,
    /// The way in for AMQP.
    pub(crate) amqp: Arc<Door>,
    /// The file with the hub's CA.
    pub(crate) ca: String,
    /// Where attackers run: on one thread, as there are two cores and the hub needs one.
    pub(crate) attackers: Runtime,
    _state: TempDir,
}

/// What the hub's store keeps in memory; it fills as the store is used, by the probe if by nobody else.
pub(crate) const CACHE: Kib = Kib::mib(16);

/// What a process takes of its machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident now.
    pub(crate) memory: Kib,
    /// The most that ever was resident.
    pub(crate) peak: Kib,
    /// On all cores, since it was started.
    pub(crate) cpu: Duration,
    /// Open files and sockets.
    pub(crate) descriptors: usize,
}

impl Ground {
    /// Starts the program on free ports, with a state folder of its own.
    pub(crate) fn start(program: &Path, folder: &Path, options: &[&str]) -> Outcome<Self> {
        let state = TempDir::with_prefix_in("siege-", folder)?;
        let mut command = Command::new(program);
        command
            .args(["hub", "--json", "--port", "0", "--https-port", "0", "--amqp-port", "0", "--state"])
            .arg(state.path())
            .args(options);
        let mut hub = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = hub.stdout.take().ok_or("the hub has no output")?;
        let mut lines = BufReader::new(output);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        // Somebody who looks at the live view, and forgets it.
        thread::spawn(move || lines.split(b'\n').take_while(Result::is_ok).for_each(drop));
        let told: Value = serde_json::from_str(&first)
            .map_err(|error| format!("the hub's first line is no JSON: {error}: {first}"))?;
        let word = |name: &str| told[name].as_str().ok_or(format!("the hub's first line lacks {name}"));
        let (mqtt, https): (SocketAddr, SocketAddr) = (word("mqtt")?.parse()?, word("https")?.parse()?);
        let ca = word("ca")?.to_owned();
        let service = Service::new(https, Path::new(&ca), word("serviceConnectionString")?);
        let amqp: SocketAddr = word("amqp")?.parse()?;
        let [door, https_door, amqp] =
            [mqtt, https, amqp].map(|address| Door::new(address, &ca).map(Arc::new));
        let (door, https_door, amqp) = (door?, https_door?, amqp?);
        let attackers = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { hub, service, door, https: https_door, amqp, ca, attackers, _state: state })
    }

    /// Registers devices named after `prefix`.
    pub(crate) fn register(&self, prefix: &str, count: usize) -> Outcome<Vec<Device>> {
        let share = count.div_ceil(REGISTRARS).max(1);
        thread::scope(|scope| {
            let registrars: Vec<_> = (0..count)
                .step_by(share)
                .map(|first| {
                    let numbers = first..(first + share).min(count);
                    scope.spawn(move || numbers.map(|number| self.register_one(prefix, number)).collect())
                })
                .collect();
            let mut devices = Vec::with_capacity(count);
            for registrar in registrars {
                let registered: Outcome<Vec<Device>> = registrar.join().map_err(|_| "registering failed")?;
                devices.extend(registered?);
            }
            Ok(devices)
        })
    }

    fn register_one(&self, prefix: &str, number: usize) -> Outcome<Device> {
        let id = format!("{prefix}-{number}");
        let identity = self.service.put(&format!("/devices/{id}"), &json!({"deviceId": id}));
        Ok(Device::of(&identity))
    }

    pub(crate) fn device(&self, id: &str) -> Outcome<Device> {
        let mut devices = self.register(id, 1)?;
        Ok(devices.swap_remove(0))
    }

    /// What the hub's process takes now.
    pub(crate) fn usage(&self) -> Outcome<Usage> {
        let folder = format!("/proc/{}", self.hub.id());
        let status = fs::read_to_string(format!("{folder}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let number = line.split_whitespace().next().ok_or(format!("no {name} in {folder}/status"))?;
            Ok::<_, Trouble>(Kib(number.parse()?))
        };
        let stat = fs::read_to_string(format!("{folder}/stat"))?;
        // The program's name comes second, in parentheses, and may hold anything; user and system time are 14th and 15th.
        let behind_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks = behind_name.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks: u32 = ticks.sum::<Result<u32, _>>()?;
        Ok(Usage {
            memory: kib("VmRSS:")?,
            peak: kib("VmHWM:")?,
            cpu: TICK * ticks,
            descriptors: fs::read_dir(format!("{folder}/fd"))?.count(),
        })
    }

    /// How many connections the hub says that it refused by this rule.
    pub(crate) fn refused_by(&self, rule: &str) -> Outcome<usize> {
        let label = format!(r#"connections_refused_total{{rule="{rule}"}}"#);
        for line in self.service.read("/metrics").lines() {
            if let Some(count) = line?.split_once(&label).map(|(_, count)| count.trim().parse()) {
                return Ok(count?);
            }
        }
        Ok(0)
    }

    /// Waits until the hub has at most so many descriptors open; how long that took, if it came about within `patience`.
    pub(crate) fn drained_to(&self, descriptors: usize, patience: Duration) -> Outcome<Option<Duration>> {
        let begun = Instant::now();
        loop {
            if self.usage()?.descriptors <= descriptors {
                return Ok(Some(begun.elapsed()));
            }
            if begun.elapsed() > patience {
                return Ok(None);
            }
            thread::sleep(GLANCE);
        }
    }

    /// Checks that nothing of a fault is left over soon after it.
    pub(crate) fn settle(&self, before: &Usage, report: &mut Report) -> Outcome {
        self.settle_within(SETTLED_IN, before, report)
    }

    /// The same, where the matrix allows another time.
    pub(crate) fn settle_within(&self, patience: Duration, before: &Usage, report: &mut Report) -> Outcome {
        let most = before.descriptors + POOLED;
        let drained = self.drained_to(most, patience)?;
        let left = self.usage()?.descriptors.saturating_sub(most);
        let criterion = format!("none after {} s", patience.as_secs());
        report.check("descriptors left over", left, criterion, drained.is_some());
        report.note("cleared up after", drained.map_or("never".to_owned(), |time| Millis(time).to_string()));
        report.note("memory afterwards", format!("{} (before {})", self.usage()?.memory, before.memory));
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Its state goes away with it: it need not end well. An error means that it has ended already.
        let _ = self.hub.kill();
        let _ = self.hub.wait();
    }
}
