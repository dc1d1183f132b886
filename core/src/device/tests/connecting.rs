//! From the first transport to the end, and to the next one.

use super::*;
use crate::iothub::sas::SasToken;
use crate::packet::{Connect, ConnectReturnCode, Packet, pingresp};
use alloc::borrow::ToOwned as _;
use alloc::format;

fn connect_of(bench: &Bench) -> Connect<'_> {
    match decode(&mut &bench.tx[..], usize::MAX).unwrap() {
        Decoded::Packet(Packet::Connect(connect)) => connect,
        other => panic!("{other:?}"),
    }
}

fn opened(config: DeviceConfig) -> Bench {
    let mut bench = Bench::new(config);
    let event = Event::Opened { jitter: 0, unix_time: WALL_CLOCK };
    bench.event(event).unwrap();
    bench
}

#[test]
fn a_new_device_wants_to_connect_at_once() {
    let mut bench = Bench::new(config());
    let wait = Ok(Action::Wait(Wait::Connect { after: Duration::ZERO }));
    assert_eq!(bench.pull(&mut &[][..]), wait);
    assert_eq!(bench.device.poll_timeout(), None);
    assert_eq!(bench.device.config().network_host(), "hub.example.test");
}

#[test]
fn connect_carries_identity_user_name_and_a_token_that_the_device_signed() {
    let bench = opened(config().with_model_id("dtmi:com:example;1").with_client_type("test/1"));
    let connect = connect_of(&bench);
    assert_eq!((connect.client_id.as_str(), connect.clean_session, connect.keep_alive), ("dev1", false, 60));
    let credentials = connect.credentials.unwrap();
    assert_eq!(
        credentials.username.as_str(),
        "hub.example.test/dev1/?api-version=2021-04-12&DeviceClientType=test%2F1&model-id=dtmi%3Acom%3Aexample%3B1"
    );
    let token = core::str::from_utf8(credentials.password.unwrap()).unwrap();
    let token = SasToken::parse(token).unwrap();
    assert_eq!(token.resource(), "hub.example.test/devices/dev1");
    assert_eq!(token.expiry(), WALL_CLOCK.after(Duration::from_secs(3600)));
    let Credential::Key(key) = bench.device.config().credential() else { panic!() };
    assert!(token.is_signed_with(key));
}

#[test]
fn a_module_behind_a_gateway_names_hub_device_and_module() {
    let text = CONNECTION_STRING.to_owned() + ";ModuleId=modA;GatewayHostName=edge.example.test";
    let bench = opened(DeviceConfig::from_connection_string(&text).unwrap());
    assert_eq!(bench.device.config().network_host(), "edge.example.test");
    let connect = connect_of(&bench);
    assert_eq!(connect.client_id.as_str(), "dev1/modA");
    let credentials = connect.credentials.unwrap();
    assert!(credentials.username.as_str().starts_with("hub.example.test/dev1/modA/?api-version="));
    let token = core::str::from_utf8(credentials.password.unwrap()).unwrap();
    assert_eq!(SasToken::parse(token).unwrap().resource(), "hub.example.test/devices/dev1/modules/modA");
}

#[test]
fn a_token_made_with_the_key_of_a_policy_names_the_policy() {
    let text = CONNECTION_STRING.to_owned() + ";SharedAccessKeyName=device";
    let bench = opened(DeviceConfig::from_connection_string(&text).unwrap());
    let password = connect_of(&bench).credentials.unwrap().password.unwrap();
    let token = SasToken::parse(core::str::from_utf8(password).unwrap()).unwrap();
    assert_eq!(token.key_name().as_deref(), Some("device"));
}

#[test]
fn a_device_with_a_certificate_sends_no_password() {
    let config =
        DeviceConfig::from_connection_string("HostName=h.example.test;DeviceId=d;x509=true").unwrap();
    assert_eq!(connect_of(&opened(config)).credentials.unwrap().password, None);
}

