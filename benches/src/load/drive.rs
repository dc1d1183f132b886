//! Many connections on one thread.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll};
use serde_json::{Value, json};

use super::client::Client;
use super::process;
use super::target::Way;

/// So many connections are being made at a time.
const CONNECTING_MAX: usize = 64;
/// Longest that a connection may take to be there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);

/// How to publish.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections.
    pub connections: usize,
    /// Messages of one connection that are not acknowledged at a time.
    pub window: usize,
    /// Bytes of a message.
    pub payload: usize,
    /// Messages per second in all; `None` is as fast as it goes.
    pub rate: Option<f64>,
    /// Before anything counts.
    pub warm_up: Duration,
    /// For so long everything counts.
    pub time: Duration,
    /// The server's process, whose time and memory are looked at.
    pub pid: Option<u32>,
}

/// Connections that are all there.
struct Crowd {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    scratch: Vec<u8>,
    latencies: Histogram<u64>,
    acknowledged: u64,
}

impl Crowd {
    fn connect(way: &Way, plan: &Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let latencies = Histogram::new_with_max(60_000_000_000, 3).map_err(io::Error::other)?;
        let mut crowd = Self {
            poll,
            events: Events::with_capacity(1024),
            clients: Vec::with_capacity(plan.connections),
            scratch: vec![0; 64 * 1024],
            latencies,
            acknowledged: 0,
        };
        let began = Instant::now();
        let mut connected = 0;
        while connected < plan.connections {
            let now = Instant::now();
            while crowd.clients.len() < plan.connections && crowd.clients.len() - connected < CONNECTING_MAX {
                let number = crowd.clients.len();
                let registry = crowd.poll.registry();
                crowd.clients.push(Client::start(way, number, plan.payload, plan.window, registry, now)?);
            }
            crowd.turn(Some(Duration::from_millis(100)), |_, _| 0)?;
            connected = crowd.clients.iter().filter(|client| client.is_connected).count();
            if began.elapsed() > CONNECT_PATIENCE.max(Duration::from_millis(20) * connected as u32) {
                return Err(io::Error::other(format!("only {connected} connections came about")));
            }
        }
        Ok(crowd)
    }

    /// Deals with what has happened. `more` says how many messages a client that was heard of sends next.
    fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut more: impl FnMut(&Client, usize) -> usize,
    ) -> io::Result<()> {
        self.poll.poll(&mut self.events, timeout)?;
        let now = Instant::now();
        for event in &self.events {
            let Some(client) = self.clients.get_mut(event.token().0) else { continue };
            let mut acknowledged = 0;
            if event.is_readable() || event.is_read_closed() {
                acknowledged = client.read(&mut self.scratch, now, &mut self.latencies)?;
                self.acknowledged += acknowledged as u64;
            }
            if acknowledged > 0 {
                let count = more(client, acknowledged);
                client.publish(count, now);
            }
            client.write()?;
        }
        Ok(())
    }
}

/// Publishes by the plan and says how it went.
///
/// # Errors
/// When a connection is lost.
pub fn publish(way: &Way, plan: &Plan) -> io::Result<Value> {
    let mut crowd = Crowd::connect(way, plan)?;
    match plan.rate {
        None => start_all(&mut crowd)?,
        Some(_) => {}
    }
    let mut pace = plan.rate.map(|rate| Pace { rate, began: Instant::now(), sent: 0, next: 0 });
    let mut go_on = |crowd: &mut Crowd, until: Instant| -> io::Result<()> {
        while Instant::now() < until {
            match &mut pace {
                None => crowd.turn(Some(Duration::from_millis(100)), |client, _| client.room())?,
                Some(pace) => {
                    pace.send_due(crowd)?;
                    crowd.turn(Some(Duration::ZERO), |_, _| 0)?;
                }
            }
        }
        Ok(())
    };
    go_on(&mut crowd, Instant::now() + plan.warm_up)?;

    crowd.latencies.reset();
    let (cpu, acknowledged, began) = (cpu(plan)?, crowd.acknowledged, Instant::now());
    go_on(&mut crowd, began + plan.time)?;
    let (time, count) = (began.elapsed(), crowd.acknowledged - acknowledged);
    let spent = self::cpu(plan)?.saturating_sub(cpu);
    let micros = |quantile| crowd.latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(json!({
        "perSecond": count as f64 / time.as_secs_f64(),
        "cpuMicros": spent.as_secs_f64() * 1e6 / count.max(1) as f64,
        "busy": spent.as_secs_f64() / time.as_secs_f64(),
        "p50": micros(0.5),
        "p99": micros(0.99),
    }))
}

fn start_all(crowd: &mut Crowd) -> io::Result<()> {
    let now = Instant::now();
    for client in &mut crowd.clients {
        let room = client.room();
        client.publish(room, now);
        client.write()?;
    }
    Ok(())
}

/// Messages at even distances, on one connection after the other.
struct Pace {
    rate: f64,
    began: Instant,
    sent: u64,
    next: usize,
}

impl Pace {
    fn send_due(&mut self, crowd: &mut Crowd) -> io::Result<()> {
        let now = Instant::now();
        let due = ((now - self.began).as_secs_f64() * self.rate) as u64;
        while self.sent < due {
            self.sent += 1;
            self.next = (self.next + 1) % crowd.clients.len();
            if let Some(client) = crowd.clients.get_mut(self.next)
                && client.room() > 0
            {
                client.publish(1, now);
                client.write()?;
            }
        }
        Ok(())
    }
}

/// Makes connections that do nothing, and says what each costs the server.
///
/// # Errors
/// When one does not come about.
pub fn rest(way: &Way, plan: &Plan) -> io::Result<Value> {
    let pid = plan.pid.ok_or_else(|| io::Error::other("whose memory? --pid"))?;
    let before = process::resident(pid)?;
    let cpu = cpu(plan)?;
    let began = Instant::now();
    let mut crowd = Crowd::connect(way, plan)?;
    let (time, spent) = (began.elapsed(), self::cpu(plan)?.saturating_sub(cpu));
    let until = Instant::now() + plan.warm_up;
    while Instant::now() < until {
        crowd.turn(Some(Duration::from_millis(100)), |_, _| 0)?;
    }
    let after = process::resident(pid)?;
    let count = plan.connections.max(1) as f64;
    Ok(json!({
        "kibPerConnection": after.saturating_sub(before) as f64 / 1024.0 / count,
        "connectCpuMicros": spent.as_secs_f64() * 1e6 / count,
        "connectsPerSecond": count / time.as_secs_f64(),
        "residentBefore": before,
        "residentAfter": after,
    }))
}

/// Connects, says DISCONNECT by hanging up, and connects again, for the plan's time.
///
/// # Errors
/// When a connection does not come about.
pub fn reconnect(way: &Way, plan: &Plan) -> io::Result<Value> {
    let (cpu, began) = (cpu(plan)?, Instant::now());
    let mut count = 0_u64;
    while began.elapsed() < plan.time {
        let crowd = Crowd::connect(way, plan)?;
        count += crowd.clients.len() as u64;
        let registry = crowd.poll.registry();
        crowd.clients.into_iter().for_each(|client| client.forget(registry));
    }
    let spent = self::cpu(plan)?.saturating_sub(cpu);
    Ok(json!({
        "connectCpuMicros": spent.as_secs_f64() * 1e6 / count.max(1) as f64,
        "connectsPerSecond": count as f64 / began.elapsed().as_secs_f64(),
    }))
}

fn cpu(plan: &Plan) -> io::Result<Duration> {
    plan.pid.map_or(Ok(Duration::ZERO), process::cpu_time)
}
