//! Where a page of rows begins, and the token that says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::backend::Error;

/// Bytes of the digest that binds a continuation token to its query: enough that no two queries share one by accident.
const FINGERPRINT_LENGTH: usize = 8;

/// Where a page begins: after the row of this id, with so many rows sent before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) after: String,
    pub(crate) sent: u64,
}

impl Cursor {
    /// Where the page begins that a request asks for: with a token behind the page that it came with, else at the begin.
    ///
    /// # Errors
    /// 400004 for a token that was not given out for this query.
    pub(crate) fn of(token: Option<&str>, query: &str) -> Result<Self, Error> {
        token.map_or(Ok(Self::default()), |token| Self::read(token, query))
    }

    fn read(token: &str, query: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::invalid("the continuation token is none that this hub gave out")
                .with_fix("begin again without one")
        };
        let text = STANDARD.decode(token).map_err(|_| wrong())?;
        let value: Value = serde_json::from_slice(&text).map_err(|_| wrong())?;
        let (after, sent) = (value.get(0).and_then(Value::as_str), value.get(1).and_then(Value::as_u64));
        let cursor = Self { after: after.ok_or_else(wrong)?.to_owned(), sent: sent.ok_or_else(wrong)? };
        let of = value.get(2).and_then(Value::as_str).ok_or_else(wrong)?;
        if of != fingerprint(query) {
            return Err(Error::invalid("the continuation token belongs to another query")
                .with_fix("send the same query text with each of its tokens"));
        }
        Ok(cursor)
    }

    /// The token that asks for what follows.
    pub(crate) fn token(&self, query: &str) -> String {
        STANDARD.encode(json!([self.after, self.sent, fingerprint(query)]).to_string())
    }
}

/// Tells one query text from another: what stands between its words does not count.
fn fingerprint(query: &str) -> String {
    let mut digest = Sha256::new();
    for word in query.split_whitespace() {
        digest.update(word.as_bytes());
        digest.update(b" ");
    }
    digest.finalize().iter().take(FINGERPRINT_LENGTH).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_as_the_place_that_it_names() {
        let cursor = Cursor { after: "dev/möd".to_owned(), sent: 7 };
        assert_eq!(Cursor::read(&cursor.token("SELECT a"), "SELECT a").unwrap(), cursor);
        assert_eq!(Cursor::read(&cursor.token("SELECT a"), " SELECT\n a ").unwrap(), cursor);
        for wrong in ["?", "", "bm8=", "WzEsMl0="] {
            assert!(Cursor::read(wrong, "SELECT a").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_of_use_with_its_own_query_alone() {
        let cursor = Cursor { after: "dev".to_owned(), sent: 7 };
        for other in ["SELECT b", "SELECTa", "SELECT a b", ""] {
            let refused = Cursor::read(&cursor.token("SELECT a"), other).unwrap_err();
            assert!(refused.to_string().contains("another query"), "{other}: {refused}");
        }
        let unbound = STANDARD.encode(r#"["dev",7]"#);
        assert!(Cursor::read(&unbound, "SELECT a").is_err(), "a token of a hub that did not bind them");
    }
}
