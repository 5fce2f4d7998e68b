//! Checks of a definition that need the plugin's code, this agent's secrets and files, or a look at RocketMQ.

use gantry_bus::{BusError, BusErrorKind};
use gantry_connector::{Finding, Plugin};
use gantry_proto::{
    agent::v1::{Ask, Validate, ValidateAnswer, ask_answer::Answer},
    v1::{self, finding::Severity},
};

use super::Asked;
use crate::{
    problem::{Cause, Failure},
    supervisor::admit::spec_of,
    wire,
};

impl Asked<'_> {
    pub(super) async fn validate(
        &self,
        plugin: &Plugin,
        ask: &Ask,
        wanted: &Validate,
    ) -> Result<Answer, Failure> {
        let mut findings = self.code(plugin, ask).await?;
        findings.extend(self.topics(plugin, ask, wanted).await);
        Ok(Answer::Validate(ValidateAnswer { findings }))
    }

    /// What the plugin finds, or what keeps it from looking.
    async fn code(&self, plugin: &Plugin, ask: &Ask) -> Result<Vec<v1::Finding>, Failure> {
        let spec = spec_of(plugin);
        let given = match spec.check(&wire::config_in(ask.config.as_ref())) {
            Ok(config) => config,
            Err(violations) => {
                let error = |v: gantry_connector::Violation| {
                    finding(Severity::Error, format!("config.{}", v.param), v.message, v.fix)
                };
                return Ok(violations.into_iter().map(error).collect());
            }
        };
        let (config, scrubber) = match self.secrets.resolve(&spec, &given) {
            Ok(resolved) => resolved,
            Err(unresolved) if unresolved.failure.cause == Cause::User => {
                let field = format!("config.{}", unresolved.param);
                let Failure { message, fix, .. } = unresolved.failure;
                return Ok(vec![finding(Severity::Error, field, message, fix)]);
            }
            Err(unresolved) => return Err(unresolved.failure),
        };
        let (plugin, env) = (plugin.clone(), self.env.clone());
        let code = async move {
            Ok(match &plugin {
                Plugin::Source(p) => p.validate(&config, &env).await,
                Plugin::Sink(p) => p.validate(&config, &env).await,
            })
        };
        let found = self.on_thread("validate", &scrubber, code).await?;
        let clean = |f: Finding| Finding {
            message: scrubber.scrub(&f.message),
            fix: scrubber.scrub(&f.fix),
            ..f
        };
        Ok(found.into_iter().map(clean).map(wire::finding_out).collect())
    }

    /// Topics that are missing and will not be created, and more tasks than a sink has queues for.
    async fn topics(&self, plugin: &Plugin, ask: &Ask, wanted: &Validate) -> Vec<v1::Finding> {
        let bus = self.bus(ask);
        let mut findings = Vec::new();
        let mut queues = Some(0);
        for (i, topic) in ask.topics.iter().enumerate() {
            let field = if ask.topics.len() == 1 {
                "topic".to_owned()
            } else {
                format!("topics[{i}]")
            };
            let here = match bus.route(topic).await {
                Ok(route) => Some(route.len()),
                Err(e) => {
                    findings.extend(trouble(field, topic, ask.create_queues, &e));
                    (e.kind() == BusErrorKind::TopicMissing && ask.create_queues > 0)
                        .then_some(ask.create_queues as usize)
                }
            };
            queues = queues.zip(here).map(|(sum, here)| sum + here);
        }
        if let (Plugin::Sink(_), Some(queues)) = (plugin, queues)
            && wanted.tasks_max as usize > queues
        {
            let message = format!("only {queues} tasks have something to do: the sink reads {queues} queues");
            let fix = format!("set it to {queues}, or give the topic more queues");
            findings.push(finding(Severity::Warning, "tasks_max", message, fix));
        }
        if !wanted.dead_letter_topic.is_empty()
            && let Err(e) = bus.route(&wanted.dead_letter_topic).await
        {
            let field = "error_policy.dead_letter_topic".to_owned();
            findings.extend(trouble(field, &wanted.dead_letter_topic, ask.create_queues, &e));
        }
        findings
    }
}

