//! The three kinds of load: messages, connects, and connections that do nothing.

use std::time::{Duration, Instant};

use super::swarm::{Swarm, accepted_in};
use super::traffic::{LATENCY_MAX, Pace, Publishing, Traffic, latencies, nanoseconds};
use super::{Client, Failure, Peer, Process};

/// How often a run without traffic looks at the clock.
const LOOK: Duration = Duration::from_millis(100);

/// What came of publishing.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// Messages acknowledged.
    pub messages: u64,
    /// In how long.
    pub elapsed: Duration,
    /// Half of the messages were acknowledged within this, counted from when each was due.
    pub p50: Duration,
    /// 99 % of them.
    pub p99: Duration,
    /// CPU time of the server.
    pub server_cpu: Option<Duration>,
    /// CPU time of this process. One that always works has measured itself; with a rate it always does, as it spins.
    pub generator_cpu: Duration,
}

impl Published {
    /// Messages acknowledged per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU time of the server per message, in nanoseconds.
    #[must_use]
    pub fn server_ns(&self) -> Option<f64> {
        Some(self.server_cpu?.as_nanos() as f64 / self.messages as f64)
    }
}

/// What came of connecting.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    /// Clients that were accepted.
    pub connects: usize,
    /// In how long.
    pub elapsed: Duration,
    /// Half of them were accepted within this.
    pub p50: Duration,
    /// 99 % of them.
    pub p99: Duration,
    /// CPU time of the server, from TCP's SYN to what it does after DISCONNECT.
    pub server_cpu: Option<Duration>,
    /// CPU time of this process.
    pub generator_cpu: Duration,
}

/// What connections cost that do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// How many there were.
    pub connections: usize,
    /// What the server had in RAM before them, in bytes.
    pub resident_before: u64,
    /// And with them.
    pub resident: u64,
}

impl Idle {
    /// What one connection takes, in bytes.
    #[must_use]
    pub fn per_connection(&self) -> f64 {
        self.resident.saturating_sub(self.resident_before) as f64 / self.connections as f64
    }
}

/// Connects all clients and publishes.
///
/// # Errors
/// When the server refuses or closes anything, or does not acknowledge.
pub fn publish(
    peer: &Peer,
    clients: &[Client],
    plan: &Publishing,
    server: Option<&Process>,
) -> Result<Published, Failure> {
    let mut swarm = Swarm::open(peer, clients)?;
    let mut traffic = Traffic::new(clients, plan)?;
    if let Some(server) = server {
        server.wait_until_quiet()?;
    }
    let mut pace = plan.rate.map(|rate| Pace::new(rate, clients.len()));
    if pace.is_none() {
        traffic.fill(&mut swarm)?;
    }
    run_for(plan.warm_up, &mut swarm, &mut traffic, pace.as_mut())?;

    traffic.count_anew();
    let own = Process::own()?;
    let cpu = || Ok::<_, Failure>((own.cpu()?, server.map(Process::cpu).transpose()?));
    let (own_before, server_before) = cpu()?;
    let elapsed = run_for(plan.duration, &mut swarm, &mut traffic, pace.as_mut())?;
    let (own_after, server_after) = cpu()?;
    let published = Published {
        messages: traffic.messages,
        elapsed,
        p50: traffic.quantile(0.5),
        p99: traffic.quantile(0.99),
        server_cpu: server_after.zip(server_before).map(|(after, before)| after - before),
        generator_cpu: own_after - own_before,
    };
    if published.messages == 0 {
        return Err("the server acknowledged nothing".into());
    }

    traffic.drain(&mut swarm)?;
    for slot in 0..clients.len() {
        swarm.disconnect(slot)?;
    }
    Ok(published)
}

/// Lets clients connect and disconnect, `parallel` at a time, `count` in all, in turn.
///
/// # Errors
/// When the server refuses one.
pub fn connect(
    peer: &Peer,
    clients: &[Client],
    parallel: usize,
    count: usize,
    server: Option<&Process>,
) -> Result<Connected, Failure> {
    let parallel = parallel.min(count).min(clients.len());
    let mut swarm = Swarm::new(peer, parallel)?;
    let mut latencies = latencies()?;
    let mut began = vec![Instant::now(); parallel];
    let mut next = clients.iter().cycle().take(count);
    if let Some(server) = server {
        server.wait_until_quiet()?;
    }

    let own = Process::own()?;
    let (own_before, server_before) = (own.cpu()?, server.map(Process::cpu).transpose()?);
    let start = Instant::now();
    for (slot, client) in (0..parallel).zip(next.by_ref()) {
        began[slot] = Instant::now();
        swarm.connect(slot, client)?;
    }
    let (mut connects, mut accepted) = (0, Vec::with_capacity(parallel));
    while connects < count {
        swarm.turn(Some(LOOK), |slot, packet, now, _| {
            latencies.saturating_record(nanoseconds(now - began[slot]));
            accepted.push(slot);
            accepted_in(packet)
        })?;
        if start.elapsed() > LATENCY_MAX * 10 {
            return Err(format!("only {connects} of {count} clients were accepted").into());
        }
        connects += accepted.len();
        for slot in accepted.drain(..) {
            swarm.disconnect(slot)?;
            if let Some(client) = next.next() {
                began[slot] = Instant::now();
                swarm.connect(slot, client)?;
            }
        }
    }
    let (elapsed, generator_cpu) = (start.elapsed(), own.cpu()? - own_before);
    // What it has put off until a connection is over counts too.
    if let Some(server) = server {
        server.wait_until_quiet()?;
    }
    let server_cpu =
        server.map(Process::cpu).transpose()?.zip(server_before).map(|(after, before)| after - before);
    let quantile = |q| Duration::from_nanos(latencies.value_at_quantile(q));
    Ok(Connected { connects, elapsed, p50: quantile(0.5), p99: quantile(0.99), server_cpu, generator_cpu })
}

