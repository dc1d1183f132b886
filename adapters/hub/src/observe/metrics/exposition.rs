//! The numbers as text, in the OpenMetrics format.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devicebound::Rule;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{AmqpMetrics, CLASSES, Message, Metrics, PACKETS, process};

/// What a response says that it is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is looked up at a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections of any phase.
    pub connections: u64,
    /// Identities that the registry has.
    pub records: u64,
    /// Bytes of telemetry that wait for the store.
    pub backlog_bytes: u64,
    /// What belongs to file uploads.
    pub files: FileGauges,
    /// What belongs to each endpoint of routes.
    pub endpoints: Vec<EndpointGauges>,
}

/// What belongs to an endpoint of routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointGauges {
    /// Its name.
    pub name: String,
    /// Messages that are stored and were not looked at for it.
    pub lag: u64,
    /// Events that it took.
    pub delivered: u64,
    /// Attempts that came to nothing.
    pub failed: u64,
    /// Events that it will not get.
    pub dead_lettered: u64,
}

/// What belongs to file uploads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileGauges {
    /// Uploads under way.
    pub active: u64,
    /// Bytes that the storage has.
    pub bytes: u64,
    /// Notifications that wait, or are held.
    pub notifications: u64,
}

#[derive(Debug)]
struct Scrape {
    metrics: Arc<Metrics>,
    gauges: Gauges,
}

/// All numbers, and those of the process.
pub(super) fn text(metrics: Arc<Metrics>, gauges: Gauges) -> String {
    let mut registry = Registry::with_prefix("devicebound");
    registry.register_collector(Box::new(Scrape { metrics, gauges }));
    let mut process = Registry::with_prefix("process");
    process.register_collector(Box::new(process::Process));
    let mut text = String::new();
    // A string takes everything that is written to it.
    let _ = prometheus_client::encoding::text::encode_registry(&mut text, &process);
    let _ = encode(&mut text, &registry);
    text
}

impl Metrics {
    /// All numbers as text of the type [`CONTENT_TYPE`].
    #[must_use]
    pub fn text(self: &Arc<Self>, gauges: Gauges) -> String {
        text(Arc::clone(self), gauges)
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self { metrics, gauges } = self;
        connections(&mut encoder, metrics)?;
        traffic(&mut encoder, metrics)?;
        latencies(&mut encoder, metrics)?;
        metrics.amqp.encode(&mut encoder)?;
        jobs_and_configurations(&mut encoder, metrics)?;
        routes(&mut encoder, &gauges.endpoints)?;
        looked_up(&mut encoder, gauges)
    }
}

/// Connections, and what became of them.
fn connections(encoder: &mut DescriptorEncoder<'_>, metrics: &Metrics) -> Result<(), fmt::Error> {
    let opened = metrics.opened.load(Ordering::Relaxed);
    counter(encoder, "connections_opened", "Transports that were there", opened)?;
    let refused = by_rule(&metrics.refused);
    family(
        encoder,
        "connections_refused",
        "Connections that were never accepted, by rule",
        "rule",
        &refused,
    )?;
    let closed = by_rule(&metrics.closed);
    family(encoder, "connections_closed", "Accepted connections that ended, by rule", "rule", &closed)?;
    let tls_failed = metrics.tls_failed.load(Ordering::Relaxed);
    counter(encoder, "tls_failed", "TLS handshakes that came to nothing", tls_failed)
}

