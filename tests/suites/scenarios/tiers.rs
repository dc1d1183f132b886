//! Rates and quotas: what a hub of a tier does when its devices, or the back end, want more.

use std::time::Duration;

use devicebound::Rule;
use devicebound::device::Message;
use devicebound::hub::{
    CloudMessage, EnqueueError, HubConfig, InvokeError, MethodRequest, Operation, Scale, Tier, TierError,
    TwinUpdate, TwinUpdateError,
};
use devicebound::limits::THROTTLE_DELAY_MAX;
use devicebound::packet::ConnectReturnCode;
use devicebound::session::CloseReason;
use devicebound_world::fixtures::{HOST, config, record};
use devicebound_world::hub_host::HubHost;
use devicebound_world::station::{Heard, Station, advance};

const SECOND: Duration = Duration::from_secs(1);
/// What an S1 hub of one unit takes in a second.
const RATE: u64 = 100;

fn hub_of(tier: Tier, devices: &[&str]) -> HubHost {
    let scale = Some(Scale { tier, units: 1 });
    let mut hub =
        HubHost::new(HubConfig { host_names: vec![HOST.to_owned()], tier: scale, ..HubConfig::default() });
    for device in devices {
        hub.register(record(device));
    }
    hub
}

fn online(hub: &mut HubHost, device: &str) -> Station {
    let mut station = Station::new(config(device));
    station.connect(hub);
    station.take_heard();
    station
}

fn acknowledged(station: &Station) -> u64 {
    station.heard.iter().filter(|heard| matches!(heard, Heard::Acknowledged(_))).count() as u64
}

fn call(hub: &mut HubHost, device: &str, payload: usize) -> Result<(), InvokeError> {
    let request = MethodRequest {
        name: "m".to_owned(),
        payload: Some(format!("\"{}\"", "x".repeat(payload))),
        response_timeout: SECOND * 5,
        connect_timeout: SECOND,
    };
    let device = hub.device(device);
    hub.hub.invoke(hub.now, device, request).map(drop)
}

fn message(hub: &mut HubHost, device: &str) -> Result<(), EnqueueError> {
    let device = hub.device(device);
    hub.hub.enqueue(hub.now, device, CloudMessage::default()).map(drop)
}

#[test]
fn telemetry_above_the_rate_is_taken_and_its_pubacks_come_as_fast_as_the_rate() {
    let mut hub = hub_of(Tier::S1, &["dev"]);
    let mut station = online(&mut hub, "dev");
    for _ in 0..RATE {
        station.telemetry(&mut hub, Message::new(b"x"));
    }
    assert_eq!(acknowledged(&station), RATE, "so much may come at once");
    for _ in 0..RATE {
        station.telemetry(&mut hub, Message::new(b"x"));
    }
    assert_eq!(acknowledged(&station), RATE);
    assert!((hub.telemetry.len() as u64) > RATE, "it was taken: {}", hub.telemetry.len());
    advance(&mut hub, &mut [&mut station], SECOND / 2);
    let half = acknowledged(&station);
    assert!((RATE + RATE / 2 - 2..=RATE + RATE / 2 + 2).contains(&half), "{half}");
    advance(&mut hub, &mut [&mut station], SECOND);
    assert_eq!(acknowledged(&station), 2 * RATE);
    assert_eq!(hub.closes, [], "nobody is cut for it");
}

