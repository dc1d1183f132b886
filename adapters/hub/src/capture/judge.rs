//! A hub machine that looks on: it has one device, takes every well-formed CONNECT of it, and finds everything stored.

use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{
    Action, Authentication, Commit, ConnectRequest, DeviceIdentity, DeviceRecord, Event, Expired, Hub,
    HubConfig, LinkId, Progress, TlsClient, Wait, Warning,
};
use devicebound::iothub::Username;
use devicebound::iothub::sas::{self, SasToken, SymmetricKey};
use devicebound::packet::{Connect, ConnectReturnCode, Credentials, Packet, Text};
use devicebound::session::{Close, CloseReason};
use devicebound::time::{Instant, UnixTime};

/// More steps than any packet takes: what is not done by then is no longer waited for.
const STEPS_MAX: usize = 10_000;

/// Until when the tokens are good that stand in for those of the capture.
const FOREVER: UnixTime = UnixTime::from_secs(u32::MAX as u64);

/// The key of the device here; its own is not known.
fn key() -> SymmetricKey {
    SymmetricKey::from_bytes(&[0; 32])
}

/// A hub with one connection.
#[derive(Debug)]
pub(super) struct Judge {
    hub: Hub,
    /// `None` when the machine had no room, which one connection always finds.
    link: Option<LinkId>,
    now: Instant,
    /// The wall-clock time at the machine's zero, where the capture has the time.
    began: Option<UnixTime>,
    tx: Vec<u8>,
}

/// What the machine says to what the device sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A packet was taken off the front.
    Good,
    /// There is no whole packet.
    Incomplete,
    /// A CONNECT was taken off the front that the hub would refuse; the machine goes on as if it had not.
    Refused(Close),
    /// The machine ends the connection because of the packet at the front.
    End(Close),
}

impl Judge {
    /// One that waits for CONNECT.
    pub(super) fn before_connect(time: Option<UnixTime>) -> Self {
        let now = Instant::default();
        let mut hub = Hub::new(HubConfig::default(), now, time.unwrap_or_default());
        let link = hub.open(now).ok();
        Self { hub, link, now, began: time, tx: Vec::new() }
    }

    /// One that the device is connected to already; `None` when nobody can be called `client_id`.
    pub(super) fn connected_as(time: Option<UnixTime>, client_id: &str) -> Option<Self> {
        let username = format!("hub/{client_id}/?api-version=2021-04-12");
        let credentials = Some(Credentials { username: Text::new(&username).ok()?, password: None });
        let client_id = Text::new(client_id).ok()?;
        let connect = Connect { clean_session: true, keep_alive: 0, client_id, will: None, credentials };
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(&mut bytes).ok()?;
        let mut judge = Self::before_connect(time);
        (judge.hear(&mut &bytes[..]) == Verdict::Good).then_some(judge)
    }

    /// Time goes by; gives the end of the connection if a deadline passed.
    pub(super) fn passes(&mut self, time: Option<UnixTime>) -> Option<Close> {
        let elapsed = time?.since(self.began?);
        self.now = self.now.max(Instant::default().after(elapsed));
        let link = self.link?;
        for _ in 0..STEPS_MAX {
            match self.hub.expire(self.now) {
                None => return None,
                Some(Expired::Link(_)) => {
                    if let Err(close) = self.hub.handle(self.now, link, Event::TimedOut, &mut self.tx) {
                        return Some(close);
                    }
                }
                Some(_) => {}
            }
        }
        None
    }

    /// The device sent what is at the front of `rest`; one packet is taken off it.
    pub(super) fn hear(&mut self, rest: &mut &[u8]) -> Verdict {
        let Some(link) = self.link else { return Verdict::Incomplete };
        let mut refusal = None;
        let mut has_taken = false;
        for _ in 0..STEPS_MAX {
            self.tx.clear();
            if has_taken {
                // A pull without bytes settles what the packet left to do, and looks at no further one.
                match self.settle(link) {
                    Ok(()) => break,
                    Err(close) => return Verdict::End(close),
                }
            }
            let before = rest.len();
            match self.hub.handle(self.now, link, Event::Received(rest), &mut self.tx) {
                Err(close) => return Verdict::End(close),
                Ok(Action::Wait(Wait::Read { .. })) => return Verdict::Incomplete,
                Ok(Action::Authenticate(request)) => refusal = self.connect(link, &request),
                Ok(Action::Telemetry(message)) => {
                    message.receipt.into_iter().for_each(|receipt| self.hub.stored(receipt));
                }
                Ok(Action::Commit(commit)) => self.commit(commit),
                Ok(Action::Wait(Wait::Flush | Wait::Store | Wait::Verdict)) => {
                    if let Err(close) = self.settle(link) {
                        return Verdict::End(close);
                    }
                }
                Ok(_) => {}
            }
            has_taken = rest.len() < before;
        }
        match refusal {
            _ if !has_taken => Verdict::Incomplete,
            Some(close) => Verdict::Refused(close),
            None => Verdict::Good,
        }
    }

