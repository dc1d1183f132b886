//! E: the hub's machine.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use devicebound_testkit::interop::Device;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::ground::Ground;
use crate::probe::Probe;
use crate::report::{Kib, Millis, Report, Times};
use crate::wire::{DISCONNECT, Door, Heard, Hello, PINGREQ, Wire, all, puback, timed};
use crate::{Outcome, Siege, Trouble};

/// E9.
pub(crate) fn takeovers(siege: &Siege, report: &mut Report) -> Outcome {
    const QUEUED: usize = 20;
    /// A hundred a second.
    const PACE: Duration = Duration::from_millis(10);
    /// What ends is told within this.
    const AT_ONCE: Duration = Duration::from_secs(1);
    let ground = siege.ground()?;
    let device = Arc::new(ground.device("two")?);
    let filter = format!("devices/{}/messages/devicebound/#", device.id);
    ground
        .attackers
        .block_on(async { ground.door.online(Hello::of(&device)).await?.subscribe(&filter).await })?;
    for number in 0..QUEUED {
        let path = format!("/devices/{}/messages/deviceBound", device.id);
        ground.service.try_post(&path, number.to_string().as_bytes())?;
    }
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let count = siege.scale.pick(200, 3000, 3000);
    let begun = Instant::now();
    let (losers, mut winner) = ground.attackers.block_on(async {
        let mut losers = Vec::with_capacity(count);
        let mut last: Option<Wire> = None;
        for number in 0..count {
            let wire = take_over(&ground.door, &device, number).await?;
            if let Some(mut loser) = last.replace(wire) {
                losers.push(tokio::spawn(async move { timed(timeout(AT_ONCE, loser.end())).await }));
            }
            sleep((PACE * number as u32).saturating_sub(begun.elapsed())).await;
        }
        let mut ended = Vec::with_capacity(losers.len());
        for loser in losers {
            ended.push(loser.await?);
        }
        Ok::<_, Trouble>((ended, last))
    })?;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    // One that does not win ends the row with an error.
    report.check("connections that won", format!("{count}, {rate:.0} a second"), "all", true);
    let mut ends: Times = losers.iter().filter(|(_, end)| end.is_ok()).map(|(time, _)| *time).collect();
    report.exactly("connections that lost, closed", ends.len(), count - 1);
    report.note(
        "closed after, median and longest",
        format!("{}, {}", Millis(ends.median()), Millis(ends.longest())),
    );
    let winner = winner.as_mut().ok_or("there is no winner")?;
    let kept = ground.attackers.block_on(take_messages(winner, QUEUED))?;
    report.exactly("cloud messages in flight all the while, kept", kept, QUEUED);
    let wills = wills(&ground, &device.id)?;
    report.exactly("wills sent more than once", wills.values().filter(|times| **times > 1).count(), 0);
    report.check("wills sent", wills.len(), format!("at most {}", count - 1), wills.len() < count);
    ground.attackers.block_on(winner.send(&DISCONNECT))?;
    probe.unaffected(siege, report)?;
    ground.settle(&before, report)
}

/// A connection that wins over the one before; its will is its number.
async fn take_over(door: &Door, device: &Device, number: usize) -> io::Result<Wire> {
    let will = number.to_string();
    door.online(Hello { will: Some(&will), ..Hello::of(device) }).await
}

/// Acknowledges what comes; how many different messages came.
async fn take_messages(wire: &mut Wire, count: usize) -> io::Result<usize> {
    let mut bodies = std::collections::BTreeSet::new();
    while bodies.len() < count {
        let Heard::Publish { packet_id: Some(id), payload, .. } = wire.expect().await? else { continue };
        bodies.insert(payload);
        wire.send(&puback(id)).await?;
    }
    Ok(bodies.len())
}

/// How often each will was stored.
fn wills(ground: &Ground, device_id: &str) -> Outcome<HashMap<Vec<u8>, usize>> {
    let mut wills = HashMap::new();
    for message in ground.service.stored_telemetry() {
        let is_will = message.properties.get("iothub-MessageType").and_then(Value::as_str) == Some("Will");
        if is_will && message.device_id == device_id {
            *wills.entry(message.body).or_default() += 1;
        }
    }
    Ok(wills)
}