/// What came and went over them.
fn traffic(encoder: &mut DescriptorEncoder<'_>, metrics: &Metrics) -> Result<(), fmt::Error> {
    let packets = PACKETS.map(|(packet, name)| {
        let count =
            |counters: &super::Counters| counters.packets.get(packet as usize).map_or(0, |own| own.get());
        (name, metrics.sum(count))
    });
    family(encoder, "packets", "Packets that devices sent", "type", &packets)?;
    let messages = Message::ALL.map(|(message, name)| {
        (name, metrics.sum(|counters| counters.messages.get(message as usize).map_or(0, |own| own.get())))
    });
    family(encoder, "messages", "What the hub did for packets", "kind", &messages)?;
    let bytes = [
        ("received", metrics.sum(|counters| counters.received_bytes.get())),
        ("sent", metrics.sum(|counters| counters.sent_bytes.get())),
    ];
    family(encoder, "bytes", "MQTT bytes, without those of TLS", "direction", &bytes)?;
    let throttled = throttled(metrics);
    counter(encoder, "throttled", "Connections that ended or were refused by a rate or a quota", throttled)
}

/// How long it took until something was safe.
fn latencies(encoder: &mut DescriptorEncoder<'_>, metrics: &Metrics) -> Result<(), fmt::Error> {
    let classes: Vec<u64> = (0..=CLASSES.len())
        .map(|class| {
            metrics.sum(|counters| counters.acknowledgements.classes.get(class).map_or(0, |own| own.get()))
        })
        .collect();
    let micros = metrics.sum(|counters| counters.acknowledgements.micros.get());
    let help = "From the arrival of a QoS 1 message until it is safe";
    histogram(encoder, "acknowledgement_seconds", help, &classes, micros)?;
    let classes: Vec<u64> =
        metrics.writes.classes.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let micros = metrics.writes.micros.load(Ordering::Relaxed);
    histogram(encoder, "store_write_seconds", "A batch of the store, its fsync included", &classes, micros)
}

/// What is looked up at a scrape.
fn looked_up(encoder: &mut DescriptorEncoder<'_>, gauges: &Gauges) -> Result<(), fmt::Error> {
    gauge(encoder, "connections", "Connections of any phase", gauges.connections)?;
    gauge(encoder, "records", "Identities in the registry", gauges.records)?;
    let files = gauges.files;
    gauge(encoder, "file_uploads_active", "File uploads under way", files.active)?;
    gauge(encoder, "file_storage_bytes", "Uploaded files and blocks", files.bytes)?;
    let waiting = files.notifications;
    gauge(encoder, "file_notifications", "File notifications that nobody has completed", waiting)?;
    gauge(encoder, "backlog_bytes", "Telemetry that waits for the store", gauges.backlog_bytes)
}

impl AmqpMetrics {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let [opened, connections, events] = self.counts();
        counter(encoder, "amqp_connections_opened", "AMQP connections that there were", opened)?;
        gauge(encoder, "amqp_connections", "AMQP connections", connections)?;
        counter(encoder, "amqp_events_sent", "Events that went to readers over AMQP", events)?;
        let help = "What AMQP clients were refused, and what of theirs ended, by rule or error condition";
        family(encoder, "amqp_failures", help, "rule", &self.failures())
    }
}

/// What the hub does by itself for back ends.
fn jobs_and_configurations(encoder: &mut DescriptorEncoder<'_>, metrics: &Metrics) -> Result<(), fmt::Error> {
    let configured = metrics.configured.load(Ordering::Relaxed);
    counter(
        encoder,
        "configured",
        "Twins that automatic configurations were applied to, or withdrawn from",
        configured,
    )?;
    counter(encoder, "jobs_ended", "Jobs that are over", metrics.jobs.load(Ordering::Relaxed))?;
    let [done, failed] = &metrics.job_devices;
    let devices = [("completed", done.load(Ordering::Relaxed)), ("failed", failed.load(Ordering::Relaxed))];
    family(encoder, "job_devices", "Devices that jobs have dealt with", "outcome", &devices)
}

