//! Where a sink starts in each of its queues. The decision is pure.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use gantry_bus::{Bounds, BusError, Queue};
use gantry_connector::Fields;
use gantry_proto::{
    agent::v1::{StoredOffset, TaskSpec},
    v1::{OffsetOutOfRange, RecordCounts, start_from},
};

use tokio::time::Instant;

use super::queue::QueueState;
use crate::{
    problem::{Cause, Failure},
    task::{
        Gap, How, RunContext,
        prepare::{Prepared, retry},
    },
    wire,
};

/// How long queues are waited for that cannot be asked while others can.
const PATIENCE: Duration = Duration::from_secs(10);

/// A start that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Earliest,
    Latest,
    /// The first message stored at or after this time, milliseconds since 1970.
    Time(i64),
    Offset(u64),
}

/// A start that was decided.
#[derive(Debug, PartialEq)]
struct Begin {
    offset: u64,
    /// Messages jumped over; None: the start is where it was left.
    jumped: Option<u64>,
}

/// A stored position: an offset, or a symbol that an operator has set.
fn stored(position: &Fields) -> Option<Wanted> {
    if let Some(time) = position.get("time_ms") {
        return match time {
            gantry_connector::Value::Int(ms) => Some(Wanted::Time(*ms)),
            gantry_connector::Value::Uint(ms) => Some(Wanted::Time(i64::try_from(*ms).unwrap_or(i64::MAX))),
            _ => None,
        };
    }
    match position.str("offset") {
        Some("EARLIEST") => Some(Wanted::Earliest),
        Some("LATEST") => Some(Wanted::Latest),
        Some(_) => None,
        None => position.uint("offset").map(Wanted::Offset),
    }
}

/// Where to start in a queue for which nothing is committed. A queue that appeared after the first plan starts at its first
/// message, so that nothing is lost between its creation and its discovery.
fn uncommitted(spec: &TaskSpec, others_committed: bool) -> Wanted {
    if others_committed && spec.plan_generation > 1 {
        return Wanted::Earliest;
    }
    match spec.start_from.as_ref().and_then(|s| s.r#where.as_ref()) {
        Some(start_from::Where::Position(p)) if *p == start_from::Position::Latest as i32 => Wanted::Latest,
        Some(start_from::Where::Time(t)) => Wanted::Time(t.seconds * 1000 + i64::from(t.nanos) / 1_000_000),
        _ => Wanted::Earliest,
    }
}

/// The decision for an offset that the queue may not hold.
fn within(queue: &Queue, offset: u64, bounds: Bounds, policy: OffsetOutOfRange) -> Result<Begin, Failure> {
    if (bounds.min..=bounds.max).contains(&offset) {
        return Ok(Begin { offset, jumped: None });
    }
    let lost = bounds.min.saturating_sub(offset);
    match policy {
        OffsetOutOfRange::Unspecified | OffsetOutOfRange::Fail => {
            let gap = if lost > 0 {
                format!("{lost} messages below the first one ({}) are gone", bounds.min)
            } else {
                format!(
                    "the queue ends at {}, {} before it",
                    bounds.max,
                    offset - bounds.max
                )
            };
            let message = format!("the committed offset {offset} is not in queue {queue}: {gap}");
            Err(Failure::new(Cause::User, "OFFSET_OUT_OF_RANGE", message)
                .fix("stop the connector and alter its offsets, or set on_offset_out_of_range to EARLIEST or LATEST"))
        }
        OffsetOutOfRange::Earliest => Ok(Begin {
            offset: bounds.min,
            jumped: Some(lost),
        }),
        OffsetOutOfRange::Latest => Ok(Begin {
            offset: bounds.max,
            jumped: Some(bounds.max.saturating_sub(offset)),
        }),
    }
}

/// A queue, what is stored of it, what it holds, and where to begin.
type Found = (Queue, Option<StoredOffset>, Bounds, Result<Begin, Failure>);

