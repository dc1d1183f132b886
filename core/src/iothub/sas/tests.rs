use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

fn key(name: &str) -> SymmetricKey {
    SymmetricKey::from_bytes(name.as_bytes())
}

fn verify(
    token: &str,
    target: &str,
    keys: &[&SymmetricKey],
    policies: &[Policy],
) -> Result<UnixTime, SasError> {
    let demand = Demand { target, keys, right: Rights::DEVICE_CONNECT, now: NOW, skew: Duration::ZERO };
    let policy = |name: &str| policies.iter().find(|policy| policy.name == name);
    SasToken::parse(token)?.verify(&demand, policy).map(|verified| verified.expiry)
}

#[test]
fn a_resource_covers_whole_segments_below_it() {
    for (resource, target, covers) in [
        ("h", "h/devices/d", true),
        ("H.Example", "h.eXample/devices/d", true),
        ("h/devices", "h/devices/d", true),
        ("h/devices/", "h/devices/d", true),
        ("h/a/b", "h/a/b/c", true),
        ("h/a/b", "h/a/bc", false),
        ("h/devices/D", "h/devices/d", false),
        ("h/devices/d/modules/m", "h/devices/d", false),
        ("h/devices/d/api-version=2016-11-14", "h/devices/d", true),
        ("h/devices/d/modules/m/api-version=2016-11-14", "h/devices/d/modules/m", true),
        ("h/devices/api-version=2016-11-14", "h/devices/d", false),
        ("h/devices/d%2Fx", "h/devices/d", false),
        ("h/devices/AA%3ABB", "h/devices/AA:BB", true),
        ("h/devices/d%2520", "h/devices/d%20", true),
        ("h/devices/d%20", "h/devices/d%20", true),
        ("h/devices/d%2520", "h/devices/d%2520", true),
        ("h/devices/a%3a/modules/m%40", "h/devices/a:/modules/m@", true),
        ("h/devices/a%3A/modules/m%2F", "h/devices/a:/modules/m", false),
        ("h%2Fdevices%2Fd", "h/devices/d", false),
    ] {
        let token = sign(resource, &key("k"), NOW, None);
        assert_eq!(SasToken::parse(&token).unwrap().covers(target), covers, "{resource} {target}");
    }
}

#[test]
fn an_own_key_speaks_for_its_identity_only_and_a_policy_for_all_below() {
    let (own, policy) = (key("own"), key("policy"));
    let policies = [Policy {
        name: "p".into(),
        keys: [key("x"), policy.clone()].into(),
        rights: Rights::DEVICE_CONNECT,
    }];
    let expiry = UnixTime::from_secs(1_700_000_001);
    let check =
        |resource, key, name| verify(&sign(resource, key, expiry, name), "h/devices/d", &[&own], &policies);
    assert_eq!(check("h/devices/d", &own, None), Ok(expiry));
    assert_eq!(check("h", &own, None), Err(SasError::WrongScope));
    assert_eq!(check("h", &policy, Some("p")), Ok(expiry));
    assert_eq!(check("h", &own, Some("p")), Err(SasError::BadSignature));
    assert_eq!(check("h/devices/d", &policy, None), Err(SasError::BadSignature));
    assert_eq!(check("h", &policy, Some("q")), Err(SasError::Forbidden));
}

#[test]
fn a_policy_needs_the_right() {
    let policies = [Policy { name: "p".into(), keys: [key("k")].into(), rights: Rights::SERVICE_CONNECT }];
    let token = sign("h", &key("k"), UnixTime::from_secs(1_800_000_000), Some("p"));
    assert_eq!(verify(&token, "h/devices/d", &[], &policies), Err(SasError::Forbidden));
}

#[test]
fn a_token_ends_at_its_expiry_and_a_skew_moves_the_end() {
    let (own, token) = (key("k"), sign("h/devices/d", &key("k"), NOW, None));
    let keys = [&own];
    let demand = |now, skew| Demand { target: "h/devices/d", keys: &keys, right: Rights::NONE, now, skew };
    let check = |now, skew| SasToken::parse(&token).unwrap().verify(&demand(now, skew), |_| None).is_ok();
    assert!(check(UnixTime::from_millis(1_699_999_999_999), Duration::ZERO));
    assert!(!check(NOW, Duration::ZERO));
    assert!(check(NOW, Duration::from_secs(1)));
    assert!(!check(UnixTime::from_secs(1_700_000_001), Duration::from_secs(1)));
}

