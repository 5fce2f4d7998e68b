//! Questions about offsets: where partitions shall start, and how much there is to read.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use gantry_bus::{Bus, BusError, Queue};
use gantry_connector::{
    Config, ConnectorError, Domain, Env, Fields, Plugin, SourcePlugin, Start, StartPosition, Value,
};
use gantry_proto::{
    agent::v1::{
        Ask, Lag, MeasureLag, MeasureLagAnswer, PartitionPosition, ResolveOffsets, ResolveOffsetsAnswer,
        ResolvedOffset, ask_answer::Answer,
    },
    v1::{self, OffsetChange, finding, offset_change},
};

use super::Asked;
use crate::{
    problem::{Cause, Failure},
    secrets::Scrubber,
    supervisor::admit::{check, spec_of},
    wire,
};

/// After so many refusals nothing more is looked at: the alteration is refused as a whole.
const REFUSALS: usize = 50;
/// Queues that are asked about at once.
const AT_ONCE: usize = 16;

impl Asked<'_> {
    pub(super) async fn resolve_offsets(
        &self,
        plugin: &Plugin,
        ask: &Ask,
        wanted: &ResolveOffsets,
    ) -> Result<Answer, Failure> {
        let mut starts = Vec::with_capacity(wanted.changes.len());
        for change in &wanted.changes {
            starts.push((wire::fields_in(&change.partition), start_of(change)?));
        }
        let offsets = match plugin {
            Plugin::Sink(_) => {
                let others = wanted.others.as_ref().map(start_of).transpose()?;
                self.queues_start(ask, starts, others).await?
            }
            Plugin::Source(plugin) => self.source_starts(plugin, ask, starts).await?,
        };
        Ok(Answer::ResolveOffsets(ResolveOffsetsAnswer { offsets }))
    }

    pub(super) async fn measure_lag(
        &self,
        plugin: &Plugin,
        ask: &Ask,
        measured: &MeasureLag,
    ) -> Result<Answer, Failure> {
        let lags = match plugin {
            Plugin::Sink(_) => self.queues_lag(ask, &measured.positions).await?,
            Plugin::Source(plugin) => self.source_lag(plugin, ask, &measured.positions).await?,
        };
        Ok(Answer::MeasureLag(MeasureLagAnswer { lags }))
    }

    fn config(&self, plugin: &Plugin, ask: &Ask) -> Result<(Config, Scrubber), Failure> {
        let spec = spec_of(plugin);
        let given = check(&spec, ask.config.as_ref())
            .map_err(|what| Failure::new(Cause::User, "CONFIG_INVALID", what))?;
        Ok(self.secrets.resolve(&spec, &given)?)
    }

    async fn source_starts(
        &self,
        plugin: &Arc<dyn SourcePlugin>,
        ask: &Ask,
        starts: Vec<(Fields, Start)>,
    ) -> Result<Vec<ResolvedOffset>, Failure> {
        let (config, scrubber) = self.config(&Plugin::Source(plugin.clone()), ask)?;
        let (plugin, env) = (plugin.clone(), self.env.clone());
        let clean = scrubber.clone();
        let code = async move {
            let mut resolved = Vec::with_capacity(starts.len());
            let mut refusals = 0;
            for (partition, start) in starts {
                let at = match plugin.start_at(&config, &partition, &start, &env).await {
                    Err(e) if matches!(e.domain(), Domain::Environment | Domain::Task) => return Err(e),
                    at => at.map_err(|e| refusal(&e.chain(), e.fix_text().unwrap_or_default(), &clean)),
                };
                refusals += usize::from(at.is_err());
                resolved.push(answer(&partition, at));
                if refusals == REFUSALS {
                    break;
                }
            }
            Ok(resolved)
        };
        self.on_thread("start_at", &scrubber, code).await
    }

    async fn source_lag(
        &self,
        plugin: &Arc<dyn SourcePlugin>,
        ask: &Ask,
        positions: &[PartitionPosition],
    ) -> Result<Vec<Lag>, Failure> {
        let (config, scrubber) = self.config(&Plugin::Source(plugin.clone()), ask)?;
        let (plugin, env) = (plugin.clone(), self.env.clone());
        let positions: Vec<StartPosition> = positions.iter().map(position_in).collect();
        let code = async move { source_lags(&*plugin, &config, &positions, &env).await };
        self.on_thread("lag", &scrubber, code).await
    }

    /// Every queue of the connector's topics.
    async fn route(&self, bus: &dyn Bus, ask: &Ask) -> Result<BTreeSet<Queue>, Failure> {
        let mut queues = BTreeSet::new();
        for topic in &ask.topics {
            queues.extend(bus.route(topic).await.map_err(|e| Failure::bus(&e))?);
        }
        Ok(queues)
    }

    async fn queues_start(
        &self,
        ask: &Ask,
        starts: Vec<(Fields, Start)>,
        others: Option<Start>,
    ) -> Result<Vec<ResolvedOffset>, Failure> {
        let bus = self.bus(ask);
        let route = self.route(&*bus, ask).await?;
        let mut wanted: Vec<(Fields, Result<Queue, Refused>, Start)> = starts
            .into_iter()
            .map(|(partition, start)| {
                let queue = known_queue(&partition, &route);
                (partition, queue, start)
            })
            .collect();
        if let Some(start) = others {
            let named: BTreeSet<Queue> = wanted.iter().filter_map(|(_, q, _)| q.clone().ok()).collect();
            let rest = route.difference(&named);
            wanted.extend(rest.map(|q| ((*wire::queue_fields(q)).clone(), Ok(q.clone()), start.clone())));
        }
        let asked = wanted.into_iter().map(|(partition, queue, start)| {
            let bus = bus.clone();
            async move {
                let at = match queue {
                    Err(refused) => Err(refused),
                    Ok(queue) => queue_start(&*bus, &queue, &start)
                        .await?
                        .map(|offset| StartPosition {
                            partition: (*wire::queue_fields(&queue)).clone(),
                            position: Fields::new().with("offset", offset),
                        }),
                };
                let at = at.map_err(|(what, fix)| refusal(&what, &fix, &Scrubber::default()));
                Ok::<_, BusError>(answer(&partition, at))
            }
        });
        let resolved: Vec<ResolvedOffset> = stream::iter(asked.collect::<Vec<_>>())
            .buffered(AT_ONCE)
            .try_collect()
            .await
            .map_err(|e| Failure::bus(&e))?;
        Ok(until_enough(resolved))
    }

    async fn queues_lag(&self, ask: &Ask, positions: &[PartitionPosition]) -> Result<Vec<Lag>, Failure> {
        let bus = self.bus(ask);
        let route = self.route(&*bus, ask).await?;
        let asked = positions.iter().map(position_in).map(|at| {
            let (bus, queue) = (bus.clone(), known_queue(&at.partition, &route).ok());
            async move {
                let Some(queue) = queue else {
                    return Ok(Lag::default());
                };
                let Some(start) = queue_position(&at.position) else {
                    return Ok(Lag::default());
                };
                let bounds = bus.bounds(&queue).await?;
                let offset = match start {
                    QueueStart::Offset(offset) => offset,
                    QueueStart::Earliest => bounds.min,
                    QueueStart::Latest => bounds.max,
                    QueueStart::Time(ms) => bus.offset_at(&queue, ms).await?,
                };
                Ok::<_, BusError>(Lag {
                    amount: Some(bounds.max.saturating_sub(offset.max(bounds.min))),
                    unit: "messages".into(),
                })
            }
        });
        stream::iter(asked.collect::<Vec<_>>())
            .buffered(AT_ONCE)
            .try_collect()
            .await
            .map_err(|e| Failure::bus(&e))
    }
}

