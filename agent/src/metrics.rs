//! Every metric of an agent: name, unit, labels. Their meaning for operators is in `docs/observability.md`.

mod endpoint;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use gantry_proto::v1::task::State;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

pub(crate) use self::endpoint::Endpoint;

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    connector: String,
    task: u32,
    state: &'static str,
}

type PerTask<M> = Family<TaskLabels, M>;
type Seconds = Gauge<f64, AtomicU64>;

/// All metrics. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    families: Families,
    leaked_threads: Gauge,
    connected: Gauge,
    /// How many hold a task's labels: one that is deleted may still run while another of its name begins.
    holders: Arc<Mutex<HashMap<TaskLabels, Holders>>>,
}

#[derive(Default)]
struct Holders {
    count: usize,
    /// Units of its gaps.
    units: Arc<Mutex<Vec<&'static str>>>,
}

#[derive(Clone, Default)]
struct Families {
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
    state: Family<StateLabels, Gauge>,
    gaps: Family<GapLabels, Counter>,
}

impl Metrics {
    /// All metrics, registered.
    pub(crate) fn new() -> Self {
        let metrics = Self::default();
        let f = metrics.families.clone();
        let mut registry = Registry::with_prefix("gantry_agent");
        let r = &mut registry;
        r.register("records_in", "Records read", f.records_in);
        r.register(
            "records_out",
            "Records written and acknowledged by where they went",
            f.records_out,
        );
        r.register_with_unit("records_in", "Bytes of the values read", Unit::Bytes, f.bytes_in);
        r.register_with_unit(
            "records_out",
            "Bytes written; of sinks with what a record takes beside its value",
            Unit::Bytes,
            f.bytes_out,
        );
        r.register(
            "records_skipped",
            "Records skipped by the error policy",
            f.skipped,
        );
        r.register(
            "records_dead_lettered",
            "Records sent to the dead-letter topic",
            f.dead_lettered,
        );
        r.register_with_unit(
            "in_flight",
            "Bytes of records that are read and not done",
            Unit::Bytes,
            f.in_flight,
        );
        let messages = Unit::Other("messages".into());
        r.register_with_unit(
            "lag",
            "Messages in the queues of a sink's task that are not written yet",
            messages,
            f.lag,
        );
        r.register_with_unit(
            "last_commit_timestamp",
            "When a position was last stored, as Unix time; absent before the first",
            Unit::Seconds,
            f.last_commit,
        );
        r.register("task_restarts", "Starts after a failure", f.restarts);
        r.register("task_state", "1 for the state that the task is in", f.state);
        r.register(
            "gap",
            "Data that was lost before it could be read, in the unit of the label",
            f.gaps,
        );
        r.register(
            "leaked_threads",
            "Threads of connectors that did not end in time and still exist",
            metrics.leaked_threads.clone(),
        );
        r.register(
            "connected",
            "1 while a session with the control plane stands",
            metrics.connected.clone(),
        );
        *metrics.registry.lock() = registry;
        metrics
    }

    /// Those of a task. To be given back by [`Metrics::forget`].
    pub(crate) fn task(&self, connector: &str, task: u32) -> TaskMetrics {
        let labels = TaskLabels {
            connector: connector.into(),
            task,
        };
        let mut holders = self.holders.lock();
        let holder = holders.entry(labels.clone()).or_default();
        holder.count += 1;
        let f = &self.families;
        TaskMetrics {
            records_in: f.records_in.get_or_create_owned(&labels),
            records_out: f.records_out.get_or_create_owned(&labels),
            bytes_in: f.bytes_in.get_or_create_owned(&labels),
            bytes_out: f.bytes_out.get_or_create_owned(&labels),
            skipped: f.skipped.get_or_create_owned(&labels),
            dead_lettered: f.dead_lettered.get_or_create_owned(&labels),
            in_flight: f.in_flight.get_or_create_owned(&labels),
            restarts: f.restarts.get_or_create_owned(&labels),
            lag: Arc::default(),
            last_commit: Arc::default(),
            units: holder.units.clone(),
            families: f.clone(),
            labels,
        }
    }

    /// Forgets a task that is not the agent's any more, unless another of its name has begun.
    pub(crate) fn forget(&self, connector: &str, task: u32) {
        let labels = TaskLabels {
            connector: connector.into(),
            task,
        };
        let mut holders = self.holders.lock();
        let Some(holder) = holders.get_mut(&labels) else {
            return;
        };
        holder.count -= 1;
        if holder.count > 0 {
            return;
        }
        let f = &self.families;
        for family in [
            &f.records_in,
            &f.records_out,
            &f.bytes_in,
            &f.bytes_out,
            &f.skipped,
            &f.dead_lettered,
            &f.restarts,
        ] {
            family.remove(&labels);
        }
        f.in_flight.remove(&labels);
        f.lag.remove(&labels);
        f.last_commit.remove(&labels);
        f.only_state(&labels, None);
        for unit in holder.units.lock().drain(..) {
            f.gaps.remove(&gap_labels(&labels, unit));
        }
        holders.remove(&labels);
    }

