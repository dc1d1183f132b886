//! A: before authentication.

use std::io;
use std::iter::repeat_n;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devicebound::Rule;
use devicebound::iothub::sas;
use devicebound::limits::{CONNECT_TIME, KEEP_ALIVE_MAX};
use devicebound_testkit::interop::Device;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::ground::{CACHE, Ground, TLS_IDLE};
use crate::probe::Probe;
use crate::report::{Millis, Report, Times};
use crate::wire::{DISCONNECT, Door, Hello, PINGREQ, all, connack, puback, publish_once, subscribe, timed};
use crate::{Outcome, Scale, Siege};

/// How exactly a deadline is kept.
const EXACTLY: Duration = Duration::from_secs(1);
/// What is wrong ends within this.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What a connection may take before it is accepted, besides TLS.
pub(crate) const BEFORE_ACCEPTANCE: f64 = 4.0;
/// A second before the deadline of what came first: all are there, and none is gone.
const ALL_THERE: Duration = Duration::from_secs(1);

/// A1.
pub(crate) fn slow_connect(siege: &Siege, report: &mut Report) -> Outcome {
    const PAUSE: Duration = Duration::from_secs(5);
    let ground = siege.ground()?;
    let device = Arc::new(ground.device("slow")?);
    let dribble = |number: usize| {
        let (door, device) = (Arc::clone(&ground.door), Arc::clone(&device));
        async move {
            let socket = door.tcp().await?;
            let accepted = Instant::now();
            // Every tenth takes its time for TLS too: the deadline counts from the start.
            if number.is_multiple_of(10) {
                sleep(PAUSE).await;
            }
            let mut wire = door.secure(socket).await?;
            for byte in Hello::of(&device).packet() {
                if wire.send(&[byte]).await.is_err() || timeout(PAUSE, wire.end()).await.is_ok() {
                    break;
                }
            }
            Ok(accepted.elapsed())
        }
    };
    let count = siege.scale.pick(200, 5000, 5000);
    hold_until_closed(siege, &ground, report, count, TLS_IDLE + BEFORE_ACCEPTANCE, dribble)?;
    told_late(&ground, report, count)
}

/// A2.
pub(crate) fn silence(siege: &Siege, report: &mut Report) -> Outcome {
    const CPU: f64 = 5.0;
    let ground = siege.ground()?;
    let silent = |number: usize| {
        let door = Arc::clone(&ground.door);
        async move {
            let mut socket = door.tcp().await?;
            let accepted = Instant::now();
            match number % 4 {
                0 => {}
                1 => socket.write_all(&client_hello(&door)?[..40]).await?,
                2 => socket.write_all(&client_hello(&door)?).await?,
                _ => {
                    door.secure(socket).await?.end().await;
                    return Ok(accepted.elapsed());
                }
            }
            let mut rest = Vec::new();
            // A reset is an end like any other.
            let _ = socket.read_to_end(&mut rest).await;
            Ok(accepted.elapsed())
        }
    };
    let count = siege.scale.pick(200, 5000, 5000);
    let idle = hold_until_closed(siege, &ground, report, count, TLS_IDLE + BEFORE_ACCEPTANCE, silent)?;
    told_late(&ground, report, count)?;
    let share = idle.cpu.as_secs_f64() * 100.0 / idle.time.as_secs_f64();
    // The probe's messages and calls are in it.
    report.check(
        "CPU while they wait, of a core",
        format!("{share:.1} %"),
        format!("less than {CPU} %"),
        share < CPU,
    );
    Ok(())
}

/// What the hub took while all waited.
pub(crate) struct Idle {
    cpu: Duration,
    time: Duration,
}

