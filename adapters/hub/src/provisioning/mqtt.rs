//! A device that registers over MQTT: its bytes through the machine and back, until it is over.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use devicebound::Rule;
use devicebound::explain::Sender;
use devicebound::hub::{ConnectRequest, Event, Refusal, Wait};
use devicebound::iothub::provisioning::{Username, UsernameError};
use devicebound::provisioning::{LinkLimits, ServiceAction, ServiceLink, ServiceRequest};
use devicebound::session::Close;
use devicebound::time::Instant;
use rustls::pki_types::CertificateDer;

use super::Provisioning;
use super::caller::{Caller, Proof};
use crate::engine::worker::Worker;
use crate::observe::view::Who;
use crate::observe::wording::End;
use crate::transport::Transport;

/// How long a client may take to accept the last bytes.
const PARTING_TIME: Duration = Duration::from_secs(1);

/// A connection whose user name belongs to the service.
pub(crate) struct Connection<T> {
    pub(crate) worker: Rc<Worker>,
    pub(crate) transport: T,
    pub(crate) peer: SocketAddr,
    /// What the client showed in the TLS handshake.
    pub(crate) chain: Option<Arc<[CertificateDer<'static>]>>,
    /// What it has said already.
    pub(crate) rx: Vec<u8>,
    pub(crate) began: Instant,
}

/// Serves it until its end.
pub(crate) async fn serve<T: Transport>(service: Arc<Provisioning>, connection: Connection<T>) {
    let Connection { worker, transport, peer, chain, rx, began } = connection;
    let link = ServiceLink::new(began, LinkLimits::default());
    let mut session = Session {
        service,
        worker,
        transport,
        peer,
        chain,
        rx,
        tx: Vec::new(),
        link,
        caller: None,
        claimed: None,
    };
    let close = session.run().await;
    session.report(&close);
    let _ = tokio::time::timeout(PARTING_TIME, session.part()).await;
}

struct Session<T> {
    service: Arc<Provisioning>,
    worker: Rc<Worker>,
    transport: T,
    peer: SocketAddr,
    chain: Option<Arc<[CertificateDer<'static>]>>,
    rx: Vec<u8>,
    tx: Vec<u8>,
    link: ServiceLink,
    /// Known from the moment that CONNECT was accepted.
    caller: Option<Caller>,
    /// What the client says that it is.
    claimed: Option<String>,
}

impl<T: Transport> Session<T> {
    async fn run(&mut self) -> Close {
        loop {
            let wait = match self.pull().await {
                Ok(wait) => wait,
                Err(close) => return close,
            };
            let reads = matches!(wait, Wait::Read { .. });
            let deadline =
                self.link.poll_timeout().map(|deadline| self.worker.engine.clock.until(deadline.at));
            let moves = self.move_bytes(reads);
            let moved = match deadline {
                Some(time) => tokio::time::timeout(time, moves).await,
                None => Ok(moves.await),
            };
            let now = self.worker.engine.clock.now();
            let event = match moved {
                Ok(Moved::Some) => continue,
                Ok(Moved::End) => Event::Closed,
                Err(_) => Event::TimedOut,
            };
            if let Err(close) = self.link.handle(now, event, &mut self.tx) {
                return close;
            }
        }
    }

    /// Takes what has arrived, and answers it.
    async fn pull(&mut self) -> Result<Wait, Close> {
        loop {
            let now = self.worker.engine.clock.now();
            let rx = std::mem::take(&mut self.rx);
            let mut rest = rx.as_slice();
            let written = self.tx.len();
            let action = self.link.handle(now, Event::Received(&mut rest), &mut self.tx);
            let taken = rx.len() - rest.len();
            self.show(Sender::Device, rx.get(..taken).unwrap_or_default());
            let request = match action {
                Err(close) => {
                    self.rx = rest.to_vec();
                    return Err(close);
                }
                Ok(ServiceAction::Wait(wait)) => {
                    self.rx = rest.to_vec();
                    return Ok(wait);
                }
                Ok(ServiceAction::Handled) => None,
                Ok(ServiceAction::Authenticate(request)) => {
                    self.judge(&request, now);
                    None
                }
                Ok(ServiceAction::Request(ticket, request)) => Some((ticket, owned(request))),
            };
            self.rx = rest.to_vec();
            if let Some((ticket, request)) = request
                && let Some(caller) = self.caller.clone()
            {
                let answer = match request {
                    Request::Register(body) => self.service.register(caller, body).await,
                    Request::Poll(operation_id) => self.service.poll(&caller, &operation_id),
                };
                let (now, body) = (self.worker.engine.clock.now(), answer.body.to_string().into_bytes());
                self.link.answer(now, ticket, answer.status, answer.retry_after, body, &mut self.tx);
            }
            self.show(Sender::Hub, self.tx.get(written..).unwrap_or_default());
        }
    }