#[test]
fn the_will_is_a_telemetry_message() {
    let message = Message { message_id: Some("bye 1"), ..Message::new(b"gone") };
    let bench = opened(config().with_will(&message, QoS::AtLeastOnce).unwrap());
    let will = connect_of(&bench).will.unwrap();
    assert_eq!(will.topic.to_string(), "devices/dev1/messages/events/%24.mid=bye%201");
    assert_eq!((will.message, will.qos, will.retain), (&b"gone"[..], QoS::AtLeastOnce, false));
    let refused = config().with_will(&message, QoS::ExactlyOnce).unwrap_err();
    assert_eq!(refused, ConfigError::WillQos);
}

#[test]
fn a_config_with_which_no_connection_could_be_made_makes_no_device() {
    let refused = |config: DeviceConfig| Device::new(config).unwrap_err();
    assert_eq!(refused(config().with_keep_alive(0)), ConfigError::KeepAlive);
    assert_eq!(refused(config().with_keep_alive(1178)), ConfigError::KeepAlive);
    let wild = crate::iothub::Identity::new("dev#1", None).unwrap();
    assert_eq!(refused(DeviceConfig::new("h", wild, Credential::Certificate)), ConfigError::Wildcard);
    let plain = crate::iothub::Identity::new("dev1", None).unwrap();
    let token = Credential::Token("no token".to_owned());
    assert_eq!(refused(DeviceConfig::new("h", plain, token)), ConfigError::Token);
    assert_eq!(refused(config().with_model_id(&"x".repeat(65_536))), ConfigError::Connect(Rule::TextLength));
    assert_eq!(refused(config().with_limits(Limits { window: 0, ..Limits::default() })), ConfigError::Bounds);
    let service = "HostName=h.example.test;SharedAccessKeyName=p;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==";
    assert_eq!(DeviceConfig::from_connection_string(service).unwrap_err(), ConfigError::NotADevice);
}

#[test]
fn neither_key_nor_token_is_shown_to_a_reader_of_logs() {
    let shown = alloc::format!("{:?}", Bench::online().device);
    assert!(!shown.contains("SharedAccessSignature"), "{shown}");
    assert!(!shown.contains("AAECAwQF"), "{shown}");
}

#[test]
fn what_the_application_wants_is_subscribed_when_the_hub_has_no_session() {
    let mut bench = Bench::opening(config());
    bench.device.subscribe(bench.now, Subscription::CloudMessages, &mut bench.tx).unwrap();
    bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    assert!(bench.sent().is_empty());
    bench.accept(false);
    let sent = bench.sent();
    let filters: Vec<_> = sent.iter().map(|packet| (packet.topic.as_str(), packet.qos.unwrap())).collect();
    assert_eq!(
        filters,
        [
            ("devices/dev1/messages/devicebound/#", QoS::AtLeastOnce),
            ("$iothub/methods/POST/#", QoS::AtMostOnce)
        ]
    );
}

#[test]
fn subscriptions_are_made_again_if_and_only_if_the_hub_lost_the_session() {
    let mut bench = Bench::subscribed(&[Subscription::Methods]);
    bench.reconnect(true);
    assert!(bench.sent().is_empty());
    bench.reconnect(false);
    assert_eq!(bench.sent_topics(), ["$iothub/methods/POST/#"]);
}

#[test]
fn a_subscription_that_was_taken_back_offline_is_taken_back_at_the_hub_too() {
    let mut bench = Bench::subscribed(&[Subscription::Methods]);
    assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
    bench.device.unsubscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    bench.wait_for_timer().unwrap();
    bench.open();
    bench.accept(true);
    let sent = bench.sent();
    assert_eq!((sent[0].kind, sent[0].topic.as_str()), (PacketType::Unsubscribe, "$iothub/methods/POST/#"));
    let action = bench.hear(|out| unsuback(sent[0].id.unwrap(), out));
    assert_eq!(action, Action::Unsubscribed(Subscription::Methods));
}

