//! The World: a hub, its devices, the network between them, a disk and two clocks, in one thread, from one seed.
//!
//! Every failure is a number: a [`World`] draws all that happens from an [`Entropy`], and the same choices give the same
//! [`trace`](World::trace), on every machine. After each event a [model](self) of maps and lists says whether it could
//! be. Then the faults stop, and [`World::heal`] wants everything delivered, everybody connected.
//!
//! ```
//! use devicebound_world::{Options, Seeded, Step, World};
//!
//! let mut world = World::new(Options::calm(2), Seeded::new(1));
//! world.act(Step::Telemetry, 0)?;
//! world.act(Step::Cut, 0)?; // the connection breaks, at any byte
//! world.act(Step::HubCrash, 0)?; // and so does the hub
//! world.heal()?; // all that was acknowledged is there, and all are back
//! assert_eq!(world.device(0).status().queued, 0);
//! # Ok::<(), devicebound_world::Breach>(())
//! ```
//!
//! | for | there is |
//! |---|---|
//! | a random world, replayed and shrunk | [`Run`], from a seed |
//! | a world of one's own | [`World`] with [`Options`], driven by [`act`](World::act), or [`step`](World::step) from an [`Entropy`] |
//! | one's own device's logic | [`Logic`], given by [`with_logic`](World::with_logic) |
//! | what can go wrong | [`Step::FAULTS`]; by the numbers of the list of faults, and where each is seen: [`FAULTS`] |
//! | how often each fault and each rule was reached | [`Marks`] |
//! | whether it notices what is wrong | [`Canary`] |
//! | every short history | [`every_history`] |
//! | fleets | [`Day`], [`Storm`], [`Footprint`] |
//! | bytes of one's own, sent to the hub machine | [`Cable`] |
//!
//! The program `devicebound-world` (`cargo install devicebound-world`) runs all of these; its words are a [`Command`].

pub mod allocations;
pub mod fixtures;
pub mod hub_host;
pub mod station;
pub mod vectors;

mod application;
mod cable;
mod canary;
mod command;
mod device_side;
mod disk;
mod entropy;
mod events;
mod faults;
mod footprint;
mod fuzzed;
mod guest;
mod histories;
mod hub_side;
mod logic;
mod marks;
mod model;
mod options;
mod pipe;
mod run;
mod scale;
mod steps;
mod thing;
mod trace;
mod visit;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use cable::Cable;
pub use canary::Canary;
pub use command::{BadCommand, Command, USAGE, read_input};
pub use entropy::{Bytes, Entropy, Exhaustive, Seeded};
pub use faults::{FAULTS, Fault, Reached};
pub use footprint::Footprint;
pub use fuzzed::{replay, run_bytes};
pub use histories::every_history;
pub use logic::Logic;
pub use marks::{MARKS, Marks};
pub use options::{Options, Step};
pub use pipe::{Arrival, Pipe};
pub use run::{Failure, Run, Summary};
pub use scale::{Day, DayReport, Storm, StormReport};
pub use trace::Trace;

use devicebound::hub::{DeviceKey, HubConfig, LinkId};
use devicebound::time::Instant;
use devicebound::{Device, hub};

use disk::Disk;
use guest::Guest;
use hub_host::{HubHost, StoreMode};
use model::Model;
use thing::Thing;
use wire::{Tap, Wire};

/// What cannot be, and was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Breach(String);

fn breach<T>(what: impl Into<String>) -> Result<T, Breach> {
    Err(Breach(what.into()))
}

/// Time within which everything has come to rest once there are no faults any more (`faults.md`, F3), and no connection
/// is dead without anybody knowing: see [`Options::rest`].
pub const REST: Duration = Duration::from_secs(60);

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    /// Something arrives at the hub.
    Up(u64),
    /// Something arrives at a device.
    Down(u64),
    Disk,
    Thing(usize),
    Guest(LinkId),
    Hub,
}

/// An attempt to connect, or what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Knock {
    at: Instant,
    thing: usize,
    kind: KnockKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnockKind {
    /// There is no hub.
    Refused,
    Opened,
    /// CONNACK 0 was sent.
    Accepted,
}

