//! The rounds: load, kill, start, audit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::RwLockWriteGuard;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::audit::Audit;
use super::back_end::BackEnd;
use super::device::KillDevice;
use super::ledger::{Ledger, Violation, violation};
use super::process::Process;
use super::shared::{Account, RunningHub};
use super::{Load, Options, STOP_TIME, Shared, Summary};
use crate::interop::hub::{Ready, primary_key};
use devicebound_world::{Entropy as _, Seeded};

/// Who sends cloud messages and desired properties; each looks after its share of the devices.
const BACK_ENDS: usize = 4;
/// By then everybody has noticed that the hub is gone, or all that was begun has come to its end.
const REST_TIME: Duration = Duration::from_secs(60);
/// The load lasts for 2 to the power of a number between these milliseconds, and up to twice as long.
const LOAD_POWERS: (u32, u32) = (3, 10);
/// One hub in so many is asked to stop (SIGTERM) instead, under the same load: row E7.
const ASKED: u32 = 6;
/// One start in so many is killed itself.
const KILLED_START: u32 = 5;
/// It is killed within so many milliseconds.
const KILLED_START_MS: u32 = 120;

type HubGuard<'s> = RwLockWriteGuard<'s, Option<RunningHub>>;

/// A run of rounds.
struct Rounds<'r, S> {
    options: &'r Options,
    folder: &'r Path,
    shared: &'r Arc<Shared>,
    accounts: Vec<Account>,
    audit: Audit,
    tasks: JoinSet<Result<(), Violation>>,
    choices: Seeded,
    start_times: Vec<Duration>,
    stop_times: Vec<Duration>,
    say: S,
}

/// Runs; `kills` counts them.
pub(super) async fn run(
    options: &Options,
    folder: &Path,
    kills: &mut u64,
    mut say: impl FnMut(&str),
) -> Result<Summary, Violation> {
    let process = Process::start(&options.program, &state(folder)).map_err(told)?;
    let (ready, took) = process.ready().map_err(told)?;
    say(&format!("ready for the first time after {took:.0?}; state folder: {}", state(folder).display()));
    let (ready, service) = Ready::read(&ready);
    let hub = RunningHub { mqtt_port: ready.mqtt.port(), service };
    let shared = Arc::new(Shared::new(hub, ready.ca));
    let mut rounds = Rounds {
        options,
        folder,
        shared: &shared,
        accounts: Vec::new(),
        audit: Audit::default(),
        tasks: JoinSet::new(),
        choices: Seeded::new(options.seed),
        start_times: Vec::new(),
        stop_times: Vec::new(),
        say,
    };
    rounds.populate().await?;
    let process = rounds.kill_and_check(process, kills).await?;
    let process = rounds.stop_and_check(process).await?;
    let state_bytes = size(&state(folder)).map_err(told)?;
    rounds.try_alarm(process).await?;
    let load = rounds.load();
    let losses = shared.losses().iter().map(|(why, count)| format!("\n  {count} × {why}")).collect();
    let Rounds { start_times, stop_times, .. } = rounds;
    let start_time = options.start_time;
    Ok(Summary { kills: *kills, start_times, start_time, stop_times, state_bytes, load, losses })
}

fn told(error: io::Error) -> Violation {
    Violation(error.to_string())
}

fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}

impl<'r, S: FnMut(&str)> Rounds<'r, S> {
    fn tell(&mut self, what: &str) {
        (self.say)(what);
    }

    /// Registers the devices and lets everybody begin as soon as the hub is free.
    async fn populate(&mut self) -> Result<(), Violation> {
        let hub = self.shared.hub.write().await;
        let Some(running) = &*hub else { return violation("no hub") };
        for index in 0..self.options.devices {
            let device_id = format!("kill-{index}");
            let identity =
                running.service.put(&format!("/devices/{device_id}"), &json!({"deviceId": device_id}));
            let key = primary_key(&identity).to_base64();
            let connection_string = format!("HostName=localhost;DeviceId={device_id};SharedAccessKey={key}");
            let account = Account::new(Ledger::new(&device_id, self.shared.start));
            let choices = Seeded::new(self.choices.between(0, u32::MAX).into());
            let device = KillDevice::new(self.shared, account.clone(), &connection_string, choices);
            self.tasks.spawn(device.map_err(|error| Violation(error.to_string()))?.run());
            self.accounts.push(account);
        }
        for index in 0..BACK_ENDS {
            let share = self.accounts.iter().skip(index).step_by(BACK_ENDS).cloned().collect();
            let choices = Seeded::new(self.choices.between(0, u32::MAX).into());
            self.tasks.spawn(BackEnd::new(self.shared, share, choices).run());
        }
        self.audit = Audit::new(&self.accounts);
        Ok(())
    }

