//! B6, B7: text that is hard to read.

use std::io;
use std::time::{Duration, Instant};

use devicebound::limits::{TEXT_MAX, TWIN_SECTION_MAX};
use devicebound_testkit::interop::Device;

use super::FLAT;
use crate::probe::Probe;
use crate::report::{Report, Times};
use crate::wire::{Door, Heard, Hello, PINGREQ, Wire, publish_once, subscribe};
use crate::{Outcome, Siege};

/// How often each is sent.
const ROUNDS: (usize, usize) = (5, 21);

/// B6.
pub(crate) fn topics(siege: &Siege, report: &mut Report) -> Outcome {
    const BOUND: Duration = Duration::from_millis(5);
    let ground = siege.ground()?;
    let device = ground.device("wordy")?;
    let probe = Probe::start(&ground)?;
    let packets = long_packets(&device);
    let warm = ground.usage()?;
    for (what, packet) in &packets {
        let (mut times, mut closed) = (Times::default(), 0);
        let rounds = siege.scale.pick(ROUNDS.0, ROUNDS.1, ROUNDS.1);
        for _ in 0..rounds {
            let (time, is_closed) = ground.attackers.block_on(answer_to(&ground.door, &device, packet))?;
            times.add(time);
            closed += usize::from(is_closed);
        }
        report.at_most(
            format!("{what} ({closed}/{rounds} closed), median"),
            times.median(),
            siege.within(BOUND),
        );
    }
    // It has the telemetry among them.
    report.note("memory: growth", ground.usage()?.memory.beyond(warm.memory));
    probe.unaffected(siege, report)?;
    ground.settle(&warm, report)
}

fn long_packets(device: &Device) -> Vec<(&'static str, Vec<u8>)> {
    let telemetry = device.telemetry_topic("");
    let room = TEXT_MAX - telemetry.len();
    let bag = |part: &str| publish_once(&format!("{telemetry}{}", part.repeat(room / part.len())), b"");
    vec![
        ("65,535 slashes", publish_once(&"/".repeat(TEXT_MAX), b"")),
        ("a name of 65,535 bytes", publish_once(&"n".repeat(TEXT_MAX), b"")),
        ("telemetry, slashes", bag("/")),
        ("telemetry, 20,000 pairs", bag("a=&")),
        ("telemetry, names without values", bag("a&")),
        ("telemetry, only ampersands", bag("&")),
        ("telemetry, only equals signs", bag("=")),
        ("telemetry, a key of 65,000 bytes", bag("k")),
        ("telemetry, percent-encoded", bag("%41")),
        ("telemetry, percent signs", bag("%")),
        ("a request id of 65,000 bytes", {
            let start = "$iothub/twin/GET/?$rid=";
            publish_once(&format!("{start}{}", "7".repeat(TEXT_MAX - start.len())), b"")
        }),
        ("a filter of 65,535 slashes", subscribe(1, &["/".repeat(TEXT_MAX).as_str()])),
        ("a filter of plus signs", subscribe(1, &["+/".repeat(TEXT_MAX / 2).as_str()])),
    ]
}

/// Until the hub has dealt with the packet: it has closed, or answers the PINGREQ behind it. And whether it has closed.
async fn answer_to(door: &Door, device: &Device, packet: &[u8]) -> io::Result<(Duration, bool)> {
    let mut wire = door.online(Hello { clean_session: true, ..Hello::of(device) }).await?;
    let packets = [packet, &PINGREQ].concat();
    let begun = Instant::now();
    // The hub may have closed before it has all.
    let _ = wire.send(&packets).await;
    let heard = wire.hear().await?;
    Ok((begun.elapsed(), heard.is_none()))
}

/// B7.
pub(crate) fn documents(siege: &Siege, report: &mut Report) -> Outcome {
    const BOUND: Duration = Duration::from_millis(10);
    let ground = siege.ground()?;
    let device = ground.device("twin")?;
    let probe = Probe::start(&ground)?;
    let warm = ground.usage()?;
    let rounds = siege.scale.pick(ROUNDS.0, ROUNDS.1, ROUNDS.1);
    for (what, document) in documents_that_blow_up() {
        let (mut times, mut answers) = (Times::default(), Vec::new());
        for _ in 0..rounds {
            let (time, answer) = ground.attackers.block_on(report_it(&ground.door, &device, &document))?;
            times.add(time);
            answers.push(answer);
        }
        answers.dedup();
        let refused = answers.iter().all(|answer| ["400", "413", "closed"].contains(&answer.as_str()));
        report.check(what, answers.join(", "), "400 or 413, or closed", refused);
        report.at_most(format!("{what}, median"), times.median(), siege.within(BOUND));
    }
    let twin = ground.service.get(&format!("/twins/{}", device.id));
    let reported = twin["properties"]["reported"].as_object().cloned().unwrap_or_default();
    let names: Vec<_> = reported.keys().filter(|name| !name.starts_with('$')).collect();
    report.check("reported properties afterwards", format!("{names:?}"), "none", names.is_empty());
    report.memory("memory: growth", ground.usage()?.memory.beyond(warm.memory), FLAT);
    probe.unaffected(siege, report)?;
    ground.settle(&warm, report)
}

fn documents_that_blow_up() -> Vec<(&'static str, Vec<u8>)> {
    const DEEP: usize = 100_000;
    let number = |digits: usize| [br#"{"n":"#.as_slice(), &b"9".repeat(digits), b"}"].concat();
    let long = [br#"{"s":""#.as_slice(), &b"s".repeat(TWIN_SECTION_MAX), br#""}"#].concat();
    vec![
        ("100,000 arrays in each other", b"[".repeat(DEEP)),
        (
            "a member, 100,000 arrays in it",
            [br#"{"a":"#.as_slice(), &b"[".repeat(DEEP), &b"]".repeat(DEEP), b"}"].concat(),
        ),
        (
            "40,000 objects in each other",
            [br#"{"a":"#.repeat(40_000), b"1".to_vec(), b"}".repeat(40_000)].concat(),
        ),
        ("11 levels below the section", [br#"{"a":"#.repeat(12), b"1".to_vec(), b"}".repeat(12)].concat()),
        ("a number of 250,000 digits", number(250_000)),
        ("a number of 1 MiB", number(1 << 20)),
        ("a lone surrogate", br#"{"a":"\ud800"}"#.to_vec()),
        ("a lone low surrogate as a name", br#"{"\udc00":1}"#.to_vec()),
        ("32 KiB and more", long),
        ("no object", b"[]".to_vec()),
        ("nothing", Vec::new()),
    ]
}

/// Sends the document as reported properties; the status that answers it, or `closed`.
async fn report_it(door: &Door, device: &Device, document: &[u8]) -> io::Result<(Duration, String)> {
    let mut wire: Wire = door.online(Hello { clean_session: true, ..Hello::of(device) }).await?;
    wire.subscribe("$iothub/twin/res/#").await?;
    let packet = publish_once("$iothub/twin/PATCH/properties/reported/?$rid=1", document);
    let begun = Instant::now();
    // The hub may have closed before it has all.
    let _ = wire.send(&packet).await;
    let answer = match wire.hear().await? {
        None => "closed".to_owned(),
        Some(Heard::Publish { topic, .. }) => topic.split('/').nth(3).unwrap_or_default().to_owned(),
        Some(other) => format!("{other:?}"),
    };
    Ok((begun.elapsed(), answer))
}
