//! What can be wrong with what a back end asks: Azure's name and number of it, and how to fix it.

use std::borrow::Cow;
use std::fmt;

use devicebound::Rule;
use devicebound::hub::{CallFailure, EnqueueError, InvokeError, LockLost, TierError, TwinUpdateError};

/// The errors of the service API: Azure's name, Azure's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 400001: no api-version.
    InvalidProtocolVersion,
    /// 400004.
    ArgumentInvalid,
    /// 401002.
    Unauthorized,
    /// 403002: the day's messages are used up.
    QuotaExceeded,
    /// 403003: as many jobs are kept as the hub keeps.
    JobQuotaExceeded,
    /// 403004.
    QueueFull,
    /// 403006: ten uploads of the device are under way.
    TooManyUploads,
    /// 403009.
    InvalidMessageExpiryTime,
    /// 403010: a basic tier does not have it.
    NotInTier,
    /// 403012.
    DeviceDisabled,
    /// 403800.
    TooManyCalls,
    /// 404000: no such path.
    ResourceNotFound,
    /// 404000, as Azure's clients look at the status alone: there is no such configuration.
    ConfigurationNotFound,
    /// 404001.
    DeviceNotFound,
    /// 404002.
    JobNotFound,
    /// 404010.
    ModuleNotFound,
    /// 404103.
    DeviceNotOnline,
    /// 405000: the path has no such method.
    MethodNotAllowed,
    /// 408000: the caller did not finish its request.
    RequestTimeout,
    /// 409001.
    DeviceAlreadyExists,
    /// 409000: there is a job of this id. No document tells Azure's last three digits.
    JobAlreadyExists,
    /// 409000: there is a configuration of this id. No document tells Azure's last three digits.
    ConfigurationAlreadyExists,
    /// 409301.
    ModuleAlreadyExists,
    /// 412001.
    PreconditionFailed,
    /// 412002.
    MessageLockLost,
    /// 413001.
    MessageTooLarge,
    /// 429001.
    Throttled,
    /// 503001: the store failed, or the hub stops.
    ServiceUnavailable,
    /// 504101.
    GatewayTimeout,
}

impl Code {
    /// Azure's name of the error.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name_and_number().0
    }

    /// Azure's number of the error; its first three digits are the HTTP status.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.name_and_number().1
    }

    /// The HTTP status: the first three digits of the number.
    #[must_use]
    pub fn status(self) -> u16 {
        u16::try_from(self.number() / 1000).unwrap_or(500)
    }

    const fn name_and_number(self) -> (&'static str, u32) {
        match self {
            Self::InvalidProtocolVersion => ("InvalidProtocolVersion", 400_001),
            Self::ArgumentInvalid => ("ArgumentInvalid", 400_004),
            Self::Unauthorized => ("IotHubUnauthorizedAccess", 401_002),
            Self::QuotaExceeded => ("IotHubQuotaExceeded", 403_002),
            Self::JobQuotaExceeded => ("JobQuotaExceeded", 403_003),
            Self::QueueFull => ("DeviceMaximumQueueDepthExceeded", 403_004),
            Self::TooManyUploads => ("DeviceMaximumActiveFileUploadLimitExceeded", 403_006),
            Self::InvalidMessageExpiryTime => ("InvalidMessageExpiryTime", 403_009),
            Self::NotInTier => ("OperationNotAllowedInCurrentTier", 403_010),
            Self::DeviceDisabled => ("DeviceDisabled", 403_012),
            Self::TooManyCalls => ("DeviceMaximumInflightMethodExceeded", 403_800),
            Self::ResourceNotFound => ("ResourceNotFound", 404_000),
            Self::ConfigurationNotFound => ("ConfigurationNotFound", 404_000),
            Self::DeviceNotFound => ("DeviceNotFound", 404_001),
            Self::JobNotFound => ("JobNotFound", 404_002),
            Self::ModuleNotFound => ("ModuleNotFound", 404_010),
            Self::DeviceNotOnline => ("DeviceNotOnline", 404_103),
            Self::MethodNotAllowed => ("MethodNotAllowed", 405_000),
            Self::RequestTimeout => ("RequestTimeout", 408_000),
            Self::DeviceAlreadyExists => ("DeviceAlreadyExists", 409_001),
            Self::JobAlreadyExists => ("JobAlreadyExists", 409_000),
            Self::ConfigurationAlreadyExists => ("ConfigurationAlreadyExists", 409_000),
            Self::ModuleAlreadyExists => ("ModuleAlreadyExistsOnDevice", 409_301),
            Self::PreconditionFailed => ("PreconditionFailed", 412_001),
            Self::MessageLockLost => ("MessageLockLost", 412_002),
            Self::MessageTooLarge => ("MessageTooLarge", 413_001),
            Self::Throttled => ("ThrottlingException", 429_001),
            Self::ServiceUnavailable => ("ServiceUnavailable", 503_001),
            Self::GatewayTimeout => ("GatewayTimeout", 504_101),
        }
    }
}