#[test]
fn the_application_hears_what_became_of_its_subscription() {
    let mut bench = Bench::online();
    bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    let sent = bench.sent();
    assert_eq!(sent.len(), 1, "asked once");
    let granted = [SubAckCode::Granted(QoS::AtMostOnce)];
    assert_eq!(
        bench.hear(|out| suback(sent[0].id, &granted, out)),
        Action::Subscribed(Subscription::Methods)
    );
    bench.device.subscribe(bench.now, Subscription::CloudMessages, &mut bench.tx).unwrap();
    let sent = bench.sent();
    let refused = bench.hear(|out| suback(sent[0].id, &[SubAckCode::Failure], out));
    assert_eq!(refused, Action::SubscriptionRefused(Subscription::CloudMessages));
    bench.reconnect(false);
    assert_eq!(bench.sent_topics(), ["$iothub/methods/POST/#"], "a refused one is not asked for again");
}

#[test]
fn each_identity_subscribes_to_its_own_kind_of_messages_only() {
    let mut bench = Bench::online();
    let refused = bench.device.subscribe(bench.now, Subscription::ModuleInputs, &mut bench.tx);
    assert_eq!(refused, Err(RequestError::OtherIdentity));
    let text = CONNECTION_STRING.to_owned() + ";ModuleId=modA";
    let mut bench = Bench::online_with(DeviceConfig::from_connection_string(&text).unwrap());
    let refused = bench.device.subscribe(bench.now, Subscription::CloudMessages, &mut bench.tx);
    assert_eq!(refused, Err(RequestError::OtherIdentity));
    bench.device.subscribe(bench.now, Subscription::ModuleInputs, &mut bench.tx).unwrap();
    assert_eq!(bench.sent_topics(), ["devices/dev1/modules/modA/#"]);
}

#[test]
fn subscriptions_without_answer_are_bounded() {
    let mut bench = Bench::online();
    for _ in 0..8 {
        bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
        bench.device.unsubscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    }
    bench.sent();
    let refused = bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx);
    assert_eq!(refused, Err(RequestError::TooMany));
    assert!(bench.sent().is_empty());

    let mut bench = Bench::online();
    for _ in 0..15 {
        bench.device.wanted.remove(Subscription::Methods);
        bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    }
    bench.sent();
    let two_at_once = bench.device.subscribe(bench.now, Subscription::DesiredPatches, &mut bench.tx);
    assert_eq!(two_at_once, Err(RequestError::TooMany));
    assert!(bench.sent().is_empty());
    bench.device.subscribe(bench.now, Subscription::CloudMessages, &mut bench.tx).unwrap();
    let refused = bench.device.unsubscribe(bench.now, Subscription::Methods, &mut bench.tx);
    assert_eq!(refused, Err(RequestError::TooMany));
}

#[test]
fn a_subscription_that_is_not_acknowledged_in_time_ends_the_connection() {
    let timing = Timing { request: Duration::from_secs(20), ..Timing::default() };
    let mut bench = Bench::online_with(config().with_timing(timing));
    bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    assert_eq!(bench.device.poll_timeout().unwrap().why, Timer::Request);
    assert_eq!(bench.wait_for_timer(), Err(CloseReason::TimedOut(Rule::AckTime)));
}

#[test]
fn a_hub_that_does_not_answer_connect_is_left() {
    let mut bench = Bench::opening(config());
    assert_eq!(bench.device.poll_timeout().unwrap().why, Timer::ConnAck);
    assert_eq!(bench.event(Event::TimedOut), Ok(Action::Wait(Wait::Read { at_least: 1 })), "too early");
    assert_eq!(bench.wait_for_timer(), Err(CloseReason::TimedOut(Rule::ConnAckTime)));
}

