//! Errors in the two shapes that Azure has.

use std::fmt;

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use devicebound::hub::{CallFailure, EnqueueError, InvokeError, TierError, TwinUpdateError};
use serde_json::json;

use super::audit::Failed;
use crate::clock::unix_time;

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
    /// 403004.
    QueueFull,
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
    /// 404001.
    DeviceNotFound,
    /// 404010.
    ModuleNotFound,
    /// 404103.
    DeviceNotOnline,
    /// 405000: the path has no such method.
    MethodNotAllowed,
    /// 409001.
    DeviceAlreadyExists,
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
    /// 503001: the store failed.
    ServiceUnavailable,
    /// 504101.
    GatewayTimeout,
}

impl Code {
    const fn name_and_number(self) -> (&'static str, u32) {
        match self {
            Self::InvalidProtocolVersion => ("InvalidProtocolVersion", 400_001),
            Self::ArgumentInvalid => ("ArgumentInvalid", 400_004),
            Self::Unauthorized => ("IotHubUnauthorizedAccess", 401_002),
            Self::QuotaExceeded => ("IotHubQuotaExceeded", 403_002),
            Self::QueueFull => ("DeviceMaximumQueueDepthExceeded", 403_004),
            Self::InvalidMessageExpiryTime => ("InvalidMessageExpiryTime", 403_009),
            Self::NotInTier => ("OperationNotAllowedInCurrentTier", 403_010),
            Self::DeviceDisabled => ("DeviceDisabled", 403_012),
            Self::TooManyCalls => ("DeviceMaximumInflightMethodExceeded", 403_800),
            Self::ResourceNotFound => ("ResourceNotFound", 404_000),
            Self::DeviceNotFound => ("DeviceNotFound", 404_001),
            Self::ModuleNotFound => ("ModuleNotFound", 404_010),
            Self::DeviceNotOnline => ("DeviceNotOnline", 404_103),
            Self::MethodNotAllowed => ("MethodNotAllowed", 405_000),
            Self::DeviceAlreadyExists => ("DeviceAlreadyExists", 409_001),
            Self::ModuleAlreadyExists => ("ModuleAlreadyExistsOnDevice", 409_301),
            Self::PreconditionFailed => ("PreconditionFailed", 412_001),
            Self::MessageLockLost => ("MessageLockLost", 412_002),
            Self::MessageTooLarge => ("MessageTooLarge", 413_001),
            Self::Throttled => ("ThrottlingException", 429_001),
            Self::ServiceUnavailable => ("ServiceUnavailable", 503_001),
            Self::GatewayTimeout => ("GatewayTimeout", 504_101),
        }
    }

    /// The first three digits of the number.
    fn status(self) -> StatusCode {
        u16::try_from(self.name_and_number().1 / 1000)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// What went wrong with a request.
#[derive(Clone, Debug)]
pub struct ApiError {
    code: Code,
    message: String,
    nested: bool,
}

impl ApiError {
    /// An error with a message for whoever reads the log of the client.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), nested: false }
    }

    /// The shape of direct methods: JSON text inside the JSON, which the SDKs read `errorCode` from.
    #[must_use]
    pub fn nested(self) -> Self {
        Self { nested: true, ..self }
    }

    /// Azure's name of the error.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.code.name_and_number().0
    }

    /// A change could not be made safe. It was not made; or the store cannot even say that, and until it can, the identity
    /// is [in doubt](Self::in_doubt).
    #[must_use]
    pub fn store_failed() -> Self {
        let rule = devicebound::Rule::StoreFailed;
        Self::new(Code::ServiceUnavailable, format!("the hub could not store the change; {}", rule.mend()))
    }

    /// A change of this identity failed, and the store cannot say yet whether it was made.
    #[must_use]
    pub fn in_doubt() -> Self {
        let rule = devicebound::Rule::StoreFailed;
        let what = "the store cannot say yet what became of the last change of this identity";
        Self::new(Code::ServiceUnavailable, format!("{what}; {}", rule.mend()))
    }
}

/// The message.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (name, number) = self.code.name_and_number();
        let time = unix_time();
        let tracking_id = format!("{:032X}-TimeStamp:{time}", time.as_millis());
        let message = if self.nested {
            let inner = json!({
                "errorCode": number, "trackingId": tracking_id, "message": self.message,
                "info": {}, "timestampUtc": time.to_string(),
            });
            inner.to_string()
        } else {
            // SDKs split it at the semicolon, some at each one.
            format!("ErrorCode:{name};{}", self.message.replace(';', ","))
        };
        let body =
            Json(json!({"Message": message, "ExceptionMessage": format!("Tracking ID:{tracking_id}")}));
        let mut response = (self.code.status(), body).into_response();
        response.extensions_mut().insert(Failed { number, message: self.message });
        response.headers_mut().insert("iothub-errorcode", HeaderValue::from_static(name));
        response
    }
}

impl From<EnqueueError> for ApiError {
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

impl From<InvokeError> for ApiError {
    fn from(error: InvokeError) -> Self {
        let code = match error {
            InvokeError::UnknownDevice => Code::DeviceNotFound,
            InvokeError::NotOnline => Code::DeviceNotOnline,
            InvokeError::TooMany => Code::TooManyCalls,
            InvokeError::Tier(error) => return Self::from(error).nested(),
            InvokeError::Argument(_) => Code::ArgumentInvalid,
        };
        Self::new(code, error.to_string()).nested()
    }
}

impl From<TierError> for ApiError {
    fn from(error: TierError) -> Self {
        let code = match error {
            TierError::Throttled => Code::Throttled,
            TierError::QuotaExceeded => Code::QuotaExceeded,
            TierError::NotInTier => Code::NotInTier,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CallFailure> for ApiError {
    fn from(failure: CallFailure) -> Self {
        let code = match failure {
            CallFailure::NotOnline => Code::DeviceNotOnline,
            CallFailure::NoAnswer => Code::GatewayTimeout,
        };
        Self::new(code, failure.to_string()).nested()
    }
}

impl From<TwinUpdateError> for ApiError {
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
