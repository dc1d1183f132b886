//! What clients do wrong when they sign, told from the signature that they made.

use alloc::format;
use alloc::string::String;

use super::{Policy, SasToken, SymmetricKey};

/// The text that was signed, where it was not the one that is to be signed.
type Text = (String, &'static str);

impl SasToken<'_> {
    /// How the signature was made, where it is not one of `keys` over `sr`, a newline and `se`, and one of the usual
    /// mistakes explains it. A guess for people: it opens nothing.
    pub(crate) fn mistake(&self, keys: &[&SymmetricKey], policies: &[Policy]) -> Option<String> {
        if self.signature_bytes.is_none() {
            return Some("a signature that has not the 32 bytes of an HMAC-SHA256, perhaps cut off".into());
        }
        let right = format!("{}\n{}", self.sr(), self.expiry);
        let made =
            |key: &SymmetricKey, text: &str| self.signature_bytes == Some(key.hmac_sha256(text.as_bytes()));
        let of_policy = || policies.iter().find(|policy| policy.keys.iter().any(|key| made(key, &right)));
        match self.key_name() {
            Some(name) if keys.iter().any(|key| made(key, &right)) => {
                return Some(format!(
                    "a signature of the identity's own key, although skn={name} names a policy"
                ));
            }
            _ => {
                if let Some(policy) = of_policy() {
                    return Some(format!("a signature of policy {}, which skn does not name", policy.name));
                }
            }
        }
        let named = self.key_name();
        let of_named = policies.iter().filter(|policy| named.as_deref() == Some(policy.name.as_str()));
        let mut candidates = keys.iter().copied().chain(of_named.flat_map(|policy| &policy.keys));
        let texts = self.wrong_texts();
        candidates.find_map(|key| {
            let as_text = SymmetricKey::from_bytes(key.to_base64().as_bytes());
            if made(&as_text, &right) {
                return Some(
                    "a signature of the key's base64 text, not of the bytes that it stands for".into(),
                );
            }
            let (_, what) = texts.iter().find(|(text, _)| made(key, text) || made(&as_text, text))?;
            Some(format!("a signature over {what}"))
        })
    }

    fn wrong_texts(&self) -> [Text; 6] {
        let (sr, se, resource) = (self.sr(), self.expiry, self.resource());
        [
            (format!("{resource}\n{se}"), "the decoded sr, not over sr as it stands in the token"),
            (format!("{sr}{se}"), "sr and se without the newline between them"),
            (format!("{sr}\\n{se}"), "sr and se with a backslash and an n in place of the newline"),
            (format!("{sr}\r\n{se}"), "sr and se with CR LF between them in place of a newline"),
            (format!("{sr}\n{se}\n"), "sr, se and a newline at the end that does not belong there"),
            (
                format!("{}\n{se}", sr.to_lowercase()),
                "sr in lower case, which is not how it stands in the token",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Escaped, Rights};
    use super::*;

    #[test]
    fn the_usual_mistakes_are_told_from_the_signature() {
        let own = SymmetricKey::from_base64("c2VjcmV0IGtleQ==").unwrap();
        let as_text = SymmetricKey::from_bytes(b"c2VjcmV0IGtleQ==");
        let policy =
            Policy { name: "p".into(), keys: [SymmetricKey::from_bytes(b"p")].into(), rights: Rights::NONE };
        let mistake = |key: &SymmetricKey, signed: &str, skn: &str| {
            let signature = key.signature(signed.as_bytes());
            let token = format!("SharedAccessSignature sr=H%2fd&sig={}&se=1{skn}", Escaped(&signature));
            SasToken::parse(&token)
                .unwrap()
                .mistake(&[&own], core::slice::from_ref(&policy))
                .unwrap_or_default()
        };
        for (key, signed, skn, told) in [
            (&as_text, "H%2fd\n1", "", "base64 text"),
            (&own, "H/d\n1", "", "decoded sr"),
            (&own, "H%2fd1", "", "without the newline"),
            (&own, "H%2fd\\n1", "", "a backslash"),
            (&own, "H%2fd\r\n1", "", "CR LF"),
            (&own, "H%2fd\n1\n", "", "newline at the end"),
            (&own, "h%2fd\n1", "", "lower case"),
            (&own, "H%2fd\n1", "&skn=p", "own key, although skn=p"),
            (&policy.keys[0], "H%2fd\n1", "", "of policy p"),
            (&policy.keys[0], "H/d\n1", "&skn=p", "decoded sr"),
        ] {
            let said = mistake(key, signed, skn);
            assert!(said.contains(told), "{signed}{skn}: {said}");
        }
        assert_eq!(mistake(&SymmetricKey::from_bytes(b"x"), "H%2fd\n1", ""), "");
        assert_eq!(mistake(&own, "something else", ""), "");
    }
}
