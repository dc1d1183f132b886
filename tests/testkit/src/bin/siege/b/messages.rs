//! B3, B4, B5, B8: messages that are not acknowledged, and acknowledgements of none.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use devicebound::limits::MAILBOX_MAX;
use devicebound::packet::{PacketId, Publish, PublishQoS, TopicName};
use devicebound_testkit::interop::Device;
use devicebound_testkit::live::publish;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::{FLAT, IDLE, PAGES};
use crate::ground::Ground;
use crate::probe::Probe;
use crate::report::{Kib, Report};
use crate::wire::{Door, Heard, Hello, PINGREQ, Wire, all, puback, subscribe};
use crate::{Outcome, Siege, Trouble};

/// So many at a time send to a device.
const SENDERS: usize = 8;

fn cloud_filter(device: &Device) -> String {
    format!("devices/{}/messages/devicebound/#", device.id)
}

/// Sends to a device; the status.
fn send(ground: &Ground, device: &Device, body: &[u8]) -> Outcome<u16> {
    Ok(ground.service.try_post(&format!("/devices/{}/messages/deviceBound", device.id), body)?.0)
}

/// B3.
pub(crate) fn full_mailbox(siege: &Siege, report: &mut Report) -> Outcome {
    /// So large that those which were refused would show in the memory.
    const BODY: usize = 60_000;
    let ground = siege.ground()?;
    let device = ground.device("hoarder")?;
    let mut wire = ground.attackers.block_on(ground.door.online(Hello::of(&device)))?;
    ground.attackers.block_on(wire.subscribe(&cloud_filter(&device)))?;
    let probe = Probe::start(&ground)?;
    let offer = |count: usize| {
        let statuses = (0..count).map(|_| send(&ground, &device, &[b'.'; BODY]));
        let mut statuses = statuses.collect::<Outcome<Vec<_>>>()?;
        statuses.retain(|status| *status < 300);
        Ok::<_, Trouble>(statuses.len())
    };
    report.exactly("held of the first 51", offer(MAILBOX_MAX + 1)?, MAILBOX_MAX);
    let warm = ground.usage()?;
    let more = siege.scale.pick(500, 5000, 5000);
    report.exactly(format!("taken of {more} more"), offer(more)?, 0);
    report.memory("memory: growth by what was refused", ground.usage()?.memory.beyond(warm.memory), FLAT);
    let delivered = ground.attackers.block_on(async {
        for _ in 0..MAILBOX_MAX {
            match wire.expect().await? {
                Heard::Publish { packet_id: Some(_), .. } => {}
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
        Ok(MAILBOX_MAX)
    })?;
    report.exactly("delivered and waiting", delivered, MAILBOX_MAX);
    probe.unaffected(siege, report)
}

/// B4.
pub(crate) fn packet_ids(siege: &Siege, report: &mut Report) -> Outcome {
    const DEVICES: usize = 8;
    /// After so many messages the hub's memory is at its working size: its telemetry is full.
    const WARM: usize = 160_000;
    let ground = siege.ground()?;
    let devices = ground.register("round", DEVICES)?;
    let probe = Probe::start(&ground)?;
    let round = |count: usize| {
        let each = count / DEVICES;
        let attack = |device: Device| {
            let door = Arc::clone(&ground.door);
            async move { all_in_flight(&door, &device, each).await }
        };
        let acknowledged = ground.attackers.block_on(all(devices.iter().cloned().map(attack)))?;
        Ok::<usize, Trouble>(acknowledged.into_iter().sum::<io::Result<usize>>()?)
    };
    round(WARM)?;
    let warm = ground.usage()?;
    let begun = Instant::now();
    let count = siege.scale.pick(160_000, 2_000_000, 10_000_000);
    let acknowledged = round(count)?;
    let rate = acknowledged as f64 / begun.elapsed().as_secs_f64();
    report.exactly("to the hub: acknowledged in order, ids 1 to 65535 and again", acknowledged, count);
    report.note("to the hub: acknowledged a second", format!("{rate:.0}"));
    report.memory("memory: growth", ground.usage()?.memory.beyond(warm.memory), FLAT);
    probe.served(report)?;
    one_held(siege, &ground, report)
}

/// Writes PUBLISHes without waiting, with each packet id in turn; how many were acknowledged in order.
async fn all_in_flight(door: &Door, device: &Device, count: usize) -> io::Result<usize> {
    let wire = door.online(Hello { clean_session: true, ..Hello::of(device) }).await?;
    let (mut reader, mut writer) = wire.halves();
    let ids = || (1..=u16::MAX).cycle().take(count);
    let topic = device.telemetry_topic("");
    let write = async {
        let mut out = Vec::new();
        for id in ids() {
            out.extend(publish(&topic, id, b"21.5"));
            if out.len() > 32 * 1024 {
                writer.write_all(&out).await?;
                out.clear();
            }
        }
        writer.write_all(&out).await?;
        writer.flush().await
    };
    let read = async {
        let mut acknowledged = 0;
        for id in ids() {
            acknowledged += usize::from(reader.hear().await? == Some(Heard::PubAck(id)));
        }
        Ok(acknowledged)
    };
    let ((), acknowledged) = tokio::try_join!(write, read)?;
    Ok(acknowledged)
}

/// The other way: one message is held while so many others come and are acknowledged; its id is used by none of them.
fn one_held(siege: &Siege, ground: &Ground, report: &mut Report) -> Outcome {
    let count = siege.scale.pick(400, 2000, usize::from(u16::MAX) + 500);
    let device = ground.device("holder")?;
    let mut wire = ground.attackers.block_on(ground.door.online(Hello::of(&device)))?;
    ground.attackers.block_on(wire.subscribe(&cloud_filter(&device)))?;
    let sent = AtomicUsize::new(0);
    let heard = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                scope.spawn(|| {
                    while sent.fetch_add(1, Ordering::Relaxed) < count {
                        // The device is quick to acknowledge, but may not be quick enough.
                        while send(ground, &device, b"go")? == 403 {
                            thread::yield_now();
                        }
                    }
                    Ok::<_, Trouble>(())
                })
            })
            .collect();
        let heard = ground.attackers.block_on(hold_the_first(&mut wire, count));
        for sender in senders {
            sender.join().map_err(|_| "a sender broke down")??;
        }
        heard.map_err(Trouble::from)
    })?;
    report.exactly("to the device: with ids that are free, the first one held", heard, count - 1);
    Ok(())
}