#[test]
fn a_refused_device_waits_minutes() {
    let mut bench = Bench::opening(config());
    let code = ConnectReturnCode::NotAuthorized;
    let close = bench.hear_and_close(|out| ConnAck::Refused(code).encode(out));
    assert_eq!(close.reason(), CloseReason::Refused(code, Rule::ConnectRefused));
    let Ok(Action::Wait(Wait::Connect { after })) = bench.event(Event::Closed) else { panic!() };
    assert!(after >= Duration::from_secs(120), "{after:?}");
}

#[test]
fn an_end_is_told_until_the_transport_is_closed_and_then_the_machine_wants_the_next_one() {
    let mut bench = Bench::online();
    let close = bench.hear_and_close(|out| puback(id(9), out));
    assert_eq!((close.reason(), close.offending()), (CloseReason::Violation(Rule::UnsolicitedAck), 0..4));
    assert_eq!(bench.pull(&mut &b"anything"[..]), Err(close.reason()));
    assert_eq!(bench.event(Event::TimedOut), Err(close.reason()));
    assert_eq!(bench.device.poll_timeout(), None);
    let Ok(Action::Wait(Wait::Connect { after })) = bench.event(Event::Closed) else { panic!() };
    assert!((Duration::from_secs(1)..=Duration::from_secs(2)).contains(&after), "{after:?}");
    assert_eq!(
        bench.device.poll_timeout().unwrap(),
        Deadline { at: bench.now.after(after), why: Timer::Reconnect }
    );
    assert_eq!(bench.wait_for_timer(), Ok(Action::Wait(Wait::Connect { after: Duration::ZERO })));
    assert_eq!(bench.device.poll_timeout(), None);
}

#[test]
fn each_transport_that_cannot_be_opened_makes_the_wait_longer() {
    let mut bench = Bench::new(config());
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let Ok(Action::Wait(Wait::Connect { after })) = bench.event(Event::Closed) else { panic!() };
        assert!(after >= Duration::from_secs(1) && after <= Duration::from_secs(60), "{after:?}");
        let again = bench.event(Event::Closed);
        assert_eq!(again, Ok(Action::Wait(Wait::Connect { after })), "reported twice, counted once");
        longest = longest.max(after);
        bench.wait_for_timer().unwrap();
    }
    assert!(longest > Duration::from_secs(10), "{longest:?}");
    assert_eq!(bench.device.status().failures, 20);
}

#[test]
fn the_jitter_of_a_connection_spreads_the_next_one() {
    let delay = |jitter| {
        let mut bench = Bench::new(config());
        bench.event(Event::Opened { jitter, unix_time: WALL_CLOCK }).unwrap();
        assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
        bench.device.poll_timeout().unwrap().at
    };
    assert_eq!(delay(1), delay(1));
    assert_ne!(delay(1), delay(2));
}

#[test]
fn whatever_comes_is_a_sign_of_life() {
    let mut bench = Bench::online();
    bench.wait_for_timer().unwrap();
    bench.sent();
    assert_eq!(bench.device.poll_timeout().unwrap().why, Timer::PingResp);
    let expect = |bench: &mut Bench, step: &str| {
        let deadline = bench.device.poll_timeout().unwrap();
        assert_eq!(deadline.at, bench.now.after(Duration::from_secs(30)), "{step}");
    };
    bench.now = bench.now.after(Duration::from_secs(10));
    bench.hear(say("somewhere/else", b""));
    expect(&mut bench, "a packet");
    bench.now = bench.now.after(Duration::from_secs(10));
    let half = &packet_bytes(say("somewhere/else", &[0; 100]))[..50];
    bench.pull(&mut &half[..]).unwrap();
    expect(&mut bench, "half a packet");
}

#[test]
fn a_half_open_link_is_found_within_keep_alive_and_ping_time_out_while_sending_steadily() {
    let mut bench = Bench::online();
    let start = bench.now;
    let close = loop {
        bench.telemetry(b"x");
        bench.now = bench.now.after(Duration::from_secs(1));
        if bench.device.poll_timeout().is_some_and(|deadline| deadline.at <= bench.now)
            && let Err(close) = bench.event(Event::TimedOut)
        {
            break close;
        }
    };
    assert_eq!(close, CloseReason::TimedOut(Rule::PingTimeout));
    assert_eq!(bench.now.since(start), Duration::from_secs(90));
}

