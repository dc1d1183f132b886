//! Fleets: a day of them, and their return when the hub restarts.

use std::fmt;
use std::time::Duration;

use devicebound::device::Timing;
use devicebound::time::Instant;

use super::{Breach, KnockKind, Options, Seeded, Step, World, breach};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Devices that work for hours: telemetry each minute, a direct method each hour, keep alive, a new token each hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// How many.
    pub devices: usize,
    /// How long.
    pub hours: u32,
}

/// What a [`Day`] was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayReport {
    /// Telemetry messages that the hub stored and the device knows to be safe.
    pub telemetry: u64,
    /// Methods that were answered.
    pub methods: u64,
    /// Connections that were ended for a new token.
    pub renewals: u64,
    /// The hash of all that happened.
    pub hash: u64,
}

impl Day {
    /// Lives through it. Every message has its own moment, so that the devices are not in step.
    ///
    /// # Errors
    /// What cannot be, and was.
    pub fn run(self) -> Result<DayReport, Breach> {
        let options = Options { timing: Timing::default(), keep_alive: 45, ..Options::calm(self.devices) };
        let mut world = World::new(options, Seeded::new(1));
        let start = world.now;
        let count = u32::try_from(self.devices).unwrap_or(u32::MAX).max(1);
        for minute in 0..self.hours * 60 {
            for device in 0..count {
                let at = MINUTE * minute + MINUTE * device / count;
                world.run_until(start.after(at))?;
                let number = usize::try_from(device).unwrap_or(0);
                world.send_telemetry(number)?;
                if minute % 60 == device % 60 {
                    world.act(Step::Call, number)?;
                }
            }
        }
        world.heal()?;
        let count = |mark| world.marks().count(mark);
        Ok(DayReport {
            telemetry: count("rule: acknowledged telemetry is safe"),
            methods: count("app: method answered"),
            renewals: count("close: device, token renewed"),
            hash: world.trace().hash(),
        })
    }
}

impl fmt::Display for DayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { telemetry, methods, renewals, hash } = self;
        write!(f, "{telemetry} telemetry messages acknowledged, {methods} methods answered, ")?;
        write!(f, "{renewals} tokens renewed; trace hash {hash:016x}")
    }
}

/// A hub that goes away under all its devices and comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    /// How many devices.
    pub devices: usize,
    /// How long the hub is away.
    pub outage: Duration,
    /// What jitter and delays follow from.
    pub seed: u64,
}

/// How a [`Storm`] went. Times count from the moment when the hub was there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StormReport {
    /// When so many percent of the devices were back.
    pub back: [(u32, Duration); 5],
    /// Attempts to connect since the hub went away, those while it was away among them.
    pub attempts: usize,
    /// Attempts in the busiest second after the return.
    pub busiest_second: usize,
    /// The mean of the seconds from the return to the last device.
    pub mean_second: usize,
    /// Most connections at a time that were open and had no CONNACK yet.
    pub most_at_once: usize,
    /// Shortest time between two attempts of one device.
    pub shortest_pause: Duration,
}

impl Storm {
    /// Longest time that is waited for the last device.
    const PATIENCE: Duration = HOUR;

    /// Lets the hub crash and looks on.
    ///
    /// # Errors
    /// What cannot be, and was; devices that are not back after an hour.
    pub fn run(self) -> Result<StormReport, Breach> {
        let options = Options {
            timing: Timing::default(),
            delay: Duration::from_millis(200),
            store: Duration::from_millis(20),
            ..Options::calm(self.devices)
        };
        let mut world = World::new(options, Seeded::new(self.seed));
        // Long enough for their connections to count as good.
        world.run(2 * MINUTE)?;
        let online = world.things.iter().filter(|thing| thing.is_online()).count();
        if online < self.devices {
            return breach(format!("{online} of {} devices are online", self.devices));
        }
        world.knocks = Some(Vec::new());
        world.start_hub_again(self.outage)?;
        let back = world.now.after(self.outage);
        world.run_until(back)?;
        while world.things.iter().any(|thing| !thing.is_online()) {
            if world.now.since(back) > Self::PATIENCE {
                return breach(format!("devices are not back after {:?}", Self::PATIENCE));
            }
            world.run(SECOND)?;
        }
        Ok(self.report(back, &world))
    }

    fn report(self, hub_back: Instant, world: &World<'_>) -> StormReport {
        let knocks = world.knocks.as_deref().unwrap_or_default();
        let mut last = vec![None; self.devices];
        let mut seconds: Vec<usize> = Vec::new();
        let mut accepted = Vec::with_capacity(self.devices);
        let (mut pending, mut most_at_once, mut attempts) = (0_usize, 0, 0);
        let mut shortest_pause = Duration::MAX;
        for knock in knocks {
            if knock.kind == KnockKind::Accepted {
                pending = pending.saturating_sub(1);
                accepted.push(knock.at.since(hub_back));
                continue;
            }
            attempts += 1;
            if let Some(before) = last[knock.thing].replace(knock.at) {
                shortest_pause = shortest_pause.min(knock.at.since(before));
            }
            if knock.kind == KnockKind::Opened {
                pending += 1;
                most_at_once = most_at_once.max(pending);
                let second = usize::try_from(knock.at.since(hub_back).as_secs()).unwrap_or(0);
                seconds.resize(seconds.len().max(second + 1), 0);
                seconds[second] += 1;
            }
        }
        let when = |percent: u32| {
            let last = (accepted.len() * percent as usize).div_ceil(100).saturating_sub(1);
            (percent, accepted.get(last).copied().unwrap_or_default())
        };
        StormReport {
            back: [1, 50, 90, 99, 100].map(when),
            attempts,
            busiest_second: seconds.iter().copied().max().unwrap_or(0),
            mean_second: seconds.iter().sum::<usize>() / seconds.len().max(1),
            most_at_once,
            shortest_pause,
        }
    }
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (percent, time) in self.back {
            writeln!(f, "{percent:>4} % are back after {:.1} s", time.as_secs_f64())?;
        }
        writeln!(f, "{} attempts since the hub went away", self.attempts)?;
        writeln!(f, "busiest second: {} attempts, the mean is {}", self.busiest_second, self.mean_second)?;
        writeln!(f, "most connections at a time without CONNACK: {}", self.most_at_once)?;
        write!(
            f,
            "shortest pause of a device between two attempts: {:.3} s",
            self.shortest_pause.as_secs_f64()
        )
    }
}
