//! What a refusal of an identity says to the person who reads the log: what came, and what it was compared with.

use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{
    Authentication, ClientCertificate, Comparison, DeviceIdentity, DeviceRecord, HubConfig,
};
use devicebound::iothub::Escaped;
use devicebound::iothub::sas::{Policy, Rights, SymmetricKey, sign};
use devicebound::packet::{Connect, Credentials, Text};
use devicebound::time::UnixTime;
use devicebound_world::fixtures::{HOST, KEYS, hub, record};
use devicebound_world::hub_host::{HubHost, START};

fn connect(client_id: &str, username: Option<&str>, password: Option<&str>) -> Vec<u8> {
    let credentials = username.map(|username| Credentials {
        username: Text::new(username).expect("it is text"),
        password: password.map(str::as_bytes),
    });
    let client_id = Text::new(client_id).expect("it is text");
    let mut bytes = Vec::new();
    Connect { clean_session: true, keep_alive: 60, client_id, will: None, credentials }
        .encode(&mut bytes)
        .expect("the fields are short");
    bytes
}

fn key() -> SymmetricKey {
    SymmetricKey::from_base64(KEYS[0]).expect("the key is base64")
}

fn expiry() -> UnixTime {
    START.after(Duration::from_secs(3600))
}

/// The rule that refuses a CONNECT, and what was compared.
fn refused(hub: &mut HubHost, bytes: &[u8]) -> (Rule, Comparison) {
    let link = hub.open();
    hub.receive(link, bytes);
    assert_eq!(hub.take_output(link), [0x20, 2, 0, 5]);
    let close = hub.closed(link).expect("a refused connection is closed");
    (close.rule(), hub.comparisons.pop().expect("something was compared"))
}

#[test]
fn every_refusal_shows_what_came_and_what_was_expected_and_never_a_secret() {
    let name = format!("{HOST}/dev/?api-version=2021-04-12");
    let good = sign(&format!("{HOST}/devices/dev"), &key(), expiry(), None);
    let other = sign(&format!("{HOST}:8883/devices/dev"), &key(), expiry(), None);
    let old = sign(&format!("{HOST}/devices/dev"), &key(), UnixTime::from_secs(3600), None);
    let foreign = SymmetricKey::from_bytes(b"another");
    let wrong = sign(&format!("{HOST}/devices/dev"), &foreign, expiry(), None);
    let as_text = SymmetricKey::from_bytes(KEYS[0].as_bytes());
    let as_text = sign(&format!("{HOST}/devices/dev"), &as_text, expiry(), None);
    let of_policy = sign(HOST, &key(), expiry(), Some("nobody"));
    let connection_string = format!("HostName={HOST};DeviceId=dev;SharedAccessKey={}", KEYS[0]);
    for (client_id, username, password, rule, received, expected) in [
        ("dev", None, None, Rule::Username, "no user name", "hub.example.test/dev/?api-version="),
        (
            "dev",
            Some("hub.example.test/dev?api-version=2021-04-12"),
            Some(&*good),
            Rule::Username,
            "hub.example.test/dev?api-version=2021-04-12",
            "hub.example.test/dev/?api-version=2021-04-12",
        ),
        ("dev2", Some(&*name), Some(&*good), Rule::ClientId, "client id dev2, user name hub.", "/dev2/"),
        ("dev", Some("nub.test/dev/"), Some(&*good), Rule::HostName, "nub.test", "hub.example.test"),
        ("ghost", Some("hub.example.test/ghost/"), Some(&*good), Rule::UnknownDevice, "ghost", "registry"),
        ("dev", Some(&*name), None, Rule::NoCredentials, "no password", "the identity has keys"),
        ("dev", Some(&*name), Some("swordfish"), Rule::SasMalformed, "does not start with", "sr={host}"),
        ("dev", Some(&*name), Some(KEYS[0]), Rule::SasMalformed, "perhaps the key itself", "sr={host}"),
        (
            "dev",
            Some(&*name),
            Some(&*connection_string),
            Rule::SasMalformed,
            "a connection string",
            "sr={host}",
        ),
        (
            "dev",
            Some(&*name),
            Some(&*other),
            Rule::SasScope,
            "sr=hub.example.test:8883/devices/dev",
            "sr=hub.example.test/devices/dev",
        ),
        ("dev", Some(&*name), Some(&*wrong), Rule::SasSignature, "of another key", "HMAC-SHA256"),
        ("dev", Some(&*name), Some(&*as_text), Rule::SasSignature, "base64 text", "HMAC-SHA256"),
        ("dev", Some(&*name), Some(&*of_policy), Rule::SasPolicy, "skn=nobody", "no skn"),
        ("dev", Some(&*name), Some(&*old), Rule::SasExpired, "se=3600 (1970-01-01T01:00:00", "by the clock"),
    ] {
        let mut hub = hub(&["dev", "dev2"]);
        let (broken, compared) = refused(&mut hub, &connect(client_id, username, password));
        assert_eq!(broken, rule);
        assert!(compared.received.contains(received), "{rule}: {compared:?}");
        assert!(compared.expected.contains(expected), "{rule}: {compared:?}");
        let told = format!("{compared:?}");
        assert!(KEYS.iter().all(|key| !told.contains(key)), "{told}");
        let signature = password.and_then(|token| token.split_once("sig=")).map(|(_, sig)| &sig[..20]);
        assert!(signature.is_none_or(|signature| !told.contains(signature)), "{told}");
    }
}