/// What is wrong, and what to do.
type Refused = (String, String);

/// Where a queue shall start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueStart {
    Offset(u64),
    Earliest,
    Latest,
    Time(i64),
}

/// A change without a place to start would be an error of the control plane.
fn start_of(change: &OffsetChange) -> Result<Start, Failure> {
    use offset_change::{Place, Target};
    let unknown = || {
        let what = "this version of the agent does not know where a partition shall start";
        Failure::new(Cause::System, "UNKNOWN_ASK", what)
    };
    match &change.target {
        None if change.position.is_empty() => Err(unknown()),
        None => Ok(Start::Position(wire::fields_in(&change.position))),
        Some(Target::Place(place)) => match Place::try_from(*place) {
            Ok(Place::Earliest) => Ok(Start::Earliest),
            Ok(Place::Latest) => Ok(Start::Latest),
            Ok(Place::Unspecified) | Err(_) => Err(unknown()),
        },
        Some(Target::Time(time)) => Ok(Start::Time(
            time.seconds
                .saturating_mul(1000)
                .saturating_add(i64::from(time.nanos) / 1_000_000),
        )),
        // Of the store: the control plane knows it alone.
        Some(Target::CommittedTime(_)) => Err(unknown()),
    }
}

fn position_in(at: &PartitionPosition) -> StartPosition {
    StartPosition {
        partition: wire::fields_in(&at.partition),
        position: wire::fields_in(&at.position),
    }
}

