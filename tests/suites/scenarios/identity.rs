//! Who may connect, what happens to a connection when the registry changes, and when a device was last seen.

use std::time::Duration;

use devicebound::Rule;
use devicebound::device::Message;
use devicebound::hub::{
    Action, Authentication, ClientCertificate, DeviceIdentity, DeviceRecord, Event, Grant, HubConfig, LinkId,
    Refusal, TlsClient,
};
use devicebound::iothub::sas::{Policy, Rights, SymmetricKey, sign};
use devicebound::packet::{Connect, Credentials, Text};
use devicebound::session::CloseReason;
use devicebound_world::fixtures::{HOST, KEYS, config, hub, record};
use devicebound_world::hub_host::{HubHost, START};
use devicebound_world::station::{Station, advance};

const SECOND: Duration = Duration::from_secs(1);

fn key(text: &str) -> SymmetricKey {
    SymmetricKey::from_base64(text).expect("it is base64")
}

fn token(resource: &str, key_text: &str, policy: Option<&str>) -> String {
    sign(resource, &key(key_text), START.after(SECOND * 3600), policy)
}

fn connect(client_id: &str, password: Option<&str>) -> Vec<u8> {
    let username = format!("{HOST}/{client_id}/?api-version=2021-04-12");
    let username = Text::new(&username).expect("it is text");
    let connect = Connect {
        clean_session: true,
        keep_alive: 600,
        client_id: Text::new(client_id).expect("it is text"),
        will: None,
        credentials: Some(Credentials { username, password: password.map(str::as_bytes) }),
    };
    let mut bytes = Vec::new();
    connect.encode(&mut bytes).expect("the fields are short");
    bytes
}

/// The hub's answer to a CONNECT: accepted, or the rule that is broken.
fn attempt(hub: &mut HubHost, client_id: &str, password: &str) -> Result<LinkId, Rule> {
    let link = hub.open();
    hub.receive(link, &connect(client_id, Some(password)));
    hub.closed(link).map_or(Ok(link), |close| Err(close.rule()))
}

fn certificate_verdict(
    client_id: &str,
    authentication: Authentication,
    shown: &ClientCertificate,
) -> Result<(), Rule> {
    let mut hub = hub(&[]);
    let identity = DeviceIdentity::new(client_id, "1".to_owned(), authentication).expect("it is an id");
    hub.register(DeviceRecord::new(identity));
    verdict(&mut hub, client_id, shown).map(drop).map_err(|refusal| refusal.rule())
}

/// The verdict on a CONNECT without a password, whose client has shown this certificate.
pub(crate) fn verdict(
    hub: &mut HubHost,
    client_id: &str,
    shown: &ClientCertificate,
) -> Result<Grant, Refusal> {
    let client = TlsClient { certificate: Some(shown), ..TlsClient::default() };
    judge(hub, &connect(client_id, None), client)
}

/// The verdict on a CONNECT.
pub(crate) fn judge(hub: &mut HubHost, bytes: &[u8], client: TlsClient<'_>) -> Result<Grant, Refusal> {
    let link = hub.hub.open(hub.now).expect("there is room");
    let event = Event::Received(&mut &*bytes);
    let Ok(Action::Authenticate(request)) = hub.hub.handle(hub.now, link, event, &mut Vec::new()) else {
        unreachable!("a CONNECT is to be judged");
    };
    hub.hub.authenticate(hub.now, link, &request, client)
}

fn rotate(hub: &mut HubHost, client_id: &str, keys: [&str; 2]) {
    let device = hub.device(client_id);
    let authentication = Authentication::Sas { primary: key(keys[0]), secondary: key(keys[1]) };
    let commit =
        hub.hub.update_identity(hub.now, device, |identity| identity.authentication = authentication);
    hub.commit(commit.expect("the device is registered"));
}

fn enable(hub: &mut HubHost, client_id: &str, enabled: bool) {
    let device = hub.device(client_id);
    let commit = hub.hub.update_identity(hub.now, device, |identity| identity.enabled = enabled);
    hub.commit(commit.expect("the device is registered"));
}