/// Opens so many connections, which tell how long they lasted, and checks that it was [`CONNECT_TIME`].
pub(crate) fn hold_until_closed<F>(
    siege: &Siege,
    ground: &Ground,
    report: &mut Report,
    count: usize,
    kib_each: f64,
    attack: impl Fn(usize) -> F,
) -> Outcome<Idle>
where
    F: Future<Output = io::Result<Duration>> + Send + 'static,
{
    let probe = Probe::start(ground)?;
    let before = ground.usage()?;
    let begun = Instant::now();
    let attacks: Vec<_> =
        (0..count).map(|number| ground.attackers.spawn(paced(number, attack(number)))).collect();
    // All have come once the last has: the descriptors tell.
    while ground.usage()?.descriptors < before.descriptors + count
        && begun.elapsed() < CONNECT_TIME - ALL_THERE
    {
        std::thread::sleep(Duration::from_millis(100));
    }
    let ramp = begun.elapsed();
    let full = ground.usage()?;
    std::thread::sleep((CONNECT_TIME - ALL_THERE).saturating_sub(begun.elapsed()));
    let late = ground.usage()?;
    let idle = Idle {
        cpu: late.cpu.saturating_sub(full.cpu),
        time: begun.elapsed().saturating_sub(ramp).max(ALL_THERE),
    };
    let ended: Outcome<Vec<io::Result<Duration>>> = ground.attackers.block_on(async move {
        let mut ended = Vec::new();
        for attack in attacks {
            ended.push(attack.await?);
        }
        Ok(ended)
    });
    probe.unaffected(siege, report)?;
    report_closed(report, ended?, count, late.descriptors.saturating_sub(before.descriptors));
    let bound = before.memory.plus((count as f64 * kib_each) as u64 + CACHE.0);
    let what = format!("memory with {count}, {kib_each} KiB each beyond {}", before.memory);
    report.memory(what, late.memory.max(full.memory), bound);
    report.note("all had come after", Millis(ramp));
    ground.settle(&before, report)?;
    Ok(idle)
}

/// The hub says of each connection that it was late.
fn told_late(ground: &Ground, report: &mut Report, count: usize) -> Outcome {
    let rule = Rule::ConnectTime.id();
    report.exactly(format!("told as {rule}"), ground.refused_by(rule)?, count);
    Ok(())
}

/// A thousand a second, so that the deadlines of the last stand apart from the handshakes of the first.
async fn paced<T>(number: usize, attack: impl Future<Output = T>) -> T {
    sleep(Duration::from_millis(number as u64)).await;
    attack.await
}

fn report_closed(report: &mut Report, ended: Vec<io::Result<Duration>>, count: usize, open: usize) {
    report.exactly("open just before the first deadline", open, count);
    let failed: Vec<String> =
        ended.iter().filter_map(|end| end.as_ref().err()).map(ToString::to_string).collect();
    let example = failed.first().cloned().unwrap_or_default();
    report.check(
        "connections that could not be made",
        failed.len(),
        format!("none {example}"),
        failed.is_empty(),
    );
    let mut lasted: Times = ended.into_iter().flatten().collect();
    let (shortest, longest) = (lasted.shortest(), lasted.longest());
    let exact = shortest + EXACTLY >= CONNECT_TIME && longest <= CONNECT_TIME + EXACTLY;
    let measured = format!("{:.2} to {:.2} s", shortest.as_secs_f64(), longest.as_secs_f64());
    report.check(format!("{} closed after", lasted.len()), measured, "30 s ± 1 s from accept", exact);
}

/// The first flight of a TLS handshake.
fn client_hello(door: &Door) -> io::Result<Vec<u8>> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut client = ClientConnection::new(door.tls_config(), name).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut hello)?;
    }
    Ok(hello)
}

/// A3.
pub(crate) fn announced(siege: &Siege, report: &mut Report) -> Outcome {
    const HEADERS: [&[u8]; 3] =
        [&[0x10, 0xFF, 0xFF, 0xFF, 0x7F], &[0x30, 0xFF, 0xFF, 0xFF, 0x7F], &[0x82, 0xFF, 0xFF, 0xFF, 0x7F]];
    let ground = siege.ground()?;
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let count = siege.scale.pick(100, 1000, 1000);
    let attack = |number: usize| {
        let door = Arc::clone(&ground.door);
        async move {
            let mut wire = door.open().await?;
            wire.send(HEADERS[number % HEADERS.len()]).await?;
            let (time, said) = timed(wire.end()).await;
            Ok::<_, io::Error>((time, said.len()))
        }
    };
    let ended = ground.attackers.block_on(all((0..count).map(attack)))?;
    let ended: Vec<(Duration, usize)> = ended.into_iter().collect::<Result<_, _>>()?;
    probe.unaffected(siege, report)?;
    let mut times: Times = ended.iter().map(|(time, _)| *time).collect();
    report.at_most(format!("{} closed after their header", times.len()), times.longest(), AT_ONCE);
    report.exactly("bytes of answers", ended.iter().map(|(_, said)| said).sum(), 0);
    let bound = before.memory.plus((count as f64 * (TLS_IDLE + BEFORE_ACCEPTANCE)) as u64 + CACHE.0);
    report.memory(format!("peak memory, from {}", before.memory), ground.usage()?.peak, bound);
    ground.settle(&before, report)
}