/// Finds the start of every queue of the task. Tried until the bus answers; of several queues those are left out, and named,
/// whose broker stays away, so that they hold up no other.
pub(super) async fn starts(
    ctx: &mut RunContext,
    prepared: &Prepared,
) -> Result<(Vec<QueueState>, Vec<Queue>), How> {
    let committed: HashMap<Fields, StoredOffset> = prepared
        .read
        .offsets
        .iter()
        .map(|o| (wire::fields_in(&o.partition), o.clone()))
        .collect();
    let queues: Vec<Queue> = ctx.spec.queues.iter().map(wire::queue_in).collect();
    let (bus, spec) = (ctx.bus.clone(), ctx.spec.clone());
    let patient_until = Instant::now() + PATIENCE;
    let ask = || {
        let asks = queues.clone().into_iter().map(|queue| {
            let (bus, spec) = (bus.clone(), spec.clone());
            let offset = committed.get(&*wire::queue_fields(&queue)).cloned();
            let others = !committed.is_empty();
            async move {
                let wanted = match &offset {
                    Some(o) => stored(&wire::fields_in(&o.position)),
                    None => Some(uncommitted(&spec, others)),
                };
                let bounds = bus.bounds(&queue).await?;
                let begin = match wanted {
                    None => Err(unreadable(&queue)),
                    Some(Wanted::Offset(at)) => within(&queue, at, bounds, spec.on_offset_out_of_range()),
                    Some(Wanted::Earliest) => Ok(Begin {
                        offset: bounds.min,
                        jumped: Some(0),
                    }),
                    Some(Wanted::Latest) => Ok(Begin {
                        offset: bounds.max,
                        jumped: Some(0),
                    }),
                    Some(Wanted::Time(ms)) => Ok(Begin {
                        offset: bus.offset_at(&queue, ms).await?.clamp(bounds.min, bounds.max),
                        jumped: Some(0),
                    }),
                };
                Ok::<_, BusError>((queue, offset, bounds, begin))
            }
        });
        let answers = stream::iter(asks.collect::<Vec<_>>()).buffered(16);
        async move { settle(answers.collect().await, Instant::now() >= patient_until) }
    };
    let found = retry(ctx, ask)
        .await?
        .map_err(|e| How::Failed(Failure::bus(&e)))?;
    let absent = queues
        .iter()
        .filter(|q| !found.iter().any(|(there, ..)| there == *q))
        .cloned()
        .collect();
    let mut states = Vec::with_capacity(found.len());
    for (queue, offset, bounds, begin) in found {
        let begin = begin.map_err(How::Failed)?;
        let mut counts: RecordCounts = offset.as_ref().and_then(|o| o.counts).unwrap_or_default();
        if let Some(jumped) = begin.jumped.filter(|n| *n > 0) {
            counts.skipped += jumped;
            let message = match begin.offset > bounds.min {
                true => format!("{jumped} messages of queue {queue} were jumped over, up to its end"),
                false => format!(
                    "{jumped} messages of queue {queue} were jumped over: they are not in the queue any more"
                ),
            };
            let why = Failure::new(Cause::External, "OFFSET_OUT_OF_RANGE", message);
            let unit = "messages";
            ctx.gap(Gap {
                amount: jumped,
                unit,
                why,
            })
            .await;
        }
        let state = offset
            .as_ref()
            .map(|o| Bytes::from(o.sink_state.clone()))
            .filter(|s| !s.is_empty());
        states.push(QueueState::new(
            queue,
            begin.offset,
            counts,
            state,
            begin.jumped.is_some(),
            bounds,
        ));
    }
    Ok((states, absent))
}

/// What the answers of all queues come to: an error if one can never be read, or nothing can be, or not all can be and it is
/// too early to go on without them.
fn settle(answers: Vec<Result<Found, BusError>>, late: bool) -> Result<Vec<Found>, BusError> {
    let (mut found, mut failed) = (Vec::new(), None::<BusError>);
    for answer in answers {
        match answer {
            Ok(queue) => found.push(queue),
            Err(e) if Failure::bus(&e).cause != Cause::External => return Err(e),
            Err(e) => failed = Some(failed.unwrap_or(e)),
        }
    }
    match failed {
        Some(e) if found.is_empty() || !late => Err(e),
        _ => Ok(found),
    }
}

