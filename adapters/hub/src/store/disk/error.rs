//! Why the file of the disk store cannot be used, and what to do about it.

use std::io;

use devicebound::hub::SnapshotError;
use redb::{DatabaseError, StorageError};

use super::layout::LAYOUT;
use crate::Failure;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The disk says no.
    #[error("{0}")]
    Io(io::Error),
    /// Another hub has it open.
    #[error("another hub uses it")]
    InUse,
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It has another layout.
    #[error("its layout is `{0}`, and this version reads `{layout}`", layout = String::from_utf8_lossy(LAYOUT))]
    Layout(String),
    /// A record in it is damaged.
    #[error("{client_id}: {error}")]
    Record { client_id: String, error: SnapshotError },
}

impl Error {
    pub(super) fn failure(&self, name: &str) -> Failure {
        let next = match self {
            Self::Io(_) => "check the permissions of the file and the space on its disk",
            Self::InUse => "stop that hub, or give this one a folder of its own: --state DIR",
            Self::Damaged(_) | Self::Record { .. } => {
                "restore the file from a backup, or use an empty state folder, --state DIR, and register the devices again"
            }
            Self::Layout(_) => "use the version that wrote the file, or an empty state folder: --state DIR",
        };
        let verb = if matches!(self, Self::Io(_) | Self::InUse) { "cannot open" } else { "cannot use" };
        Failure::new(format!("{verb} {name}: {self}"), next)
    }

    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        }
    }
}

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::UpgradeRequired(layout) => Self::Layout(format!("redb {layout}")),
            error => Self::Damaged(error.to_string()),
        }
    }
}

/// Only the disk can be at fault where the library lets an error through as one of its own.
macro_rules! from_parts_of_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_parts_of_redb!(
    redb::TransactionError,
    redb::TableError,
    redb::CommitError,
    redb::SetDurabilityError,
    StorageError,
    DatabaseError
);
