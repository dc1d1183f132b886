//! C: the byte stream.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use devicebound_testkit::interop::Device;
use devicebound_testkit::live::publish;
use devicebound_world::vectors;
use tokio::runtime;
use tokio::time::{interval, timeout};

use crate::ground::{CACHE, Ground};
use crate::probe::Probe;
use crate::report::{Kib, Millis, Report, Times};
use crate::wire::{Door, Hello, all, timed};
use crate::{Outcome, Siege, Trouble};

/// What an invalid packet may take to be the end of its connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Packets that end the connection of a device, with their names.
fn invalid_packets() -> Vec<(String, Vec<u8>)> {
    let mut cases = vectors::load("packets_invalid");
    // Those from a server that no device may send either are among the others.
    cases.retain(|case| case["from"] != "server" && case["expect"] != "incomplete");
    cases.iter().map(|case| (vectors::name(case).to_owned(), vectors::bytes(case))).collect()
}

/// C3.
pub(crate) fn malformed(siege: &Siege, report: &mut Report) -> Outcome {
    /// Connections at a time.
    const AT_ONCE: usize = 64;
    const GROWTH: Kib = CACHE.plus(4 * 1024);
    let ground = siege.ground()?;
    let packets = Arc::new(invalid_packets());
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let attack = |count: usize| {
        let next = Arc::new(AtomicUsize::new(0));
        let attack = |_| {
            let (door, packets, next) = (Arc::clone(&ground.door), Arc::clone(&packets), Arc::clone(&next));
            async move {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < count
                {
                    let (_, packet) = &packets[number % packets.len()];
                    let mut wire = door.open().await?;
                    // Closed before it has heard all, perhaps.
                    let _ = wire.send(packet).await;
                    let _: Vec<u8> = timeout(PATIENCE, wire.end()).await?;
                }
                Ok::<_, io::Error>(())
            }
        };
        let ended = ground.attackers.block_on(all((0..AT_ONCE).map(attack)))?;
        ended.into_iter().collect::<io::Result<()>>()?;
        Ok::<_, Trouble>(())
    };
    // After so many the hub's memory is at its working size: the operations that it keeps, ten thousand, are all there.
    attack(siege.scale.pick(1000, 12_000, 12_000))?;
    let warm = ground.usage()?;
    let begun = Instant::now();
    let count = siege.scale.pick(2000, 20_000, 10_000_000);
    attack(count)?;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    report.note("connections, each closed on its first packet", format!("{count}, {rate:.0} a second"));
    report.memory("memory: growth", ground.usage()?.memory.beyond(warm.memory), GROWTH);
    probe.served(report)?;
    ground.settle(&before, report)
}

/// C4.
pub(crate) fn beside_others(siege: &Siege, report: &mut Report) -> Outcome {
    const OTHERS: usize = 100;
    /// No other device sees more than this.
    const DELAY: Duration = Duration::from_millis(100);
    let ground = siege.ground()?;
    let others = Others::start(&ground, OTHERS)?;
    let device = ground.device("hostile")?;
    let before = ground.usage()?;
    let packets = invalid_packets();
    let rounds = siege.scale.pick(1, 20, 20);
    let (mut closed, mut times) = (0, Times::default());
    for _ in 0..rounds {
        for (name, packet) in &packets {
            let (time, is_closed) = ground.attackers.block_on(break_a_rule(&ground.door, &device, packet))?;
            times.add(time);
            closed += usize::from(is_closed);
            if !is_closed {
                report.check(name, "open", "closed", false);
            }
        }
    }
    let (mut delays, lost) = others.finish()?;
    report.exactly("connections closed by what they sent", closed, packets.len() * rounds);
    report.note("closed after, median and longest", {
        format!("{}, {}", Millis(times.median()), Millis(times.longest()))
    });
    report.exactly(format!("of {OTHERS} others, connections lost"), lost, 0);
    let what = format!("their {} messages: PUBACK longest", delays.len());
    report.at_most(what, delays.longest(), siege.within(DELAY));
    report.note("their messages: PUBACK median, p99", {
        format!("{}, {}", Millis(delays.median()), Millis(delays.at(0.99)))
    });
    ground.settle(&before, report).map(drop)
}

/// A device that is online sends this; how long until it is not, and whether it is not.
async fn break_a_rule(door: &Door, device: &Device, packet: &[u8]) -> io::Result<(Duration, bool)> {
    let mut wire = door.online(Hello { clean_session: true, ..Hello::of(device) }).await?;
    // Closed before it has heard all, perhaps.
    let _ = wire.send(packet).await;
    let (time, end) = timed(timeout(PATIENCE, wire.end())).await;
    Ok((time, end.is_ok()))
}

/// Devices that send twice a second and wait for their PUBACKs, on a thread of their own.
struct Others {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Outcome<(Times, usize)>>,
}

impl Others {
    fn start(ground: &Ground, count: usize) -> Outcome<Self> {
        let devices = ground.register("other", count)?;
        let (door, stop) = (Arc::clone(&ground.door), Arc::new(AtomicBool::new(false)));
        let (online, are_online) = std::sync::mpsc::channel();
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
                let send = |(number, device): (usize, Device)| {
                    let (door, stop, online) = (Arc::clone(&door), Arc::clone(&stop), online.clone());
                    async move { keep_sending(&door, &device, number, &stop, online).await }
                };
                let sent = runtime.block_on(all(devices.into_iter().enumerate().map(send)))?;
                let lost = sent.iter().filter(|sent| sent.is_err()).count();
                Ok((sent.into_iter().flatten().flatten().collect(), lost))
            }
        });
        (0..count).try_for_each(|_| are_online.recv()).map_err(|_| "a device could not connect")?;
        Ok(Self { stop, thread })
    }

    fn finish(self) -> Outcome<(Times, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the other devices broke down")?
    }
}

async fn keep_sending(
    door: &Door,
    device: &Device,
    number: usize,
    stop: &AtomicBool,
    online: std::sync::mpsc::Sender<()>,
) -> io::Result<Vec<Duration>> {
    const PACE: Duration = Duration::from_millis(500);
    let mut wire = door.online(Hello { clean_session: true, ..Hello::of(device) }).await?;
    // Whoever waits for it is there until all are.
    let _ = online.send(());
    drop(online);
    let message = publish(&device.telemetry_topic(""), 1, b"still here");
    let mut delays = Vec::new();
    tokio::time::sleep(Duration::from_millis(number as u64 * 5)).await;
    let mut pace = interval(PACE);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let (delay, heard) = timed(async {
            wire.send(&message).await?;
            wire.expect().await
        })
        .await;
        heard?;
        delays.push(delay);
    }
    Ok(delays)
}