fn unreadable(queue: &Queue) -> Failure {
    Failure::new(
        Cause::User,
        "OFFSET_UNREADABLE",
        format!("the committed position of queue {queue} cannot be read"),
    )
    .fix("stop the connector and set the offset to a number, EARLIEST, LATEST or time_ms")
}

#[cfg(test)]
mod tests {
    use gantry_proto::v1::StartFrom;

    use super::*;

    #[test]
    fn stored_positions_are_offsets_or_symbols() {
        assert_eq!(
            stored(&Fields::new().with("offset", 7u64)),
            Some(Wanted::Offset(7))
        );
        assert_eq!(
            stored(&Fields::new().with("offset", "EARLIEST")),
            Some(Wanted::Earliest)
        );
        assert_eq!(
            stored(&Fields::new().with("time_ms", 5i64)),
            Some(Wanted::Time(5))
        );
        assert_eq!(stored(&Fields::new().with("offset", "x")), None);
        assert_eq!(stored(&Fields::new()), None);
    }

    #[test]
    fn later_queues_start_at_their_first_message() {
        let latest = start_from::Where::Position(start_from::Position::Latest as i32);
        let mut spec = TaskSpec {
            start_from: Some(StartFrom {
                r#where: Some(latest),
            }),
            ..Default::default()
        };
        assert_eq!(uncommitted(&spec, false), Wanted::Latest);
        spec.plan_generation = 2;
        assert_eq!(uncommitted(&spec, true), Wanted::Earliest);
        assert_eq!(uncommitted(&TaskSpec::default(), false), Wanted::Earliest);
    }

    #[test]
    fn an_offset_out_of_range_fails_with_the_gap_or_jumps_and_counts() {
        let queue = Queue {
            topic: "t".into(),
            broker: "b".into(),
            id: 0,
        };
        let bounds = Bounds { min: 10, max: 20 };
        let go = |offset, policy| {
            within(&queue, offset, bounds, policy)
                .map(|b| (b.offset, b.jumped))
                .map_err(|f| f.message)
        };
        assert_eq!(go(10, OffsetOutOfRange::Fail), Ok((10, None)));
        assert_eq!(go(20, OffsetOutOfRange::Fail), Ok((20, None)));
        assert!(
            go(4, OffsetOutOfRange::Fail)
                .unwrap_err()
                .contains("6 messages below")
        );
        assert!(
            go(25, OffsetOutOfRange::Unspecified)
                .unwrap_err()
                .contains("ends at 20, 5 before")
        );
        assert_eq!(go(4, OffsetOutOfRange::Earliest), Ok((10, Some(6))));
        assert_eq!(go(4, OffsetOutOfRange::Latest), Ok((20, Some(16))));
        assert_eq!(go(25, OffsetOutOfRange::Earliest), Ok((10, Some(0))));
    }

    #[test]
    fn queues_that_stay_away_hold_up_no_other_for_long() {
        let queue = Queue {
            topic: "t".into(),
            broker: "b".into(),
            id: 0,
        };
        let found = || {
            let begin = Begin {
                offset: 0,
                jumped: None,
            };
            Ok((queue.clone(), None, Bounds::default(), Ok(begin)))
        };
        let fails = |kind| Err(BusError::new(kind, "no"));
        let settled = |answers, late| {
            settle(answers, late)
                .map(|found| found.len())
                .map_err(|e| e.kind())
        };
        use gantry_bus::BusErrorKind::{Denied, QueueMissing, Unavailable};
        assert_eq!(settled(vec![found(), found()], false), Ok(2));
        assert_eq!(
            settled(vec![found(), fails(Unavailable)], false),
            Err(Unavailable)
        );
        assert_eq!(settled(vec![found(), fails(QueueMissing)], true), Ok(1));
        assert_eq!(
            settled(vec![fails(Unavailable), fails(QueueMissing)], true),
            Err(Unavailable)
        );
        assert_eq!(
            settled(vec![found(), fails(Unavailable), fails(Denied)], true),
            Err(Denied)
        );
    }
}
