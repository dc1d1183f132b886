//! Which Edge device a device belongs to: the scopes that an identity names are those of Edge devices.

use super::identity::Wish;
use super::{Backend, ClientId, Error};

/// How every scope begins.
const SCHEME: &str = "ms-azure-iot-edge://";

impl Backend {
    /// Whether the scopes that an identity is to get are those of Edge devices that are there. Those that it has already may
    /// stay, as whoever reads an identity sends them back.
    ///
    /// # Errors
    /// 400004 with the scope that no Edge device has.
    pub(super) async fn check_scopes(&self, id: &ClientId, wish: &Wish) -> Result<(), Error> {
        let wished: Vec<String> = wish.scopes().map(str::to_owned).collect();
        if wished.is_empty() {
            return Ok(());
        }
        let present = self.at(id, |core, _, id| {
            let record = core.hub.find(id.as_str()).and_then(|key| core.hub.record(key))?;
            let identity = &record.identity;
            Some(identity.device_scope.iter().chain(&identity.parent_scopes).cloned().collect::<Vec<_>>())
        });
        let present = present.await.unwrap_or_default();
        for scope in wished.into_iter().filter(|scope| !present.contains(scope)) {
            if !self.is_scope_of_edge(&scope).await {
                return Err(Error::invalid(format!("no Edge device has the scope `{scope}`"))
                    .with_fix("take it from deviceScope of the Edge device: GET /devices/{id}"));
            }
        }
        Ok(())
    }

    async fn is_scope_of_edge(&self, scope: &str) -> bool {
        let named = scope.strip_prefix(SCHEME).and_then(|named| named.rsplit_once('-'));
        let Some(Ok(id)) = named.map(|(device_id, _)| ClientId::new(device_id, None)) else { return false };
        let scope = scope.to_owned();
        self.at(&id, move |core, _, id| {
            let record = core.hub.find(id.as_str()).and_then(|key| core.hub.record(key));
            record.is_some_and(|record| {
                record.identity.is_edge && record.identity.device_scope.as_deref() == Some(scope.as_str())
            })
        })
        .await
    }
}