async fn source_lags(
    plugin: &dyn SourcePlugin,
    config: &Config,
    positions: &[StartPosition],
    env: &Env,
) -> Result<Vec<Lag>, ConnectorError> {
    let mut lags = Vec::with_capacity(positions.len());
    let mut failed = Vec::new();
    for position in positions {
        // A position that cannot be measured hides none that can.
        let lag = match plugin.lag(config, position, env).await {
            Ok(lag) => lag,
            Err(e) => {
                failed.push(e);
                None
            }
        };
        lags.push(lag.map_or_else(Lag::default, |lag| Lag {
            amount: Some(lag.amount),
            unit: lag.unit.into(),
        }));
    }
    let none = failed.len() == positions.len();
    match failed.into_iter().next() {
        Some(why) if none => Err(why),
        _ => Ok(lags),
    }
}

fn refusal(what: &str, fix: &str, scrubber: &Scrubber) -> v1::Finding {
    v1::Finding {
        severity: finding::Severity::Error as i32,
        field: String::new(),
        message: scrubber.scrub(what),
        fix: scrubber.scrub(fix),
        recommended: Vec::new(),
    }
}

fn answer(partition: &Fields, at: Result<StartPosition, v1::Finding>) -> ResolvedOffset {
    match at {
        Ok(at) => ResolvedOffset {
            partition: wire::fields_out(&at.partition),
            position: wire::fields_out(&at.position),
            refusal: None,
        },
        Err(refusal) => ResolvedOffset {
            partition: wire::fields_out(partition),
            refusal: Some(refusal),
            ..ResolvedOffset::default()
        },
    }
}

fn until_enough(mut resolved: Vec<ResolvedOffset>) -> Vec<ResolvedOffset> {
    let refused = resolved.iter().enumerate().filter(|(_, r)| r.refusal.is_some());
    if let Some(last) = refused.map(|(at, _)| at).nth(REFUSALS - 1) {
        resolved.truncate(last + 1);
    }
    resolved
}

/// The queue that a partition names, if the topics have it.
fn known_queue(partition: &Fields, route: &BTreeSet<Queue>) -> Result<Queue, Refused> {
    let named = (
        partition.str("topic"),
        partition.str("broker"),
        partition.uint("queue").and_then(|id| u32::try_from(id).ok()),
    );
    let (Some(topic), Some(broker), Some(id), 3) = (named.0, named.1, named.2, partition.iter().count())
    else {
        return Err((
            format!("{partition} is not a queue"),
            "a partition of a sink is topic=T,broker=B,queue=N".into(),
        ));
    };
    let queue = Queue {
        topic: topic.into(),
        broker: broker.into(),
        id,
    };
    if route.contains(&queue) {
        return Ok(queue);
    }
    let some: Vec<String> = route.iter().take(8).map(ToString::to_string).collect();
    Err((
        format!("the connector's topics have no queue {queue}"),
        format!("they have {}", some.join(", ")),
    ))
}

/// As tasks read a stored position.
fn queue_position(position: &Fields) -> Option<QueueStart> {
    if position.iter().count() != 1 {
        return None;
    }
    if let Some(time) = position.get("time_ms") {
        return match time {
            Value::Int(ms) => Some(QueueStart::Time(*ms)),
            Value::Uint(ms) => Some(QueueStart::Time(i64::try_from(*ms).unwrap_or(i64::MAX))),
            _ => None,
        };
    }
    match position.str("offset") {
        Some("EARLIEST") => Some(QueueStart::Earliest),
        Some("LATEST") => Some(QueueStart::Latest),
        Some(_) => None,
        None => position.uint("offset").map(QueueStart::Offset),
    }
}

