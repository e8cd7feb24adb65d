//! Prometheus metrics, served at `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type Labels = Vec<(&'static str, String)>;

/// All metrics of the server. Clones share the same counters.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram>,
    connections: Gauge,
    refused_connections: Counter,
    waiting: Family<Labels, Gauge>,
    waiting_tokens: Family<Labels, Gauge>,
    inputs: Family<Labels, Counter>,
    tokens: Family<Labels, Counter>,
    padding: Family<Labels, Counter>,
    batch_inputs: Family<Labels, Histogram>,
    batch_tokens: Family<Labels, Histogram>,
    batch_seconds: Family<Labels, Histogram>,
}

/// The metrics of one model, for one of its queues.
pub struct ModelMetrics {
    waiting: Share,
    waiting_tokens: Share,
    inputs: Counter,
    tokens: Counter,
    padding: Counter,
    batch_inputs: Histogram,
    batch_tokens: Histogram,
    batch_seconds: Histogram,
}

/// Buckets from a millisecond to half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

/// Buckets from 1 to 32768.
fn powers_of_two() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            waiting: Family::default(),
            waiting_tokens: Family::default(),
            inputs: Family::default(),
            tokens: Family::default(),
            padding: Family::default(),
            batch_inputs: Family::new_with_constructor(powers_of_two),
            batch_tokens: Family::new_with_constructor(powers_of_two),
            batch_seconds: Family::new_with_constructor(seconds),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }
}

impl Metrics {
    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("bert_serve");
        let all = &mut registry;
        all.register("requests", "Requests by route and status", self.requests.clone());
        let help = "Time from a request's head to its response";
        all.register_with_unit("request_duration", help, Unit::Seconds, self.seconds.clone());
        all.register("connections", "Open connections", self.connections.clone());
        let help = "Connections beyond --max-connections";
        all.register("refused_connections", help, self.refused_connections.clone());
        all.register("waiting_requests", "Requests waiting for a batch", self.waiting.clone());
        all.register("waiting_tokens", "Tokens waiting for a batch", self.waiting_tokens.clone());
        all.register("inputs", "Inputs processed by the model", self.inputs.clone());
        all.register("tokens", "Tokens processed by the model, without padding", self.tokens.clone());
        all.register("padding_tokens", "Padding tokens processed by the model", self.padding.clone());
        all.register("batch_inputs", "Inputs per batch", self.batch_inputs.clone());
        all.register("batch_tokens", "Tokens per batch, without padding", self.batch_tokens.clone());
        all.register_with_unit("batch_duration", "Time per batch", Unit::Seconds, self.batch_seconds.clone());
        registry
    }

    /// Records a response.
    pub fn answered(&self, route: &str, status: u16, time: Duration) {
        let route = ("route", route.to_string());
        self.requests.get_or_create(&vec![route.clone(), ("status", status.to_string())]).inc();
        self.seconds.get_or_create(&vec![route]).observe(time.as_secs_f64());
    }

    /// Records a new connection: open if it was accepted, otherwise refused.
    pub fn connected(&self, is_accepted: bool) {
        if is_accepted {
            self.connections.inc();
        } else {
            self.refused_connections.inc();
        }
    }

    /// Records that a connection was closed.
    pub fn disconnected(&self) {
        self.connections.dec();
    }

    /// The metrics of a queue of the model called `name`; the queues of a model share its counters.
    pub fn of_model(&self, name: &str) -> ModelMetrics {
        let labels = vec![("model", name.to_string())];
        ModelMetrics {
            waiting: Share::of(self.waiting.get_or_create(&labels).clone()),
            waiting_tokens: Share::of(self.waiting_tokens.get_or_create(&labels).clone()),
            inputs: self.inputs.get_or_create(&labels).clone(),
            tokens: self.tokens.get_or_create(&labels).clone(),
            padding: self.padding.get_or_create(&labels).clone(),
            batch_inputs: self.batch_inputs.get_or_create(&labels).clone(),
            batch_tokens: self.batch_tokens.get_or_create(&labels).clone(),
            batch_seconds: self.batch_seconds.get_or_create(&labels).clone(),
        }
    }

    /// Encodes all metrics in the OpenMetrics text format.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// The part of a gauge that one queue contributes.
struct Share {
    gauge: Gauge,
    own: AtomicI64,
}

impl Share {
    fn of(gauge: Gauge) -> Self {
        Self { gauge, own: AtomicI64::new(0) }
    }

    fn set(&self, value: i64) {
        self.gauge.inc_by(value - self.own.swap(value, Ordering::Relaxed));
    }
}

impl ModelMetrics {
    /// Records the current length of the queue. Calls must not overlap: its lock is held.
    pub fn waiting(&self, requests: usize, tokens: usize) {
        self.waiting.set(requests as i64);
        self.waiting_tokens.set(tokens as i64);
    }

    /// Records a batch of inputs whose sequences have these lengths in tokens.
    pub fn batch(&self, inputs: usize, lengths: impl Iterator<Item = usize>, time: Duration) {
        let (mut sequences, mut tokens, mut longest) = (0, 0, 0);
        for length in lengths {
            (sequences, tokens, longest) = (sequences + 1, tokens + length, longest.max(length));
        }
        self.inputs.inc_by(inputs as u64);
        self.tokens.inc_by(tokens as u64);
        self.padding.inc_by((sequences * longest - tokens) as u64);
        self.batch_inputs.observe(inputs as f64);
        self.batch_tokens.observe(tokens as f64);
        self.batch_seconds.observe(time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_and_requests_are_counted_by_model_and_route() {
        let metrics = Metrics::default();
        metrics.of_model("mini").batch(2, [3, 5].into_iter(), Duration::from_millis(4));
        metrics.answered("/embed", 200, Duration::from_millis(5));
        let queues = [metrics.of_model("mini"), metrics.of_model("mini")];
        queues[0].waiting(3, 30);
        queues[1].waiting(2, 20);
        queues[0].waiting(1, 10);
        let text = metrics.to_text();
        for line in [
            "bert_serve_tokens_total{model=\"mini\"} 8",
            "bert_serve_padding_tokens_total{model=\"mini\"} 2",
            "bert_serve_waiting_requests{model=\"mini\"} 3",
            "bert_serve_waiting_tokens{model=\"mini\"} 30",
            "bert_serve_requests_total{route=\"/embed\",status=\"200\"} 1",
            "bert_serve_request_duration_seconds_count{route=\"/embed\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