/// E10.
pub(crate) fn idle(siege: &Siege, report: &mut Report) -> Outcome {
    const PING_P99: Duration = Duration::from_millis(100);
    const EACH: Kib = Kib(32);
    /// So much longer than its keep alive a device that is gone may stay.
    const EXACTLY: Duration = Duration::from_secs(1);
    let ground = siege.ground()?;
    let count = siege.scale.pick(300, 5000, 15_000);
    let keep_alive = siege.scale.pick(6, 40, 60);
    let time = siege.scale.pick(Duration::from_secs(8), Duration::from_secs(60), Duration::from_secs(600));
    let devices = ground.register("idle", count)?;
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let begun = Instant::now();
    let wires = devices.into_iter().map(|device| {
        let door = Arc::clone(&ground.door);
        async move { door.online(Hello { keep_alive, ..Hello::of(&device) }).await }
    });
    let wires = ground.attackers.block_on(all(wires))?.into_iter().collect::<io::Result<Vec<_>>>()?;
    let ramp = begun.elapsed();
    report.note(format!("{count} online after"), format!("{:.1} s", ramp.as_secs_f64()));
    let online = ground.usage()?;
    let end = Instant::now() + time;
    let gone = count / 10;
    let lives: Vec<_> = wires
        .into_iter()
        .enumerate()
        .map(|(number, wire)| {
            // Every tenth is silent at the end: its socket stays open, so that no FIN tells.
            let is_gone = number < gone * 10 && number.is_multiple_of(10);
            let phase =
                Duration::from_secs(u64::from(keep_alive)).mul_f64(0.5 * number as f64 / count as f64);
            ground.attackers.spawn(live(wire, keep_alive, phase, end, is_gone))
        })
        .collect();
    thread::sleep(end.saturating_duration_since(Instant::now()));
    let idle = ground.usage()?;
    let cpu = idle.cpu.saturating_sub(online.cpu).as_secs_f64() * 100.0 / time.as_secs_f64();
    let lived: Outcome<Vec<io::Result<Life>>> = ground.attackers.block_on(async {
        let mut lived = Vec::with_capacity(count);
        for life in lives {
            lived.push(life.await?);
        }
        Ok(lived)
    });
    let lived = lived?.into_iter().collect::<io::Result<Vec<_>>>()?;
    let mut pings: Times = lived.iter().flat_map(|life| &life.pings).copied().collect();
    let mut cleared: Times = lived.iter().filter_map(|life| life.cleared).collect();
    let each = idle.memory.beyond(before.memory).0 as f64 / count as f64;
    let measured = format!("{each:.1} KiB");
    report.check(
        "memory of each idle connection",
        measured,
        format!("at most {EACH}"),
        each <= EACH.0 as f64,
    );
    report.at_most(format!("{} pings: p99", pings.len()), pings.at(0.99), siege.within(PING_P99));
    report.note("pings: median, longest", format!("{}, {}", Millis(pings.median()), Millis(pings.longest())));
    report.note("CPU of the hub meanwhile, of a core", format!("{cpu:.1} %"));
    report.exactly("silent connections cleared", cleared.len(), gone);
    let patience = Duration::from_secs(u64::from(keep_alive) * 3 / 2);
    let (shortest, longest) = (cleared.shortest(), cleared.longest());
    let exact = shortest + EXACTLY >= patience && longest <= patience + EXACTLY;
    let measured = format!("{:.2} to {:.2} s", shortest.as_secs_f64(), longest.as_secs_f64());
    report.check("cleared after", measured, format!("{} s ± 1 s of silence", patience.as_secs()), exact);
    probe.unaffected(siege, report)?;
    ground.settle(&before, report)
}

/// What came of an idle connection.
#[derive(Debug, Default)]
struct Life {
    pings: Vec<Duration>,
    /// How long it was silent until the hub closed it.
    cleared: Option<Duration>,
}

/// Pings twice in a keep alive until `end`. Then it leaves in order, or is silent until the hub has had enough.
async fn live(
    mut wire: Wire,
    keep_alive: u16,
    phase: Duration,
    end: Instant,
    is_gone: bool,
) -> io::Result<Life> {
    let mut life = Life::default();
    let pause = Duration::from_secs(u64::from(keep_alive)) / 2;
    let mut last = Instant::now();
    sleep(phase).await;
    while Instant::now() < end {
        let (time, heard) = timed(async {
            wire.send(&PINGREQ).await?;
            last = Instant::now();
            wire.expect().await
        })
        .await;
        heard?;
        life.pings.push(time);
        sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
    }
    if is_gone {
        wire.end().await;
        life.cleared = Some(last.elapsed());
    }
    Ok(life)
}