/// The offset to store, which the queue holds now or will give to its next message.
async fn queue_start(bus: &dyn Bus, queue: &Queue, start: &Start) -> Result<Result<u64, Refused>, BusError> {
    let wanted = match start {
        Start::Earliest => QueueStart::Earliest,
        Start::Latest => QueueStart::Latest,
        Start::Time(ms) => QueueStart::Time(*ms),
        Start::Position(position) => match queue_position(position) {
            Some(wanted) => wanted,
            None => {
                let fix = "set offset to a number, EARLIEST or LATEST, or time_ms to milliseconds since 1970";
                return Ok(Err((
                    format!("{position} is not a position in a queue"),
                    fix.into(),
                )));
            }
        },
    };
    let bounds = bus.bounds(queue).await?;
    Ok(match wanted {
        QueueStart::Earliest => Ok(bounds.min),
        QueueStart::Latest => Ok(bounds.max),
        QueueStart::Time(ms) => Ok(bus.offset_at(queue, ms).await?.clamp(bounds.min, bounds.max)),
        QueueStart::Offset(offset) if (bounds.min..=bounds.max).contains(&offset) => Ok(offset),
        QueueStart::Offset(offset) => Err((
            format!("offset {offset} is not in queue {queue}"),
            format!("give one from {} to {}, which is its end", bounds.min, bounds.max),
        )),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gantry_bus::{OutMessage, memory::MemoryBus};
    use gantry_proto::agent::v1::ask::Question;

    use super::*;
    use crate::session::asks::tests::{ask, asks};

    async fn topic(bus: &MemoryBus) -> Vec<Queue> {
        bus.create_topic("t", 2).await.expect("a topic");
        let queues = bus.route("t").await.expect("a route");
        for _ in 0..10 {
            let message = OutMessage {
                body: "x".into(),
                ..OutMessage::default()
            };
            bus.send(&queues[0], vec![message]).await.expect("it is sent");
        }
        queues
    }

    fn to(queue: &Queue, offset: i64) -> OffsetChange {
        OffsetChange {
            partition: wire::fields_out(&wire::queue_fields(queue)),
            position: wire::fields_out(&Fields::new().with("offset", offset)),
            target: None,
        }
    }

    async fn resolved(bus: &MemoryBus, plugin: &str, wanted: ResolveOffsets) -> Vec<ResolvedOffset> {
        let question = ask(plugin, Question::ResolveOffsets(wanted), 0);
        match asks(bus).answer(question, Duration::ZERO).await.answer {
            Some(Answer::ResolveOffsets(answer)) => answer.offsets,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn offsets_of_queues_are_checked_and_looked_up() {
        let bus = MemoryBus::new();
        let queues = topic(&bus).await;
        let elsewhere = Queue {
            id: 7,
            ..queues[0].clone()
        };
        let changes = vec![to(&queues[0], 5), to(&queues[0], 11), to(&elsewhere, 0)];
        let found = resolved(
            &bus,
            "fake-sink",
            ResolveOffsets {
                changes,
                others: None,
            },
        )
        .await;
        assert_eq!(
            wire::fields_in(&found[0].position),
            Fields::new().with("offset", 5u64)
        );
        let refused = |n: usize| {
            found[n]
                .refusal
                .as_ref()
                .map(|r| r.fix.as_str())
                .unwrap_or_default()
        };
        assert!(refused(1).contains("from 0 to 10"), "{found:?}");
        assert!(refused(2).contains("they have t/"), "{found:?}");

        let latest = OffsetChange {
            target: Some(offset_change::Target::Place(offset_change::Place::Latest.into())),
            ..OffsetChange::default()
        };
        let rest = ResolveOffsets {
            changes: vec![to(&queues[1], 0)],
            others: Some(latest),
        };
        let found = resolved(&bus, "fake-sink", rest).await;
        let offsets: Vec<_> = found
            .iter()
            .map(|r| wire::fields_in(&r.position).uint("offset"))
            .collect();
        assert_eq!(offsets, [Some(0), Some(10)], "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn lag_is_what_follows_the_position() {
        let bus = MemoryBus::new();
        let queues = topic(&bus).await;
        let at = |queue: &Queue, position: Fields| PartitionPosition {
            partition: wire::fields_out(&wire::queue_fields(queue)),
            position: wire::fields_out(&position),
        };
        let positions = vec![
            at(&queues[0], Fields::new().with("offset", 4u64)),
            at(&queues[0], Fields::new().with("offset", "EARLIEST")),
            at(&queues[1], Fields::new().with("offset", 0u64)),
            at(&queues[1], Fields::new().with("offset", "x")),
        ];
        let question = ask("fake-sink", Question::MeasureLag(MeasureLag { positions }), 0);
        let answer = asks(&bus).answer(question, Duration::ZERO).await.answer;
        let Some(Answer::MeasureLag(answer)) = answer else {
            panic!("{answer:?}")
        };
        let amounts: Vec<_> = answer.lags.iter().map(|l| l.amount).collect();
        assert_eq!(amounts, [Some(6), Some(10), Some(0), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_can_tell_no_place_refuses_and_accepts_positions() {
        let earliest = OffsetChange {
            partition: wire::fields_out(&Fields::new().with("file", "a")),
            target: Some(offset_change::Target::Place(
                offset_change::Place::Earliest.into(),
            )),
            ..OffsetChange::default()
        };
        let position = OffsetChange {
            position: wire::fields_out(&Fields::new().with("line", 7u64)),
            target: None,
            ..earliest.clone()
        };
        let changes = vec![position, earliest];
        let found = resolved(
            &MemoryBus::new(),
            "fake-source",
            ResolveOffsets {
                changes,
                others: None,
            },
        )
        .await;
        assert_eq!(
            wire::fields_in(&found[0].position),
            Fields::new().with("line", 7u64)
        );
        let refusal = found[1].refusal.as_ref().expect("the fake cannot tell");
        assert!(
            refusal.message.contains("earliest") && !refusal.fix.is_empty(),
            "{refusal:?}"
        );
    }
}
