//! B10: answers to calls that were made to somebody else, or are over.

use std::io;
use std::thread;
use std::time::Duration;

use devicebound_testkit::interop::{Device, Service};
use serde_json::{Value, json};

use crate::probe::Probe;
use crate::report::Report;
use crate::wire::{Door, Heard, Hello, PINGREQ, Wire, publish_once};
use crate::{Outcome, Siege};

/// The shortest time that a caller may give a device.
const PATIENCE: Duration = Duration::from_secs(5);
const METHODS: &str = "$iothub/methods/POST/#";

/// B10.
pub(crate) fn method_answers(siege: &Siege, report: &mut Report) -> Outcome {
    let ground = siege.ground()?;
    let asked = ground.device("asked")?;
    let other = ground.device("other")?;
    let probe = Probe::start(&ground)?;
    let before = ground.usage()?;
    let count = siege.scale.pick(20, 500, 500);
    let foreign = ground.attackers.block_on(async {
        let mut asked_wire = listen(&ground.door, &asked).await?;
        let mut other_wire = listen(&ground.door, &other).await?;
        let mut right = 0;
        for number in 0..count {
            let call = Call::start(&ground.service, &asked);
            let rid = called(&mut asked_wire).await?;
            // What the other device says is taken before the asked device speaks.
            other_wire.send(&answer(&rid, "foreign")).await?;
            other_wire.send(&PINGREQ).await?;
            other_wire.expect().await?;
            for strange in [format!("{rid}0"), format!("0{rid}"), "x".to_owned()] {
                asked_wire.send(&answer(&strange, "strange")).await?;
            }
            asked_wire.send(&answer(&rid, &format!("first {number}"))).await?;
            asked_wire.send(&answer(&rid, "second")).await?;
            right += usize::from(call.outcome().await? == (200, format!("first {number}")));
        }
        Ok::<_, io::Error>(right)
    })?;
    report.exactly(format!("of {count} calls, answered by the asked device's first"), foreign, count);
    let late = ground.attackers.block_on(answer_late(&ground.door, &ground.service, &asked))?;
    report.check("an answer after its time", late.0, "504, and the next call has its own", late.1);
    let again = ground.attackers.block_on(answer_after_a_reconnect(&ground.door, &ground.service, &asked))?;
    let is_first = ["200 first", "504 "].contains(&again.as_str());
    report.check("answers after a reconnect", again, "the first of them, or none", is_first);
    probe.unaffected(siege, report)?;
    ground.settle(&before, report)
}

/// A call under way, made by a back end that waits for it.
struct Call(thread::JoinHandle<Outcome<(u16, Value)>>);

impl Call {
    fn start(service: &Service, device: &Device) -> Self {
        let (service, path) = (service.clone(), format!("/twins/{}/methods", device.id));
        let body = json!({
            "methodName": "ask", "payload": {}, "responseTimeoutInSeconds": PATIENCE.as_secs()
        });
        Self(thread::spawn(move || {
            let (status, text) = service.try_post(&path, body.to_string().as_bytes())?;
            Ok((status, serde_json::from_str(&text)?))
        }))
    }

    /// The HTTP status, and what the device said.
    async fn outcome(self) -> io::Result<(u16, String)> {
        let joined = tokio::task::spawn_blocking(|| self.0.join()).await?;
        let outcome = joined.map_err(|_| io::Error::other("a back end broke down"))?;
        let (status, answer) = outcome.map_err(io::Error::other)?;
        Ok((status, answer["payload"].as_str().unwrap_or_default().to_owned()))
    }
}

async fn listen(door: &Door, device: &Device) -> io::Result<Wire> {
    let mut wire = door.online(Hello { clean_session: true, ..Hello::of(device) }).await?;
    wire.subscribe(METHODS).await?;
    Ok(wire)
}

/// Waits for a call; its request id.
async fn called(wire: &mut Wire) -> io::Result<String> {
    let heard = wire.expect().await?;
    let rid = match &heard {
        Heard::Publish { topic, .. } => topic.split_once("?$rid=").map(|(_, rid)| rid.to_owned()),
        _ => None,
    };
    rid.ok_or_else(|| io::Error::other(format!("no call, but {heard:?}")))
}

fn answer(rid: &str, says: &str) -> Vec<u8> {
    publish_once(&format!("$iothub/methods/res/200/?$rid={rid}"), json!(says).to_string().as_bytes())
}

/// What the caller of the first call heard, and whether the second had its own answer.
async fn answer_late(door: &Door, service: &Service, device: &Device) -> io::Result<(u16, bool)> {
    let mut wire = listen(door, device).await?;
    let call = Call::start(service, device);
    let rid = called(&mut wire).await?;
    let (status, _) = call.outcome().await?;
    wire.send(&answer(&rid, "late")).await?;
    let call = Call::start(service, device);
    wire.send(&answer(&rid, "late")).await?;
    let next = called(&mut wire).await?;
    wire.send(&answer(&rid, "late")).await?;
    wire.send(&answer(&next, "in time")).await?;
    let own = call.outcome().await? == (200, "in time".to_owned());
    Ok((status, status == 504 && own))
}

/// What the caller heard. The device was asked on a connection that is gone, and answers twice on the next one.
async fn answer_after_a_reconnect(door: &Door, service: &Service, device: &Device) -> io::Result<String> {
    let mut wire = listen(door, device).await?;
    let call = Call::start(service, device);
    let rid = called(&mut wire).await?;
    drop(wire);
    let mut wire = listen(door, device).await?;
    for says in ["first", "second"] {
        wire.send(&answer(&rid, says)).await?;
    }
    let (status, says) = call.outcome().await?;
    Ok(format!("{status} {says}"))
}
