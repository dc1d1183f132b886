//! One AMQP connection: its bytes through the machine and back, until it is over.
//!
//! ```text
//!  socket ─▶ rx ─▶ machine ─▶ action ─▶ node ─▶ task (store, device) ─▶ report ─┐
//!         ◀─ tx ◀─ machine ◀─ send, settle, detach ◀────────────────────────────┘
//! ```
//!
//! Nothing here waits for a node: what takes its time is a task, and what came of it a `Report`. A client that does not
//! read is not read from, and costs one buffer.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use devicebound::iothub::sas::Rights;
use devicebound_amqp::connection::{Credentials, Incoming};
use devicebound_amqp::message::Message;
use devicebound_amqp::performative::Outcome;
use devicebound_amqp::{Action, Condition, Connection, Failure, Grant, LinkId, Rule};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::access::Grants;
use super::address::no_such_group;
use super::cloud_messages::{self, Rejection};
use super::events::{self, EventLink};
use super::feedback::FeedbackLink;
use super::report::Report;
use super::requests::Answers;
use super::{Amqp, EVENT_HUB};
use crate::clock::unix_time;

/// Bytes that wait to be sent: with more, no event is added and nothing is read.
const TX_MAX: usize = 64 * 1024;
/// Bytes that are read at a time.
const READ: usize = 16 * 1024;
/// How long a client may take to accept the last bytes, and to close.
const PARTING_TIME: Duration = Duration::from_secs(1);

/// What a link leads to.
#[derive(Debug)]
pub(super) enum LinkNode {
    CbsRequests,
    CbsAnswers(Answers),
    ManagementRequests,
    ManagementAnswers(Answers),
    CloudMessages,
    Feedback(FeedbackLink),
    Events(Box<EventLink>),
    /// There is never anything to send.
    Quiet,
}

/// A link that is attached.
#[derive(Debug)]
struct Attached {
    node: LinkNode,
    /// What a token has to open.
    path: Option<String>,
}

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) amqp: Arc<Amqp>,
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
    /// The host name in its open.
    pub(super) host: Option<String>,
    pub(super) grants: Grants,
    pub(super) reports: mpsc::UnboundedSender<Report>,
}

struct Driver<S> {
    session: Session,
    machine: Connection,
    socket: S,
    rx: Vec<u8>,
    tx: Vec<u8>,
    links: HashMap<LinkId, Attached>,
    news: mpsc::UnboundedReceiver<Report>,
    newest: watch::Receiver<u64>,
    is_over: bool,
}

/// Serves a connection over any stream of bytes until its end, or until the hub stops.
pub(crate) async fn serve<S>(amqp: Arc<Amqp>, socket: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stop = amqp.stop.subscribe();
    // Unbounded: each report answers something that credit or the number of links bounds.
    let (reports, news) = mpsc::unbounded_channel();
    let machine = Connection::new(amqp.engine.clock.now(), amqp.config.clone());
    let newest = amqp.telemetry.log().subscribe();
    let number = amqp.next_connection();
    let session = Session { amqp, number, peer, host: None, grants: Grants::default(), reports };
    let links = HashMap::new();
    let mut driver = Driver {
        session,
        machine,
        socket,
        rx: Vec::new(),
        tx: Vec::new(),
        links,
        news,
        newest,
        is_over: false,
    };
    driver.run(stop).await;
    // What was said last, the reason of a close for one, should arrive.
    let _ = tokio::time::timeout(PARTING_TIME, driver.part()).await;
}