    /// What the hub would warn of since this was asked last, as far as it rests on what the device sent alone.
    pub(super) fn warnings(&mut self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        while let Some((_, warning)) = self.hub.poll_warning() {
            // Names of hubs, TLS, and what the captured hub had sent are not known to this one.
            let is_of_others = matches!(
                warning.rule,
                Rule::HostName | Rule::ServerName | Rule::MethodUnknown | Rule::UnsolicitedAck
            );
            if !is_of_others {
                warnings.push(warning);
            }
        }
        warnings
    }

    /// Everything is stored, and everything that waits is sent.
    fn settle(&mut self, link: LinkId) -> Result<(), Close> {
        for _ in 0..STEPS_MAX {
            self.tx.clear();
            match self.hub.poll_transmit(self.now, link, &mut self.tx)? {
                Progress::Idle => break,
                Progress::More => {}
                Progress::Commit(commit) => self.commit(commit),
            }
        }
        while self.hub.poll_ready().is_some() {}
        Ok(())
    }

    fn commit(&mut self, commit: Commit) {
        self.hub.committed(commit.device, commit.revision);
    }

    /// Takes the CONNECT, and gives the refusal that a hub would have answered, as far as that can be told.
    fn connect(&mut self, link: LinkId, request: &ConnectRequest<'_>) -> Option<Close> {
        let client_id = request.connect.client_id.as_str();
        let keys = Authentication::Sas { primary: key(), secondary: key() };
        let refused = |rule| Close::new(CloseReason::Refused(ConnectReturnCode::NotAuthorized, rule));
        let Ok(identity) = DeviceIdentity::new(client_id, String::new(), keys) else {
            return Some(refused(Rule::ClientId));
        };
        self.hub.insert(DeviceRecord::new(identity)).ok()?;
        let breach = self.breach(link, request);
        self.wave_through(link, request);
        breach.map(refused)
    }

    /// Accepts the CONNECT as if it had shown a token that is good.
    fn wave_through(&mut self, link: LinkId, request: &ConnectRequest<'_>) {
        let client_id = request.connect.client_id.as_str();
        let shown = request.connect.credentials.map(|credentials| credentials.username.as_str());
        let usual = format!("hub/{client_id}/");
        let username = shown.filter(|name| Username::parse(name, client_id).is_ok()).unwrap_or(&usual);
        let host = username.split('/').next().unwrap_or_default();
        let (device, module) =
            client_id.split_once('/').map_or((client_id, None), |(device, module)| (device, Some(module)));
        let module = module.map(|module| format!("/modules/{module}")).unwrap_or_default();
        let token = sas::sign(&format!("{host}/devices/{device}{module}"), &key(), FOREVER, None);
        let Ok(username) = Text::new(username) else { return };
        let credentials = Some(Credentials { username, password: Some(token.as_bytes()) });
        let request = ConnectRequest { connect: Connect { credentials, ..request.connect } };
        if let Ok(grant) = self.hub.authenticate(self.now, link, &request, TlsClient::default()) {
            let commit = self.hub.accept(self.now, link, grant);
            commit.into_iter().for_each(|commit| self.commit(commit));
        }
    }

    /// What is wrong with a CONNECT, whatever the keys are.
    fn breach(&mut self, link: LinkId, request: &ConnectRequest<'_>) -> Option<Rule> {
        match self.hub.authenticate(self.now, link, request, TlsClient::default()) {
            Ok(_) => None,
            Err(refusal) => match refusal.rule() {
                // Nobody here has the keys; a certificate would have been shown in TLS.
                Rule::SasSignature | Rule::SasPolicy | Rule::NoCredentials | Rule::Certificate => {
                    self.has_expired(request).then_some(Rule::SasExpired)
                }
                rule => Some(rule),
            },
        }
    }

    fn has_expired(&self, request: &ConnectRequest<'_>) -> bool {
        let expiry = || {
            let password = request.connect.credentials?.password?;
            Some(SasToken::parse(std::str::from_utf8(password).ok()?).ok()?.expiry())
        };
        let now = self.began.map(|began| began.after(self.now.since(Instant::default())));
        matches!((now, expiry()), (Some(now), Some(expiry)) if now >= expiry.after(Duration::ZERO))
    }
}