/// Why an operation was not done: nothing has changed then, unless [`Error::in_doubt`] says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    what: Cow<'static, str>,
    fix: Option<Cow<'static, str>>,
    rule: Option<Rule>,
}

impl Error {
    /// An error that says what is wrong.
    #[must_use]
    pub fn new(code: Code, what: impl Into<Cow<'static, str>>) -> Self {
        Self { code, what: what.into(), fix: None, rule: None }
    }

    /// 400004: what was asked cannot be meant.
    #[must_use]
    pub fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::ArgumentInvalid, what)
    }

    /// The breach of a rule, with the rule's own words and fix.
    #[must_use]
    pub fn broken(code: Code, rule: Rule) -> Self {
        Self::new(code, format!("{rule}: {}", rule.says())).broke(rule).with_fix(rule.fix())
    }

    /// The same with what to do next.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<Cow<'static, str>>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// The same with the rule that was broken.
    #[must_use]
    pub fn broke(self, rule: Rule) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// Azure's name and number.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What is wrong, without what to do about it.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> Option<&str> {
        self.fix.as_deref()
    }

    /// The rule that was broken, where there is one.
    #[must_use]
    pub const fn rule(&self) -> Option<Rule> {
        self.rule
    }

    /// A change could not be made safe. It was not made; or the store cannot even say that, and until it can, the identity
    /// is [in doubt](Self::in_doubt).
    #[must_use]
    pub fn store_failed() -> Self {
        Self::new(Code::ServiceUnavailable, "the hub could not store the change")
            .broke(Rule::StoreFailed)
            .with_fix(Rule::StoreFailed.fix())
    }

    /// A change of this identity failed, and the store cannot say yet whether it was made.
    #[must_use]
    pub fn in_doubt() -> Self {
        let what = "the store cannot say yet what became of the last change of this identity";
        Self::new(Code::ServiceUnavailable, what).broke(Rule::StoreFailed).with_fix(Rule::StoreFailed.fix())
    }

    /// The hub ends before the operation has.
    #[must_use]
    pub fn stopping() -> Self {
        Self::new(Code::ServiceUnavailable, "the hub is stopping").with_fix("ask again once it runs")
    }

    /// The caller did not wait for the answer.
    #[must_use]
    pub fn caller_gone() -> Self {
        Self::new(Code::RequestTimeout, "the caller hung up before there was an answer")
            .with_fix("let the caller wait longer")
    }
}

impl AsRef<Self> for Error {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// What is wrong, and what to do next.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

impl std::error::Error for Error {}

impl From<EnqueueError> for Error {
    fn from(error: EnqueueError) -> Self {
        let code = match error {
            EnqueueError::QueueFull => Code::QueueFull,
            EnqueueError::TooLarge => Code::MessageTooLarge,
            EnqueueError::Properties(_) => Code::ArgumentInvalid,
            EnqueueError::Expired => Code::InvalidMessageExpiryTime,
            EnqueueError::Tier(error) => return error.into(),
            EnqueueError::UnknownDevice => Code::DeviceNotFound,
        };
        Self::new(code, error.to_string())
    }
}

impl From<InvokeError> for Error {
    fn from(error: InvokeError) -> Self {
        let code = match error {
            InvokeError::UnknownDevice => Code::DeviceNotFound,
            InvokeError::NotOnline | InvokeError::NotSubscribed => Code::DeviceNotOnline,
            InvokeError::TooMany => Code::TooManyCalls,
            InvokeError::Tier(error) => return error.into(),
            InvokeError::Argument(_) => Code::ArgumentInvalid,
        };
        Self::new(code, error.to_string())
    }
}

impl From<TierError> for Error {
    fn from(error: TierError) -> Self {
        let code = match error {
            TierError::Throttled => Code::Throttled,
            TierError::QuotaExceeded => Code::QuotaExceeded,
            TierError::NotInTier => Code::NotInTier,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CallFailure> for Error {
    fn from(failure: CallFailure) -> Self {
        let code = match failure {
            CallFailure::NotOnline | CallFailure::NotSubscribed => Code::DeviceNotOnline,
            CallFailure::NoAnswer => Code::GatewayTimeout,
        };
        Self::new(code, failure.to_string())
    }
}

impl From<TwinUpdateError> for Error {
    fn from(error: TwinUpdateError) -> Self {
        let code = match error {
            TwinUpdateError::UnknownDevice => Code::DeviceNotFound,
            TwinUpdateError::EtagMismatch => Code::PreconditionFailed,
            TwinUpdateError::Tier(error) => return error.into(),
            TwinUpdateError::Document(_) => Code::ArgumentInvalid,
        };
        Self::new(code, error.to_string())
    }
}

impl From<LockLost> for Error {
    fn from(error: LockLost) -> Self {
        Self::new(Code::MessageLockLost, error.to_string())
    }
}
