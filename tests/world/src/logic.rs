//! A device's own logic in place of the World's, among the World's faults.

use std::fmt::Debug;
use std::time::Duration;

use devicebound::Device;
use devicebound::hub::MethodRequest;
use devicebound::limits::METHOD_RESPONSE_TIME;
use devicebound::time::Instant;

use super::{Breach, World};
use crate::station::Heard;

/// What a device does with what it hears. It completes cloud messages and answers methods; the World's own application
/// does not, where there is a logic.
pub trait Logic: Debug {
    /// The device's machine has said something. Whatever the logic asks of `device` appends to `tx`.
    fn hear(&mut self, now: Instant, heard: &Heard, device: &mut Device, tx: &mut Vec<u8>);

    /// The device's process has died, and starts again with a new machine.
    fn restarted(&mut self) {}
}

impl<'e> World<'e> {
    /// Gives a device a logic of its own.
    ///
    /// # Panics
    /// Where the world has no such device.
    #[must_use]
    pub fn with_logic(mut self, device: usize, logic: impl Logic + 'e) -> Self {
        self.logics.insert(device, Box::new(logic));
        assert!(device < self.things.len(), "there are {} devices", self.things.len());
        self
    }

    /// The telemetry of an identity's logic that the hub has received, in order, as often as it came.
    pub fn telemetry_of(&self, device: usize) -> impl Iterator<Item = &[u8]> {
        self.own_telemetry
            .iter()
            .filter(move |(own, _)| *own == device)
            .map(|(_, payload)| payload.as_slice())
    }

    /// The answers of an identity's logic that reached the back end, with their status.
    pub fn answers_of(&self, device: usize) -> impl Iterator<Item = (i32, &[u8])> {
        let own = self.own_answers.iter().filter(move |(own, ..)| *own == device);
        own.map(|(_, status, payload)| (*status, payload.as_slice()))
    }

    /// The back end calls a method of a device, with a payload in JSON. If it is not connected now, nothing happens.
    ///
    /// # Errors
    /// What cannot be, and was.
    ///
    /// # Panics
    /// Where the world has no such device.
    pub fn call_method(&mut self, device: usize, name: &str, payload: &str) -> Result<(), Breach> {
        if self.hub_back_at.is_some() {
            return Ok(());
        }
        let request = MethodRequest {
            name: name.to_owned(),
            payload: Some(payload.to_owned()),
            response_timeout: METHOD_RESPONSE_TIME.1,
            connect_timeout: Duration::ZERO,
        };
        self.hub.step_clock(self.now);
        if let Ok(call) = self.hub.hub.invoke(self.now, self.keys[device], request) {
            self.model.calls.insert(call, (device, 0));
        }
        self.hub.settle();
        self.after_hub()?;
        self.run_until(self.now)
    }

    /// Lets a logic hear, where there is one. True if that was all that there was to do.
    pub(super) fn logic_hears(&mut self, number: usize, heard: &Heard) -> Result<bool, Breach> {
        let Some(logic) = self.logics.get_mut(&number) else { return Ok(false) };
        let thing = &mut self.things[number];
        logic.hear(self.now, heard, &mut thing.device, &mut thing.tx);
        let open = &self.model.senders[number].open;
        Ok(match heard {
            Heard::Delivered { payload, .. } => {
                let (_, message) = super::application::parse_cloud(&String::from_utf8_lossy(payload))?;
                self.model.identities[thing.identity].finished(message);
                true
            }
            Heard::Invoked { .. } => true,
            Heard::Acknowledged(ticket) => !open.contains_key(ticket),
            Heard::Answered { request, .. } | Heard::Failed(request, _) => {
                !thing.requests.contains_key(request)
            }
            _ => false,
        })
    }
}
