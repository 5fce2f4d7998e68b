//! Questions that only a plugin's code can answer.

mod calls;
mod offsets;
mod validate;

use std::{sync::Arc, time::Duration};

use gantry_bus::{Bus, BusFactory, Endpoint, Queue};
use gantry_connector::{Config, ConnectorError, Env, Plugin};
use gantry_proto::agent::v1::{
    Ask, AskAnswer, BrokerQueues, PlanTasks, PlanTasksAnswer, PlannedTask, ask::Question, ask_answer::Answer,
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

pub(crate) use self::calls::Calls;
use crate::{
    problem::{Cause, Failure},
    secrets::{Scrubber, Secrets},
    supervisor::admit::{Registry, check, spec_of},
    task::{
        route_or_create,
        thread::{Place, guard},
    },
    wire,
};

/// Answers asks.
#[derive(Clone)]
pub(crate) struct Asks {
    pub(crate) registry: Registry,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) env: Env,
    pub(crate) bus: Arc<dyn BusFactory>,
    pub(crate) limit: Duration,
    pub(crate) place: Place,
    pub(crate) calls: Calls,
}

/// The hook that a question waits for, if it waits for one.
type At = Arc<Mutex<Option<&'static str>>>;

/// A question to one plugin under way.
struct Asked<'a> {
    by: &'a Asks,
    plugin: &'static str,
    at: At,
}

impl std::ops::Deref for Asked<'_> {
    type Target = Asks;

    fn deref(&self) -> &Asks {
        self.by
    }
}

impl Asks {
    /// Answers within the time that an answer is of use.
    pub(crate) async fn answer(&self, ask: Ask, wall: Duration) -> AskAnswer {
        let limit = wire::duration_in(ask.timeout.as_ref(), self.limit).min(self.limit);
        let (id, plugin, at) = (ask.id.clone(), ask.plugin.clone(), At::default());
        let answer = match timeout(limit, self.question(ask, at.clone())).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => Answer::Problem(failure.problem(wall)),
            Err(_) => {
                let (what, fix) = match *at.lock() {
                    Some(hook) => (
                        format!("{hook} of {plugin} did not return within {} s", limit.as_secs()),
                        "look for a call in the plugin that blocks or waits for ever, or for an outside system that does not answer",
                    ),
                    None => (
                        format!("RocketMQ did not answer within {} s", limit.as_secs()),
                        "see that RocketMQ runs and is reachable from the agent",
                    ),
                };
                let failure = Failure::new(Cause::External, "ASK_TIMED_OUT", what).fix(fix);
                Answer::Problem(failure.problem(wall))
            }
        };
        AskAnswer {
            id,
            answer: Some(answer),
        }
    }

    async fn question(&self, ask: Ask, at: At) -> Result<Answer, Failure> {
        let plugin = self
            .registry
            .find(&ask.plugin, &ask.plugin_version)
            .cloned()
            .ok_or_else(|| {
                let what = format!(
                    "this agent has no plugin {} in version {}",
                    ask.plugin, ask.plugin_version
                );
                Failure::new(Cause::System, "NO_PLUGIN", what)
            })?;
        let asked = Asked {
            by: self,
            plugin: plugin.info().name,
            at,
        };
        match &ask.question {
            Some(Question::Validate(wanted)) => asked.validate(&plugin, &ask, wanted).await,
            Some(Question::PlanTasks(plan)) => asked.plan_tasks(&plugin, &ask, plan).await,
            Some(Question::ResolveOffsets(wanted)) => asked.resolve_offsets(&plugin, &ask, wanted).await,
            Some(Question::MeasureLag(measured)) => asked.measure_lag(&plugin, &ask, measured).await,
            None => Err(Failure::new(
                Cause::System,
                "UNKNOWN_ASK",
                "this version of the agent does not know the question",
            )),
        }
    }
}