/// Acknowledges all messages but the first; how many came with another id than that one's.
async fn hold_the_first(wire: &mut Wire, count: usize) -> io::Result<usize> {
    let mut held = None;
    let mut free = 0;
    for _ in 0..count {
        let heard = wire.expect().await?;
        let Heard::Publish { packet_id: Some(id), .. } = heard else {
            return Err(io::Error::other(format!("{heard:?}")));
        };
        match held {
            None => held = Some(id),
            Some(held) => {
                free += usize::from(id != held && id != 0);
                wire.send(&puback(id)).await?;
            }
        }
    }
    Ok(free)
}

/// B5.
pub(crate) fn strange_ids(siege: &Siege, report: &mut Report) -> Outcome {
    let ground = siege.ground()?;
    let device = ground.device("stubborn")?;
    let probe = Probe::start(&ground)?;
    let count = siege.scale.pick(20_000, 200_000, 200_000);
    ground.attackers.block_on(same_id(&ground.door, &device, 200_000))?;
    let warm = ground.usage()?;
    let acknowledged = ground.attackers.block_on(same_id(&ground.door, &device, count))?;
    report.exactly("acknowledged, all with one id, every other with DUP", acknowledged, count);
    let is_open = ground.attackers.block_on(async {
        let mut wire = ground.door.online(Hello::of(&device)).await?;
        let all: Vec<u8> = (1..=u16::MAX).flat_map(puback).collect();
        for _ in 0..count.div_ceil(usize::from(u16::MAX)) {
            wire.send(&all).await?;
        }
        wire.send(&PINGREQ).await?;
        Ok::<_, io::Error>(wire.expect().await? == Heard::PingResp)
    })?;
    report.check("connection after PUBACKs for all ids", open(is_open), "open", is_open);
    let completed = twice(&ground, &device)?;
    report.check(
        "of 2 messages, the first acknowledged twice",
        &completed,
        "the second comes again",
        completed == "second",
    );
    report.memory("memory: growth", ground.usage()?.memory.beyond(warm.memory), FLAT);
    probe.served(report)
}