/// What happened while a connection waited.
enum Happening {
    Received(io::Result<usize>),
    Written(io::Result<usize>),
    Report(Option<Report>),
    Newer,
    Due,
    Stop,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    async fn run(&mut self, mut stop: watch::Receiver<bool>) {
        while !self.is_over {
            match self.wait(&mut stop).await {
                Happening::Received(Ok(0) | Err(_)) => {
                    self.is_over = true;
                    if !self.machine.is_closed() {
                        self.note("amqpLost", &format!("{}: {}", Rule::Lost.id(), Rule::Lost.says()));
                    }
                }
                Happening::Received(Ok(_)) => self.take(),
                Happening::Written(Ok(count)) => drop(self.tx.drain(..count)),
                Happening::Written(Err(_)) => self.is_over = true,
                Happening::Report(Some(report)) => self.report(report),
                Happening::Report(None) | Happening::Newer => {}
                Happening::Due => self.due(),
                Happening::Stop => {
                    self.machine.close(&Failure::of(Rule::Stopping), &mut self.tx);
                    self.is_over = true;
                }
            }
            if !self.is_over {
                self.pump();
            }
        }
    }

    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Happening {
        let now = self.session.amqp.engine.clock.now();
        let due = self.machine.poll_timeout().map_or(Duration::MAX, |at| at.since(now));
        let token = self.session.grants.next_expiry().map_or(Duration::MAX, |at| at.since(unix_time()));
        let reads = self.links.values().any(|link| matches!(link.node, LinkNode::Events(_)));
        let (can_read, can_write) = (self.tx.len() < TX_MAX, !self.tx.is_empty());
        self.rx.reserve(READ);
        let (mut reader, mut writer) = tokio::io::split(&mut self.socket);
        tokio::select! {
            written = writer.write(&self.tx), if can_write => Happening::Written(written),
            read = reader.read_buf(&mut self.rx), if can_read => Happening::Received(read),
            report = self.news.recv() => Happening::Report(report),
            _ = self.newest.changed(), if reads => Happening::Newer,
            // A token is over within a second: the clocks differ in their ticks.
            () = sleep(due.min(token.saturating_add(Duration::from_millis(1)))) => Happening::Due,
            _ = stop.wait_for(|stop| *stop) => Happening::Stop,
        }
    }