const OTHER_KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

// --- who may connect ---

#[test]
fn either_key_opens_and_a_policy_with_the_right_does() {
    let device = format!("{HOST}/devices/dev");
    let policy = |name: &str, rights| Policy { name: name.to_owned(), keys: vec![key(OTHER_KEY)], rights };
    let policies = vec![policy("device", Rights::DEVICE_CONNECT), policy("service", Rights::SERVICE_CONNECT)];
    let mut hub =
        HubHost::new(HubConfig { host_names: vec![HOST.to_owned()], policies, ..HubConfig::default() });
    hub.register(record("dev"));
    for (token, verdict) in [
        (token(&device, KEYS[0], None), None),
        (token(&device, KEYS[1], None), None),
        (token(&device, OTHER_KEY, None), Some(Rule::SasSignature)),
        (token(HOST, OTHER_KEY, Some("device")), None),
        (token(&format!("{HOST}/devices"), OTHER_KEY, Some("device")), None),
        (token(HOST, OTHER_KEY, Some("service")), Some(Rule::SasPolicy)),
        (token(HOST, KEYS[0], Some("device")), Some(Rule::SasSignature)),
        (token(HOST, OTHER_KEY, Some("nobody")), Some(Rule::SasPolicy)),
    ] {
        assert_eq!(attempt(&mut hub, "dev", &token).err(), verdict, "{token}");
    }
}

#[test]
fn a_clock_that_differs_by_less_than_the_skew_is_borne() {
    let old = sign(&format!("{HOST}/devices/dev"), &key(KEYS[0]), START, None);
    for (skew, late, verdict) in
        [(0, 0, Some(Rule::SasExpired)), (300, 299, None), (300, 300, Some(Rule::SasExpired))]
    {
        let clock_skew = Duration::from_secs(skew);
        let expiry_grace = Duration::from_secs(600);
        let mut hub = HubHost::new(HubConfig { clock_skew, expiry_grace, ..HubConfig::default() });
        hub.register(record("dev"));
        hub.advance(Duration::from_secs(late));
        assert_eq!(attempt(&mut hub, "dev", &old).err(), verdict, "skew {skew} s, {late} s late");
    }
}

#[test]
fn a_live_connection_outlives_its_token_by_the_grace() {
    let expiry_grace = Duration::from_secs(600);
    let mut hub = HubHost::new(HubConfig { expiry_grace, ..HubConfig::default() });
    hub.register(record("dev"));
    let good = token(&format!("{HOST}/devices/dev"), KEYS[0], None);
    let link = attempt(&mut hub, "dev", &good).expect("it is welcome");
    for _minute in 0..69 {
        hub.receive(link, &[0xC0, 0]);
        hub.advance(SECOND * 60);
        assert_eq!(hub.closed(link), None);
    }
    hub.advance(SECOND * 60);
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::SasExpired));
}

#[test]
fn a_module_shows_its_own_token_or_that_of_its_device() {
    let (of_device, of_module) = (format!("{HOST}/devices/dev"), format!("{HOST}/devices/dev/modules/mod"));
    let mut hub = hub(&["dev", "dev/mod", "other"]);
    rotate(&mut hub, "dev/mod", [OTHER_KEY, OTHER_KEY]);
    for (token, verdict) in [
        (token(&of_module, OTHER_KEY, None), None),
        (token(&of_device, KEYS[0], None), None),
        (token(&of_device, OTHER_KEY, None), Some(Rule::SasScope)),
        (token(&format!("{HOST}/devices/other"), KEYS[0], None), Some(Rule::SasScope)),
        (token(&of_module, KEYS[0], None), Some(Rule::SasSignature)),
    ] {
        assert_eq!(attempt(&mut hub, "dev/mod", &token).err(), verdict, "{token}");
    }
    assert!(attempt(&mut hub, "dev", &token(&of_module, KEYS[0], None)).is_err(), "not the other way round");
}