/// A4.
pub(crate) fn keep_alive(siege: &Siege, report: &mut Report) -> Outcome {
    // The longest take half an hour, and are for the full siege.
    let asked: &[(u16, Duration)] = match siege.scale {
        Scale::Short | Scale::Usual => &[(2, Duration::from_secs(3)), (10, Duration::from_secs(15))],
        Scale::Full => &[(10, Duration::from_secs(15)), (0, KEEP_ALIVE_MAX), (u16::MAX, KEEP_ALIVE_MAX)],
    };
    let ground = siege.ground()?;
    let devices = ground.register("silent", asked.len())?;
    let waits = devices.into_iter().zip(asked).map(|(device, &(keep_alive, _))| {
        let door = Arc::clone(&ground.door);
        async move {
            let mut wire = door.online(Hello { keep_alive, ..Hello::of(&device) }).await?;
            Ok::<_, io::Error>(timed(wire.end()).await.0)
        }
    });
    let waited = ground.attackers.block_on(all(waits))?;
    for (waited, (keep_alive, patience)) in waited.into_iter().zip(asked) {
        let waited = waited?;
        let is_exact = waited.abs_diff(*patience) <= EXACTLY;
        let what = format!("keep alive {keep_alive} s: closed after");
        let measured = format!("{:.2} s", waited.as_secs_f64());
        report.check(what, measured, format!("{} s ± 1 s", patience.as_secs()), is_exact);
    }
    Ok(())
}

/// A5.
pub(crate) fn wrong_passwords(siege: &Siege, report: &mut Report) -> Outcome {
    /// Attempts at a time.
    const AT_ONCE: usize = 32;
    let ground = siege.ground()?;
    let attempts = Arc::new(attempts(&ground)?);
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let time = siege.scale.pick(Duration::from_secs(4), Duration::from_secs(60), Duration::from_secs(60));
    let begun = Instant::now();
    let attack = |first: usize| {
        let (door, attempts) = (Arc::clone(&ground.door), Arc::clone(&attempts));
        async move {
            let mut refused = 0;
            for (_, connect) in attempts.iter().cycle().skip(first) {
                if begun.elapsed() > time {
                    break;
                }
                try_in(&door, connect).await?;
                refused += 1;
            }
            Ok::<usize, io::Error>(refused)
        }
    };
    let refused = ground.attackers.block_on(all((0..AT_ONCE).map(attack)))?;
    let refused: usize = refused.into_iter().sum::<Result<_, _>>()?;
    let rate = refused as f64 / begun.elapsed().as_secs_f64();
    probe.unaffected(siege, report)?;
    // One that is not refused ends the row with an error.
    report.check("refused", format!("{refused}, {rate:.0} a second"), "all", refused > 0);
    ground.settle(&before, report)?;
    report_refusal_times(siege, report)
}

/// CONNECTs that are wrong in one part, and in which.
fn attempts(ground: &Ground) -> Outcome<Vec<(&'static str, Vec<u8>)>> {
    let device = ground.device("target")?;
    let other = ground.device("other")?;
    let unknown = Device { id: "target-1".to_owned(), ..device.clone() };
    let wrong_key = Device { key: other.key.clone(), ..device.clone() };
    let long_ago = devicebound::time::UnixTime::from_secs(1_000_000_000);
    let expired = sas::sign(&format!("localhost/devices/{}", device.id), &device.key, long_ago, None);
    Ok(vec![
        ("key", Hello::of(&wrong_key).packet()),
        ("device", Hello::of(&unknown).packet()),
        ("expiry", Hello::of(&device).packet_with(Some(expired.as_bytes()))),
        ("scope", Hello::of(&device).packet_with(Some(other.token("localhost").as_bytes()))),
    ])
}

