//! A connection's side of its worker: who it is, and how it is called.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use devicebound::Rule;
use devicebound::hub::{Comparison, LinkId, Warning};
use devicebound::time::Instant;

use crate::telemetry::sender::Sender;
use crate::transport::tls::TlsPeer;

/// How a connection's task is called, and what others may know of the connection.
#[derive(Debug)]
pub(crate) struct Signal {
    ready: Cell<bool>,
    timed_out: Cell<bool>,
    ended: Cell<Option<Rule>>,
    waker: RefCell<Option<Waker>>,
    pub(crate) origin: Origin,
    introduction: OnceCell<Introduction>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The address of the other end.
    pub(crate) peer: SocketAddr,
    /// What is spoken over it.
    pub(crate) protocol: &'static str,
}

/// What a client said of itself in the user name of its CONNECT, each text cut to a bounded length.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    /// What it calls its software (`DeviceClientType`).
    pub(crate) sdk_version: Option<Box<str>>,
    /// `api-version`, as it was written.
    pub(crate) api_version: Option<Box<str>>,
}

/// A connection's side of the worker.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) signal: Rc<Signal>,
    /// When the transport was there, for whoever takes the connection over.
    pub(crate) began: Instant,
    /// What the TLS handshake told; of no use once CONNECT was accepted.
    pub(crate) tls: Option<Box<TlsPeer>>,
    /// Known from the moment that CONNECT was accepted.
    pub(crate) sender: Option<Box<Sender>>,
    /// Who the client said that it is, where it was refused.
    pub(crate) claimed: Option<Box<str>>,
    /// What came and what it was compared with, where CONNECT was refused.
    pub(crate) comparison: Option<Comparison>,
    /// What the machine warned of in the last turn, and nobody was told yet.
    pub(crate) warnings: Vec<Warning>,
}

/// Why a connection's task was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// There may be something to transmit, or to pull.
    Ready,
    /// A deadline came.
    TimedOut,
    /// The hub ends the connection.
    End(Rule),
}

impl Signal {
    pub(crate) const fn new(origin: Origin) -> Self {
        Self {
            ready: Cell::new(false),
            timed_out: Cell::new(false),
            ended: Cell::new(None),
            waker: RefCell::new(None),
            origin,
            introduction: OnceCell::new(),
        }
    }

    /// CONNECT has come, which it does once.
    pub(crate) fn introduce(&self, introduction: Option<Introduction>) {
        if let Some(introduction) = introduction {
            let _ = self.introduction.set(introduction);
        }
    }

    /// What the client said of itself, once CONNECT has come.
    pub(crate) fn introduction(&self) -> Option<&Introduction> {
        self.introduction.get()
    }

    /// What the client calls its software.
    pub(crate) fn sdk_version(&self) -> Option<&str> {
        self.introduction()?.sdk_version.as_deref()
    }

    /// There is something to transmit, or to pull.
    pub(crate) fn call(&self) {
        self.ready.set(true);
        self.wake();
    }

    /// A deadline came.
    pub(crate) fn time_out(&self) {
        self.timed_out.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The hub ends the connection.
    pub(crate) fn end(&self, rule: Rule) {
        // The first reason counts.
        if self.ended.get().is_none() {
            self.ended.set(Some(rule));
        }
        self.wake();
    }
}

impl Link {
    /// The client id, once CONNECT was accepted.
    #[must_use]
    pub(crate) fn client_id(&self) -> Option<String> {
        self.sender.as_ref().map(|sender| sender.client_id())
    }

    /// The same, and before that what the client said that it is.
    pub(crate) fn name(&self) -> Option<String> {
        self.client_id().or_else(|| self.claimed.as_deref().map(str::to_owned))
    }

    /// Whether CONNECT was accepted.
    #[must_use]
    pub(crate) const fn is_known(&self) -> bool {
        self.sender.is_some()
    }

    /// Ready when the machine, the timer or the hub has something for this connection.
    pub(crate) fn poll_called(&self, cx: &Context<'_>) -> Poll<Call> {
        let signal = &self.signal;
        if let Some(rule) = signal.ended.get() {
            return Poll::Ready(Call::End(rule));
        }
        if signal.timed_out.replace(false) {
            return Poll::Ready(Call::TimedOut);
        }
        if signal.ready.replace(false) {
            return Poll::Ready(Call::Ready);
        }
        let mut waker = signal.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
