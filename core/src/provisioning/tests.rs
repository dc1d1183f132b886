//! A device and the service in one conversation, without sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use super::*;
use crate::device::{self, Event, Wait};
use crate::hub::{self, Refusal};
use crate::iothub::sas::SymmetricKey;
use crate::packet::ConnectReturnCode;
use crate::rule::Rule;
use crate::session::{Close, CloseReason};
use crate::time::{Instant, UnixTime};

const ASSIGNING: &str = r#"{"operationId":"4.op","status":"assigning"}"#;
const ASSIGNED: &str = r#"{"operationId":"4.op","status":"assigned","registrationState":{"registrationId":"dev-1","assignedHub":"hub.example.test","deviceId":"thing","status":"assigned","substatus":"initialAssignment","payload":{"a":1}}}"#;

fn config() -> ProvisioningConfig {
    ProvisioningConfig::new("0ne00000A0A", "dev-1", Credential::Key(SymmetricKey::from_bytes(b"key")))
}

/// A device, the service's end of its connection if there is one, and what lies between them.
struct Stage {
    device: Provisioner,
    service: Option<ServiceLink>,
    now: Instant,
    to_service: Vec<u8>,
    to_device: Vec<u8>,
    /// What the service was asked for and has not answered.
    asked: Vec<(RequestTicket, Option<String>)>,
    told: Vec<Action>,
}

impl Stage {
    fn new(config: ProvisioningConfig) -> Self {
        Self {
            device: Provisioner::new(config).unwrap(),
            service: None,
            now: Instant::from_secs(1),
            to_service: Vec::new(),
            to_device: Vec::new(),
            asked: Vec::new(),
            told: Vec::new(),
        }
    }

    fn open(&mut self) {
        self.service = Some(ServiceLink::new(self.now, LinkLimits::default()));
        self.to_device.clear();
        let opened = Event::Opened { jitter: 7, unix_time: UnixTime::from_secs(1_700_000_000) };
        assert!(matches!(self.device.handle(self.now, opened, &mut self.to_service), Ok(Action::Wait(_))));
        self.run();
    }

    /// Brings bytes to and fro until nobody has anything to say.
    fn run(&mut self) -> Option<Close> {
        loop {
            let close = self.run_device();
            if close.is_some() || !self.run_service() {
                return close;
            }
        }
    }

    fn run_device(&mut self) -> Option<Close> {
        let mut received = &*core::mem::take(&mut self.to_device).leak();
        loop {
            match self.device.handle(self.now, Event::Received(&mut received), &mut self.to_service) {
                Ok(Action::Wait(_)) => break,
                Ok(Action::Handled) => {}
                Ok(action) => self.told.push(action),
                Err(close) => return Some(close),
            }
        }
        self.to_device = received.to_vec();
        None
    }

    /// Whether it did anything.
    fn run_service(&mut self) -> bool {
        let Some(service) = &mut self.service else { return false };
        let bytes = core::mem::take(&mut self.to_service);
        let mut received = &*bytes;
        while !received.is_empty() {
            match service.handle(self.now, hub::Event::Received(&mut received), &mut self.to_device) {
                Ok(ServiceAction::Authenticate(_)) => service.accept(self.now, &mut self.to_device),
                Ok(ServiceAction::Request(ticket, ServiceRequest::Register { .. })) => {
                    self.asked.push((ticket, None));
                }
                Ok(ServiceAction::Request(ticket, ServiceRequest::Poll { operation_id })) => {
                    self.asked.push((ticket, Some(operation_id.into_owned())));
                }
                Ok(ServiceAction::Handled) => {}
                Ok(ServiceAction::Wait(_)) | Err(_) => break,
            }
        }
        !bytes.is_empty()
    }

    /// Answers what was asked first, and says what it was: an operation id, or nothing for a register.
    fn answer(&mut self, status: u16, retry_after: Option<u32>, body: &str) -> Option<String> {
        let (ticket, operation_id) = self.asked.remove(0);
        let service = self.service.as_mut().unwrap();
        service.answer(self.now, ticket, status, retry_after, body.into(), &mut self.to_device);
        self.run();
        operation_id
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        while self.device.poll_timeout().is_some_and(|deadline| deadline.at <= self.now) {
            match self.device.handle(self.now, Event::TimedOut, &mut self.to_service) {
                Ok(Action::Wait(_)) | Err(_) => {}
                Ok(action) => self.told.push(action),
            }
            self.run();
        }
    }

