//! From the answer to a plan ask to what is stored.

use std::collections::BTreeMap;

use gantry_proto::{
    agent::v1::{BrokerQueues, PlanTasksAnswer, TaskSpec},
    v1::{
        self,
        connector::{Kind, OnDisconnect, Ordering},
        problem::Domain,
    },
};
use prost::Message;

use super::Defaults;
use crate::domain::{
    Snapshot, Uid,
    hash::spec_hash,
    stored,
    time::{seconds, timestamp},
};

const MAX_TASK_BYTES: usize = 64 << 10;
const MAX_RECORD_BYTES: u32 = 4_000_000;
const FIRST_PAUSE_MS: i64 = 5_000;
const LONGEST_PAUSE_MS: i64 = 300_000;
/// An answer that changed nothing is asked for again after so long, if tasks still want another.
const UNCHANGED_PAUSE_MS: i64 = 30_000;

/// What to store for a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Task configs to write as `plans/{uid}/{plan_generation}/{n}` before the pointer. Empty: the split is the old one.
    pub tasks: Vec<stored::PlannedTask>,
    /// The pointer to write last.
    pub pointer: stored::PlanPointer,
}

/// What to store when an agent has answered [`super::Action::PlanTasks`]. `snapshot`: the one the action was planned on.
///
/// # Errors
/// The answer cannot be used (no task, too many, too large): to be treated as a failed ask.
#[allow(
    clippy::too_many_arguments,
    reason = "all that an action names, and its answer"
)]
pub fn split(
    snapshot: &Snapshot,
    connector: &str,
    plan_generation: i64,
    input_hash: &str,
    plugin_version: &str,
    answer: &PlanTasksAnswer,
    defaults: &Defaults,
    now_ms: i64,
) -> Result<Split, v1::Problem> {
    let bad = |message: String| v1::Problem {
        domain: Domain::Task.into(),
        reason: "BAD_SPLIT".into(),
        message,
        ..Default::default()
    };
    let Some(stored) = snapshot.connectors.get(connector) else {
        return Err(bad("the connector is gone".into()));
    };
    let definition = stored.definition.clone().unwrap_or_default();
    let most = definition.tasks_max.max(1) as usize;
    let count = answer.tasks.len();
    if count == 0 || count > most {
        return Err(bad(format!(
            "the plugin split the connector into {count} tasks; it may make 1 to {most}"
        )));
    }
    let key = (definition.plugin.as_str().into(), plugin_version.into());
    let plugin = snapshot.plugins.get(&key).and_then(|r| r.plugin.as_ref());
    let common = TaskSpec {
        total_queues: answer.total_queues,
        route: route(answer),
        ..common(connector, &definition, plugin, plugin_version, defaults)
    };
    let specs: Vec<_> = answer
        .tasks
        .iter()
        .map(|task| TaskSpec {
            tasks: count as u32,
            plan_generation,
            config: task.config.clone(),
            queues: task.queues.clone(),
            ..common.clone()
        })
        .collect();
    if let Some((n, size)) = specs
        .iter()
        .map(Message::encoded_len)
        .enumerate()
        .find(|(_, size)| *size > MAX_TASK_BYTES)
    {
        return Err(bad(format!(
            "the configuration of task {n} has {size} bytes; at most {MAX_TASK_BYTES} are stored"
        )));
    }
    let uid = Uid(stored.uid.as_str().into());
    let pointer = snapshot.pointers.get(&uid);
    let present = pointer.map_or(0, |p| p.plan_generation);
    // Another agent first, if it is asked again: it may see more.
    let asked_before = pointer.map_or(0, |p| p.attempts.wrapping_add(1));
    let unchanged = present > 0 && is_same(snapshot, &uid, present, &specs);
    let pointer = stored::PlanPointer {
        plan_generation: if unchanged { present } else { plan_generation },
        tasks: count as u32,
        generation: stored.generation,
        input_hash: input_hash.to_owned(),
        plugin_version: plugin_version.to_owned(),
        next_attempt_time: unchanged.then(|| timestamp(now_ms.saturating_add(UNCHANGED_PAUSE_MS))),
        attempts: if unchanged { asked_before } else { 0 },
        ..Default::default()
    };
    let planned = |spec: TaskSpec| stored::PlannedTask {
        spec_hash: spec_hash(&spec),
        spec: Some(spec),
        ..Default::default()
    };
    let tasks = if unchanged {
        Vec::new()
    } else {
        specs.into_iter().map(planned).collect()
    };
    Ok(Split { tasks, pointer })
}

