//! B1, B2, B9: more than any device has to say.

use std::io::{self, BufRead as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use devicebound_testkit::interop::Device;
use devicebound_testkit::live::publish;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::{FLAT, IDLE};
use crate::ground::{CACHE, Ground};
use crate::probe::Probe;
use crate::report::{Kib, Report};
use crate::wire::{Door, Heard, Hello, PINGREQ, all, publish_once, subscribe};
use crate::{Outcome, Siege};

/// What is on its way to the store, for each worker: 16 MiB that gather, and as much that was handed over.
const ON_THE_WAY: Kib = Kib::mib(2 * 16);
/// Packets in one write.
const BATCH: u16 = 64;

/// B1.
pub(crate) fn flood(siege: &Siege, report: &mut Report) -> Outcome {
    const DEVICES: usize = 100;
    let ground = siege.ground()?;
    let devices = ground.register("flood", DEVICES)?;
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    read_slowly(&ground);
    let end = Instant::now() + siege.scale.pick(Duration::from_secs(4), FLOOD_TIME, FLOOD_TIME);
    let attack = |(number, device): (usize, Device)| {
        let door = Arc::clone(&ground.door);
        let batch = if number.is_multiple_of(2) { once(&device) } else { at_least_once(&device) };
        async move { pour(&door, &device, &batch, end).await }
    };
    let poured = ground.attackers.block_on(all(devices.into_iter().enumerate().map(attack)))?;
    let poured = poured.into_iter().collect::<io::Result<Vec<_>>>()?;
    probe.served(report)?;
    let seconds = siege.scale.pick(4, FLOOD_TIME.as_secs(), FLOOD_TIME.as_secs());
    let sum = |of: fn(&Poured) -> u64| poured.iter().map(of).sum::<u64>() / seconds;
    let written = sum(|poured| poured.batches) * u64::from(BATCH);
    report.note("packets written to sockets a second", written);
    report.note("QoS 1 acknowledged a second", sum(|poured| poured.read) / 4);
    let workers = thread::available_parallelism()?.get() as u64;
    let queues = Kib(ON_THE_WAY.0 * workers + CACHE.0);
    let bound = before.memory.plus(queues.0 + IDLE.0 * DEVICES as u64);
    let what = format!("peak memory: {queues} of queues, {IDLE} each");
    report.memory(what, ground.usage()?.peak, bound);
    // What the system has taken for the hub is dealt with first: megabytes for each socket.
    ground.settle_within(DRAINED_IN, &before, report)
}

const DRAINED_IN: Duration = Duration::from_secs(60);
const FLOOD_TIME: Duration = Duration::from_secs(30);

fn once(device: &Device) -> Vec<u8> {
    publish_once(&device.telemetry_topic(""), &[b'.'; 128]).repeat(BATCH.into())
}

fn at_least_once(device: &Device) -> Vec<u8> {
    let topic = device.telemetry_topic("");
    (1..=BATCH).flat_map(|packet_id| publish(&topic, packet_id, &[b'.'; 128])).collect()
}

/// A back end that takes a hundred messages a second. It ends with the hub.
fn read_slowly(ground: &Ground) {
    const PAUSE: Duration = Duration::from_millis(10);
    let service = ground.service.clone();
    thread::spawn(move || {
        let mut lines = service.read("/messages/events?after=0").lines();
        while lines.next().is_some_and(|line| line.is_ok()) {
            thread::sleep(PAUSE);
        }
    });
}

/// What went through one connection.
#[derive(Debug, Default)]
struct Poured {
    batches: u64,
    /// Bytes.
    read: u64,
}

/// Writes the same again and again, as fast as it is taken, and reads what is answered.
async fn pour(door: &Door, device: &Device, batch: &[u8], end: Instant) -> io::Result<Poured> {
    let wire = door.online(Hello { clean_session: true, ..Hello::of(device) }).await?;
    let (mut reader, mut writer) = wire.halves();
    let mut poured = Poured::default();
    let write = async {
        while let Ok(written) = timeout_at(end, writer.write_all(batch)).await {
            written?;
            poured.batches += 1;
        }
        Ok::<_, io::Error>(())
    };
    let read = async {
        let mut buffer = vec![0; 16 * 1024];
        let mut sum = 0;
        while let Ok(read) = timeout_at(end, reader.socket.read(&mut buffer)).await {
            match read? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => sum += length as u64,
            }
        }
        Ok(sum)
    };
    let ((), read) = tokio::try_join!(write, read)?;
    Ok(Poured { read, ..poured })
}

/// B2.
pub(crate) fn subscriptions(siege: &Siege, report: &mut Report) -> Outcome {
    /// As many as the hub takes in one packet.
    const TAKEN: usize = 32;
    const REFUSED: usize = 100;
    let ground = siege.ground()?;
    let device = ground.device("subscriber")?;
    let probe = Probe::start(&ground)?;
    let filters = known_filters(&device);
    let known = |count: usize| filters.iter().cycle().take(count).map(String::as_str).collect::<Vec<_>>();
    let unknown: Vec<String> = (0..REFUSED).map(|number| format!("unknown/{number}/#")).collect();
    let unknown: Vec<_> = unknown.iter().map(String::as_str).collect();
    let rounds = siege.scale.pick(1000, 10_000, 10_000);
    ground.attackers.block_on(subscribe_again(&ground.door, &device, &known(TAKEN), 100))?;
    let warm = ground.usage()?;
    let answered =
        ground.attackers.block_on(subscribe_again(&ground.door, &device, &known(TAKEN), rounds))?;
    report.exactly(
        format!("of {rounds} SUBSCRIBEs of {TAKEN} known filters answered in order"),
        answered,
        rounds,
    );
    let rounds = rounds / 10;
    for (what, filters) in [("known", known(REFUSED)), ("unknown", unknown)] {
        let mut closed = 0;
        for _ in 0..rounds {
            closed += ground.attackers.block_on(async {
                let mut wire = ground.door.online(Hello::of(&device)).await?;
                wire.send(&subscribe(1, &filters)).await?;
                Ok::<_, io::Error>(usize::from(wire.hear().await?.is_none()))
            })?;
        }
        report.exactly(format!("closed after a SUBSCRIBE of {REFUSED} {what} filters"), closed, rounds);
    }
    report.memory("memory: growth", ground.usage()?.memory.beyond(warm.memory), FLAT);
    probe.unaffected(siege, report)?;
    ground.settle(&warm, report)
}