#[test]
fn a_certificate_opens_by_thumbprint_or_by_the_name_that_a_trusted_authority_gave_it() {
    let shown = |name: &str, is_trusted| ClientCertificate {
        sha1: "a1".repeat(20),
        sha256: "b2".repeat(32),
        common_name: Some(name.to_owned()),
        is_trusted,
        ..ClientCertificate::default()
    };
    let by_print = |primary: String, secondary| Authentication::SelfSigned { primary, secondary };
    let by_authority = Authentication::CertificateAuthority;
    for (authentication, certificate, verdict) in [
        (by_print("A1".repeat(20), None), shown("whatever", false), Ok(())),
        (by_print("00".repeat(20), Some("B2".repeat(32))), shown("whatever", false), Ok(())),
        (by_print("00".repeat(20), None), shown("dev", true), Err(Rule::Certificate)),
        (by_authority.clone(), shown("dev", true), Ok(())),
        (by_authority.clone(), shown("dev", false), Err(Rule::CertificateChain)),
        (by_authority.clone(), shown("Dev", true), Err(Rule::CertificateName)),
        (
            by_authority,
            ClientCertificate { is_trusted: true, ..ClientCertificate::default() },
            Err(Rule::CertificateName),
        ),
        (
            Authentication::Sas { primary: key(KEYS[0]), secondary: key(KEYS[1]) },
            shown("dev", true),
            Err(Rule::Certificate),
        ),
    ] {
        let found = certificate_verdict("dev", authentication.clone(), &certificate);
        assert_eq!(found, verdict, "{authentication:?}");
    }
    for (authentication, name, verdict) in [
        (by_print("A1".repeat(20), None), "whatever", Ok(())),
        (Authentication::CertificateAuthority, "dev/mod", Ok(())),
        (Authentication::CertificateAuthority, "dev", Err(Rule::CertificateName)),
    ] {
        assert_eq!(certificate_verdict("dev/mod", authentication, &shown(name, true)), verdict, "{name}");
    }
}

#[test]
fn no_module_of_a_disabled_device_connects() {
    let mut hub = hub(&["dev", "dev/mod"]);
    let token = token(&format!("{HOST}/devices/dev/modules/mod"), KEYS[0], None);
    enable(&mut hub, "dev", false);
    assert_eq!(attempt(&mut hub, "dev/mod", &token), Err(Rule::DeviceDisabled));
    enable(&mut hub, "dev", true);
    assert!(attempt(&mut hub, "dev/mod", &token).is_ok());
}

// --- the registry changes under a connection ---

#[test]
fn a_disabled_device_is_cut_and_so_are_its_modules_and_nobody_else() {
    let mut hub = hub(&["dev", "dev/mod", "dev2", "dev-2"]);
    let mut open = |client_id: &str, resource: &str| {
        attempt(&mut hub, client_id, &token(&format!("{HOST}/devices/{resource}"), KEYS[0], None))
            .expect("it is welcome")
    };
    let cut = [open("dev", "dev"), open("dev/mod", "dev/modules/mod")];
    let left = [open("dev2", "dev2"), open("dev-2", "dev-2")];
    enable(&mut hub, "dev", false);
    for link in cut {
        assert_eq!(
            hub.closed(link).map(|close| close.reason()),
            Some(CloseReason::Ended(Rule::DeviceDisabled))
        );
    }
    for link in left {
        assert_eq!(hub.closed(link), None);
    }
}

#[test]
fn a_connection_ends_with_the_key_that_it_stands_on_and_with_no_other() {
    let resource = format!("{HOST}/devices/dev");
    for (shown, keys, is_cut) in [
        (KEYS[0], [OTHER_KEY, KEYS[1]], true),
        (KEYS[0], [KEYS[0], OTHER_KEY], false),
        (KEYS[0], [KEYS[1], KEYS[0]], false),
        (KEYS[1], [KEYS[0], OTHER_KEY], true),
        (KEYS[1], [OTHER_KEY, KEYS[1]], false),
    ] {
        let mut hub = hub(&["dev"]);
        let link = attempt(&mut hub, "dev", &token(&resource, shown, None)).expect("it is welcome");
        rotate(&mut hub, "dev", keys);
        let reason = is_cut.then_some(CloseReason::Ended(Rule::CredentialGone));
        assert_eq!(hub.closed(link).map(|close| close.reason()), reason, "{shown} became {keys:?}");
    }
}