#[test]
fn what_a_stranger_chose_is_cut_before_it_is_kept() {
    let mut hub = hub(&["dev"]);
    let token = sign(&format!("{HOST}/devices/{}", "x".repeat(5000)), &key(), expiry(), None);
    let (rule, compared) = refused(&mut hub, &connect("dev", Some(&format!("{HOST}/dev")), Some(&token)));
    assert_eq!(rule, Rule::SasScope);
    assert!(compared.received.len() < 400, "{compared:?}");
}

#[test]
fn a_policy_without_the_right_is_told_beside_those_that_have_it() {
    let policies = [("service", Rights::SERVICE_CONNECT), ("device", Rights::DEVICE_CONNECT)];
    let policies = policies.map(|(name, rights)| Policy { name: name.into(), keys: [key()].into(), rights });
    let mut hub = HubHost::new(HubConfig { policies: policies.into(), ..HubConfig::default() });
    hub.register(record("dev"));
    let token = sign(HOST, &key(), expiry(), Some("service"));
    let (rule, compared) = refused(&mut hub, &connect("dev", Some(&format!("{HOST}/dev")), Some(&token)));
    assert_eq!((rule, &*compared.received), (Rule::SasPolicy, "skn=service"));
    assert_eq!(compared.expected, "no skn, or one of device");
}

/// Makes `sr` of a device id.
type Encoder = fn(&str) -> String;

/// Every legal id connects, from every way in which an SDK makes `sr`.
#[test]
fn an_id_of_every_legal_character_connects_however_often_it_is_encoded_in_sr() {
    let every = "aZ9-:.%_*?!(),=@;$'";
    let encoders: [(&str, Encoder); 5] = [
        ("Python, embedded C: once", |id| Escaped(&format!("{HOST}/devices/{id}")).to_string()),
        (".NET: the id, then the whole", |id| {
            Escaped(&format!("{HOST}/devices/{}", Escaped(id))).to_string()
        }),
        (".NET, lower case", |id| {
            let inner = lower(&Escaped(id).to_string());
            lower(&Escaped(&format!("{HOST}/devices/{inner}")).to_string())
        }),
        ("C: lower-case escapes", |id| lower(&Escaped(&format!("{HOST}/devices/{id}")).to_string())),
        ("Node: some characters stay", |id| {
            let encoded = Escaped(&format!("{HOST}/devices/{id}")).to_string();
            ["%21!", "%27'", "%28(", "%29)", "%2A*"]
                .iter()
                .fold(encoded, |text, pair| text.replace(&pair[..3], &pair[3..]))
        }),
    ];
    let ids = every
        .chars()
        .map(|c| format!("id{c}"))
        .chain(["AA:BB:CC:01", "d%20", "d%2520", "%41", every].map(str::to_owned));
    for id in ids {
        for (sdk, encode) in encoders {
            let mut hub = hub(&[&id]);
            let sr = encode(&id);
            let signature = key().signature(format!("{sr}\n{}", expiry().as_secs()).as_bytes());
            let token = format!(
                "SharedAccessSignature sr={sr}&sig={}&se={}",
                Escaped(&signature),
                expiry().as_secs()
            );
            let link = hub.open();
            hub.receive(
                link,
                &connect(&id, Some(&format!("{HOST}/{id}/?api-version=2021-04-12")), Some(&token)),
            );
            assert_eq!(hub.take_output(link), [0x20, 2, 0, 0], "{sdk}: {id}, sr={sr}");
        }
    }
}

/// The escapes in lower case, the rest as it stands.
fn lower(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| format!("{text}%{}{}", part[..2].to_lowercase(), &part[2..]))
}

#[test]
fn a_certificate_is_judged_by_its_dates_when_it_is_known_by_its_thumbprint() {
    let print = "A1".repeat(20);
    let authentication = Authentication::SelfSigned { primary: print.clone(), secondary: None };
    let at = |seconds: i64| {
        let base = i64::try_from(START.as_secs()).expect("the clock of the tests is set");
        UnixTime::from_secs(u64::try_from(base + seconds).expect("it is after 1970"))
    };
    for (validity, rule) in [
        ((at(-10), at(10)), None),
        ((at(-20), at(-10)), Some(Rule::CertificateTime)),
        ((at(10), at(20)), Some(Rule::CertificateTime)),
    ] {
        let mut hub = hub(&[]);
        let identity =
            DeviceIdentity::new("dev", "1".to_owned(), authentication.clone()).expect("it is an id");
        hub.register(DeviceRecord::new(identity));
        let shown = ClientCertificate {
            sha1: print.clone(),
            validity: Some(validity),
            ..ClientCertificate::default()
        };
        let outcome = crate::identity::verdict(&mut hub, "dev", &shown);
        assert_eq!(outcome.as_ref().err().map(devicebound::hub::Refusal::rule), rule);
        if let Ok(grant) = outcome {
            assert_eq!(grant.expires, Some(at(10)), "the connection ends when the certificate does");
        }
    }
}