impl Asked<'_> {
    async fn plan_tasks(&self, plugin: &Plugin, ask: &Ask, plan: &PlanTasks) -> Result<Answer, Failure> {
        let tasks_max = plan.tasks_max.max(1);
        let spec = spec_of(plugin);
        let given = check(&spec, ask.config.as_ref())
            .map_err(|what| Failure::new(Cause::User, "CONFIG_INVALID", what))?;
        let bus = self.bus(ask);
        let mut queues = Vec::new();
        for topic in &ask.topics {
            let route = route_or_create(&*bus, topic, ask.create_queues).await;
            queues.extend(with_absent(
                topic,
                route.map_err(|e| Failure::bus(&e))?,
                &plan.route,
            ));
        }
        let answer = match plugin {
            Plugin::Sink(_) => divide(&given, queues, tasks_max),
            Plugin::Source(plugin) => {
                let (config, scrubber) = self.secrets.resolve(&spec, &given)?;
                let (plugin, env) = (plugin.clone(), self.env.clone());
                let code = async move { plugin.plan_tasks(&config, tasks_max, &env).await };
                let mut planned = self.on_thread("plan_tasks", &scrubber, code).await?;
                for config in &mut planned {
                    // What was resolved for the plugin's code must not leave the agent.
                    for param in spec.params.iter().filter(|p| p.secret) {
                        if let Some(reference) = given.get(&param.name) {
                            config.set(param.name.clone(), reference.clone());
                        }
                    }
                    let text = serde_json::Value::Object(config.as_map().clone()).to_string();
                    if scrubber.scrub(&text) != text {
                        let what = "the plugin put a secret into another parameter of a task";
                        return Err(Failure::new(Cause::Task, "PLAN_HOLDS_SECRET", what));
                    }
                }
                if planned.is_empty() {
                    return Err(Failure::new(
                        Cause::Task,
                        "PLAN_EMPTY",
                        "the plugin planned no task",
                    ));
                }
                if planned.len() > tasks_max as usize {
                    let what = format!(
                        "the plugin planned {} tasks where {tasks_max} are allowed",
                        planned.len()
                    );
                    return Err(Failure::new(Cause::Task, "PLAN_TOO_LARGE", what));
                }
                let task = |c: &Config| PlannedTask {
                    config: Some(wire::config_out(c)),
                    queues: Vec::new(),
                };
                PlanTasksAnswer {
                    tasks: planned.iter().map(task).collect(),
                    total_queues: 0,
                }
            }
        };
        Ok(Answer::PlanTasks(answer))
    }

    fn bus(&self, ask: &Ask) -> Arc<dyn Bus> {
        self.bus.bus(&Endpoint {
            namesrv: ask.namesrv.clone(),
        })
    }

    /// Runs code of a plugin on a thread of its own; a panic or an error becomes a failure without secrets. When nobody waits
    /// for it any more it is dropped; code that blocks cannot be, and is counted.
    async fn on_thread<T: Send + 'static>(
        &self,
        hook: &'static str,
        scrubber: &Scrubber,
        code: impl Future<Output = Result<T, ConnectorError>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (mut tell, told) = oneshot::channel();
        let (waiting, running) = self.calls.begin(self.plugin, hook)?;
        let code = async move {
            let _running = running;
            let answer = tokio::select! {
                biased;
                answer = guard(hook, code) => answer,
                () = tell.closed() => return,
            };
            // Nobody waits any more when the time is over.
            let _ = tell.send(answer);
        };
        *self.at.lock() = Some(hook);
        self.place
            .spawn(format!("ask {hook}"), code)
            .map_err(|e| Failure::new(Cause::System, "NO_THREAD", format!("no thread: {e}")))?;
        let answer = told.await;
        waiting.answered();
        *self.at.lock() = None;
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(Failure::connector(hook, &e).scrubbed(scrubber)),
            Err(_) => Err(Failure::new(
                Cause::Task,
                "THREAD_ENDED",
                format!("{hook}: the plugin's thread ended"),
            )),
        }
    }
}

/// A topic's queues: those of its route, and those of the present plan whose broker is missing from it. That broker may only
/// be away, and its queues keep an owner.
fn with_absent(topic: &str, mut route: Vec<Queue>, plan: &[BrokerQueues]) -> Vec<Queue> {
    let is_absent = |known: &&BrokerQueues| {
        known.topic == *topic && !route.iter().any(|queue| *queue.broker == *known.broker)
    };
    let absent: Vec<_> = plan.iter().filter(is_absent).collect();
    for known in absent {
        route.extend((0..known.queues).map(|id| Queue {
            topic: topic.into(),
            broker: known.broker.as_str().into(),
            id,
        }));
    }
    route.sort();
    route
}

/// Deals the queues out to at most so many tasks, one after another.
fn divide(config: &Config, queues: Vec<Queue>, tasks_max: u32) -> PlanTasksAnswer {
    let count = (tasks_max as usize).min(queues.len()).max(1);
    let total_queues = queues.len() as u32;
    let mut tasks = vec![
        PlannedTask {
            config: Some(wire::config_out(config)),
            queues: Vec::new()
        };
        count
    ];
    for (at, queue) in queues.iter().enumerate() {
        tasks[at % count].queues.push(wire::queue_out(queue));
    }
    PlanTasksAnswer { tasks, total_queues }
}

#[cfg(test)]
mod tests {
    use gantry_bus::memory::{MemoryBus, MemoryBusFactory};
    use gantry_proto::v1;

    use super::*;
    use crate::{metrics::Metrics, testing::plugins};

    pub(super) fn asks(bus: &MemoryBus) -> Asks {
        Asks {
            registry: Registry::new(plugins::all()),
            secrets: Arc::new(Secrets::new(vec![]).with_env(|_| Some("s3cret".into()))),
            env: Env::default(),
            bus: Arc::new(MemoryBusFactory::of(bus.clone())),
            limit: Duration::from_secs(10),
            place: Place::Inline,
            calls: Calls::new(2, Metrics::new()),
        }
    }

