//! A hub in memory behind sockets in memory, which may trickle.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use devicebound::hub::{LinkId, MethodRequest};
use devicebound::limits::METHOD_RESPONSE_TIME;
use devicebound_blocking::Socket;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::walk::Service;
use devicebound_world::fixtures;
use devicebound_world::hub_host::HubHost;

/// A hub that both ends of its pipes reach.
#[derive(Clone, Debug)]
pub struct PipeHub {
    host: Arc<Mutex<HubHost>>,
    live: Arc<Mutex<Option<LinkId>>>,
    deaf: Arc<AtomicBool>,
    mute: Arc<AtomicBool>,
    pinged: Arc<AtomicBool>,
}

impl PipeHub {
    /// A hub with the device `dev`.
    #[must_use]
    pub fn start() -> Self {
        let host = Arc::new(Mutex::new(fixtures::hub(&["dev"])));
        Self {
            host,
            live: Arc::default(),
            deaf: Arc::default(),
            mute: Arc::default(),
            pinged: Arc::default(),
        }
    }

    /// The hub.
    ///
    /// # Panics
    /// Never; a test that panicked while it held the hub has failed already.
    pub fn host(&self) -> MutexGuard<'_, HubHost> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection, which takes the place of the one before. It carries all there is at once.
    #[must_use]
    pub fn connect(&self) -> Pipe {
        let link = self.host().open();
        *self.live() = Some(link);
        Pipe {
            hub: self.clone(),
            link,
            unread: Vec::new(),
            trickles: false,
            never_pauses: false,
            is_shut: false,
            has_heard: false,
            idle_in: false,
            idle_out: false,
        }
    }

    /// What the hub says arrives only when the device has said that nothing more will come.
    pub fn answer_at_the_end(&self) {
        self.mute.store(true, Ordering::Relaxed);
    }

    /// Whether a device has sent PINGREQ, alone or at the end of a write.
    #[must_use]
    pub fn was_pinged(&self) -> bool {
        self.pinged.load(Ordering::Relaxed)
    }

    /// The hub reads no more.
    pub fn stop_reading(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    fn live(&self) -> MutexGuard<'_, Option<LinkId>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for PipeHub {
    fn send(&mut self, payload: &str) {
        fixtures::send(&mut self.host(), payload);
    }

    fn patch_desired(&mut self, patch: Value) {
        fixtures::patch_desired(&mut self.host(), &patch);
    }

    fn invoke(&mut self, name: &str, payload: Value) {
        let mut host = self.host();
        let request = MethodRequest {
            name: name.to_owned(),
            payload: Some(payload.to_string()),
            response_timeout: METHOD_RESPONSE_TIME.1,
            connect_timeout: Duration::ZERO,
        };
        let (now, device) = (host.now, host.device("dev"));
        host.hub.invoke(now, device, request).expect("the device listens");
        host.settle();
    }

    fn cut(&mut self) {
        if let Some(link) = self.live().take() {
            self.host().hang_up(link);
        }
    }
}

/// The device's end of a connection.
#[derive(Debug)]
pub struct Pipe {
    hub: PipeHub,
    link: LinkId,
    unread: Vec<u8>,
    trickles: bool,
    never_pauses: bool,
    is_shut: bool,
    has_heard: bool,
    idle_in: bool,
    idle_out: bool,
}

impl Pipe {
    /// Carries one byte at a time, and nothing at every other call.
    #[must_use]
    pub const fn that_trickles(mut self) -> Self {
        self.trickles = true;
        self
    }

    fn is_cut(&self) -> bool {
        *self.hub.live() != Some(self.link)
    }

    /// There is always something to be read, once the hub has said its first word: PINGRESPs.
    #[must_use]
    pub const fn that_never_pauses(mut self) -> Self {
        self.never_pauses = true;
        self
    }

    /// How many of `length` bytes are carried now. `idle` is that of the direction.
    fn carry(trickles: bool, idle: &mut bool, length: usize) -> io::Result<usize> {
        *idle = trickles && !*idle;
        if length == 0 || *idle {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(if trickles { 1 } else { length })
    }
}

impl Read for Pipe {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.is_cut() {
            return Ok(0);
        }
        if self.hub.mute.load(Ordering::Relaxed) && !self.is_shut {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let output = self.hub.host().take_output(self.link);
        self.has_heard |= !output.is_empty();
        self.unread.extend(output);
        if self.unread.is_empty() && self.never_pauses && self.has_heard {
            self.unread.extend([0xD0, 0].repeat(100));
        }
        if self.unread.is_empty() && self.hub.host().closed(self.link).is_some() {
            return Ok(0);
        }
        let length = Self::carry(self.trickles, &mut self.idle_in, self.unread.len().min(room.len()))?;
        room[..length].copy_from_slice(&self.unread[..length]);
        self.unread.drain(..length);
        Ok(length)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_cut() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let deaf = self.hub.deaf.load(Ordering::Relaxed);
        let length = if deaf { 0 } else { bytes.len() };
        let length = Self::carry(self.trickles, &mut self.idle_out, length)?;
        self.hub.pinged.fetch_or(bytes[..length].ends_with(&[0xC0, 0]), Ordering::Relaxed);
        self.hub.host().receive(self.link, &bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Pipe {
    fn set_read_timeout(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn shut_down(&mut self) -> io::Result<()> {
        self.is_shut = true;
        self.hub.host().hang_up(self.link);
        Ok(())
    }
}

/// The same for an asynchronous device, which is woken at once.
fn poll<T>(cx: &Context<'_>, result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        result => Poll::Ready(result),
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; room.remaining()];
        poll(cx, self.read(&mut bytes)).map_ok(|length| room.put_slice(&bytes[..length]))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll(cx, self.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down())
    }
}