    /// Kills as often as it is to; gives the hub that runs then.
    async fn kill_and_check(&mut self, process: Process, kills: &mut u64) -> Result<Process, Violation> {
        let mut process = process;
        while self.options.times.is_none_or(|times| *kills < times) {
            let power = self.choices.between(LOAD_POWERS.0, LOAD_POWERS.1);
            let load_time = Duration::from_millis(((1 << power) + self.choices.below(1 << power)).into());
            self.hold(load_time).await?;
            let is_asked = self.choices.one_in(ASKED);
            if is_asked {
                self.stop_times.push(stop(process)?);
            } else {
                process.kill().map_err(told)?;
                *kills += 1;
            }
            let mut hub = self.everybody_has_noticed().await?;
            let sent = self.load().telemetry;
            if self.options.times == Some(*kills) {
                copy(&state(self.folder), &self.folder.join("before")).map_err(told)?;
            }
            let killed_start = self.choices.one_in(KILLED_START);
            if killed_start {
                let start = Process::start(&self.options.program, &state(self.folder)).map_err(told)?;
                sleep(Duration::from_millis(self.choices.below(KILLED_START_MS).into())).await;
                start.kill().map_err(told)?;
            }
            let took;
            (process, took) = self.start_and_check(&mut hub)?;
            self.tell(&format!(
                "{kills:4} {} after {load_time:.0?} of load{}, {sent} messages sent: ready after {took:.0?}, {} stored",
                if is_asked { "SIGTERM" } else { "SIGKILL" },
                if killed_start { " and SIGKILL in the start" } else { "" },
                self.audit.stored(),
            ));
        }
        Ok(process)
    }

    /// Lets the load run dry, asks the hub to stop, and starts it once more: there is nothing in doubt any more.
    async fn stop_and_check(&mut self, process: Process) -> Result<Process, Violation> {
        self.shared.drain();
        let deadline = Instant::now() + REST_TIME;
        while let Some(busy) = self.accounts.iter().find(|account| !account.lock().is_at_rest()) {
            if Instant::now() > deadline {
                return Err(busy.accuse(&Violation(format!("not at rest after {REST_TIME:?}"))));
            }
            self.hold(Duration::from_millis(20)).await?;
        }
        self.stop_times.push(stop(process)?);
        let mut hub = self.everybody_has_noticed().await?;
        let (process, _) = self.start_and_check(&mut hub)?;
        for account in &self.accounts {
            let waiting = account.lock().cloud.waiting_max();
            if waiting > 0 {
                return Err(
                    account.accuse(&Violation(format!("{waiting} cloud messages wait that were completed")))
                );
            }
        }
        let Some(running) = &*hub else { return violation("no hub") };
        self.audit.read_all_again(&running.service)?;
        Ok(process)
    }

    /// Puts the state folder back to where it was at the last kill: if that passes, all that has passed means nothing.
    async fn try_alarm(&mut self, process: Process) -> Result<(), Violation> {
        process.kill().map_err(told)?;
        let mut hub = self.everybody_has_noticed().await?;
        let (state, before) = (state(self.folder), self.folder.join("before"));
        if !before.exists() {
            return Ok(());
        }
        fs::rename(&state, self.folder.join("after")).map_err(told)?;
        fs::rename(&before, &state).map_err(told)?;
        if self.start_and_check(&mut hub).is_ok() {
            return violation(
                "the state folder was set back, and that passed: the audit does not see what is missing",
            );
        }
        self.tell("the state folder was set back, and that was noticed");
        *hub = None;
        Ok(())
    }

    /// Lets everybody work for so long.
    async fn hold(&mut self, time: Duration) -> Result<(), Violation> {
        tokio::select! {
            () = sleep(time) => Ok(()),
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(Err(what)) => Err(what),
                Ok(Ok(())) => violation("a task has ended although there is a hub"),
                Err(panic) => violation(panic.to_string()),
            },
        }
    }

    /// Waits until whoever talked to the hub knows that it is gone; nobody goes on while the guard lives.
    async fn everybody_has_noticed(&self) -> Result<HubGuard<'r>, Violation> {
        match timeout(REST_TIME, self.shared.hub.write()).await {
            Ok(hub) => Ok(hub),
            Err(_) => violation(format!("somebody still talks to the hub {REST_TIME:?} after its end")),
        }
    }

    /// Starts the hub again and compares what it shows with what was acknowledged.
    fn start_and_check(&mut self, hub: &mut HubGuard<'_>) -> Result<(Process, Duration), Violation> {
        let process = Process::start(&self.options.program, &state(self.folder)).map_err(told)?;
        let (ready, took) = process.ready().map_err(told)?;
        self.start_times.push(took);
        let most = self.options.start_time;
        if took > most {
            return violation(format!("the hub was ready after {took:.1?}, not within {most:?}"));
        }
        let (ready, service) = Ready::read(&ready);
        self.audit.check(&ready, &service)?;
        **hub = Some(RunningHub { mqtt_port: ready.mqtt.port(), service });
        Ok((process, took))
    }

    fn load(&self) -> Load {
        let mut load = Load { repeated: self.audit.repeated(), ..Load::default() };
        for account in &self.accounts {
            let ledger = account.lock();
            load.telemetry += ledger.telemetry.sent();
            load.cloud_messages += ledger.cloud.sent();
            load.changes += ledger.reported.changes() + ledger.desired.changes();
        }
        load
    }
}

/// Asks a hub to stop; gives how long that took.
fn stop(process: Process) -> Result<Duration, Violation> {
    let (status, took) = process.stop().map_err(told)?;
    if !status.success() || took > STOP_TIME {
        return violation(format!("asked to stop, the hub ended with {status} after {took:.1?}"));
    }
    Ok(took)
}

/// Bytes of all files in a folder.
fn size(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size +=
            if entry.file_type()?.is_dir() { self::size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