#[test]
fn a_module_that_came_with_its_devices_key_goes_with_it() {
    let mut hub = hub(&["dev", "dev/one", "dev/two"]);
    let with = |resource: &str| token(&format!("{HOST}/devices/{resource}"), KEYS[0], None);
    let one = attempt(&mut hub, "dev/one", &with("dev")).expect("it is welcome");
    let two = attempt(&mut hub, "dev/two", &with("dev/modules/two")).expect("it is welcome");
    rotate(&mut hub, "dev", [OTHER_KEY, OTHER_KEY]);
    assert_eq!(hub.closed(one).map(|close| close.rule()), Some(Rule::CredentialGone));
    assert_eq!(hub.closed(two), None);
}

#[test]
fn an_entry_has_another_etag_after_each_change_and_tells_when_it_was_disabled() {
    let mut hub = hub(&["dev"]);
    let (first, never) = (hub.record("dev").identity.etag(), hub.record("dev").identity.status_updated());
    assert_eq!(never, None);
    hub.advance(SECOND);
    enable(&mut hub, "dev", false);
    let disabled_at = hub.unix_time();
    hub.advance(SECOND);
    let second = hub.record("dev").identity.etag();
    rotate(&mut hub, "dev", [OTHER_KEY, OTHER_KEY]);
    hub.restart();
    let identity = &hub.record("dev").identity;
    assert_eq!(identity.status_updated(), Some(disabled_at));
    assert!(first != second && second != identity.etag());
}

// --- two clients, one identity ---

#[test]
fn clients_that_throw_each_other_out_are_told_that_they_fight() {
    let mut hub = hub(&["dev"]);
    let token = token(&format!("{HOST}/devices/dev"), KEYS[0], None);
    let links: Vec<_> = (0..5)
        .map(|_| {
            hub.advance(SECOND / 100);
            attempt(&mut hub, "dev", &token).expect("each new one wins")
        })
        .collect();
    let rules: Vec<_> = links.iter().map(|link| hub.closed(*link).map(|close| close.rule())).collect();
    let (once, fight) = (Some(Rule::Takeover), Some(Rule::TakeoverFight));
    assert_eq!(rules, [once, once, fight, fight, None]);
}

#[test]
fn a_device_that_comes_back_now_and_then_fights_with_nobody() {
    let mut hub = hub(&["dev"]);
    let token = token(&format!("{HOST}/devices/dev"), KEYS[0], None);
    for _ in 0..10 {
        hub.advance(SECOND * 20);
        attempt(&mut hub, "dev", &token).expect("it is welcome");
    }
    assert!(hub.closes.iter().all(|close| close.rule() == Rule::Takeover), "{:?}", hub.closes);
}

// --- when a device was last seen ---

#[test]
fn the_hub_tells_when_a_device_came_went_and_last_said_something() {
    let mut hub = hub(&["dev"]);
    let mut station = Station::new(config("dev"));
    let device = hub.device("dev");
    let seen = |hub: &HubHost| hub.hub.connection(hub.now, device).expect("it is registered");
    assert_eq!(
        (seen(&hub).is_connected, seen(&hub).state_updated, seen(&hub).last_activity),
        (false, None, None)
    );
    station.connect(&mut hub);
    let came = hub.unix_time();
    advance(&mut hub, &mut [&mut station], SECOND * 5);
    station.telemetry(&mut hub, Message::new(b"1"));
    let said = hub.unix_time();
    hub.advance(SECOND * 5);
    let now = seen(&hub);
    assert_eq!((now.is_connected, now.state_updated, now.last_activity), (true, Some(came), Some(said)));
    station.cut(&mut hub);
    let went = hub.unix_time();
    hub.advance(SECOND * 5);
    hub.restart();
    let device = hub.device("dev");
    let now = hub.hub.connection(hub.now, device).expect("it is registered");
    assert_eq!((now.is_connected, now.state_updated, now.last_activity), (false, Some(went), Some(said)));
}