#[test]
fn the_signed_text_is_sr_as_it_stands() {
    let own = key("k");
    let lower = own.signature(b"h%2fdevices%2fd\n1800000000");
    let token = |sr: &str| format!("SharedAccessSignature se=1800000000&sig={}&SR={sr}", Escaped(&lower));
    assert!(verify(&token("h%2fdevices%2fd"), "h/devices/d", &[&own], &[]).is_ok());
    assert_eq!(verify(&token("h%2Fdevices%2Fd"), "h/devices/d", &[&own], &[]), Err(SasError::BadSignature));
}

#[test]
fn what_is_no_token_is_refused_and_the_flaw_named() {
    use TokenFlaw::{Blank, Encoding, Expiry, Missing, NoValue, Scheme, Signature, Twice, UnknownMember};
    let sig = "sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D";
    for (members, flaw) in [
        ("", NoValue),
        ("sr=a&{sig}", Missing("se")),
        ("sr=a&se=1", Missing("sig")),
        ("{sig}&se=1", Missing("sr")),
        ("sr=&{sig}&se=1", Missing("sr")),
        ("sr=a&sig=&se=1", Missing("sig")),
        ("sr=a&{sig}&se=1&", NoValue),
        ("sr=a&{sig}&se=1&sr=a", Twice("sr")),
        ("sr=a&{sig}&se=1&x=y", UnknownMember),
        ("sr=a&{sig}&se=-1", Expiry),
        ("sr=a&{sig}&se=+1", Expiry),
        ("sr=a&{sig}&se=1.0", Expiry),
        ("sr=a&{sig}&se=99999999999999999999", Expiry),
        ("sr=a&{sig}&se", NoValue),
        ("sr=a\n&{sig}&se=1", Blank),
        ("sr=a&{sig}&se=1\0", Blank),
        ("sr=%ff&{sig}&se=1", Encoding("sr")),
        ("sr=a&sig=%ff&se=1", Encoding("sig")),
        ("sr=a&{sig}&se=1&skn=%ff", Encoding("skn")),
        ("sr=a&sig=%%%&se=1", Signature),
        ("sr=a&sig=A&se=1", Signature),
        ("sr=a&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA&se=1", Signature), // no padding
        ("sr=a&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%253D&se=1", Signature), // encoded twice
    ] {
        let token = format!("SharedAccessSignature {}", members.replace("{sig}", sig));
        assert_eq!(SasToken::parse(&token), Err(SasError::Malformed(flaw)), "{token}");
    }
    for scheme in ["", "SharedAccessSignature", "sharedaccesssignature ", "SharedAccessSignature\t"] {
        let token = format!("{scheme}sr=a&{sig}&se=1");
        assert_eq!(SasToken::parse(&token), Err(SasError::Malformed(Scheme)), "{token}");
    }
    let token = format!("SharedAccessSignature sr=a&{sig}&se=1&skn=");
    assert!(SasToken::parse(&token).unwrap().key_name().is_none());
}

#[test]
fn a_member_that_is_not_percent_encoded_is_named() {
    for (sr, sig, member) in [
        ("h%2fd", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3d", None),
        ("h/d", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D", Some("sr")),
        ("h", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", Some("sig")),
        ("h", "+AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D", Some("sig")),
    ] {
        let token = format!("SharedAccessSignature sr={sr}&sig={sig}&se=1");
        assert_eq!(SasToken::parse(&token).unwrap().unencoded_member(), member, "{token}");
    }
}

#[test]
fn keys_and_signatures_do_not_show() {
    let own = SymmetricKey::from_base64("c2VjcmV0").unwrap();
    let token = sign("h", &own, NOW, None);
    let shown = format!("{own:?} {:?}", SasToken::parse(&token).unwrap());
    assert!(!shown.contains("c2VjcmV0") && !shown.contains("secret") && !shown.contains("sig"), "{shown}");
}