/// The queues that the connector reads in all, in short: the highest id tells how many a broker has.
fn route(answer: &PlanTasksAnswer) -> Vec<BrokerQueues> {
    let mut counts = BTreeMap::<(&str, &str), u32>::new();
    for queue in answer.tasks.iter().flat_map(|t| &t.queues) {
        let count = counts.entry((&queue.topic, &queue.broker)).or_default();
        *count = (*count).max(queue.id.saturating_add(1));
    }
    let short = |((topic, broker), queues): ((&str, &str), u32)| BrokerQueues {
        topic: topic.to_owned(),
        broker: broker.to_owned(),
        queues,
    };
    counts.into_iter().map(short).collect()
}

/// The queues of the plan that counts, for a split that only the route may have made stale. Whoever restarts or changes the
/// connector takes the route as it is: none then.
pub fn present_route(snapshot: &Snapshot, connector: &str, input_hash: &str) -> Vec<BrokerQueues> {
    let present = || {
        let uid = Uid(snapshot.connectors.get(connector)?.uid.as_str().into());
        let pointer = snapshot
            .pointers
            .get(&uid)
            .filter(|p| p.input_hash == input_hash)?;
        let first = snapshot.plans.get(&(uid, pointer.plan_generation, 0))?;
        Some(first.spec.as_ref()?.route.clone())
    };
    present().unwrap_or_default()
}

/// Is this what the plan that counts has, but for its generation?
fn is_same(snapshot: &Snapshot, uid: &Uid, generation: i64, specs: &[TaskSpec]) -> bool {
    let present = snapshot
        .plans
        .range((uid.clone(), generation, 0)..=(uid.clone(), generation, u32::MAX));
    let present: Vec<_> = present.filter_map(|(_, task)| task.spec.as_ref()).collect();
    present.len() == specs.len()
        && present.iter().zip(specs).all(|(p, s)| {
            **p == TaskSpec {
                plan_generation: generation,
                ..s.clone()
            }
        })
}

/// What all tasks of a connector share, every default made explicit.
fn common(
    id: &str,
    d: &v1::Connector,
    plugin: Option<&v1::Plugin>,
    plugin_version: &str,
    defaults: &Defaults,
) -> TaskSpec {
    let sink = plugin.map_or(d.topic.is_empty(), |p| p.kind() == Kind::Sink);
    let ordering = if d.ordering() == Ordering::Unspecified {
        Ordering::None
    } else {
        d.ordering()
    };
    let must_stop = ordering == Ordering::Key || plugin.is_some_and(|p| p.exclusive);
    let on_disconnect = match d.on_disconnect() {
        OnDisconnect::Continue if !must_stop => OnDisconnect::Continue,
        _ => OnDisconnect::Stop,
    };
    TaskSpec {
        connector: id.to_owned(),
        plugin: d.plugin.clone(),
        plugin_version: plugin_version.to_owned(),
        namesrv: if d.namesrv.is_empty() {
            defaults.namesrv.clone()
        } else {
            d.namesrv.clone()
        },
        topic: if sink { String::new() } else { d.topic.clone() },
        create_queues: create_queues(d, defaults),
        error_policy: Some(error_policy(d.error_policy.as_ref())),
        restart_policy: Some(restart_policy(d.restart_policy.as_ref())),
        ordering: ordering.into(),
        on_disconnect: on_disconnect.into(),
        start_from: sink.then(|| start_from(d.start_from.as_ref())),
        on_offset_out_of_range: match d.on_offset_out_of_range() {
            v1::OffsetOutOfRange::Unspecified => v1::OffsetOutOfRange::Fail.into(),
            choice => choice.into(),
        },
        consumer_group: match d.consumer_group.as_str() {
            "" if sink => format!("gantry-{id}"),
            group => group.to_owned(),
        },
        max_record_bytes: u32::try_from(d.max_record_bytes)
            .ok()
            .filter(|n| *n > 0)
            .unwrap_or(MAX_RECORD_BYTES),
        drain_timeout: d.drain_timeout.or_else(|| Some(seconds(10))),
        stop_timeout: d.stop_timeout.or_else(|| Some(seconds(30))),
        ..Default::default()
    }
}

