//! F: the other protocols, before authentication.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devicebound_testkit::amqp_client::session;
use tokio::time::{sleep, timeout};

use crate::a::{BEFORE_ACCEPTANCE, hold_until_closed};
use crate::ground::{Ground, TLS_IDLE};
use crate::probe::Probe;
use crate::report::{Kib, Report, Times};
use crate::wire::{Door, all, timed};
use crate::{Outcome, Siege};

/// Between two bytes of a client that takes its time.
const PAUSE: Duration = Duration::from_secs(5);
/// So many small things at a time.
const CONCURRENT: usize = 64;

/// Sends nothing, a part, or byte after byte; how long the hub bears it.
async fn dawdle(door: Arc<Door>, number: usize, bytes: &[u8]) -> io::Result<Duration> {
    let socket = door.tcp().await?;
    let accepted = Instant::now();
    let mut wire = door.secure(socket).await?;
    match number % 3 {
        0 => {}
        1 => wire.send(&bytes[..bytes.len() / 2]).await?,
        _ => {
            for byte in bytes {
                if wire.send(&[*byte]).await.is_err() || timeout(PAUSE, wire.end()).await.is_ok() {
                    return Ok(accepted.elapsed());
                }
            }
        }
    }
    wire.end().await;
    Ok(accepted.elapsed())
}

/// F1.
pub(crate) fn slow_heads(siege: &Siege, report: &mut Report) -> Outcome {
    const HEAD: &[u8] =
        b"GET /devices?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nAuthorization: SharedAccess";
    let ground = siege.ground()?;
    let count = siege.scale.pick(200, 5000, 5000);
    let door = Arc::clone(&ground.https);
    let attack = move |number: usize| dawdle(Arc::clone(&door), number, HEAD);
    hold_until_closed(siege, &ground, report, count, TLS_IDLE + BEFORE_ACCEPTANCE, attack)?;
    Ok(())
}

/// F2.
pub(crate) fn slow_sasl(siege: &Siege, report: &mut Report) -> Outcome {
    /// The protocol header of SASL, and the beginning of a frame that announces 512 bytes.
    const BEGINNING: &[u8] = b"AMQP\x03\x01\x00\x00\x00\x00\x02\x00\x02\x01\x00\x00\x00S";
    let ground = siege.ground()?;
    let count = siege.scale.pick(200, 5000, 5000);
    let door = Arc::clone(&ground.amqp);
    let attack = move |number: usize| dawdle(Arc::clone(&door), number, BEGINNING);
    hold_until_closed(siege, &ground, report, count, TLS_IDLE + BEFORE_ACCEPTANCE, attack)?;
    Ok(())
}

/// F3.
pub(crate) fn no_amqp(siege: &Siege, report: &mut Report) -> Outcome {
    const AT_ONCE: Duration = Duration::from_secs(1);
    const GROWTH: Kib = Kib::mib(8);
    let ground = siege.ground()?;
    let probe = Probe::start(&ground)?;
    let count = siege.scale.pick(1_000, 20_000, 1_000_000);
    let kinds = Arc::new(wrong(&ground));
    // What pools and caches take comes with the first of them.
    attack(&ground, &kinds, CONCURRENT * kinds.len())?;
    let before = ground.usage()?;
    let mut times = attack(&ground, &kinds, count)?;
    let after = ground.usage()?;
    report.note("connections", count);
    report.at_most("closed after", times.at(0.99), siege.within(AT_ONCE));
    report.memory("memory: growth by all of them", after.memory.beyond(before.memory), GROWTH);
    probe.unaffected(siege, report)?;
    ground.settle(&before, report)
}

/// Openings that the hub has to end.
fn wrong(ground: &Ground) -> Vec<Vec<u8>> {
    let (user, password) = ground.service.plain();
    let good = session("localhost", &user, &password);
    let mut wrong = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"AMQP\x00\x00\x09\x01".to_vec(),
        [b"AMQP\x03\x01\x00\x00".as_slice(), &[0xFF; 64]].concat(),
        // A frame that announces 4 GiB.
        b"AMQP\x03\x01\x00\x00\xFF\xFF\xFF\xFF\x02\x01\x00\x00".to_vec(),
        session("localhost", &user, "SharedAccessSignature sr=localhost&sig=AAAA&se=1&skn=iothubowner"),
        session("localhost", "nobody@sas.root.localhost", "SharedAccessSignature sr=localhost"),
    ];
    // After a good opening: a transfer on no link, and arrays in arrays.
    for body in [
        b"\x00S\x14\xC0\x04\x02R\x07C".as_slice(),
        &[b"\x00S\x12\xC0\x40\x02".as_slice(), &[0xF0; 62]].concat(),
    ] {
        let mut bytes = good.clone();
        bytes.extend((8 + body.len() as u32).to_be_bytes());
        bytes.extend([2, 0, 0, 0]);
        bytes.extend(body);
        // It may end the session alone; a close ends the connection, too.
        bytes.extend(b"\x00\x00\x00\x0E\x02\x00\x00\x00\x00S\x18\xC0\x01\x00");
        wrong.push(bytes);
    }
    wrong
}

/// So many connections, some at a time; how long each lasted.
fn attack(ground: &Ground, kinds: &Arc<Vec<Vec<u8>>>, count: usize) -> Outcome<Times> {
    let attackers = (0..CONCURRENT).map(|first| {
        let (door, kinds) = (Arc::clone(&ground.amqp), Arc::clone(kinds));
        async move {
            let mut times = Vec::new();
            for number in (first..count).step_by(CONCURRENT) {
                let mut wire = door.open().await?;
                // It may be closed before all is written.
                let _ = wire.send(&kinds[number % kinds.len()]).await;
                let (time, _) = timed(wire.end()).await;
                times.push(time);
                sleep(Duration::ZERO).await;
            }
            Ok::<_, io::Error>(times)
        }
    });
    let times = ground.attackers.block_on(all(attackers))?.into_iter().collect::<io::Result<Vec<_>>>()?;
    Ok(times.into_iter().flatten().collect())
}
