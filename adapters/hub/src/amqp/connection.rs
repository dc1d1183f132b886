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
use devicebound_amqp::connection::{AttachRequest, Credentials, Incoming};
use devicebound_amqp::message::Message;
use devicebound_amqp::performative::Outcome;
use devicebound_amqp::{Action, Condition, Connection, Failure, Grant, LinkId, Rule};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use super::access::{self, Grants};
use super::address::no_such_group;
use super::cloud_messages::{self, Rejection};
use super::events::{self, EventLink};
use super::operations::OperationsLink;
use super::report::Report;
use super::requests::Answers;
use super::service_bound::ServiceBoundLink;
use super::{Amqp, EVENT_HUB};
use crate::backend::access::Caller;
use crate::clock::unix_time;
use crate::observe::amqp_client::{AmqpClient, AmqpFailure, AmqpLink};
use crate::observe::observers::Observers;
use crate::observe::wording::cut;

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
    ServiceBound(ServiceBoundLink),
    Events(Box<EventLink>),
    Operations(Box<OperationsLink>),
}

impl LinkNode {
    /// Whether its client is the receiver.
    const fn is_received_from(&self) -> bool {
        !matches!(self, Self::CbsRequests | Self::ManagementRequests | Self::CloudMessages)
    }
}

/// A link that is attached.
#[derive(Debug)]
struct Attached {
    node: LinkNode,
    /// What a token has to open; `None` for `$cbs`.
    path: Option<String>,
    /// Its first credit was told.
    has_credit: bool,
}

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) amqp: Arc<Amqp>,
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
    /// The host name in its open.
    pub(super) host: Option<String>,
    /// What it calls itself there.
    container: String,
    /// The policy of its newest token.
    policy: String,
    pub(super) grants: Grants,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    /// There may be more for one of its readers.
    pub(super) wake: Arc<Notify>,
}