/// How long the hub takes to refuse; an error if it does not.
async fn try_in(door: &Door, connect: &[u8]) -> io::Result<Duration> {
    let mut wire = door.open().await?;
    let begun = Instant::now();
    wire.send(connect).await?;
    let said = wire.end().await;
    let time = begun.elapsed();
    if said == connack(5) { Ok(time) } else { Err(io::Error::other(format!("answered with {said:?}"))) }
}

/// One at a time, on a hub that has nothing else to do: so an attacker would measure.
fn report_refusal_times(siege: &Siege, report: &mut Report) -> Outcome {
    /// How far the medians may be apart, in percent. The matrix says 5; 200 samples cannot say so exactly.
    const APART: (f64, f64) = (25.0, 5.0);
    // With several workers, time would also tell where an id lives: known or not, that follows from the id alone.
    let ground = siege.ground_with(&["--workers", "1"])?;
    let attempts = attempts(&ground)?;
    let rounds = siege.scale.pick(200, 2000, 2000);
    let mut times = vec![Times::default(); attempts.len()];
    ground.attackers.block_on(async {
        for round in 0..rounds {
            // Each follows each of the others as often: what one leaves behind at the hub shows in the next.
            let mut order: Vec<_> = attempts.iter().zip(&mut times).collect();
            order.rotate_left(round % attempts.len());
            if round / attempts.len() % 2 == 1 {
                order.reverse();
            }
            for ((_, connect), times) in order {
                times.add(try_in(&ground.door, connect).await?);
            }
        }
        Ok::<_, io::Error>(())
    })?;
    let medians: Vec<_> = times.iter_mut().map(Times::median).collect();
    for ((part, _), median) in attempts.iter().zip(&medians) {
        report.note(format!("wrong {part}: median time to refusal"), Millis(*median));
    }
    let longest = medians.iter().max().copied().unwrap_or_default().as_secs_f64();
    let shortest = medians.iter().min().copied().unwrap_or_default().as_secs_f64();
    let apart = (longest - shortest) * 100.0 / shortest.max(f64::MIN_POSITIVE);
    let bound = siege.scale.pick(APART.0, APART.1, APART.1);
    report.check(
        "difference of medians",
        format!("{apart:.1} %"),
        format!("less than {bound} %"),
        apart < bound,
    );
    Ok(())
}

/// A6.
pub(crate) fn no_connect(siege: &Siege, report: &mut Report) -> Outcome {
    let ground = siege.ground()?;
    let device = ground.device("twice")?;
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let (mut times, mut slow, mut wrong) = (Times::default(), Vec::new(), Vec::new());
    ground.attackers.block_on(async {
        for (what, bytes, answer) in inside_tls(&device) {
            let mut wire = ground.door.open().await?;
            wire.send(&bytes).await?;
            let (time, said) = timed(timeout(CONNECT_TIME, wire.end())).await;
            times.add(time);
            if time > AT_ONCE {
                slow.push(what.clone());
            }
            if said.as_ref() != Ok(&answer) {
                wrong.push(format!("{what}: {said:?}"));
            }
        }
        for (what, bytes) in outside_tls() {
            let mut socket = ground.door.tcp().await?;
            socket.write_all(&bytes).await?;
            let mut said = Vec::new();
            let (time, _) = timed(timeout(CONNECT_TIME, socket.read_to_end(&mut said))).await;
            times.add(time);
            if time > AT_ONCE {
                slow.push(what.to_owned());
            }
            // At most a TLS alert, which is 7 bytes.
            if said.len() > 7 {
                wrong.push(format!("{what}: {said:?}"));
            }
        }
        Ok::<_, io::Error>(())
    })?;
    probe.unaffected(siege, report)?;
    let measured = format!("{} {}", Millis(times.longest()), slow.join(", "));
    let criterion = format!("at most {}", Millis(AT_ONCE));
    report.check(format!("{} closed after", times.len()), measured, criterion, slow.is_empty());
    let text = wrong.join("; ");
    report.check(
        "answers other than a CONNACK where due",
        wrong.len(),
        format!("none {text}"),
        wrong.is_empty(),
    );
    ground.settle(&before, report)
}