const fn open(is_open: bool) -> &'static str {
    if is_open { "open" } else { "closed" }
}

async fn same_id(door: &Door, device: &Device, count: usize) -> io::Result<usize> {
    let wire = door.online(Hello::of(device)).await?;
    let (mut reader, mut writer) = wire.halves();
    let topic = device.telemetry_topic("");
    let packet = |dup| {
        let qos = PublishQoS::AtLeastOnce { packet_id: PacketId::MIN, dup };
        let topic = TopicName::new(&topic).map_err(|rule| io::Error::other(rule.says()))?;
        let mut out = Vec::new();
        Publish { qos, retain: false, topic, payload: b"again" }
            .encode(&mut out)
            .map_err(io::Error::other)?;
        Ok::<_, io::Error>(out)
    };
    let pair = [packet(false)?, packet(true)?].concat();
    let write = async {
        for _ in 0..count / 2 {
            writer.write_all(&pair).await?;
        }
        writer.flush().await
    };
    let read = async {
        let mut acknowledged = 0;
        for _ in 0..count {
            acknowledged += usize::from(reader.hear().await? == Some(Heard::PubAck(1)));
        }
        Ok(acknowledged)
    };
    let ((), acknowledged) = tokio::try_join!(write, read)?;
    Ok(acknowledged)
}

