//! What can be wrong with a request to the storage: Azure's name of it, and what to do next.

/// The errors of the storage (Azure Storage: Blob service error codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultCode {
    /// No signature, or not the one of this blob.
    AuthenticationFailed,
    /// The permission is not in the signature.
    AuthorizationPermissionMismatch,
    /// There is such a blob, and the request must not replace one.
    BlobAlreadyExists,
    /// There is none.
    BlobNotFound,
    /// Too many blocks.
    BlockCountExceedsLimit,
    /// `If-Match` names another version.
    ConditionNotMet,
    /// The storage itself failed.
    InternalError,
    /// A block of the list was not sent.
    InvalidBlockList,
    /// A header that cannot be taken.
    InvalidHeaderValue,
    /// A parameter that cannot be taken.
    InvalidQueryParameterValue,
    /// Nothing of the blob is in the range.
    InvalidRange,
    /// A name that no blob has.
    InvalidUri,
    /// The block list is no XML.
    InvalidXmlDocument,
    /// A header that is needed.
    MissingRequiredHeader,
    /// The body did not arrive.
    OperationTimedOut,
    /// There is no room (Azure's accounts end elsewhere: own use of its name for accounts).
    AccountQuotaExceeded,
    /// The hub stops, or its store failed.
    ServerBusy,
}

impl FaultCode {
    /// Azure's name.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidBlockList
            | Self::InvalidHeaderValue
            | Self::InvalidQueryParameterValue
            | Self::InvalidUri
            | Self::InvalidXmlDocument
            | Self::MissingRequiredHeader => 400,
            Self::AuthenticationFailed | Self::AuthorizationPermissionMismatch => 403,
            Self::BlobNotFound => 404,
            Self::OperationTimedOut => 408,
            Self::AccountQuotaExceeded | Self::BlobAlreadyExists | Self::BlockCountExceedsLimit => 409,
            Self::ConditionNotMet => 412,
            Self::InvalidRange => 416,
            Self::InternalError => 500,
            Self::ServerBusy => 503,
        }
    }
}

/// Why a request to the storage was not done; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {fix}")]
pub struct Fault {
    /// Azure's name of it.
    pub code: FaultCode,
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub fix: &'static str,
}

impl Fault {
    /// What is wrong, and what to do next.
    #[must_use]
    pub fn new(code: FaultCode, what: impl Into<String>, fix: &'static str) -> Self {
        Self { code, what: what.into(), fix }
    }

    /// The file system failed.
    pub(crate) fn of_disk(error: &std::io::Error) -> Self {
        let what = format!("the file cannot be written or read: {error}");
        Self::new(FaultCode::InternalError, what, "look at the disk of the state folder, and try again")
    }
}