/// What is wrong inside TLS, with the only right answer.
fn inside_tls(device: &Device) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let topic = device.telemetry_topic("");
    let mut cases: Vec<(String, Vec<u8>)> = [
        ("CONNACK", connack(0)),
        ("PUBLISH", publish_once(&topic, b"hello")),
        ("PUBACK", puback(1).to_vec()),
        ("PUBREC", vec![0x50, 2, 0, 1]),
        ("PUBREL", vec![0x62, 2, 0, 1]),
        ("PUBCOMP", vec![0x70, 2, 0, 1]),
        ("SUBSCRIBE", subscribe(1, &["#"])),
        ("SUBACK", vec![0x90, 3, 0, 1, 0]),
        ("UNSUBSCRIBE", vec![0xA2, 5, 0, 1, 0, 1, b'#']),
        ("UNSUBACK", vec![0xB0, 2, 0, 1]),
        ("PINGREQ", PINGREQ.to_vec()),
        ("PINGRESP", vec![0xD0, 0]),
        ("DISCONNECT", DISCONNECT.to_vec()),
        ("type 0", vec![0x00, 0]),
        ("type 15", vec![0xF0, 0]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("zeros", vec![0; 1000]),
        ("ones", vec![0xFF; 1000]),
    ]
    .map(|(what, bytes)| (what.to_owned(), bytes))
    .into();
    // A CONNECT that is garbage: the hub would wait for the rest of one that is long enough.
    let mut noise = 1_u32;
    cases.extend((0..100).map(|number| {
        let garbage = repeat_n((), 64).map(|()| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0]
        });
        (format!("garbage {number}"), [0x10, 64].into_iter().chain(garbage).collect())
    }));
    let mut cases: Vec<_> = cases.into_iter().map(|(what, bytes)| (what, bytes, Vec::new())).collect();
    let hello = Hello { clean_session: true, ..Hello::of(device) }.packet();
    cases.push(("CONNECT twice".to_owned(), hello.repeat(2), connack(0)));
    cases
}

/// What is no TLS, or TLS that gives up.
fn outside_tls() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("HTTP without TLS", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("CONNECT without TLS", b"\x10\x12\x00\x04MQTT\x04\x82\x00\x0a\x00\x01d\x00\x03h/d".to_vec()),
        ("alert handshake_failure", vec![0x15, 3, 3, 0, 2, 2, 40]),
        // Not close_notify: unsigned, it is a warning that may be anybody's, and A2 bounds what comes of it.
        ("alert user_canceled, fatal", vec![0x15, 3, 3, 0, 2, 2, 90]),
        ("data before any handshake", vec![0x17, 3, 3, 0, 1, 0]),
        ("ones without TLS", vec![0xFF; 1000]),
    ]
}

/// A7.
pub(crate) fn closed_at_once(siege: &Siege, report: &mut Report) -> Outcome {
    const PATIENCE: Duration = Duration::from_secs(10);
    let ground = siege.ground()?;
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let time = siege.scale.pick(Duration::from_secs(2), Duration::from_secs(20), Duration::from_secs(20));
    let begun = Instant::now();
    let made = ground.attackers.block_on(async {
        let mut made = 0;
        while begun.elapsed() < time {
            touch(&ground.door, made).await?;
            made += 1;
        }
        Ok::<_, io::Error>(made)
    })?;
    let rate = made as f64 / begun.elapsed().as_secs_f64();
    report.note("made and closed (FIN, RST, before SYN+ACK)", format!("{made}, {rate:.0} a second"));
    probe.unaffected(siege, report)?;
    ground.settle_within(PATIENCE, &before, report)
}

/// One connection that is over before it begins.
async fn touch(door: &Door, number: usize) -> io::Result<()> {
    let socket = door.socket()?;
    match number % 3 {
        0 => drop(socket.connect(door.address()).await?), // FIN
        1 => socket.connect(door.address()).await?.set_zero_linger()?, // RST
        _ => drop(timeout(Duration::ZERO, socket.connect(door.address())).await), // whatever comes after SYN
    }
    Ok(())
}