    pub(super) fn ask(plugin: &str, question: Question, create_queues: u32) -> Ask {
        Ask {
            id: "1".into(),
            plugin: plugin.into(),
            topics: vec!["t".into()],
            create_queues,
            question: Some(question),
            ..Default::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn queues_are_dealt_out_and_the_topic_is_created() {
        let bus = MemoryBus::new();
        let plan = || {
            Question::PlanTasks(PlanTasks {
                tasks_max: 3,
                route: vec![],
            })
        };
        let missing = asks(&bus)
            .answer(ask("fake-sink", plan(), 0), Duration::ZERO)
            .await;
        let Some(Answer::Problem(problem)) = missing.answer else {
            panic!("{missing:?}")
        };
        assert_eq!(
            (problem.domain(), problem.reason.as_str()),
            (v1::problem::Domain::External, "TOPIC_MISSING")
        );
        let planned = asks(&bus)
            .answer(ask("fake-sink", plan(), 4), Duration::ZERO)
            .await;
        let Some(Answer::PlanTasks(planned)) = planned.answer else {
            panic!("{planned:?}")
        };
        let ids: Vec<Vec<_>> = planned
            .tasks
            .iter()
            .map(|t| t.queues.iter().map(|q| q.id).collect())
            .collect();
        assert_eq!(
            (ids, planned.total_queues),
            (vec![vec![0, 3], vec![1], vec![2]], 4)
        );
    }

    #[tokio::test]
    async fn a_call_that_does_not_return_is_named_and_dropped_if_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let until = dir.path().join("go");
        let mut asks = asks(&MemoryBus::new());
        asks.registry = Registry::new(crate::connectors::builtin());
        asks.place = Place::threads().unwrap();
        asks.calls = Calls::new(1, Metrics::new());
        let answered = async |does: &str| {
            let validate = Question::Validate(gantry_proto::agent::v1::Validate::default());
            let mut question = ask("stubborn-source", validate, 1);
            question.timeout = Some(Duration::from_millis(100).into());
            let config = serde_json::json!({ "hook": "validate", "does": does, "until": until });
            question.config = serde_json::from_value(config).ok();
            match asks.answer(question, Duration::ZERO).await.answer {
                Some(Answer::Problem(problem)) => format!("{}: {}", problem.reason, problem.message),
                other => format!("{other:?}"),
            }
        };
        for _ in 0..2 {
            let told = answered("pends").await;
            assert!(
                told.starts_with("ASK_TIMED_OUT: validate of stubborn-source did not return within"),
                "{told}"
            );
            // Its thread ends as soon as it is dropped.
            crate::testing::eventually("it has ended", || {
                asks.calls.begin("stubborn-source", "lag").is_ok()
            })
            .await;
        }
        let told = answered("sleeps").await;
        assert!(told.starts_with("ASK_TIMED_OUT: validate of"), "{told}");
        let told = answered("pends").await;
        assert!(told.starts_with("PLUGIN_HANGS: stubborn-source"), "{told}");
        std::fs::write(&until, "").unwrap();
        crate::testing::eventually("it has ended", || {
            asks.calls.begin("stubborn-source", "lag").is_ok()
        })
        .await;
        let told = answered("sleeps").await;
        assert!(told.contains("Validate"), "{told}");
    }

    #[test]
    fn queues_of_a_broker_that_is_away_keep_an_owner() {
        let queue = |broker: &str, id| Queue {
            topic: "t".into(),
            broker: broker.into(),
            id,
        };
        let known = |topic: &str, broker: &str, queues| BrokerQueues {
            topic: topic.into(),
            broker: broker.into(),
            queues,
        };
        let plan = [known("t", "a", 2), known("t", "b", 4), known("u", "c", 1)];
        // Broker b is there and has fewer than before: its topic has dropped them.
        let all = with_absent("t", vec![queue("b", 0), queue("b", 1)], &plan);
        assert_eq!(all, [queue("a", 0), queue("a", 1), queue("b", 0), queue("b", 1)]);
        assert_eq!(with_absent("t", vec![queue("b", 0)], &[]), [queue("b", 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn secrets_stay_here_when_a_source_is_planned() {
        let bus = MemoryBus::new();
        let plan = Question::PlanTasks(PlanTasks {
            tasks_max: 2,
            route: vec![],
        });
        let mut question = ask("fake-source", plan, 1);
        let config = serde_json::json!({"password": "${env:GANTRY_SECRET_X}"});
        question.config = serde_json::from_value(config).ok();
        let answer = asks(&bus).answer(question, Duration::ZERO).await;
        let Some(Answer::PlanTasks(planned)) = &answer.answer else {
            panic!("{answer:?}")
        };
        assert_eq!(planned.tasks.len(), 1);
        let text = format!("{answer:?}");
        assert!(
            text.contains("${env:GANTRY_SECRET_X}") && !text.contains("s3cret"),
            "{text}"
        );
    }
}