/// Two messages wait; the first is acknowledged twice. What comes again on the next connection.
fn twice(ground: &Ground, device: &Device) -> Outcome<String> {
    for body in [b"first".as_slice(), b"second"] {
        send(ground, device, body)?;
    }
    Ok(ground.attackers.block_on(async {
        let mut wire = ground.door.online(Hello::of(device)).await?;
        wire.send(&subscribe(1, &[&cloud_filter(device)])).await?;
        let mut first = None;
        // The SUBACK and two messages.
        for _ in 0..3 {
            if let Heard::Publish { packet_id: Some(id), .. } = wire.expect().await? {
                first = first.or(Some(id));
            }
        }
        let first = first.ok_or_else(|| io::Error::other("no message came"))?;
        wire.send(&puback(first).repeat(2)).await?;
        wire.send(&PINGREQ).await?;
        wire.expect().await?;
        drop(wire);
        let mut wire = ground.door.online(Hello::of(device)).await?;
        wire.send(&PINGREQ).await?;
        let mut again = Vec::new();
        loop {
            match wire.expect().await? {
                Heard::Publish { payload, .. } => again.push(String::from_utf8_lossy(&payload).into_owned()),
                Heard::PingResp if !again.is_empty() => return Ok::<_, io::Error>(again.join(", ")),
                // Answered before the session was there: ask again.
                Heard::PingResp => wire.send(&PINGREQ).await?,
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
    })?)
}

/// B8.
pub(crate) fn deaf(siege: &Siege, report: &mut Report) -> Outcome {
    const BODY: usize = 60_000;
    const CALLS: usize = 4;
    /// What the hub may have ready for a device that does not read.
    const READY: Kib = Kib(256);
    /// So many that what they take stands out from [`PAGES`].
    const DEVICES: usize = 20;
    let ground = siege.ground()?;
    let keep_alive = siege.scale.pick(4, 20, 20);
    let devices = ground.register("deaf", DEVICES)?;
    thread::scope(|scope| {
        let senders: Vec<_> = devices
            .iter()
            .map(|device| {
                let ground = &ground;
                scope.spawn(move || {
                    (0..MAILBOX_MAX).try_for_each(|_| send(ground, device, &[b'.'; BODY]).map(drop))
                })
            })
            .collect();
        senders.into_iter().try_for_each(|sender| sender.join().map_err(|_| "a sender broke down")?)
    })?;
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let hello = |device: &Device| Hello { keep_alive, ..Hello::of(device) }.packet();
    let wires = devices.iter().map(|device| {
        let (door, hello) = (Arc::clone(&ground.door), hello(device));
        let filters = subscribe(1, &["$iothub/methods/POST/#", &cloud_filter(device)]);
        async move { stop_reading(&door, &hello, &filters).await }
    });
    let wires = ground.attackers.block_on(all(wires))?;
    let wires = wires.into_iter().collect::<io::Result<Vec<_>>>()?;
    let begun = Instant::now();
    for device in &devices {
        (0..CALLS).for_each(|_| call(&ground, device));
    }
    let patience = Duration::from_secs(u64::from(keep_alive) * 3 / 2);
    thread::sleep(patience / 2);
    let during = ground.usage()?;
    // The calls are requests of the service, which have connections of their own, for 5 seconds.
    let own = during.memory.beyond(before.memory);
    report.memory(
        format!("memory: growth by {DEVICES} with 50 messages of {BODY} bytes"),
        own,
        PAGES.plus((IDLE.0 + READY.0) * DEVICES as u64 + CALL_MEMORY.0 * (CALLS * DEVICES) as u64),
    );
    let (first, last) = closed_after(&ground, &wires, begun)?;
    let exact = first + PARTING >= patience && last <= patience + PARTING + siege.within(PARTING);
    let measured = format!("{:.1} to {:.1} s", first.as_secs_f64(), last.as_secs_f64());
    let criterion = format!("{} s, ± 1 s to part", patience.as_secs());
    report.check("closed after", measured, criterion, exact);
    probe.unaffected(siege, report)?;
    ground.settle(&before, report)
}

/// A request of the service that waits, with its connection over TLS.
const CALL_MEMORY: Kib = Kib(64);
/// So long the hub tries to write its last bytes.
const PARTING: Duration = Duration::from_secs(1);

/// A method call whose outcome nobody waits for.
fn call(ground: &Ground, device: &Device) {
    let (service, path) = (ground.service.clone(), format!("/twins/{}/methods", device.id));
    let body = json!({"methodName": "wake", "payload": {}, "responseTimeoutInSeconds": 5}).to_string();
    thread::spawn(move || service.try_post(&path, body.as_bytes()));
}

/// Connects with the smallest window, asks for all, and reads no more than CONNACK.
async fn stop_reading(door: &Door, hello: &[u8], filters: &[u8]) -> io::Result<Wire> {
    let socket = door.socket()?;
    socket.set_recv_buffer_size(4096)?;
    let mut wire = door.secure(socket.connect(door.address()).await?).await?;
    wire.send(hello).await?;
    wire.expect().await?;
    wire.send(filters).await?;
    Ok(wire)
}

/// When the hub gave the first and the last of these up. Nothing is read, so that the end reaches no device: the system's
/// table of sockets tells.
fn closed_after(ground: &Ground, wires: &[Wire], begun: Instant) -> Outcome<(Duration, Duration)> {
    /// So often the table is looked at.
    const GLANCE: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(60);
    let port = |wire: &Wire| wire.socket.get_ref().0.local_addr().map(|address| address.port());
    let ports = wires.iter().map(port).collect::<io::Result<BTreeSet<u16>>>()?;
    let (mut first, mut now) = (None, Duration::ZERO);
    while now < PATIENCE {
        let open = established(ground.door.address().port(), &ports)?;
        now = begun.elapsed();
        if open < ports.len() {
            first = first.or(Some(now));
        }
        if open == 0 {
            break;
        }
        thread::sleep(GLANCE);
    }
    Ok((first.unwrap_or(now), now))
}

/// How many sockets on this port are established to one of these.
fn established(port: u16, peers: &BTreeSet<u16>) -> Outcome<usize> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp")?;
    let port_of = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, peer) = (fields.next().and_then(port_of), fields.next().and_then(port_of));
        local == Some(port)
            && peer.is_some_and(|peer| peers.contains(&peer))
            && fields.next() == Some(ESTABLISHED)
    };
    Ok(table.lines().filter(is_one).count())
}