#[test]
fn one_message_too_far_above_the_rate_ends_its_connection_with_429() {
    let names: Vec<String> = (0..3200).map(|number| format!("dev{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut hub = hub_of(Tier::S1, &names);
    let mut stations: Vec<_> = names
        .iter()
        .map(|name| {
            hub.advance(SECOND / 100); // connections have a rate, too
            online(&mut hub, name)
        })
        .collect();
    for station in &mut stations {
        let _ = station.command(&mut hub, |device, tx| device.telemetry_at_most_once(Message::new(b"x"), tx));
    }
    let throttled = |close: &&devicebound::Close| close.reason() == CloseReason::Ended(Rule::Throttled);
    let closed = hub.closes.iter().filter(throttled).count();
    let within = (RATE * (1 + THROTTLE_DELAY_MAX.as_secs())) as usize;
    assert_eq!((hub.telemetry.len(), closed), (within, names.len() - within));
}

#[test]
fn connects_above_the_rate_are_refused_with_3_and_come_back() {
    let names: Vec<String> = (0..RATE + 1).map(|number| format!("dev{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut hub = hub_of(Tier::S1, &names);
    let mut stations: Vec<_> = names.iter().map(|name| online(&mut hub, name)).collect();
    let reasons: Vec<_> = hub.closes.iter().map(|close| close.reason()).collect();
    assert_eq!(reasons, [CloseReason::Refused(ConnectReturnCode::ServerUnavailable, Rule::ThrottledConnect)]);
    let last = stations.last_mut().expect("there are some");
    advance(&mut hub, &mut [last], SECOND * 60);
    let last = names.last().expect("there are some");
    assert!(hub.hub.is_connected(hub.device(last)));
}

#[test]
fn twin_requests_above_the_rate_are_answered_429_and_change_nothing() {
    let mut hub = hub_of(Tier::S1, &["dev"]);
    let mut station = online(&mut hub, "dev");
    let mut statuses = Vec::new();
    for number in 0..=50 {
        let (now, patch) = (hub.now, format!(r#"{{"n":{number}}}"#));
        let report = |device: &mut devicebound::Device, tx: &mut Vec<u8>| {
            device.report(now, patch.as_bytes(), None, tx).map(drop)
        };
        station.command(&mut hub, report).expect("it is online");
        statuses.extend(station.take_heard().iter().filter_map(|heard| match heard {
            Heard::Answered { status, body, .. } => Some((*status, body.contains("429001"))),
            _ => None,
        }));
    }
    let mut expected = vec![(204, false); 50];
    expected.push((429, true));
    assert_eq!(statuses, expected);
    assert_eq!(hub.record("dev").twin().reported()["n"], 49);
    let device = hub.device("dev");
    let update = hub.hub.update_twin(hub.now, device, TwinUpdate::default());
    assert_eq!(update, Err(TwinUpdateError::Tier(TierError::Throttled)), "the rate is that of both sides");
}

#[test]
fn the_back_end_is_told_when_it_does_too_much() {
    let mut hub = hub_of(Tier::S1, &["dev", "other"]);
    for turn in 0..2 {
        for _ in 0..50 {
            message(&mut hub, "dev").expect("it is within the rate");
        }
        let device = hub.device("dev");
        assert!(hub.hub.purge(hub.now, device).is_some(), "{turn}");
    }
    assert_eq!(message(&mut hub, "other"), Err(EnqueueError::Tier(TierError::Throttled)));
    hub.advance(SECOND);
    message(&mut hub, "other").expect("a minute has a hundred");

    for _ in 0..40 {
        call(&mut hub, "dev", 1).expect("40 times 4 KB are 160 KB");
    }
    assert_eq!(call(&mut hub, "other", 1), Err(InvokeError::Tier(TierError::Throttled)));

    for _ in 0..20 {
        assert_eq!(hub.hub.admit(hub.now, Operation::Query, 0), Ok(()));
    }
    assert_eq!(hub.hub.admit(hub.now, Operation::Query, 0), Err(TierError::Throttled));
    assert_eq!(hub.hub.admit(hub.now, Operation::Registry, 0), Ok(()));
}

#[test]
fn a_basic_tier_has_telemetry_alone() {
    let mut hub = hub_of(Tier::B1, &["dev"]);
    let mut station = online(&mut hub, "dev");
    station.telemetry(&mut hub, Message::new(b"x"));
    assert_eq!(acknowledged(&station), 1);
    assert_eq!(message(&mut hub, "dev"), Err(EnqueueError::Tier(TierError::NotInTier)));
    assert_eq!(call(&mut hub, "dev", 1), Err(InvokeError::Tier(TierError::NotInTier)));
    let now = hub.now;
    station.command(&mut hub, |device, tx| device.get_twin(now, tx).map(drop)).expect("it is online");
    let refused =
        |heard: &Heard| matches!(heard, Heard::Answered { status: 403, body, .. } if body.contains("403010"));
    assert!(station.heard.iter().any(refused), "{:?}", station.heard);
}

#[test]
fn when_the_day_is_used_up_connections_end_until_midnight() {
    let mut hub = hub_of(Tier::F1, &["dev"]);
    let mut station = online(&mut hub, "dev");
    // 511 blocks each: 15 of them leave 335 of 8000.
    let large = vec![0; 511 * 512];
    for _ in 0..15 {
        station.telemetry(&mut hub, Message::new(&large));
    }
    assert_eq!(hub.closes, []);
    station.telemetry(&mut hub, Message::new(&large));
    let last = station.telemetry(&mut hub, Message::new(b"one more"));
    assert_eq!(hub.closes.last().map(|close| close.reason()), Some(CloseReason::Ended(Rule::QuotaExceeded)));
    assert_eq!(message(&mut hub, "dev"), Err(EnqueueError::Tier(TierError::QuotaExceeded)));
    let used = hub.hub.usage().expect("it has a tier");
    hub.restart();
    hub.hub.set_usage(used);
    assert_eq!(message(&mut hub, "dev"), Err(EnqueueError::Tier(TierError::QuotaExceeded)));
    station.talk(&mut hub);
    advance(&mut hub, &mut [&mut station], SECOND * 60);
    assert_eq!(
        hub.closes.last().map(|close| close.reason()),
        Some(CloseReason::Refused(ConnectReturnCode::ServerUnavailable, Rule::QuotaExceeded))
    );
    let midnight = Duration::from_secs(86_400 - hub.unix_time().as_secs() % 86_400);
    advance(&mut hub, &mut [&mut station], midnight + SECOND * 600);
    assert!(station.heard.contains(&Heard::Acknowledged(last)), "nothing was lost");
}