    /// Sends what is left, and waits until the client has closed.
    async fn part(&mut self) {
        if self.socket.write_all(&self.tx).await.is_err() || self.socket.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 4096];
        while self.socket.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    }

    /// Everything that has been received.
    fn take(&mut self) {
        let rx = std::mem::take(&mut self.rx);
        let mut rest = &rx[..];
        loop {
            let now = self.session.amqp.engine.clock.now();
            let action = self.machine.receive(now, &mut rest, &mut self.tx);
            if action == Action::Wait {
                break;
            }
            self.act(action);
        }
        let left = rest.len();
        let mut rx = rx;
        rx.drain(..rx.len().saturating_sub(left));
        // An idle client keeps no buffer.
        if !rx.is_empty() {
            self.rx = rx;
        }
    }

    fn act(&mut self, action: Action<'_>) {
        match action {
            Action::Wait | Action::Flow { .. } => {}
            Action::Outcome { link, tag, outcome } => {
                if let Some(LinkNode::Feedback(feedback)) =
                    self.links.get_mut(&link).map(|link| &mut link.node)
                {
                    feedback.settled(tag, outcome);
                }
            }
            Action::Authenticate(credentials) => self.authenticate(credentials),
            Action::Opened(open) => self.session.host = open.hostname.map(host_name),
            Action::Attach(request) => match self.session.decide(&request) {
                Ok(granted) => {
                    let grant = Grant { address: None, max_message_size: granted.max_message_size };
                    self.machine.accept(request.link, &grant, &mut self.tx);
                    self.links.insert(request.link, Attached { node: granted.node, path: granted.path });
                }
                Err(refusal) => {
                    refusal.tell(|failure| self.machine.refuse(request.link, failure, &mut self.tx));
                    self.note("amqpRefused", &format!("{}: {}", refusal.condition, refusal.text));
                }
            },
            Action::Message(message) => self.message(message),
            Action::Refused { rule, .. } => self.broken(rule, "a message is rejected"),
            Action::Detached { link, rule, .. } => {
                self.links.remove(&link);
                rule.into_iter().for_each(|rule| self.broken(rule, "the link is detached"));
            }
            Action::Ended { channel, rule, .. } => {
                self.links.retain(|link, _| link.channel() != channel);
                rule.into_iter().for_each(|rule| self.broken(rule, "the session is ended"));
            }
            Action::Closed { rule, .. } => {
                if rule != Rule::Closed {
                    self.broken(rule, "the connection is closed");
                }
                self.links.clear();
                self.is_over = true;
            }
        }
    }

    fn authenticate(&mut self, credentials: Credentials<'_>) {
        let grant = match credentials {
            Credentials::Plain { password, .. } => self.session.amqp.check_token(password, "", unix_time()),
            // No certificate is a policy.
            Credentials::External => Err(super::access::Refused(devicebound::Rule::NoCredentials)),
        };
        let is_right = grant.is_ok();
        match grant {
            Ok(grant) => {
                self.session.grants.add(grant);
                self.machine.authenticated();
            }
            Err(refused) => {
                self.note(
                    "amqpRefused",
                    &format!("{}: {}; fix: {}", refused.0.id(), refused.0.says(), super::fix_of(refused.0)),
                );
            }
        }
        self.machine.authenticate(is_right, &mut self.tx);
        self.is_over |= !is_right;
    }

    fn message(&mut self, message: Incoming<'_>) {
        let Incoming { link, delivery_id, payload, .. } = message;
        match self.links.get(&link).map(|link| &link.node) {
            Some(LinkNode::CbsRequests) => {
                self.put_token(link, &payload);
                self.machine.settle(link, delivery_id, Ok(Outcome::Accepted), &mut self.tx);
            }
            Some(LinkNode::ManagementRequests) => {
                let (amqp, reports) = (Arc::clone(&self.session.amqp), self.session.reports.clone());
                let request = payload.into_owned();
                tokio::spawn(async move {
                    let answer = amqp.manage(&request).await;
                    // The connection may be gone.
                    let _ = reports.send(Report::Answer { requests: link, delivery: delivery_id, answer });
                });
            }
            Some(LinkNode::CloudMessages) => {
                let (amqp, reports) = (Arc::clone(&self.session.amqp), self.session.reports.clone());
                match cloud_messages::read(&payload) {
                    Ok((device_id, message)) => drop(tokio::spawn(async move {
                        let sent = amqp.backend.send_cloud_message(&device_id, message).await;
                        let result = sent.map(drop).map_err(Rejection::from);
                        let _ = reports.send(Report::Sent { link, delivery: delivery_id, result });
                    })),
                    Err(rejection) => self.reject(link, delivery_id, &rejection),
                }
            }
            // A client sends on a link that it attached as a sender; none of the others is one.
            Some(_) | None => {}
        }
    }

    fn put_token(&mut self, requests: LinkId, payload: &[u8]) {
        let request = match Message::decode(payload) {
            Ok(request) => request,
            Err(rule) => return self.broken(rule, "a request to $cbs is not answered"),
        };
        let put = self.session.amqp.put_token(&request, unix_time());
        match put.result {
            Ok(grant) => {
                self.session.grants.add(grant);
                self.machine.authenticated();
            }
            Err(why) => self.note("amqpRefused", &format!("put-token: {why}")),
        }
        self.answer(requests, put.answer);
    }

    /// Answers on the newest link of the same session that goes the other way.
    fn answer(&mut self, requests: LinkId, answer: Vec<u8>) {
        let is_cbs = matches!(self.links.get(&requests).map(|link| &link.node), Some(LinkNode::CbsRequests));
        let answers = self.links.iter_mut().filter(|(link, _)| link.channel() == requests.channel());
        let answers = answers.filter_map(|(link, attached)| match &mut attached.node {
            LinkNode::CbsAnswers(answers) if is_cbs => Some((link, answers)),
            LinkNode::ManagementAnswers(answers) if !is_cbs => Some((link, answers)),
            _ => None,
        });
        if let Some((_, answers)) = answers.max_by_key(|(link, _)| **link) {
            answers.send(answer);
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Found { link, result } => match (self.events(link), result) {
                (Some(events), Ok(found)) => events.begin(found),
                (_, Err(error)) => self.store_failed(link, &error),
                (None, Ok(_)) => {}
            },
            Report::Pieces { link, until, result } => match (self.events(link), result) {
                (Some(events), Ok(pieces)) => events.loaded(pieces, until),
                (_, Err(error)) => self.store_failed(link, &error),
                (None, Ok(_)) => {}
            },
            Report::Stolen { link, epoch } => {
                let text = format!(
                    "a reader with the epoch {epoch} has taken this partition; fix: give each program that reads a consumer group of its own"
                );
                self.detach(link, Condition::Stolen, &text);
            }
            Report::GroupRemoved { link, group } => {
                self.detach(link, Condition::NotFound, &no_such_group(&group));
            }
            Report::Sent { link, delivery, result } => match result {
                Ok(()) => self.machine.settle(link, delivery, Ok(Outcome::Accepted), &mut self.tx),
                Err(rejection) => self.reject(link, delivery, &rejection),
            },
            Report::Feedback { link, batch } => {
                // A batch whose reader is gone is given back.
                if let Some(LinkNode::Feedback(feedback)) =
                    self.links.get_mut(&link).map(|link| &mut link.node)
                {
                    let host = self.session.host.as_deref().unwrap_or("localhost");
                    let hub = host.split('.').next().unwrap_or(host);
                    feedback.send(link, batch, hub, &mut self.machine, &mut self.tx);
                }
            }
            Report::Answer { requests, delivery, answer } => {
                self.machine.settle(requests, delivery, Ok(Outcome::Accepted), &mut self.tx);
                if let Some(answer) = answer {
                    self.answer(requests, answer);
                }
            }
        }
    }

    fn reject(&mut self, link: LinkId, delivery: u32, rejection: &Rejection) {
        let failure = Failure::new(rejection.condition, rejection.text.as_str());
        self.machine.settle(link, delivery, Err(&failure), &mut self.tx);
        // Python's service client is not told why.
        self.note("amqpRejected", &format!("{}: {}", rejection.condition, rejection.text));
    }

    fn events(&mut self, link: LinkId) -> Option<&mut EventLink> {
        match self.links.get_mut(&link).map(|link| &mut link.node) {
            Some(LinkNode::Events(events)) => Some(events),
            _ => None,
        }
    }

    fn store_failed(&mut self, link: LinkId, error: &io::Error) {
        let text = format!("cannot read the store: {error}; fix: see the hub's output, and read again");
        self.detach(link, Condition::InternalError, &text);
    }

    fn detach(&mut self, link: LinkId, condition: Condition, text: &str) {
        if self.links.remove(&link).is_some() {
            self.machine.detach(link, &Failure::new(condition, text), &mut self.tx);
            self.note("amqpDetached", &format!("{condition}: {text}"));
        }
    }

    /// Time has passed: for the machine, or for a token.
    fn due(&mut self) {
        let now = self.session.amqp.engine.clock.now();
        let action = self.machine.expire(now, &mut self.tx);
        self.act(action);
        let unix_now = unix_time();
        if self.session.grants.next_expiry().is_none_or(|expiry| unix_now < expiry) {
            return;
        }
        self.session.grants.expire(unix_now);
        let grants = &self.session.grants;
        let is_closed = |path: &Option<String>| {
            path.as_ref().is_some_and(|path| !grants.allow(path, Rights::SERVICE_CONNECT, unix_now))
        };
        let ended = self.links.iter().filter(|(_, link)| is_closed(&link.path)).map(|(link, _)| *link);
        for link in ended.collect::<Vec<_>>() {
            self.detach(
                link,
                Condition::UnauthorizedAccess,
                "ExpiredToken: the token has run out; fix: put a new one to $cbs before that",
            );
        }
    }

    /// Sends what there is, link by link, and asks for more where there is credit for it.
    fn pump(&mut self) {
        let newest = *self.newest.borrow_and_update();
        let counted = self.session.amqp.telemetry.log().partitions();
        for (link, attached) in &mut self.links {
            match &mut attached.node {
                LinkNode::CbsAnswers(answers) | LinkNode::ManagementAnswers(answers) => {
                    answers.pump(*link, &mut self.machine, &mut self.tx);
                }
                LinkNode::Feedback(feedback) => {
                    if self.machine.credit(*link) > 0 {
                        feedback.look(*link, &self.session.reports);
                    }
                }
                LinkNode::Quiet => self.machine.drained(*link, &mut self.tx),
                LinkNode::Events(events) => {
                    let partition = counted.get(events.partition).copied().unwrap_or_default();
                    events.pump(*link, &mut self.machine, &mut self.tx, TX_MAX, &partition);
                    let has_credit = self.machine.credit(*link) > 0;
                    if let Some(cursor) = events.wants(newest).filter(|_| has_credit) {
                        events.is_loading = true;
                        let (link, reports) = (*link, self.session.reports.clone());
                        let telemetry = self.session.amqp.telemetry.clone();
                        tokio::spawn(async move {
                            let result = telemetry.read(move |log| events::load(log, cursor)).await;
                            // The connection may be gone.
                            let _ = reports.send(Report::Pieces { link, until: newest, result });
                        });
                    } else if events.is_at_end(newest) {
                        self.machine.drained(*link, &mut self.tx);
                    }
                }
                LinkNode::CbsRequests | LinkNode::ManagementRequests | LinkNode::CloudMessages => {}
            }
        }
    }

    fn broken(&self, rule: Rule, cost: &str) {
        self.note("amqpBroken", &format!("{}: {}; {cost}; fix: {}", rule.id(), rule.says(), rule.fix()));
    }

    fn note(&self, event: &str, text: &str) {
        self.session.amqp.engine.view.note(event, &format!("AMQP {}: {text}", self.session.peer));
    }
}

/// The host of an `open`: with or without a port, and over WebSocket with a path.
fn host_name(text: &str) -> String {
    let host = text.split('/').next().unwrap_or(EVENT_HUB);
    host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned()
}