    /// The connection is gone, and the device waits for its next.
    fn cut(&mut self) -> Duration {
        self.service = None;
        self.asked.clear();
        let _ = self.device.handle(self.now, Event::Closed, &mut self.to_service);
        match self.device.handle(self.now, Event::Received(&mut &[][..]), &mut self.to_service) {
            Ok(Action::Wait(Wait::Connect { after })) => after,
            other => panic!("it wants to connect, not {other:?}"),
        }
    }
}

#[test]
fn a_device_that_knows_its_key_finds_its_hub() {
    let mut stage = Stage::new(config());
    stage.open();
    assert_eq!(stage.answer(202, Some(3), ASSIGNING), None, "it has registered");
    assert_eq!(stage.told.last(), Some(&Action::Assigning { after: Duration::from_secs(3) }));
    stage.pass(Duration::from_millis(2999));
    assert!(stage.asked.is_empty());
    stage.pass(Duration::from_millis(1));
    assert_eq!(stage.answer(200, None, ASSIGNED).as_deref(), Some("4.op"));
    let Some(Action::Assigned(provisioned)) = stage.told.last() else { panic!("{:?}", stage.told) };
    assert_eq!(provisioned.device.host_name(), "hub.example.test");
    assert_eq!(provisioned.device.identity().to_string(), "thing");
    assert!(matches!(provisioned.device.credential(), device::Credential::Key(_)));
    assert_eq!(provisioned.assignment.payload.as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(stage.device.poll_timeout(), None, "nothing is waited for");
    let end = stage.run().unwrap().reason();
    assert_eq!(end, CloseReason::Disconnected);
    assert!(stage.device.handle(stage.now, Event::Closed, &mut Vec::new()).is_ok());
}

#[test]
fn a_poll_goes_on_over_a_lost_connection_with_the_same_operation_id() {
    let mut stage = Stage::new(config());
    stage.open();
    stage.answer(202, Some(60), ASSIGNING);
    let after = stage.cut();
    assert_eq!(after, Duration::from_secs(60), "it need not come before it has something to ask");
    stage.pass(after);
    stage.open();
    assert_eq!(stage.answer(202, None, ASSIGNING).as_deref(), Some("4.op"));
    stage.pass(Duration::from_secs(2)); // where nothing is said
    let after = stage.cut(); // before the answer
    stage.pass(after);
    stage.open();
    assert_eq!(stage.answer(200, None, ASSIGNED).as_deref(), Some("4.op"));
    assert!(matches!(stage.told.last(), Some(Action::Assigned(_))));
}

#[test]
fn a_register_that_was_not_answered_is_made_again() {
    let mut stage = Stage::new(config());
    stage.open();
    assert_eq!(stage.asked.len(), 1);
    stage.pass(Duration::from_secs(30));
    let end = stage.run().unwrap().reason();
    assert_eq!(end, CloseReason::TimedOut(Rule::ProvisioningAnswer));
    let after = stage.cut();
    stage.pass(after);
    stage.open();
    assert_eq!(stage.answer(200, None, ASSIGNED), None);
    assert!(matches!(stage.told.last(), Some(Action::Assigned(_))));
}

#[test]
fn a_busy_service_is_asked_again_until_patience_ends() {
    let mut stage = Stage::new(config().with_patience(Duration::from_secs(100)));
    stage.open();
    for (status, told, waits) in [(429, Some(7), 7), (503, None, 2), (500, Some(0), 1)] {
        assert_eq!(stage.answer(status, told, ""), None);
        let after = Duration::from_secs(waits);
        assert_eq!(stage.told.last(), Some(&Action::Delayed { status, after }));
        stage.pass(after);
    }
    stage.answer(429, Some(4_000_000), r#"{"errorCode":429001,"message":"later"}"#);
    stage.pass(Duration::from_secs(100));
    let Some(Action::Failed(Failure::TimedOut(Some(error)))) = stage.told.last() else {
        panic!("{:?}", stage.told)
    };
    assert_eq!((error.code, &*error.message), (429_001, "later"));
    assert_eq!(stage.device.poll_timeout(), None);
}

#[test]
fn refusals_end_the_registration_and_say_what_the_service_said() {
    let failed = r#"{"operationId":"o","status":"failed","registrationState":{"errorCode":400207,"errorMessage":"no"}}"#;
    let profile = ASSIGNED.replace("\"status\":\"assigned\",\"sub", "\"connectionProfile\":\"mqttV5\",\"sub");
    let chain = ASSIGNED.replace("\"substatus\"", "\"issuedCertificateChain\":[\"QQ==\"],\"substatus\"");
    for (status, body, says) in [
        (401, r#"{"errorCode":401002,"message":"Unauthorized"}"#, "401002: Unauthorized"),
        (404, "", "404"),
        (200, failed, "400207: no"),
        (200, r#"{"operationId":"","status":"disabled"}"#, "disabled"),
        (200, "123", "makes no sense"),
        (200, &profile, "mqttV5"),
        (200, &chain, "issuedCertificateChain"),
        (202, r#"{"status":"assigning"}"#, "operationId"),
    ] {
        let mut stage = Stage::new(config());
        stage.open();
        stage.answer(status, None, body);
        let Some(Action::Failed(failure)) = stage.told.last() else { panic!("{body}: {:?}", stage.told) };
        assert!(failure.to_string().contains(says), "{failure}");
        assert!(!failure.is_transient());
    }
}

#[test]
fn a_refused_connect_is_final_and_a_busy_service_is_not() {
    for (refusal, code, is_final) in [
        (Refusal::not_authorized(Rule::DpsIdScope), ConnectReturnCode::NotAuthorized, true),
        (Refusal::unavailable(Rule::DpsThrottled), ConnectReturnCode::ServerUnavailable, false),
    ] {
        let mut stage = Stage::new(config());
        let opened = Event::Opened { jitter: 7, unix_time: UnixTime::from_secs(1_700_000_000) };
        stage.device.handle(stage.now, opened, &mut stage.to_service).unwrap();
        let mut service = ServiceLink::new(stage.now, LinkLimits::default());
        let mut received = &*stage.to_service.clone().leak();
        let event = hub::Event::Received(&mut received);
        assert!(matches!(
            service.handle(stage.now, event, &mut stage.to_device),
            Ok(ServiceAction::Authenticate(_))
        ));
        service.refuse(&refusal, &mut stage.to_device);
        let close = stage.run().unwrap();
        assert!(matches!(close.reason(), CloseReason::Refused(refused, _) if refused == code));
        assert_eq!(stage.told.last() == Some(&Action::Failed(Failure::Connect(code))), is_final);
        let end = service.handle(stage.now, hub::Event::Received(&mut &[][..]), &mut Vec::new());
        assert_eq!(end.unwrap_err().rule(), refusal.rule());
    }
}

#[test]
fn answers_leave_in_the_order_of_the_requests_and_a_link_that_is_owed_too_many_is_not_read() {
    let mut stage = Stage::new(config());
    stage.open();
    let service = stage.service.as_mut().unwrap();
    let mut requests = Vec::new();
    for packet_id in 1..=9_u8 {
        let topic = b"$dps/registrations/PUT/iotdps-register/?$rid=1";
        requests.extend_from_slice(&[0x32, topic.len() as u8 + 4, 0, topic.len() as u8]);
        requests.extend_from_slice(topic);
        requests.extend_from_slice(&[0, packet_id]);
    }
    let (mut received, mut tx, mut tickets) = (&*requests, Vec::new(), Vec::new());
    let wait = loop {
        match service.handle(stage.now, hub::Event::Received(&mut received), &mut tx) {
            Ok(ServiceAction::Request(ticket, _)) => tickets.push(ticket),
            other => break other,
        }
    };
    assert_eq!(wait, Ok(ServiceAction::Wait(hub::Wait::Store)));
    assert_eq!(tickets.len(), LinkLimits::default().requests - 1, "the device's own register is one");
    tx.clear();
    let own = stage.asked[0].0;
    for ticket in tickets.into_iter().rev() {
        service.answer(stage.now, ticket, 200, None, b"late".to_vec(), &mut tx);
        assert!(tx.is_empty(), "the first request has not been answered");
    }
    service.answer(stage.now, own, 202, None, b"first".to_vec(), &mut tx);
    let text = String::from_utf8_lossy(&tx);
    assert!(text.find("first").unwrap() < text.find("late").unwrap(), "{text}");
    assert_eq!(text.matches("late").count(), 3);
    service.answer(stage.now, own, 202, None, b"again".to_vec(), &mut tx);
    assert!(!String::from_utf8_lossy(&tx).contains("again"), "a request is answered once");
}

#[test]
fn what_is_not_a_registration_ends_the_connection_with_its_rule() {
    let publish = |topic: &str| {
        let mut packet = alloc::vec![0x30, topic.len() as u8 + 2, 0, topic.len() as u8];
        packet.extend_from_slice(topic.as_bytes());
        packet
    };
    let subscribe = |filter: &str| {
        let mut packet = alloc::vec![0x82, filter.len() as u8 + 5, 0, 1, 0, filter.len() as u8];
        packet.extend_from_slice(filter.as_bytes());
        packet.push(1);
        packet
    };
    for (packet, rule) in [
        (publish("devices/dev-1/messages/events/"), Rule::DpsTopic),
        (publish("$dps/registrations/PUT/iotdps-register/"), Rule::RequestId),
        (publish("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1"), Rule::DpsOperation),
        (subscribe("$dps/registrations/#"), Rule::DpsFilter),
        (subscribe("$iothub/twin/res/#"), Rule::DpsFilter),
    ] {
        let mut stage = Stage::new(config());
        stage.open();
        let service = stage.service.as_mut().unwrap();
        let end = service.handle(stage.now, hub::Event::Received(&mut &*packet), &mut Vec::new());
        let end = end.unwrap_err();
        assert_eq!((end.rule(), end.offending()), (rule, 0..packet.len()));
    }
}

#[test]
fn a_session_on_which_nothing_is_asked_for_ends() {
    let mut service = ServiceLink::new(Instant::from_secs(0), LinkLimits::default());
    assert_eq!(service.poll_timeout().unwrap().at, Instant::from_secs(30));
    let mut tx = Vec::new();
    let end = service.handle(Instant::from_secs(30), hub::Event::TimedOut, &mut tx).unwrap_err();
    assert_eq!(end.rule(), Rule::ConnectTime);

    let mut stage = Stage::new(config());
    stage.open();
    stage.answer(429, Some(300), "");
    let service = stage.service.as_mut().unwrap();
    let mut at = stage.now;
    for _ in 0..5 {
        at = at.after(Duration::from_secs(60));
        let _ = service.handle(at, hub::Event::Received(&mut &[0xC0, 0][..]), &mut tx);
    }
    let end = service.handle(at, hub::Event::TimedOut, &mut tx).unwrap_err();
    assert_eq!(end.rule(), Rule::DpsIdle);
}

#[test]
fn a_configuration_that_could_never_register_is_refused() {
    let new = |scope, id| Provisioner::new(ProvisioningConfig::new(scope, id, Credential::Certificate));
    assert!(new("0ne00000A0A", "dev-1").is_ok());
    assert_eq!(new("", "dev-1").unwrap_err(), ProvisioningConfigError::IdScope);
    assert_eq!(new("s", "dev/1").unwrap_err().rule(), Rule::DpsRegistrationId);
    let refused = |config: ProvisioningConfig| Provisioner::new(config).unwrap_err();
    assert_eq!(refused(config().with_payload("{")), ProvisioningConfigError::Payload);
    assert_eq!(refused(config().with_payload(&"1".repeat(100_000))), ProvisioningConfigError::TooLarge);
    assert_eq!(refused(config().with_keep_alive(0)), ProvisioningConfigError::Bounds);
    assert_eq!(refused(config().with_patience(Duration::ZERO)), ProvisioningConfigError::Bounds);
}