/// A TCP connection and what both sides know of it.
#[derive(Debug)]
struct Connection {
    thing: usize,
    /// The hub's side, while that is open.
    link: Option<LinkId>,
    /// The device's side is open.
    device_is_there: bool,
    up: Pipe,
    down: Pipe,
    up_tap: Tap,
    down_tap: Tap,
    wire: Wire,
    /// Where the packets of the device end, counted in bytes from the start.
    ends: VecDeque<u64>,
    /// When the last whole packet of the device arrived.
    heard_at: Instant,
    /// Where the device's DISCONNECT ends.
    disconnect: Option<u64>,
    /// The device was sent what no hub sends.
    spoilt: bool,
    /// The next PUBACK for the device is to be lost.
    swallow: bool,
}

/// A hub, its devices and all around them.
#[derive(Debug)]
pub struct World<'e> {
    options: Options,
    entropy: Box<dyn Entropy + 'e>,
    canary: Option<Canary>,
    now: Instant,
    start: Instant,
    hub: HubHost,
    /// A hub that crashed is there again from then on.
    hub_back_at: Option<Instant>,
    hub_paused_until: Instant,
    disk: Disk,
    keys: Vec<DeviceKey>,
    identities: BTreeMap<DeviceKey, usize>,
    /// The live connection of each identity.
    live: Vec<Option<u64>>,
    things: Vec<Thing>,
    connections: BTreeMap<u64, Connection>,
    links: BTreeMap<LinkId, u64>,
    guests: BTreeMap<LinkId, Guest>,
    next_connection: u64,
    model: Model,
    queue: BTreeSet<(Instant, Wake)>,
    marks: Marks,
    trace: Trace,
    steps: u32,
    rest: Duration,
    /// Who tried to connect, and when, where that is noted.
    knocks: Option<Vec<Knock>>,
    /// By device, where it has one of its own.
    logics: BTreeMap<usize, Box<dyn Logic + 'e>>,
    /// What logics have sent, each with its device.
    own_telemetry: Vec<(usize, Vec<u8>)>,
    /// What logics have answered, each with its device.
    own_answers: Vec<(usize, i32, Vec<u8>)>,
}

impl<'e> World<'e> {
    /// A hub with the devices of `options`, none of them connected yet.
    #[must_use]
    pub fn new(options: Options, entropy: impl Entropy + 'e) -> Self {
        let usual = hub::Limits::default();
        let limits = hub::Limits {
            tx_high_water: options.high_water,
            delivery_count: options.deliveries().unwrap_or(usual.delivery_count),
            every_delivery_counts: options.every_delivery_counts,
            ..usual
        };
        let config = HubConfig {
            host_names: vec![fixtures::HOST.to_owned()],
            tier: options.tier.map(|tier| hub::Scale { tier, units: 1 }),
            limits,
            ..HubConfig::default()
        };
        let mut hub = HubHost::new(config);
        hub.store = StoreMode::Held;
        // One more than there are devices: the guests'.
        let records: Vec<_> =
            (0..=options.devices).map(|identity| fixtures::record(&options.client_id(identity))).collect();
        let keys: Vec<_> = records.iter().map(|record| hub.register(record.clone())).collect();
        let now = hub.now;
        let mut world = Self {
            entropy: Box::new(entropy),
            canary: None,
            now,
            start: now,
            hub,
            hub_back_at: None,
            hub_paused_until: now,
            disk: Disk::new(records),
            identities: keys.iter().enumerate().map(|(identity, key)| (*key, identity)).collect(),
            keys,
            live: vec![None; options.devices],
            things: Vec::new(),
            connections: BTreeMap::new(),
            links: BTreeMap::new(),
            guests: BTreeMap::new(),
            next_connection: 0,
            model: Model::new(options.devices + 1),
            queue: BTreeSet::new(),
            marks: Marks::default(),
            trace: Trace::new(now, false),
            steps: 0,
            rest: Duration::ZERO,
            knocks: None,
            logics: BTreeMap::new(),
            own_telemetry: Vec::new(),
            own_answers: Vec::new(),
            options,
        };
        for identity in 0..world.options.devices {
            world.add_thing(identity, false);
        }
        world
    }