/// What goes to endpoints of routes.
fn routes(encoder: &mut DescriptorEncoder<'_>, endpoints: &[EndpointGauges]) -> fmt::Result {
    let by_name = |value: fn(&EndpointGauges) -> u64| -> Vec<(&str, u64)> {
        endpoints.iter().map(|endpoint| (endpoint.name.as_str(), value(endpoint))).collect()
    };
    let help = "Stored messages that were not looked at for an endpoint of routes";
    let mut lag = describe(encoder, "endpoint_lag", help, MetricType::Gauge)?;
    for (name, count) in by_name(|endpoint| endpoint.lag) {
        lag.encode_family(&[("endpoint", name)])?.encode_gauge(&count)?;
    }
    let delivered = by_name(|endpoint| endpoint.delivered);
    family(encoder, "endpoint_delivered", "Events that endpoints of routes took", "endpoint", &delivered)?;
    let failed = by_name(|endpoint| endpoint.failed);
    family(
        encoder,
        "endpoint_failures",
        "Deliveries that came to nothing, and are tried again",
        "endpoint",
        &failed,
    )?;
    let dead = by_name(|endpoint| endpoint.dead_lettered);
    family(
        encoder,
        "endpoint_dead_letters",
        "Events that endpoints of routes will not get",
        "endpoint",
        &dead,
    )
}

/// The rules that have ended something, each with how often.
fn by_rule(counts: &[AtomicU64]) -> Vec<(&'static str, u64)> {
    let counts = Rule::ALL.iter().zip(counts).map(|(rule, count)| (rule.id(), count.load(Ordering::Relaxed)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn throttled(metrics: &Metrics) -> u64 {
    let is_limit =
        |rule: Rule| matches!(rule, Rule::Throttled | Rule::ThrottledConnect | Rule::QuotaExceeded);
    let counts = Rule::ALL.iter().zip(metrics.closed.iter().zip(&metrics.refused));
    counts
        .filter(|(rule, _)| is_limit(**rule))
        .map(|(_, (closed, refused))| {
            closed.load(Ordering::Relaxed).wrapping_add(refused.load(Ordering::Relaxed))
        })
        .fold(0, u64::wrapping_add)
}

fn describe<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
    metric_type: MetricType,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, metric_type)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, count: u64) -> fmt::Result {
    describe(encoder, name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, f64>(&count, None)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    describe(encoder, name, help, MetricType::Gauge)?.encode_gauge(&value)
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    counts: &[(&str, u64)],
) -> fmt::Result {
    let mut family = describe(encoder, name, help, MetricType::Counter)?;
    for (value, count) in counts {
        family.encode_family(&[(label, *value)])?.encode_counter::<NoLabelSet, _, f64>(count, None)?;
    }
    Ok(())
}

/// `classes` are counts of their own; the format wants each to contain those below.
fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    classes: &[u64],
    micros: u64,
) -> fmt::Result {
    // Counts of a few years are exact in a float, and times need not be.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let seconds = |micros: u64| micros as f64 / 1e6;
    let ends = CLASSES.map(seconds).into_iter().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = ends.zip(classes.iter().copied()).collect();
    let count = classes.iter().copied().fold(0, u64::wrapping_add);
    describe(encoder, name, help, MetricType::Histogram)?.encode_histogram::<NoLabelSet>(
        seconds(micros),
        count,
        &buckets,
        None,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILES: [&str; 2] =
        [include_str!("../../../packaging/alerts.yml"), include_str!("../../../packaging/grafana.json")];

    /// The names of the hub's and of the process' metrics that a text has, without what its type adds to them.
    fn names(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = words.filter(|word| word.starts_with("devicebound_") || word.starts_with("process_"));
        ours.map(|word| {
            let suffixes = ["_total", "_bucket", "_sum", "_count"];
            suffixes.iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word)
        })
        .collect()
    }

    #[test]
    fn alerts_and_the_board_ask_for_what_there_is() {
        let text = text(Arc::new(Metrics::new(1)), Gauges::default());
        let known: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        for file in FILES {
            let asked = names(file);
            assert!(asked.len() > 5, "{asked:?}");
            let missing: Vec<_> = asked.difference(&known).collect();
            assert!(missing.is_empty(), "{missing:?} are not among {known:?}");
        }
    }
}
