//! Faults that somebody asked for: by a message, as Azure's SDKs do in their tests, or by the hub's owner.

use std::time::Duration;

use devicebound::Rule;
use devicebound::device::Message;
use devicebound::hub::{Fault, HubConfig};
use devicebound::limits::THROTTLE_DELAY_MAX;
use devicebound::packet::ConnectReturnCode;
use devicebound::session::CloseReason;
use devicebound_world::fixtures::{HOST, config, connected, record};
use devicebound_world::hub_host::HubHost;
use devicebound_world::station::{Heard, Station, advance};

const SECOND: Duration = Duration::from_secs(1);

fn testing_hub() -> (HubHost, Station) {
    let config_of_hub =
        HubConfig { host_names: vec![HOST.to_owned()], fault_injection: true, ..HubConfig::default() };
    let mut hub = HubHost::new(config_of_hub);
    hub.register(record("dev"));
    let mut station = Station::new(config("dev"));
    station.connect(&mut hub);
    (hub, station)
}

fn ask(hub: &mut HubHost, station: &mut Station, operation: &str, delay: &str, duration: &str) {
    let properties = [
        ("AzIoTHub_FaultOperationType", Some(operation)),
        ("AzIoTHub_FaultOperationCloseReason", Some("boom")),
        ("AzIoTHub_FaultOperationDelayInSecs", Some(delay)),
        ("AzIoTHub_FaultOperationDurationInSecs", Some(duration)),
    ];
    station.telemetry(hub, Message { properties: &properties, ..Message::new(b"fault") });
}

fn last_close(hub: &HubHost) -> Option<CloseReason> {
    hub.closes.last().map(|close| close.reason())
}

fn inject(hub: &mut HubHost, fault: Fault, duration: Duration) {
    let device = hub.device("dev");
    hub.hub.inject(hub.now, device, fault, Duration::ZERO, duration);
    hub.advance(Duration::ZERO);
}

#[test]
fn a_message_with_azures_properties_cuts_its_own_connection_after_the_delay() {
    for operation in ["KillTcp", "ShutDownMqtt"] {
        let (mut hub, mut station) = testing_hub();
        ask(&mut hub, &mut station, operation, "5", "20");
        assert!(matches!(station.heard.last(), Some(Heard::Acknowledged(_))), "it is telemetry as well");
        hub.advance(SECOND * 4);
        assert_eq!(last_close(&hub), None);
        hub.advance(SECOND);
        assert_eq!(last_close(&hub), Some(CloseReason::Ended(Rule::InjectedFault)), "{operation}");
        advance(&mut hub, &mut [&mut station], SECOND * 60);
        assert!(hub.hub.is_connected(hub.device("dev")), "it came back and was left in peace");
        assert_eq!(hub.closes.len(), 1);
    }
}

#[test]
fn nobody_asks_for_a_fault_where_that_is_not_allowed() {
    let (mut hub, mut station) = connected();
    ask(&mut hub, &mut station, "KillTcp", "0", "0");
    hub.advance(SECOND);
    assert_eq!(last_close(&hub), None);
}

#[test]
fn faults_of_amqp_and_delays_that_are_none_do_nothing_that_is_not_understood() {
    let (mut hub, mut station) = testing_hub();
    ask(&mut hub, &mut station, "KillAmqpConnection", "0", "1");
    ask(&mut hub, &mut station, "", "0", "1");
    hub.advance(SECOND);
    assert_eq!(last_close(&hub), None);
    ask(&mut hub, &mut station, "KillTcp", "soon", "-1");
    hub.advance(Duration::ZERO);
    assert_eq!(last_close(&hub), Some(CloseReason::Ended(Rule::InjectedFault)));
}

#[test]
fn a_fault_that_does_not_last_still_happens_once() {
    for (fault, rule) in [
        (Fault::KillTcp, Rule::InjectedFault),
        (Fault::ExpireSas, Rule::SasExpired),
        (Fault::Takeover, Rule::Takeover),
    ] {
        let (mut hub, mut station) = connected();
        inject(&mut hub, fault, Duration::ZERO);
        assert_eq!(last_close(&hub), Some(CloseReason::Ended(rule)));
        advance(&mut hub, &mut [&mut station], SECOND * 60);
        assert_eq!(hub.closes.len(), 1);
        assert!(hub.hub.is_connected(hub.device("dev")));
    }
}