    /// Keeps the lines of the trace.
    #[must_use]
    pub fn with_lines(mut self) -> Self {
        self.trace = Trace::new(self.start, true);
        self
    }

    /// Breaks a rule, to see whether this world notices.
    #[must_use]
    pub fn with_canary(mut self, canary: Option<Canary>) -> Self {
        self.canary = canary;
        self.hub.canary = canary;
        self.disk.forgetful = canary == Some(Canary::OldRecordWritten);
        self
    }

    /// What the world is like.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// What has happened.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How often each fault and each rule was reached.
    #[must_use]
    pub const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// How long the world has lasted.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.since(self.start)
    }

    /// How long it took until all had come to rest, once [`heal`](Self::heal) found it so.
    #[must_use]
    pub const fn rest(&self) -> Duration {
        self.rest
    }

    /// The hub machine.
    #[must_use]
    pub const fn hub(&self) -> &hub::Hub {
        &self.hub.hub
    }

    /// The machine of a device.
    ///
    /// # Panics
    /// Where the world has no such device.
    #[must_use]
    pub fn device(&self, number: usize) -> &Device {
        &self.things[number].device
    }

    /// One step: some time goes by, then something happens.
    ///
    /// # Errors
    /// What cannot be, and was.
    pub fn step(&mut self) -> Result<(), Breach> {
        self.next_step(true)
    }

    /// The time of a step goes by, and nothing happens: for leaving one out when a failure is shrunk.
    ///
    /// # Errors
    /// What cannot be, and was.
    pub fn skip_step(&mut self) -> Result<(), Breach> {
        self.next_step(false)
    }

    fn next_step(&mut self, act: bool) -> Result<(), Breach> {
        self.entropy.begin(self.steps);
        self.steps += 1;
        let pause = self.draw(self.options.pace);
        self.run_until(self.now.after(pause))?;
        if !act {
            return Ok(());
        }
        let fault = !self.options.faults.is_empty() && self.entropy.one_in(self.options.fault);
        let kinds = if fault { self.options.faults.as_slice() } else { &Step::WORK };
        let step = kinds[self.entropy.below(u32::try_from(kinds.len()).unwrap_or(1)) as usize];
        let device = self.entropy.below(u32::try_from(self.options.devices).unwrap_or(1)) as usize;
        self.act(step, device)
    }

    /// Lets time go by.
    ///
    /// # Errors
    /// What cannot be, and was.
    pub fn run(&mut self, time: Duration) -> Result<(), Breach> {
        self.run_until(self.now.after(time))
    }

    /// The faults stop; what was broken stays so until somebody notices.
    ///
    /// # Errors
    /// What cannot be, and was; and what has not come to rest after [`Options::rest`].
    pub fn heal(&mut self) -> Result<(), Breach> {
        self.stop_faults()?;
        let (start, most) = (self.now, self.options.rest());
        loop {
            let Some(unrest) = self.unrest() else {
                self.rest = self.now.since(start);
                self.marks.mark("rule: all comes to rest");
                return Ok(());
            };
            if self.now.since(start) >= most {
                return breach(format!("{most:?} after the last fault: {unrest}"));
            }
            self.run_until(self.now.after(Duration::from_secs(1)))?;
        }
    }

    /// A random time up to `most`.
    fn draw(&mut self, most: Duration) -> Duration {
        let most = u32::try_from(most.as_millis()).unwrap_or(u32::MAX - 1);
        Duration::from_millis(self.entropy.below(most + 1).into())
    }

    fn note(&mut self, thing: usize, kind: KnockKind) {
        let at = self.now;
        self.knocks.iter_mut().for_each(|knocks| knocks.push(Knock { at, thing, kind }));
    }

    fn schedule(&mut self, at: Option<Instant>, wake: Wake) {
        if let Some(at) = at {
            self.queue.insert((at.max(self.now), wake));
        }
    }

    fn add_thing(&mut self, identity: usize, is_rival: bool) -> usize {
        let number = self.things.len();
        self.things.push(Thing::new(identity, number, is_rival, &self.options));
        self.model.senders.push(model::Sender::default());
        self.schedule(Some(self.now), Wake::Thing(number));
        number
    }
}