    pub(crate) fn thread_leaked(&self) {
        self.leaked_threads.inc();
    }

    /// One that had been given up has ended after all.
    pub(crate) fn leaked_thread_ended(&self) {
        self.leaked_threads.dec();
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

impl Families {
    /// The task is in that state and in no other.
    fn only_state(&self, labels: &TaskLabels, present: Option<State>) {
        let of = |state: State| StateLabels {
            connector: labels.connector.clone(),
            task: labels.task,
            state: state_name(state),
        };
        for state in (1..).map_while(|n| State::try_from(n).ok()) {
            if Some(state) == present {
                self.state.get_or_create(&of(state)).set(1);
            } else {
                self.state.remove(&of(state));
            }
        }
    }
}

fn state_name(state: State) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("STATE_").unwrap_or(name)
}

fn gap_labels(labels: &TaskLabels, unit: &'static str) -> GapLabels {
    let TaskLabels { connector, task } = labels.clone();
    GapLabels {
        connector,
        task,
        unit,
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
    restarts: Counter,
    // There only once they mean something: a 0 would be read as no lag, and as a commit in 1970.
    lag: Arc<OnceLock<Gauge>>,
    last_commit: Arc<OnceLock<Seconds>>,
    units: Arc<Mutex<Vec<&'static str>>>,
    families: Families,
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
        self.lag
            .get_or_init(|| self.families.lag.get_or_create_owned(&self.labels))
            .set(messages as i64);
    }

    pub(crate) fn committed(&self, wall: Duration) {
        self.last_commit
            .get_or_init(|| self.families.last_commit.get_or_create_owned(&self.labels))
            .set(wall.as_secs_f64());
    }

    pub(crate) fn restarted(&self) {
        self.restarts.inc();
    }

    pub(crate) fn state(&self, state: State) {
        self.families.only_state(&self.labels, Some(state));
    }

    pub(crate) fn gap(&self, amount: u64, unit: &'static str) {
        let mut units = self.units.lock();
        if !units.contains(&unit) {
            units.push(unit);
        }
        self.families
            .gaps
            .get_or_create(&gap_labels(&self.labels, unit))
            .inc_by(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_shown_until_it_is_forgotten() {
        let metrics = Metrics::new();
        let task = metrics.task("orders-in", 3);
        task.r#in(5, 100);
        task.gap(7, "bytes");
        task.lag(9);
        task.committed(Duration::from_millis(1500));
        task.state(State::Starting);
        task.state(State::Running);
        let text = metrics.text();
        let labels = "{connector=\"orders-in\",task=\"3\"";
        for line in [
            format!("gantry_agent_records_in_total{labels}}} 5"),
            format!("gantry_agent_records_in_bytes_total{labels}}} 100"),
            format!("gantry_agent_gap_total{labels},unit=\"bytes\"}} 7"),
            format!("gantry_agent_lag_messages{labels}}} 9"),
            format!("gantry_agent_last_commit_timestamp_seconds{labels}}} 1.5"),
            format!("gantry_agent_task_state{labels},state=\"RUNNING\"}} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("STARTING"), "{text}");
        metrics.forget("orders-in", 3);
        assert!(!metrics.text().contains("orders-in"), "{}", metrics.text());
    }

    #[test]
    fn what_is_not_known_is_not_shown_as_zero() {
        let metrics = Metrics::new();
        let _task = metrics.task("a", 0);
        let text = metrics.text();
        assert!(
            !text.contains("lag_messages{") && !text.contains("timestamp_seconds{"),
            "{text}"
        );
    }

    #[test]
    fn a_new_task_of_the_same_name_keeps_its_series() {
        let metrics = Metrics::new();
        let old = metrics.task("a", 0);
        old.r#in(1, 1);
        let new = metrics.task("a", 0);
        metrics.forget("a", 0);
        new.r#in(1, 1);
        assert!(
            metrics
                .text()
                .contains("records_in_total{connector=\"a\",task=\"0\"} 2")
        );
        metrics.forget("a", 0);
        assert!(!metrics.text().contains("\"a\""));
        // One time too many does no harm.
        metrics.forget("a", 0);
    }
}