struct Driver<S> {
    session: Session,
    machine: Connection,
    socket: S,
    rx: Vec<u8>,
    tx: Vec<u8>,
    links: HashMap<LinkId, Attached>,
    news: mpsc::UnboundedReceiver<Report>,
    is_over: bool,
    /// It ended without a word.
    is_lost: bool,
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
    let number = amqp.next_connection();
    amqp.engine.metrics.amqp.opened();
    let (host, grants, wake) = (None, Grants::default(), Arc::default());
    let (container, policy) = (String::new(), String::new());
    let session = Session { amqp, number, peer, host, container, policy, grants, reports, wake };
    let links = HashMap::new();
    let (rx, tx, is_over, is_lost) = (Vec::new(), Vec::new(), false, false);
    let mut driver = Driver { session, machine, socket, rx, tx, links, news, is_over, is_lost };
    driver.run(stop).await;
    let session = &driver.session;
    session.amqp.engine.observers().amqp_closed(session.client(), driver.is_lost);
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
                    self.is_lost = !self.machine.is_closed();
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
        let (can_read, can_write) = (self.tx.len() < TX_MAX, !self.tx.is_empty());
        self.rx.reserve(READ);
        let (mut reader, mut writer) = tokio::io::split(&mut self.socket);
        tokio::select! {
            written = writer.write(&self.tx), if can_write => Happening::Written(written),
            read = reader.read_buf(&mut self.rx), if can_read => Happening::Received(read),
            report = self.news.recv() => Happening::Report(report),
            () = self.session.wake.notified() => Happening::Newer,
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
            Action::Flow { link: Some(link), .. } => self.flows(link),
            Action::Wait | Action::Flow { .. } => {}
            Action::Outcome { link, tag, outcome } => {
                if let Some(LinkNode::ServiceBound(bound)) =
                    self.links.get_mut(&link).map(|link| &mut link.node)
                {
                    bound.settled(tag, outcome);
                }
            }
            Action::Authenticate(credentials) => self.authenticate(credentials),
            Action::Opened(open) => {
                self.session.host = open.hostname.map(host_name);
                cut(open.container_id).clone_into(&mut self.session.container);
                self.observers().amqp_connected(self.session.client());
            }
            Action::Attach(request) => self.attach(&request),
            Action::Message(message) => self.message(message),
            Action::Refused { link, rule } => self.broken(Some(link), rule),
            Action::Detached { link, rule, .. } => {
                match rule {
                    Some(rule) => self.broken(Some(link), rule),
                    None => self.about(link, |driver, link| {
                        driver.observers().amqp_link(driver.session.client(), "amqpDetached", link);
                    }),
                }
                self.links.remove(&link);
            }
            Action::Ended { channel, rule, .. } => {
                self.links.retain(|link, _| link.channel() != channel);
                rule.into_iter().for_each(|rule| self.broken(None, rule));
            }
            Action::Closed { rule, .. } => {
                if rule != Rule::Closed {
                    self.broken(None, rule);
                }
                self.links.clear();
                self.is_over = true;
            }
        }
    }

    fn attach(&mut self, request: &AttachRequest<'_>) {
        match self.session.decide(request) {
            Ok(granted) => {
                let grant = Grant { address: None, max_message_size: granted.max_message_size };
                self.machine.accept(request.link, &grant, &mut self.tx);
                let attached = Attached { node: granted.node, path: granted.path, has_credit: false };
                self.links.insert(request.link, attached);
                self.about(request.link, |driver, link| {
                    driver.observers().amqp_link(driver.session.client(), "amqpAttached", link);
                });
            }
            Err(refusal) => {
                refusal.tell(|failure| self.machine.refuse(request.link, failure, &mut self.tx));
                self.fail("amqpRefused", None, refusal.condition.as_str(), &refusal.text);
            }
        }
    }

    /// The credit of a link has changed: the first is told.
    fn flows(&mut self, link: LinkId) {
        let has_credit = self.machine.credit(link) > 0;
        let Some(attached) = self.links.get_mut(&link).filter(|link| has_credit && !link.has_credit) else {
            return;
        };
        attached.has_credit = true;
        self.about(link, |driver, link| {
            driver.observers().amqp_link(driver.session.client(), "amqpCredit", link);
        });
    }

    fn authenticate(&mut self, credentials: Credentials<'_>) {
        let grant = match credentials {
            Credentials::Plain { password, .. } => self.session.amqp.check_token(password, "", unix_time()),
            // No certificate is a policy.
            Credentials::External => Err(access::Refused(devicebound::Rule::NoCredentials)),
        };
        let is_right = grant.is_ok();
        match grant {
            Ok(grant) => {
                self.session.grant(grant);
                self.machine.authenticated();
            }
            Err(refused) => {
                let text = format!("{}; fix: {}", refused.0.says(), super::fix_of(refused.0));
                self.fail("amqpRefused", None, refused.0.id(), &text);
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
                    Ok((device_id, message)) => {
                        let caller = Caller { policy: Some(self.session.policy.clone()), expiry: None };
                        drop(tokio::spawn(async move {
                            let sent = cloud_messages::send(&amqp.backend, caller, device_id, message).await;
                            let result = sent.map_err(Rejection::from);
                            let _ = reports.send(Report::Sent { link, delivery: delivery_id, result });
                        }));
                    }
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
            Err(rule) => return self.broken(Some(requests), rule),
        };
        let put = self.session.amqp.put_token(&request, unix_time());
        match put.result {
            Ok(grant) => {
                self.session.grant(grant);
                self.machine.authenticated();
            }
            Err((rule, text)) => self.fail("amqpRefused", None, rule, &text),
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
            Report::GroupRemoved { link, source, group } => {
                self.detach(link, Condition::NotFound, &no_such_group(source, &group));
            }
            Report::Sent { link, delivery, result } => match result {
                Ok(()) => self.machine.settle(link, delivery, Ok(Outcome::Accepted), &mut self.tx),
                Err(rejection) => self.reject(link, delivery, &rejection),
            },
            Report::ServiceBound { link, locked } => {
                // What was for a reader whose link is gone is given back.
                if let Some(LinkNode::ServiceBound(bound)) =
                    self.links.get_mut(&link).map(|link| &mut link.node)
                {
                    let host = self.session.host.as_deref().unwrap_or("localhost");
                    let hub = host.split('.').next().unwrap_or(host);
                    bound.send(link, locked, hub, &mut self.machine, &mut self.tx);
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
        self.about(link, |driver, link| {
            driver.fail("amqpRejected", Some(link), rejection.condition.as_str(), &rejection.text);
        });
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
        if self.links.contains_key(&link) {
            self.about(link, |driver, link| {
                driver.fail("amqpDetached", Some(link), condition.as_str(), text);
            });
            self.links.remove(&link);
            self.machine.detach(link, &Failure::new(condition, text), &mut self.tx);
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
        for (link, attached) in &mut self.links {
            match &mut attached.node {
                LinkNode::CbsAnswers(answers) | LinkNode::ManagementAnswers(answers) => {
                    answers.pump(*link, &mut self.machine, &mut self.tx);
                }
                LinkNode::ServiceBound(bound) => {
                    if self.machine.credit(*link) > 0 {
                        bound.look(*link, &self.session.reports);
                    }
                }
                LinkNode::Operations(operations) => {
                    operations.pump(*link, &mut self.machine, &mut self.tx, TX_MAX);
                }
                LinkNode::Events(events) => {
                    let partition = self.session.amqp.telemetry.log().partition(events.partition);
                    let newest = partition.last;
                    let sent = events.pump(*link, &mut self.machine, &mut self.tx, TX_MAX, &partition);
                    self.session.amqp.engine.metrics.amqp.sent(sent);
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

    fn broken(&self, link: Option<LinkId>, rule: Rule) {
        let text = format!("{}; fix: {}", rule.says(), rule.fix());
        match link {
            None => self.fail("amqpBroken", None, rule.id(), &text),
            Some(link) => self.about(link, |driver, link| {
                driver.fail("amqpBroken", Some(link), rule.id(), &text);
            }),
        }
    }

    /// Tells something about a link.
    fn about(&self, link: LinkId, tell: impl FnOnce(&Self, AmqpLink<'_>)) {
        let attached = self.links.get(&link);
        let address = attached.and_then(|attached| attached.path.as_deref()).unwrap_or("$cbs");
        let receives = attached.is_some_and(|attached| attached.node.is_received_from());
        let id = link.to_string();
        let credit = receives.then(|| self.machine.credit(link));
        tell(self, AmqpLink { id: &id, address, credit });
    }

    /// Tells of a failure; the text ends in what to do next.
    fn fail(&self, event: &'static str, link: Option<AmqpLink<'_>>, rule: &'static str, text: &str) {
        let (says, fix) = text.split_once("; fix: ").unwrap_or((text, "see what it says"));
        self.observers().amqp_failed(self.session.client(), AmqpFailure { event, rule, says, fix, link });
    }

    fn observers(&self) -> Observers<'_> {
        self.session.amqp.engine.observers()
    }
}

impl Session {
    fn client(&self) -> AmqpClient<'_> {
        AmqpClient { peer: self.peer, container: &self.container, policy: &self.policy }
    }

    fn grant(&mut self, grant: access::Grant) {
        self.policy.clone_from(&grant.policy);
        self.grants.add(grant);
    }
}

/// The host of an `open`: with or without a port, and over WebSocket with a path.
fn host_name(text: &str) -> String {
    let host = text.split('/').next().unwrap_or(EVENT_HUB);
    host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned()
}