    /// A well-formed CONNECT of this id scope is accepted; the register is refused where the device is not let in, as
    /// the SDKs show their users what stands in an answer, and nothing of a CONNACK.
    fn judge(&mut self, request: &ConnectRequest<'_>, now: Instant) {
        let connect = &request.connect;
        self.claimed = Some(connect.client_id.as_str().chars().take(devicebound::limits::ID_MAX).collect());
        let Some(credentials) = connect.credentials else {
            return self.link.refuse(&Refusal::not_authorized(Rule::DpsUsername), &mut self.tx);
        };
        let username = Username::parse(credentials.username.as_str(), connect.client_id.as_str());
        let username = match username {
            Ok(username) if username.id_scope().eq_ignore_ascii_case(self.service.id_scope()) => username,
            Ok(_) => return self.link.refuse(&Refusal::not_authorized(Rule::DpsIdScope), &mut self.tx),
            Err(error) => {
                let rule = UsernameError::rule(error);
                return self.link.refuse(&Refusal::not_authorized(rule), &mut self.tx);
            }
        };
        let token = credentials.password.filter(|password| !password.is_empty());
        let proof = match (token, self.chain.take()) {
            (Some(token), _) => Proof::Token(String::from_utf8_lossy(token).into_owned()),
            (None, Some(chain)) => Proof::Certificates(chain),
            (None, None) => Proof::Nothing,
        };
        self.caller = Some(Caller {
            registration_id: username.registration_id().as_str().to_owned(),
            proof,
            api_version: username.api_version().into_owned(),
        });
        self.link.accept(now, &mut self.tx);
    }

    fn who(&self) -> Who<'_> {
        Who { client_id: self.claimed.as_deref(), peer: self.peer }
    }

    fn show(&self, sender: Sender, bytes: &[u8]) {
        let view = &self.worker.engine.view;
        if !view.shows_packets() {
            return;
        }
        let mut rest = bytes;
        while let before @ [_, ..] = rest {
            let Ok(devicebound::packet::Decoded::Packet(_)) =
                devicebound::packet::decode(&mut rest, usize::MAX)
            else {
                return;
            };
            view.packet(self.who(), sender, before.get(..before.len() - rest.len()).unwrap_or(before));
        }
    }

    /// Writes what there is; reads if it may.
    async fn move_bytes(&mut self, reads: bool) -> Moved {
        let Self { transport, worker, rx, tx, .. } = self;
        let had = !tx.is_empty();
        poll_fn(|cx| {
            let buffers = &mut *worker.buffers.borrow_mut();
            if let Poll::Ready(written) = transport.poll_write(cx, buffers, tx) {
                tx.clear();
                if written.is_err() {
                    return Poll::Ready(Moved::End);
                }
                if had && !reads {
                    return Poll::Ready(Moved::Some);
                }
            }
            if !reads {
                return Poll::Pending;
            }
            transport.poll_read(cx, buffers, rx).map(|read| match read {
                Ok(1..) => Moved::Some,
                Ok(0) | Err(_) => Moved::End,
            })
        })
        .await
    }

    async fn part(&mut self) {
        poll_fn(|cx| {
            let buffers = &mut *self.worker.buffers.borrow_mut();
            self.transport.poll_write(cx, buffers, &mut self.tx).map(drop)
        })
        .await;
        let _ = poll_fn(|cx| self.transport.poll_close(cx, &mut self.worker.buffers.borrow_mut())).await;
    }

    /// Every end says why.
    fn report(&self, close: &Close) {
        let offending = self.rx.get(close.offending()).unwrap_or_default();
        let end = End { offending, ..End::of(close) };
        self.worker.engine.observers().provisioning_closed(self.who(), self.caller.is_some(), end);
    }
}

enum Moved {
    Some,
    End,
}

enum Request {
    Register(Vec<u8>),
    Poll(String),
}

fn owned(request: ServiceRequest<'_>) -> Request {
    match request {
        ServiceRequest::Register { body } => Request::Register(body.to_vec()),
        ServiceRequest::Poll { operation_id } => Request::Poll(operation_id.into_owned()),
    }
}
