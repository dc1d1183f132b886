//! CONNACK (MQTT 3.1.1 §3.2).

use alloc::vec::Vec;

use super::encode::short;
use super::reader::{DecodeError, Reader};
use crate::rule::Rule;

/// The server's answer to CONNECT.
///
/// A refusal cannot say that a session is present `[MQTT-3.2.2-4]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnAck {
    /// Return code 0.
    Accepted {
        /// Whether the server had kept the session of this client id `[MQTT-3.2.2-2]`.
        session_present: bool,
    },
    /// Any other return code; the server closes the connection `[MQTT-3.2.2-5]`.
    Refused(ConnectReturnCode),
}

/// Why a server refuses a CONNECT: the return codes other than 0 (MQTT 3.1.1 §3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectReturnCode {
    /// 1: the server does not speak the protocol level that the client asks for.
    UnacceptableProtocolVersion = 1,
    /// 2: the client id is correct UTF-8, but not allowed.
    IdentifierRejected = 2,
    /// 3: the connection has been made, but there is no service now.
    ServerUnavailable = 3,
    /// 4: user name or password are malformed.
    BadUserNameOrPassword = 4,
    /// 5: the client may not connect.
    NotAuthorized = 5,
}

impl ConnectReturnCode {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::UnacceptableProtocolVersion),
            2 => Some(Self::IdentifierRejected),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

impl ConnAck {
    /// Whether the server had kept the session; always false in a refusal.
    #[must_use]
    pub const fn session_present(self) -> bool {
        matches!(self, Self::Accepted { session_present: true })
    }

    /// The return code as it stands on the wire, 0 to 5.
    #[must_use]
    pub const fn return_code(self) -> u8 {
        match self {
            Self::Accepted { .. } => 0,
            Self::Refused(code) => code as u8,
        }
    }

    /// Appends the packet.
    pub fn encode(self, out: &mut Vec<u8>) {
        short([0x20, 2, u8::from(self.session_present()), self.return_code()], out);
    }

    #[inline]
    pub(super) fn decode(mut body: Reader<'_>) -> Result<Self, DecodeError> {
        let at_flags = body;
        // MQTT 3.1.1 §3.2.2.1: bits 7 to 1 are reserved.
        let session_present = match body.u8()? {
            0 => false,
            1 => true,
            _ => return Err(at_flags.error_in(Rule::ConnAckFlags, 0, 1)),
        };
        let at_code = body;
        let code = match body.u8()? {
            0 => return Ok(Self::Accepted { session_present }),
            byte => {
                ConnectReturnCode::from_byte(byte).ok_or_else(|| at_code.error_in(Rule::ConnAckCode, 0, 1))?
            }
        };
        // [MQTT-3.2.2-4]
        if session_present {
            return Err(at_flags.error_in(Rule::SessionPresentRefused, 0, 2));
        }
        Ok(Self::Refused(code))
    }
}