/// Connects all clients, and measures when the server has settled.
///
/// # Errors
/// When the server refuses one.
pub fn idle(peer: &Peer, clients: &[Client], server: &Process) -> Result<Idle, Failure> {
    server.wait_until_quiet()?;
    let resident_before = server.resident()?;
    let mut swarm = Swarm::open(peer, clients)?;
    server.wait_until_quiet()?;
    let resident = server.resident()?;
    for slot in 0..clients.len() {
        swarm.disconnect(slot)?;
    }
    Ok(Idle { connections: clients.len(), resident_before, resident })
}

/// Lets traffic run for so long, and returns how long it was.
fn run_for(
    duration: Duration,
    swarm: &mut Swarm<'_>,
    traffic: &mut Traffic,
    mut pace: Option<&mut Pace>,
) -> Result<Duration, Failure> {
    let start = Instant::now();
    loop {
        // With a rate the generator spins: a timer of the kernel is later than a message is long.
        let timeout = if pace.is_some() { Duration::ZERO } else { LOOK };
        swarm.turn(Some(timeout), |slot, packet, now, out| traffic.received(slot, packet, now, out))?;
        let now = Instant::now();
        if let Some(pace) = pace.as_deref_mut() {
            while let Some((slot, due)) = pace.due(now) {
                traffic.offer(slot, due, swarm)?;
            }
        }
        if now - start >= duration {
            return Ok(now - start);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use devicebound::packet::{ConnAck, Decoded, Packet, Publish, PublishQoS, decode, puback};

    use super::*;

    const CLIENTS: usize = 2;
    const WINDOW: u16 = 4;

    /// A server that holds PUBACKs back until a window is full, for as many connections as it is told.
    fn serve(connections: usize) -> (Peer, thread::JoinHandle<usize>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let lines = (0..connections).map(|_| listener.accept().unwrap().0);
            let lines: Vec<_> = lines.map(|line| thread::spawn(move || converse(line))).collect();
            lines.into_iter().map(|line| line.join().unwrap()).sum()
        });
        (Peer { address, tls: None }, serving)
    }

    /// Answers one client, and returns how often it published.
    fn converse(mut line: TcpStream) -> usize {
        let (mut bytes, mut held, mut published) = (Vec::new(), Vec::new(), 0);
        loop {
            let mut chunk = [0; 100];
            let read = line.read(&mut chunk).unwrap();
            bytes.extend_from_slice(&chunk[..read]);
            let mut input = bytes.as_slice();
            let mut out = Vec::new();
            while let Decoded::Packet(packet) = decode(&mut input, 1000).unwrap() {
                match packet {
                    Packet::Connect(_) => ConnAck::Accepted { session_present: false }.encode(&mut out),
                    Packet::Publish(Publish { qos: PublishQoS::AtLeastOnce { packet_id, .. }, .. }) => {
                        held.push(packet_id);
                        published += 1;
                    }
                    Packet::Disconnect => return published,
                    other => panic!("the load sent {other:?}"),
                }
                assert!(held.len() <= usize::from(WINDOW), "more than a window is in flight");
                if held.len() == usize::from(WINDOW) {
                    held.drain(..).for_each(|id| puback(id, &mut out));
                }
            }
            bytes = input.to_vec();
            line.write_all(&out).unwrap();
        }
    }

    fn plan() -> Publishing {
        let (warm_up, duration) = (Duration::ZERO, Duration::from_millis(20));
        Publishing { payload: 128, window: WINDOW, rate: None, warm_up, duration }
    }

    #[test]
    fn a_window_is_filled_and_never_exceeded_and_each_message_is_acknowledged() {
        let (peer, serving) = serve(CLIENTS);
        let published = publish(&peer, &Client::anonymous(CLIENTS), &plan(), None).unwrap();
        let seen = serving.join().unwrap();
        assert!(published.messages > 0);
        assert!(published.messages <= seen as u64, "{} of {seen}", published.messages);
        assert!(published.p50 <= published.p99);
    }

    #[test]
    fn as_many_clients_connect_as_are_asked_for() {
        let (peer, serving) = serve(5);
        let connected = connect(&peer, &Client::anonymous(CLIENTS), CLIENTS, 5, None).unwrap();
        assert_eq!((connected.connects, serving.join().unwrap()), (5, 0));
    }
}