/// Why a topic has no route. Nothing, if it will be created.
fn trouble(field: String, topic: &str, create: u32, e: &BusError) -> Option<v1::Finding> {
    let severity = match e.kind() {
        BusErrorKind::TopicMissing if create > 0 => return None,
        BusErrorKind::Denied => Severity::Error,
        _ => Severity::Warning,
    };
    let failure = Failure::bus(e);
    let message = format!("topic {topic}: {}", failure.message);
    Some(finding(severity, field, message, failure.fix))
}

fn finding(
    severity: Severity,
    field: impl Into<String>,
    message: impl Into<String>,
    fix: impl Into<String>,
) -> v1::Finding {
    v1::Finding {
        severity: severity.into(),
        field: field.into(),
        message: message.into(),
        fix: fix.into(),
        recommended: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gantry_bus::{Bus, memory::MemoryBus};
    use gantry_proto::agent::v1::ask::Question;
    use serde_json::{Value, json};

    use super::{
        super::tests::{ask, asks},
        *,
    };

    /// What is found: severity, field, message.
    async fn found(
        bus: &MemoryBus,
        plugin: &str,
        config: Value,
        create: u32,
        wanted: Validate,
    ) -> Vec<(Severity, String, String)> {
        let mut question = ask(plugin, Question::Validate(wanted), create);
        question.config = serde_json::from_value(config).ok();
        let answer = asks(bus).answer(question, Duration::ZERO).await;
        let Some(Answer::Validate(found)) = answer.answer else {
            panic!("{answer:?}")
        };
        let findings = found.findings.into_iter();
        findings
            .map(|f| (f.severity(), f.field, format!("{}; {}", f.message, f.fix)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn violations_are_findings_and_unknown_plugins_a_problem() {
        let bus = MemoryBus::new();
        let found = found(
            &bus,
            "fake-source",
            json!({"nonsense": 1}),
            1,
            Validate::default(),
        )
        .await;
        assert_eq!(found[0].1, "config.nonsense");
        let unknown = ask("x", Question::Validate(Validate::default()), 1);
        let answer = asks(&bus).answer(unknown, Duration::ZERO).await;
        assert!(matches!(answer.answer, Some(Answer::Problem(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_cannot_be_resolved_is_named_by_its_parameter() {
        let bus = MemoryBus::new();
        let config = json!({"password": "${env:PATH}"});
        let found = found(&bus, "fake-source", config, 1, Validate::default()).await;
        assert_eq!(
            (found[0].0, found[0].1.as_str()),
            (Severity::Error, "config.password")
        );
        assert!(found[0].2.contains("GANTRY_SECRET_"), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn topics_that_are_missing_and_tasks_without_work_are_warned_of() {
        let bus = MemoryBus::new();
        let wanted = |tasks_max, dead: &str| Validate {
            tasks_max,
            dead_letter_topic: dead.into(),
        };
        let fields = |found: Vec<(Severity, String, String)>| -> Vec<(Severity, String)> {
            found.into_iter().map(|(s, f, _)| (s, f)).collect()
        };
        let warned = |field: &str| (Severity::Warning, field.to_owned());
        let missing = found(&bus, "fake-sink", json!({}), 0, wanted(1, "dead")).await;
        assert!(missing[0].2.contains("topic_create"), "{missing:?}");
        assert_eq!(
            fields(missing),
            [warned("topic"), warned("error_policy.dead_letter_topic")]
        );
        // It will be created.
        let made = found(&bus, "fake-sink", json!({}), 2, wanted(2, "dead")).await;
        assert_eq!(fields(made), []);
        let made = found(&bus, "fake-sink", json!({}), 2, wanted(3, "")).await;
        assert_eq!(fields(made), [warned("tasks_max")]);
        bus.create_topic("t", 4).await.unwrap();
        let there = found(&bus, "fake-sink", json!({}), 0, wanted(5, "t")).await;
        assert!(there[0].2.contains("only 4 tasks"), "{there:?}");
        assert_eq!(fields(there), [warned("tasks_max")]);
        // A source divides its own work.
        let source = found(&bus, "fake-source", json!({}), 0, wanted(5, "")).await;
        assert_eq!(fields(source), []);
    }
}