#[test]
fn an_idle_link_is_kept_alive_by_pings() {
    let mut bench = Bench::online();
    for _ in 0..10 {
        assert_eq!(bench.device.poll_timeout().unwrap().why, Timer::Ping);
        bench.wait_for_timer().unwrap();
        assert_eq!(bench.sent().iter().map(|packet| packet.kind).collect::<Vec<_>>(), [PacketType::PingReq]);
        assert_eq!(bench.hear(pingresp), Action::Handled);
    }
}

#[test]
fn the_token_is_renewed_at_85_percent_of_its_life_by_a_new_connection() {
    let mut bench = Bench::online_with(config().with_keep_alive(1177));
    let start = bench.now;
    loop {
        match bench.wait_for_timer() {
            Ok(_) => {}
            Err(close) => {
                assert_eq!(close, CloseReason::Ended(Rule::TokenRenewal));
                break;
            }
        }
        if bench.sent().iter().any(|packet| packet.kind == PacketType::PingReq) {
            bench.hear(pingresp);
        }
    }
    assert_eq!(bench.now.since(start), Duration::from_secs(3060));
    assert_eq!(bench.sent().last().unwrap().kind, PacketType::Disconnect);
    assert_eq!(bench.event(Event::Closed), Ok(Action::Wait(Wait::Connect { after: Duration::ZERO })));
}

/// A bench whose token is to be renewed next, with one telemetry message in flight.
fn about_to_renew() -> (Bench, Sent) {
    let timing = Timing { token_lifetime: Duration::from_secs(20), ..Timing::default() };
    let mut bench = Bench::online_with(config().with_timing(timing));
    bench.telemetry(b"in flight");
    let sent = bench.sent().remove(0);
    assert_eq!(bench.device.poll_timeout().unwrap().why, Timer::TokenRenewal);
    bench.wait_for_timer().unwrap();
    (bench, sent)
}

#[test]
fn a_renewal_waits_for_what_is_in_flight_and_sends_nothing_new_meanwhile() {
    let (mut bench, in_flight) = about_to_renew();
    bench.telemetry(b"later");
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Wait(Wait::Read { at_least: 2 })));
    assert!(bench.sent().is_empty());
    let mut rx = packet_bytes(acknowledge(&in_flight));
    assert!(matches!(bench.pull(&mut rx), Ok(Action::Acknowledged(_))));
    assert_eq!(bench.pull(&mut rx), Err(CloseReason::Ended(Rule::TokenRenewal)));
    assert_eq!(bench.sent().last().unwrap().kind, PacketType::Disconnect);
    bench.event(Event::Closed).unwrap();
    bench.open();
    bench.accept(true);
    assert_eq!(bench.sent()[0].payload, b"later");
}

#[test]
fn a_renewal_waits_for_requests_calls_and_subscriptions_too() {
    let timing = Timing { token_lifetime: Duration::from_secs(20), ..Timing::default() };
    let renewing = |prepare: fn(&mut Bench)| {
        let mut bench = Bench::online_with(config().with_timing(timing));
        bench.device.subscribe(bench.now, Subscription::TwinResponses, &mut bench.tx).unwrap();
        bench.grant_all();
        prepare(&mut bench);
        bench.wait_for_timer()
    };
    assert_eq!(renewing(|_| {}), Err(CloseReason::Ended(Rule::TokenRenewal)));
    let waiting = Ok(Action::Wait(Wait::Read { at_least: 1 }));
    let request = |bench: &mut Bench| {
        bench.device.get_twin(bench.now, &mut bench.tx).unwrap();
    };
    let call = |bench: &mut Bench| {
        bench.hear(say("$iothub/methods/POST/m/?$rid=1", b""));
    };
    let subscribe = |bench: &mut Bench| {
        bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    };
    for what in [request, call, subscribe] {
        assert_eq!(renewing(what), waiting);
    }
}

