//! Every metric of an agent: name, unit, labels.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::AgentError;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    connector: String,
    task: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GapLabels {
    connector: String,
    task: u32,
    unit: &'static str,
}

type PerTask<M> = Family<TaskLabels, M>;
type Seconds = Gauge<f64, AtomicU64>;

/// All metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    records_in: PerTask<Counter>,
    records_out: PerTask<Counter>,
    bytes_in: PerTask<Counter>,
    bytes_out: PerTask<Counter>,
    skipped: PerTask<Counter>,
    dead_lettered: PerTask<Counter>,
    in_flight: PerTask<Gauge>,
    lag: PerTask<Gauge>,
    last_commit: PerTask<Seconds>,
    restarts: PerTask<Counter>,
    state: PerTask<Gauge>,
    gaps: Family<GapLabels, Counter>,
    leaked_threads: Gauge,
    connected: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("gantry_agent");
        let metrics = Self {
            registry: Arc::default(),
            records_in: PerTask::default(),
            records_out: PerTask::default(),
            bytes_in: PerTask::default(),
            bytes_out: PerTask::default(),
            skipped: PerTask::default(),
            dead_lettered: PerTask::default(),
            in_flight: PerTask::default(),
            lag: PerTask::default(),
            last_commit: PerTask::default(),
            restarts: PerTask::default(),
            state: PerTask::default(),
            gaps: Family::default(),
            leaked_threads: Gauge::default(),
            connected: Gauge::default(),
        };
        let m = metrics.clone();
        registry.register(
            "records_in",
            "Records read, since the agent's start",
            m.records_in,
        );
        registry.register(
            "records_out",
            "Records written, since the agent's start",
            m.records_out,
        );
        registry.register_with_unit("values_in", "Bytes of values read", Unit::Bytes, m.bytes_in);
        registry.register_with_unit(
            "written",
            "Bytes written, with what a record takes beside its value for sinks",
            Unit::Bytes,
            m.bytes_out,
        );
        registry.register(
            "records_skipped",
            "Records skipped by the error policy",
            m.skipped,
        );
        registry.register(
            "records_dead_lettered",
            "Records sent to the dead-letter topic",
            m.dead_lettered,
        );
        registry.register_with_unit(
            "in_flight",
            "Bytes of records held in memory",
            Unit::Bytes,
            m.in_flight,
        );
        registry.register(
            "lag_messages",
            "Sink: messages in its queues that are not written yet",
            m.lag,
        );
        registry.register_with_unit(
            "last_commit_time",
            "When a position was last stored, since 1970",
            Unit::Seconds,
            m.last_commit,
        );
        registry.register("task_restarts", "Starts after a failure", m.restarts);
        registry.register(
            "task_state",
            "State of the task: the number of gantry.v1.Task.State",
            m.state,
        );
        registry.register(
            "gap",
            "Data that was lost before it could be read, in the unit of the label",
            m.gaps,
        );
        registry.register(
            "leaked_threads",
            "Threads of connectors that did not end in time and still exist",
            m.leaked_threads,
        );
        registry.register(
            "connected",
            "1 while a session with the control plane stands",
            m.connected,
        );
        *metrics.registry.lock() = registry;
        metrics
    }
}

impl Metrics {
    /// Those of a task.
    pub(crate) fn task(&self, connector: &str, task: u32) -> TaskMetrics {
        let labels = TaskLabels {
            connector: connector.into(),
            task,
        };
        TaskMetrics {
            records_in: self.records_in.get_or_create_owned(&labels),
            records_out: self.records_out.get_or_create_owned(&labels),
            bytes_in: self.bytes_in.get_or_create_owned(&labels),
            bytes_out: self.bytes_out.get_or_create_owned(&labels),
            skipped: self.skipped.get_or_create_owned(&labels),
            dead_lettered: self.dead_lettered.get_or_create_owned(&labels),
            in_flight: self.in_flight.get_or_create_owned(&labels),
            lag: self.lag.get_or_create_owned(&labels),
            last_commit: self.last_commit.get_or_create_owned(&labels),
            restarts: self.restarts.get_or_create_owned(&labels),
            state: self.state.get_or_create_owned(&labels),
            gaps: self.gaps.clone(),
            labels,
        }
    }

