//! Blocks that were sent and are in no blob yet. Each is a file: they outlive the hub, as its sender was told that they are
//! there.
//!
//! ```text
//! staged/{SHA-256 of the blob's name}/{block id, decoded, as hex}
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::time::UnixTime;
use sha2::{Digest as _, Sha256};

use super::UNFINISHED;
use super::fault::{Fault, FaultCode};
use super::name::BlobName;
use super::space::{Reserved, Space};

/// Blocks of a blob (Azure Storage: scalability targets for Blob Storage).
pub(super) const BLOCKS_MAX: usize = 50_000;
/// Longest block id, decoded (Azure Storage: Put Block).
const BLOCK_ID_MAX: usize = 64;

/// The id of a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockId(String);

impl BlockId {
    /// The id in base64, as requests have it.
    ///
    /// # Errors
    /// 400.
    pub fn new(text: &str) -> Result<Self, Fault> {
        let id = STANDARD.decode(text.trim()).ok().filter(|id| (1..=BLOCK_ID_MAX).contains(&id.len()));
        let id = id.ok_or_else(|| {
            let what = format!(
                "the block id `{}` is not base64 of 1 to {BLOCK_ID_MAX} bytes",
                text.escape_default()
            );
            Fault::new(
                FaultCode::InvalidQueryParameterValue,
                what,
                "send such an id, of one length for all blocks",
            )
        })?;
        Ok(Self(hex(&id)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder of the blocks of one blob.
pub(super) fn folder_of(name: &BlobName) -> String {
    hex(&Sha256::digest(name.as_str().as_bytes()))
}

/// The blocks of one blob.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub(super) blocks: BTreeMap<BlockId, (u64, Reserved)>,
    /// When the last one came.
    pub(super) newest: UnixTime,
}

/// All blocks, by the folder that they are in.
pub(super) type Staged = HashMap<String, Blocks>;

/// What is in the folder, without what was not finished.
pub(super) fn load(folder: &Path, space: &Arc<Space>) -> io::Result<Staged> {
    let mut staged = Staged::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let mut found = Blocks::default();
        for block in fs::read_dir(entry.path())? {
            let (path, metadata) = block.and_then(|block| Ok((block.path(), block.metadata()?)))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(UNFINISHED) {
                fs::remove_file(path)?;
                continue;
            }
            let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            found.newest = found.newest.max(UnixTime::default().after(modified));
            let size = metadata.len();
            found.blocks.insert(BlockId(name), (size, Reserved::existing(space, size)));
        }
        staged.insert(entry.file_name().to_string_lossy().into_owned(), found);
    }
    Ok(staged)
}

/// The files of a list of blocks, in its order.
pub(super) fn files(folder: &Path, blocks: &Blocks, list: &[BlockId]) -> Result<Vec<(PathBuf, u64)>, Fault> {
    let file = |id: &BlockId| {
        let (size, _) = blocks.blocks.get(id)?;
        Some((folder.join(&id.0), *size))
    };
    list.iter()
        .map(|id| {
            file(id).ok_or_else(|| {
                let what = format!("the block {} (hex) of the list was not sent", id.0);
                Fault::new(
                    FaultCode::InvalidBlockList,
                    what,
                    "send each block before the list; blocks of a blob that is whole are not kept apart",
                )
            })
        })
        .collect()
}

/// Where a block goes.
pub(super) fn path_of(folder: &Path, id: &BlockId) -> PathBuf {
    folder.join(&id.0)
}

/// The folders whose last block came longer ago than that.
pub(super) fn too_old(staged: &Staged, now: UnixTime, age: Duration) -> Vec<String> {
    staged
        .iter()
        .filter(|(_, blocks)| blocks.newest.after(age) <= now)
        .map(|(name, _)| name.clone())
        .collect()
}
