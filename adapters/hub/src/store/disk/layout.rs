//! The layout of the file: its version, and its tables.

use redb::TableDefinition;

/// The layout that this version writes and reads.
pub(super) const LAYOUT: &[u8] = b"3";
/// The one before had no versions: it kept the revision of the record where they are now.
pub(super) const LAYOUT_WITHOUT_VERSIONS: &[u8] = b"2";

pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const HEADS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("heads");
pub(super) const MESSAGES: TableDefinition<'static, (&str, u64), &[u8]> = TableDefinition::new("messages");
/// Files of earlier versions have none.
pub(super) const DOCUMENTS: TableDefinition<'static, &str, &str> = TableDefinition::new("documents");
pub(super) const BLOCKS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("blocks");
pub(super) const PARTITIONS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("partitions");