    /// Forgets a task that is not the agent's any more.
    pub(crate) fn forget(&self, connector: &str, task: u32) {
        let labels = TaskLabels {
            connector: connector.into(),
            task,
        };
        for family in [
            &self.records_in,
            &self.records_out,
            &self.bytes_in,
            &self.bytes_out,
            &self.skipped,
            &self.dead_lettered,
            &self.restarts,
        ] {
            family.remove(&labels);
        }
        for family in [&self.in_flight, &self.lag, &self.state] {
            family.remove(&labels);
        }
        self.last_commit.remove(&labels);
    }

    pub(crate) fn leaked_threads(&self, count: usize) {
        self.leaked_threads.set(count as i64);
    }

    pub(crate) fn connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// All of them in Prometheus's text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry.lock());
        text
    }
}

/// Metrics of one task.
#[derive(Clone)]
pub(crate) struct TaskMetrics {
    records_in: Counter,
    records_out: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    skipped: Counter,
    dead_lettered: Counter,
    in_flight: Gauge,
    lag: Gauge,
    last_commit: Seconds,
    restarts: Counter,
    state: Gauge,
    gaps: Family<GapLabels, Counter>,
    labels: TaskLabels,
}

impl TaskMetrics {
    pub(crate) fn r#in(&self, records: u64, bytes: usize) {
        self.records_in.inc_by(records);
        self.bytes_in.inc_by(bytes as u64);
    }

    pub(crate) fn out(&self, records: u64, bytes: usize) {
        self.records_out.inc_by(records);
        self.bytes_out.inc_by(bytes as u64);
    }

    pub(crate) fn skipped(&self, records: u64) {
        self.skipped.inc_by(records);
    }

    pub(crate) fn dead_lettered(&self, records: u64) {
        self.dead_lettered.inc_by(records);
    }

    pub(crate) fn in_flight_bytes(&self, bytes: usize) {
        self.in_flight.set(bytes as i64);
    }

    pub(crate) fn lag(&self, messages: u64) {
        self.lag.set(messages as i64);
    }

    pub(crate) fn committed(&self, wall: Duration) {
        self.last_commit.set(wall.as_secs_f64());
    }

    pub(crate) fn restarted(&self) {
        self.restarts.inc();
    }

    pub(crate) fn state(&self, state: i32) {
        self.state.set(state.into());
    }

    pub(crate) fn gap(&self, amount: u64, unit: &'static str) {
        let TaskLabels { connector, task } = self.labels.clone();
        self.gaps
            .get_or_create(&GapLabels {
                connector,
                task,
                unit,
            })
            .inc_by(amount);
    }
}

/// Answers Prometheus until told to end.
pub(crate) struct Endpoint(TcpListener);

impl Endpoint {
    /// Listens there.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, AgentError> {
        TcpListener::bind(address)
            .await
            .map(Self)
            .map_err(|source| AgentError::Metrics { address, source })
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    pub(crate) async fn serve(self, metrics: Metrics, end: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = end.cancelled() => return,
                accepted = self.0.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (metrics, end) = (metrics.clone(), end.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| std::future::ready(answer(&metrics, &request)));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    // A client that goes away in the middle is its own business.
                    _ = connection => {}
                    () = end.cancelled() => {}
                }
            });
        }
    }
}

fn answer(
    metrics: &Metrics,
    request: &Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, http::Error> {
    let response = Response::builder();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => response
            .header(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )
            .body(Full::from(metrics.text())),
        _ => response
            .status(StatusCode::NOT_FOUND)
            .body(Full::from("only GET /metrics\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_labelled_and_forgotten() {
        let metrics = Metrics::default();
        let task = metrics.task("orders-in", 3);
        task.r#in(5, 100);
        task.gap(7, "bytes");
        let text = metrics.text();
        assert!(
            text.contains("gantry_agent_records_in_total{connector=\"orders-in\",task=\"3\"} 5"),
            "{text}"
        );
        assert!(text.contains("unit=\"bytes\"} 7"), "{text}");
        metrics.forget("orders-in", 3);
        assert!(!metrics.text().contains("records_in_total{"));
    }
}
