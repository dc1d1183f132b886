//! Many lines on one `epoll`.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use devicebound::packet::{ConnAck, Connect, Credentials, Packet, Text};
use mio::{Events, Poll, Token};

use super::line::{Line, Scratch};
use super::{Client, Failure, Peer};

/// How many connections are being made at a time: enough to keep a server busy, below any listener's backlog.
const CONNECTING_MAX: usize = 32;
/// Seconds; no run is that long, so that nobody has to ping.
const KEEP_ALIVE: u16 = 1200;
/// A server that says nothing for so long will say nothing more.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The connections of a run, each in its slot.
#[derive(Debug)]
pub(super) struct Swarm<'a> {
    peer: &'a Peer,
    poll: Poll,
    events: Events,
    scratch: Scratch,
    lines: Vec<Option<Line>>,
}

impl<'a> Swarm<'a> {
    /// Room for `slots` connections, none of them there yet.
    pub(super) fn new(peer: &'a Peer, slots: usize) -> Result<Self, Failure> {
        Ok(Self {
            peer,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            scratch: Scratch::new(),
            lines: (0..slots).map(|_| None).collect(),
        })
    }

    /// Connects all clients, each in the slot of its number.
    pub(super) fn open(peer: &'a Peer, clients: &[Client]) -> Result<Self, Failure> {
        let mut swarm = Self::new(peer, clients.len())?;
        let mut next = clients.iter().enumerate();
        for (slot, client) in next.by_ref().take(CONNECTING_MAX) {
            swarm.connect(slot, client)?;
        }
        let mut online = 0;
        while online < clients.len() {
            let mut accepted = 0;
            swarm.turn(Some(SILENCE_MAX), |_, packet, _, _| {
                accepted += 1;
                accepted_in(packet)
            })?;
            if accepted == 0 && swarm.events.is_empty() {
                return Err(
                    format!("{online} of {} clients are online, and no more come", clients.len()).into()
                );
            }
            online += accepted;
            for (slot, client) in next.by_ref().take(accepted) {
                swarm.connect(slot, client)?;
            }
        }
        Ok(swarm)
    }

    /// Starts to connect a client in a slot that is free.
    pub(super) fn connect(&mut self, slot: usize, client: &Client) -> Result<(), Failure> {
        let mut line = Line::open(self.peer, self.poll.registry(), Token(slot))?;
        let text = |text| Text::new(text).map_err(|rule| rule.says());
        let credentials = match &client.credentials {
            Some((username, password)) => {
                Some(Credentials { username: text(username)?, password: Some(password.as_bytes()) })
            }
            None => None,
        };
        Connect {
            clean_session: true,
            keep_alive: KEEP_ALIVE,
            client_id: text(&client.id)?,
            will: None,
            credentials,
        }
        .encode(&mut line.out)?;
        line.flush()?;
        self.lines[slot] = Some(line);
        Ok(())
    }

    /// Says good-bye in a slot, which is free then.
    pub(super) fn disconnect(&mut self, slot: usize) -> Result<(), Failure> {
        if let Some(line) = self.lines[slot].take() {
            line.close()?;
        }
        Ok(())
    }

    /// The line of a slot.
    pub(super) fn line(&mut self, slot: usize) -> Option<&mut Line> {
        self.lines.get_mut(slot)?.as_mut()
    }

    /// Waits for something to come, at most so long, and hands out each packet with its slot, with when it came, and
    /// with the buffer for what is to be sent then.
    pub(super) fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut packet: impl FnMut(usize, Packet<'_>, Instant, &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &self.events {
            let slot = event.token().0;
            let Some(line) = self.lines.get_mut(slot).and_then(Option::as_mut) else { continue };
            if event.is_readable() {
                line.receive(&mut self.scratch, |received, now, out| packet(slot, received, now, out))
                    .map_err(|error| format!("client {slot}: {error}"))?;
            }
            line.flush()?;
        }
        Ok(())
    }
}

/// Takes a CONNACK that accepts, and nothing else.
pub(super) fn accepted_in(packet: Packet<'_>) -> Result<(), Failure> {
    match packet {
        Packet::ConnAck(ConnAck::Accepted { .. }) => Ok(()),
        other => Err(format!("the server answered CONNECT with {other:?}").into()),
    }
}