fn known_filters(device: &Device) -> Vec<String> {
    vec![
        format!("devices/{}/messages/devicebound/#", device.id),
        "$iothub/methods/POST/#".to_owned(),
        "$iothub/twin/res/#".to_owned(),
        "$iothub/twin/PATCH/properties/desired/#".to_owned(),
        format!("devices/+/messages/devicebound/#"),
    ]
}

/// Sends so many without waiting; how many were answered in their order.
async fn subscribe_again(door: &Door, device: &Device, filters: &[&str], count: usize) -> io::Result<usize> {
    let wire = door.online(Hello::of(device)).await?;
    let (mut reader, mut writer) = wire.halves();
    let ids = || (1..=u16::MAX).cycle().take(count);
    let write = async {
        for id in ids() {
            writer.write_all(&subscribe(id, filters)).await?;
        }
        writer.flush().await
    };
    let read = async {
        let mut answered = 0;
        for id in ids() {
            answered += usize::from(reader.hear().await? == Some(Heard::SubAck(id)));
        }
        Ok(answered)
    };
    let ((), answered) = tokio::try_join!(write, read)?;
    Ok(answered)
}

/// B9.
pub(crate) fn pings(siege: &Siege, report: &mut Report) -> Outcome {
    /// Of each kind.
    const DEVICES: usize = 2;
    const TIME: Duration = Duration::from_secs(10);
    /// What the hub has ready for a device at most: twice its high-water mark of 128 KiB.
    const READY: Kib = Kib(256);
    let ground = siege.ground()?;
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let time = siege.scale.pick(Duration::from_secs(2), TIME, TIME);
    // Full segments, in 64 KiB, and single bytes.
    for (what, bytes) in [("64 KiB", PINGREQ.repeat(32 * 1024)), ("2 bytes", PINGREQ.to_vec())] {
        let devices = ground.register(&format!("ping-{}", bytes.len()), DEVICES)?;
        let end = Instant::now() + time;
        let attack = |device: Device| {
            let (door, bytes) = (Arc::clone(&ground.door), bytes.clone());
            async move { pour(&door, &device, &bytes, end).await }
        };
        let poured = ground.attackers.block_on(all(devices.into_iter().map(attack)))?;
        let poured = poured.into_iter().collect::<io::Result<Vec<_>>>()?;
        let answered = poured.iter().map(|poured| poured.read / 2).sum::<u64>() as f64 / time.as_secs_f64();
        report.note(format!("PINGRESPs a second, PINGREQs in writes of {what}"), format!("{answered:.0}"));
    }
    single_bytes(&ground, time, report)?;
    let deaf = ground.register("deaf", DEVICES)?;
    let attack = |device: Device| {
        let door = Arc::clone(&ground.door);
        async move { ping_unread(&door, &device, time).await }
    };
    let written = ground.attackers.block_on(all(deaf.into_iter().map(attack)))?;
    let written = written.into_iter().sum::<io::Result<u64>>()?;
    report.note("PINGREQs written by who reads no answer", written);
    probe.served(report)?;
    let bound = before.memory.plus((IDLE.0 + READY.0) * 4 * DEVICES as u64 + FLAT.0);
    report.memory(format!("peak memory: {IDLE} and {READY} each"), ground.usage()?.peak, bound);
    ground.settle(&before, report)
}

/// One device whose every byte is a segment, and a TLS record, of its own: each PINGREQ is answered.
fn single_bytes(ground: &Ground, time: Duration, report: &mut Report) -> Outcome {
    let device = ground.device("single-bytes")?;
    let (asked, answered) = ground.attackers.block_on(async {
        let mut wire = ground.door.online(Hello::of(&device)).await?;
        let end = Instant::now() + time;
        let (mut asked, mut answered) = (0, 0);
        while Instant::now() < end {
            for byte in PINGREQ {
                wire.send(&[byte]).await?;
            }
            asked += 1;
            answered += usize::from(wire.expect().await? == Heard::PingResp);
        }
        Ok::<_, io::Error>((asked, answered))
    })?;
    report.exactly("PINGREQs in segments of one byte answered", answered, asked);
    Ok(())
}

/// Floods and reads nothing, until nothing is taken any more; how many were written.
async fn ping_unread(door: &Door, device: &Device, time: Duration) -> io::Result<u64> {
    let mut wire = door.online(Hello::of(device)).await?;
    let end = Instant::now() + time;
    let mut written = 0;
    let batch = PINGREQ.repeat(1024);
    while let Ok(sent) = timeout_at(end, wire.send(&batch)).await {
        sent?;
        written += 1024;
    }
    // Still there until the time is over: the memory that it takes is taken.
    tokio::time::sleep_until(end).await;
    Ok(written)
}