pub(super) fn create_queues(d: &v1::Connector, defaults: &Defaults) -> u32 {
    d.topic_create
        .as_ref()
        .map_or(defaults.create_queues, |t| u32::try_from(t.queues).unwrap_or(0))
}

fn error_policy(given: Option<&v1::ErrorPolicy>) -> v1::ErrorPolicy {
    use v1::error_policy::OnRecordError;
    let mut policy = given.cloned().unwrap_or_default();
    if policy.on_record_error() == OnRecordError::Unspecified {
        policy.set_on_record_error(OnRecordError::Fail);
    }
    policy
}

fn restart_policy(given: Option<&v1::RestartPolicy>) -> v1::RestartPolicy {
    let given = given.cloned().unwrap_or_default();
    v1::RestartPolicy {
        initial_backoff: given.initial_backoff.or_else(|| Some(seconds(1))),
        max_backoff: given.max_backoff.or_else(|| Some(seconds(60))),
        max_restarts: given.max_restarts,
        healthy_period: given.healthy_period.or_else(|| Some(seconds(60))),
    }
}

fn start_from(given: Option<&v1::StartFrom>) -> v1::StartFrom {
    use v1::start_from::{Position, Where};
    let place = given.and_then(|s| s.r#where);
    let place = match place {
        Some(Where::Position(p)) if p != i32::from(Position::Unspecified) => Where::Position(p),
        Some(at @ Where::Time(_)) => at,
        _ => Where::Position(Position::Earliest.into()),
    };
    v1::StartFrom { r#where: Some(place) }
}

/// The pointer to store when an ask has failed: with the problem, and when it is tried again.
pub fn failed_ask(
    snapshot: &Snapshot,
    connector: &str,
    problem: v1::Problem,
    now_ms: i64,
) -> stored::PlanPointer {
    let Some(stored) = snapshot.connectors.get(connector) else {
        return stored::PlanPointer::default();
    };
    let pointer = snapshot.pointers.get(&Uid(stored.uid.as_str().into()));
    let present = pointer.map(|p| (*p.value).clone()).unwrap_or_default();
    let again = pointer.is_some_and(|p| p.mod_revision > stored.mod_revision)
        && present.problem_generation == stored.generation;
    let attempts = if again {
        present.attempts.saturating_add(1)
    } else {
        1
    };
    let pause = FIRST_PAUSE_MS
        .saturating_mul(1 << (attempts - 1).min(16))
        .min(LONGEST_PAUSE_MS);
    // What a person has to mend does not mend itself.
    let is_final = problem.domain() == Domain::User;
    stored::PlanPointer {
        problem: Some(v1::Problem {
            time: problem.time.or_else(|| Some(timestamp(now_ms))),
            ..problem
        }),
        problem_generation: stored.generation,
        problem_final: is_final,
        next_attempt_time: (!is_final).then(|| timestamp(now_ms + pause)),
        attempts,
        ..present
    }
}
