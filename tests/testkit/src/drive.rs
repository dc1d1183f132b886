//! A program's loop, the same for the clients of both adapters.

use std::fmt;
use std::future::ready;
use std::time::Duration;

use devicebound::Device;
use devicebound::device::Action;
use devicebound_blocking::{Client, Incoming, Machine, Offline, Socket};
use devicebound_tokio::Client as TokioClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::task::yield_now;

/// A client in a loop.
pub trait Drive {
    /// The device, to ask for something.
    fn device(&mut self) -> &mut Machine;

    /// Waits until there may be something to take; false when there is nothing more to wait for. Takes it all, until `hear`
    /// says that it has heard enough, which is false as well.
    fn turn(&mut self, hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>) -> bool) -> bool;

    /// Hears all there is until `hear` has heard enough, or there is nothing more to wait for.
    fn drive(&mut self, mut hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>) -> bool) {
        while self.turn(&mut hear) {}
    }

    /// Waits until nothing is on its way to the hub any more, at most for `time`.
    fn flush(&mut self, time: Duration, hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>)) -> bool;

    /// Disconnects.
    fn close(&mut self);

    /// The device without the client.
    fn into_device(self) -> Device;
}

impl<S: Socket> Drive for Client<S> {
    fn device(&mut self) -> &mut Machine {
        self.device()
    }

    fn turn(&mut self, hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>) -> bool) -> bool {
        self.wait() && hear_all(self.split(), hear)
    }

    fn flush(&mut self, time: Duration, hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>)) -> bool {
        self.flush(time, hear)
    }

    fn close(&mut self) {
        self.close();
    }

    fn into_device(self) -> Device {
        self.into_device()
    }
}

/// Takes all that was received; false when `hear` has heard enough.
fn hear_all(
    (device, mut incoming): (&mut Machine, Incoming<'_>),
    mut hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>) -> bool,
) -> bool {
    while let Some(next) = incoming.next(device) {
        if hear(device, next) {
            return false;
        }
    }
    true
}

/// All that a device hears at each of its attempts to connect, which is why it cannot.
///
/// # Panics
/// When it can, or hears more than one thing at an attempt.
pub fn no_transport(mut client: impl Drive) -> String {
    let mut told = Vec::new();
    client.drive(|_, next| {
        told.push(next.expect_err("there is no hub to talk to").to_string());
        told.len() == 2
    });
    assert_eq!(told[0], told[1]);
    told.swap_remove(0)
}

/// How a tokio program waits.
#[derive(Clone, Copy, Debug)]
pub enum Waiting {
    /// Until there is something.
    Patiently,
    /// Never: a branch that is always ready drops the future after its first poll, which is at each of its await points in
    /// turn.
    Cancelled,
}

/// A tokio client with a runtime of its own.
pub struct OnTokio<S> {
    client: TokioClient<S>,
    waiting: Waiting,
    runtime: Runtime,
}

impl<S> OnTokio<S> {
    /// A program that waits in this way.
    ///
    /// # Panics
    /// When this machine is out of files.
    #[must_use]
    pub fn new(client: TokioClient<S>, waiting: Waiting) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { client, waiting, runtime: runtime.expect("a runtime can be made") }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Drive for OnTokio<S> {
    fn device(&mut self) -> &mut Machine {
        self.client.device()
    }

    fn turn(&mut self, hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>) -> bool) -> bool {
        let Self { client, waiting, runtime } = self;
        let goes_on = runtime.block_on(async {
            match waiting {
                Waiting::Patiently => client.wait().await,
                Waiting::Cancelled => loop {
                    tokio::select! {
                        biased;
                        goes_on = client.wait() => break goes_on,
                        () = ready(()) => yield_now().await,
                    }
                },
            }
        });
        goes_on && hear_all(client.split(), hear)
    }

    fn flush(&mut self, time: Duration, hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>)) -> bool {
        self.runtime.block_on(self.client.flush(time, hear))
    }

    fn close(&mut self) {
        self.runtime.block_on(self.client.close());
    }

    fn into_device(self) -> Device {
        self.client.into_device()
    }
}

impl<S> fmt::Debug for OnTokio<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnTokio")
            .field("client", &self.client)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