#[test]
fn a_renewal_does_not_wait_for_ever() {
    let (mut bench, _) = about_to_renew();
    assert_eq!(bench.wait_for_timer(), Err(CloseReason::Ended(Rule::TokenRenewal)));
}

#[test]
fn the_time_offline_is_measured_and_that_of_renewals_by_itself() {
    let (mut bench, in_flight) = about_to_renew();
    let mut rx = packet_bytes(acknowledge(&in_flight));
    bench.pull(&mut rx).unwrap();
    bench.pull(&mut rx).unwrap_err();
    bench.event(Event::Closed).unwrap();
    bench.now = bench.now.after(Duration::from_millis(300));
    bench.open();
    bench.now = bench.now.after(Duration::from_millis(50));
    bench.accept(true);
    let renewal = Duration::from_millis(350);
    let offline = OfflineTime { total: renewal, renewals: 1, in_renewals: renewal };
    assert_eq!(bench.device.status().offline, offline);

    assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
    bench.pull_all();
    bench.now = bench.now.after(Duration::from_secs(60));
    bench.open();
    bench.accept(true);
    let total = renewal + Duration::from_secs(60);
    assert_eq!(bench.device.status().offline, OfflineTime { total, ..offline });
}

#[test]
fn another_credential_is_used_by_a_new_connection_once_nothing_is_in_flight() {
    let token = "SharedAccessSignature sr=hub.example.test%2Fdevices%2Fdev1&sig=AAAA&se=1700003600";
    let config = DeviceConfig::from_connection_string(&format!(
        "HostName=hub.example.test;DeviceId=dev1;SharedAccessSignature={token}"
    ));
    let mut bench = Bench::online_with(config.unwrap());
    let ticket = bench.telemetry(b"in flight");
    let in_flight = bench.sent().remove(0);
    let malformed = Credential::Token("x".to_string());
    let refused = bench.device.replace_credential(bench.now, malformed);
    assert_eq!(refused, Err(ConfigError::Token));

    let newer = token.replace("1700003600", "1700007200");
    bench.device.replace_credential(bench.now, Credential::Token(newer.clone())).unwrap();
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Wait(Wait::Read { at_least: 2 })));
    let mut rx = packet_bytes(acknowledge(&in_flight));
    assert_eq!(bench.pull(&mut rx), Ok(Action::Acknowledged(ticket)));
    assert_eq!(bench.pull(&mut rx), Err(CloseReason::Ended(Rule::TokenRenewal)));
    bench.event(Event::Closed).unwrap();
    bench.tx.clear();
    let event = Event::Opened { jitter: 7, unix_time: WALL_CLOCK };
    bench.event(event).unwrap();
    assert!(bench.tx.windows(newer.len()).any(|window| window == newer.as_bytes()));
}

#[test]
fn disconnect_ends_in_good_order_and_asks_for_no_other_connection() {
    let mut bench = Bench::online();
    bench.device.disconnect(bench.now, &mut bench.tx);
    assert_eq!(bench.sent().last().unwrap().kind, PacketType::Disconnect);
    assert_eq!(bench.pull(&mut &[][..]), Err(CloseReason::Disconnected));
    assert_eq!(bench.event(Event::Closed), Ok(Action::Wait(Wait::Nothing)));
    assert_eq!(bench.device.poll_timeout(), None);
    bench.open();
    bench.accept(false);
    assert_eq!(bench.device.status().connection, ConnectionState::Online);
}

#[test]
fn an_opened_transport_replaces_one_that_was_not_reported_closed() {
    let mut bench = Bench::online();
    bench.telemetry(b"x");
    bench.tx.extend_from_slice(b"left over");
    let sent = bench.open();
    assert_eq!(sent.iter().map(|packet| packet.kind).collect::<Vec<_>>(), [PacketType::Connect]);
    bench.accept(false);
    assert!(bench.sent()[0].dup);
}
