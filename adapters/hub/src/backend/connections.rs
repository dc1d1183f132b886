//! What is known of the live connection of a device or module.

use std::net::SocketAddr;

use devicebound::hub::{Credential, KeySlot, LiveConnection};
use devicebound::iothub::Subscription;
use devicebound::time::UnixTime;

use super::{Backend, ClientId, Error, find};
use crate::engine::core::Core;

/// Whether a device or module is connected, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// When it was connected or disconnected last.
    pub since: Option<UnixTime>,
    /// When its last packet came.
    pub last_activity: Option<UnixTime>,
    /// The connection, while there is one.
    pub live: Option<Connected>,
}

/// A live connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Its other end.
    pub peer: SocketAddr,
    /// `MQTT` or `MQTT over WebSocket`.
    pub protocol: &'static str,
    /// What the client calls its software (`DeviceClientType`).
    pub sdk_version: Option<String>,
    /// `api-version` of its user name, as it was written.
    pub api_version: Option<String>,
    /// What it proved itself with.
    pub credential: &'static str,
    /// When that expires, and the connection ends.
    pub expires: Option<UnixTime>,
    /// The session outlives the connection (CleanSession 0).
    pub is_persistent: bool,
    /// What it is subscribed to.
    pub subscriptions: Vec<&'static str>,
}

impl Backend {
    /// Whether a device or module is connected, and how.
    ///
    /// # Errors
    /// 404001 or 404010 where there is no such identity.
    pub async fn connection(&self, id: &ClientId) -> Result<Connection, Error> {
        self.at(id, |core, now, id| {
            let key = find(core, id)?;
            let connection = core.hub.connection(now, key).ok_or_else(Error::store_failed)?;
            Ok(Connection {
                since: connection.state_updated,
                last_activity: connection.last_activity,
                live: connection.live.and_then(|live| connected(core, &live)),
            })
        })
        .await
    }
}

fn connected(core: &Core, live: &LiveConnection) -> Option<Connected> {
    let signal = core.signal(live.link)?;
    let introduction = signal.introduction();
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    Some(Connected {
        peer: signal.origin.peer,
        protocol: signal.origin.protocol,
        sdk_version: introduction.and_then(|said| text(&said.sdk_version)),
        api_version: introduction.and_then(|said| text(&said.api_version)),
        credential: credential(live.credential),
        expires: live.expires,
        is_persistent: live.is_persistent,
        subscriptions: Subscription::ALL
            .into_iter()
            .filter(|subscription| live.subscriptions.get(*subscription).is_some())
            .map(Subscription::name)
            .collect(),
    })
}

const fn credential(credential: Credential) -> &'static str {
    match credential {
        Credential::Other => "token of a policy",
        Credential::Key(KeySlot::Primary) => "token by the primary key",
        Credential::Key(KeySlot::Secondary) => "token by the secondary key",
        Credential::DeviceKey(KeySlot::Primary) => "token by the device's primary key",
        Credential::DeviceKey(KeySlot::Secondary) => "token by the device's secondary key",
        Credential::Thumbprint(KeySlot::Primary) => "certificate with the primary thumbprint",
        Credential::Thumbprint(KeySlot::Secondary) => "certificate with the secondary thumbprint",
        Credential::CertificateAuthority => "certificate of an authority",
    }
}
