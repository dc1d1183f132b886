//! Something goes wrong for one identity, so that whoever writes a device sees how it bears that.

use std::time::Duration;

use devicebound::hub::Fault;

use super::{Backend, ClientId, Error, find};

/// What is to go wrong, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What goes wrong.
    pub fault: Fault,
    /// How long until it does.
    pub delay: Duration,
    /// For how long.
    pub duration: Duration,
}

impl Backend {
    /// Makes something go wrong for an identity.
    ///
    /// # Errors
    /// 404001, 404010.
    pub async fn inject(&self, id: &ClientId, plan: Plan) -> Result<(), Error> {
        let injected = self.at(id, move |core, now, id| {
            let key = find(core, id)?;
            core.hub.inject(now, key, plan.fault, plan.delay, plan.duration);
            Ok(())
        });
        injected.await
    }
}