#[test]
fn under_throttling_a_puback_comes_late_twin_requests_get_429_and_connects_get_3() {
    let (mut hub, mut station) = connected();
    inject(&mut hub, Fault::Throttle, SECOND * 10);
    station.take_heard();
    let now = hub.now;
    station.command(&mut hub, |device, tx| device.get_twin(now, tx).map(drop)).expect("it is online");
    assert!(
        station.heard.iter().any(|heard| matches!(heard, Heard::Answered { status: 429, .. })),
        "{:?}",
        station.heard
    );
    let ticket = station.telemetry(&mut hub, Message::new(b"late"));
    assert!(!station.heard.contains(&Heard::Acknowledged(ticket)));
    assert_eq!(hub.telemetry.len(), 1, "it was taken all the same");
    advance(&mut hub, &mut [&mut station], SECOND * 10);
    assert!(station.heard.contains(&Heard::Acknowledged(ticket)));
    assert_eq!(last_close(&hub), None);

    inject(&mut hub, Fault::Throttle, SECOND * 10);
    station.cut(&mut hub);
    station.connect(&mut hub);
    let refused = CloseReason::Refused(ConnectReturnCode::ServerUnavailable, Rule::ThrottledConnect);
    assert_eq!(last_close(&hub), Some(refused));
    advance(&mut hub, &mut [&mut station], SECOND * 120);
    assert!(hub.hub.is_connected(hub.device("dev")));
}

#[test]
fn throttling_that_would_delay_too_long_ends_the_connection() {
    let (mut hub, mut station) = connected();
    inject(&mut hub, Fault::Throttle, THROTTLE_DELAY_MAX + SECOND);
    station.telemetry(&mut hub, Message::new(b"too much"));
    assert_eq!(last_close(&hub), Some(CloseReason::Ended(Rule::Throttled)));
    assert_eq!(hub.telemetry.len(), 0);
}

#[test]
fn a_quota_that_is_used_up_ends_the_connection_and_refuses_the_next_with_3() {
    let (mut hub, mut station) = connected();
    inject(&mut hub, Fault::Quota, SECOND * 30);
    assert_eq!(last_close(&hub), None, "a device that sends nothing notices nothing");
    let ticket = station.telemetry(&mut hub, Message::new(b"one more"));
    assert_eq!(last_close(&hub), Some(CloseReason::Ended(Rule::QuotaExceeded)));
    advance(&mut hub, &mut [&mut station], SECOND * 29);
    let refused = CloseReason::Refused(ConnectReturnCode::ServerUnavailable, Rule::QuotaExceeded);
    assert_eq!(last_close(&hub), Some(refused));
    advance(&mut hub, &mut [&mut station], SECOND * 600);
    assert!(station.heard.contains(&Heard::Acknowledged(ticket)), "nothing was lost");
}

#[test]
fn a_slow_hub_says_nothing_for_its_time_and_cuts_nobody_for_silence() {
    let (mut hub, mut station) = connected();
    inject(&mut hub, Fault::Slow, SECOND * 5);
    let ticket = station.telemetry(&mut hub, Message::new(b"slow"));
    hub.advance(SECOND * 4);
    station.talk(&mut hub);
    assert_eq!(hub.telemetry.len(), 0, "it is not even read");
    hub.advance(SECOND);
    station.talk(&mut hub);
    assert!(station.heard.contains(&Heard::Acknowledged(ticket)));
    assert_eq!(last_close(&hub), None);
}

#[test]
fn a_fault_for_a_device_that_is_gone_is_forgotten() {
    let (mut hub, _station) = connected();
    let device = hub.device("dev");
    hub.hub.inject(hub.now, device, Fault::KillTcp, SECOND, SECOND);
    assert!(hub.hub.remove(device).is_some());
    hub.hub.inject(hub.now, device, Fault::KillTcp, SECOND, SECOND);
    hub.advance(SECOND * 5);
    assert_eq!(last_close(&hub), Some(CloseReason::Ended(Rule::DeviceRemoved)));
}
