//! The body of Put Block List: `<BlockList><Latest>{id}</Latest>…</BlockList>`.
//!
//! Ids are base64, which XML needs no escapes for, so that elements without attributes are all that is read.

use crate::storage::fault::{Fault, FaultCode};
use crate::storage::staged::BlockId;

/// Longest body (own limit): 50,000 ids (Azure Storage: Put Block List) of 88 characters in `Uncommitted`, with blanks.
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most ids.
const BLOCKS_MAX: usize = 50_000;
/// Where an id may be looked for; here blocks of a blob that is whole are not kept apart, so all mean the same.
const PLACES: [&str; 3] = ["Latest", "Uncommitted", "Committed"];

/// The ids of a list, in its order.
///
/// # Errors
/// 400 for what is no list, 409 for one that is too long.
pub(super) fn parse(body: &[u8]) -> Result<Vec<BlockId>, Fault> {
    let wrong = || {
        let fix = "send <BlockList><Latest>{block id}</Latest>…</BlockList>";
        Fault::new(FaultCode::InvalidXmlDocument, "the body is no list of blocks", fix)
    };
    let text = std::str::from_utf8(body).map_err(|_| wrong())?.trim_start_matches('\u{feff}').trim();
    let text = match text.strip_prefix("<?xml") {
        Some(rest) => rest.split_once("?>").ok_or_else(wrong)?.1.trim_start(),
        None => text,
    };
    if text == "<BlockList/>" || text == "<BlockList />" {
        return Ok(Vec::new());
    }
    let inner = text.strip_prefix("<BlockList>").and_then(|rest| rest.strip_suffix("</BlockList>"));
    let mut rest = inner.ok_or_else(wrong)?.trim_start();
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let (place, after) =
            rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or_else(wrong)?;
        let (id, after) = after.split_once("</").ok_or_else(wrong)?;
        let after = after.strip_prefix(place).and_then(|rest| rest.strip_prefix('>'));
        rest = after.filter(|_| PLACES.contains(&place)).ok_or_else(wrong)?.trim_start();
        if ids.len() >= BLOCKS_MAX {
            let what = format!("a blob has at most {BLOCKS_MAX} blocks");
            return Err(Fault::new(FaultCode::BlockCountExceedsLimit, what, "send larger blocks"));
        }
        ids.push(BlockId::new(id)?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_every_sdk_are_read_in_their_order() {
        let (one, two) = (BlockId::new("MDAx").unwrap(), BlockId::new("MDAy").unwrap());
        for text in [
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>MDAy</Latest><Latest>MDAx</Latest></BlockList>",
            "\u{feff}<?xml version='1.0'?>\n<BlockList>\n  <Latest>MDAy</Latest>\n  <Uncommitted>MDAx</Uncommitted>\n</BlockList>\n",
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(vec![two.clone(), one.clone()]), "{text}");
        }
        for text in ["<BlockList/>", "<BlockList></BlockList>"] {
            assert_eq!(parse(text.as_bytes()), Ok(Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let code = |text: &[u8]| parse(text).map_err(|fault| fault.code);
        for text in [
            &b""[..],
            b"<BlockList>",
            b"<BlockList><Latest>MDAx</BlockList>",
            b"<BlockList><Oldest>MDAx</Oldest></BlockList>",
            b"<BlockList><Latest>MDAx</Uncommitted></BlockList>",
            b"<BlockList>MDAx</BlockList>",
            b"<BlockList>\xff</BlockList>",
        ] {
            assert_eq!(code(text), Err(FaultCode::InvalidXmlDocument), "{text:?}");
        }
        let bad_id = b"<BlockList><Latest>../x</Latest></BlockList>";
        assert_eq!(code(bad_id), Err(FaultCode::InvalidQueryParameterValue));
        let long = format!("<BlockList>{}</BlockList>", "<Latest>MDAx</Latest>".repeat(BLOCKS_MAX + 1));
        assert_eq!(code(long.as_bytes()), Err(FaultCode::BlockCountExceedsLimit));
    }
}
