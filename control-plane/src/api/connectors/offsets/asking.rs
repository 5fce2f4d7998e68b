//! What only a plugin's code, or the broker, can tell about offsets: asked of an agent in parts that fit a question.

use std::collections::BTreeSet;

use gantry_proto::{
    agent::v1::{
        Lag, MeasureLag, PartitionPosition, ResolveOffsets, ResolvedOffset, ask::Question, ask_answer::Answer,
    },
    error::{Reason, Refusal},
    v1::{Connector, OffsetChange, connector::Kind, problem::Domain},
};
use prost::Message;

use crate::{
    api::{Shared, answers, handles::Unanswered},
    domain::{
        Snapshot, Violation,
        catalog::Catalog,
        offsets::{self, Change, Settled, Wanted},
        stored::OffsetRecord,
    },
};

/// Partitions and bytes of one question. A question and its answer have at most 256 KiB.
const AT_ONCE: usize = 500;
const BYTES_AT_ONCE: usize = 96 << 10;

/// Direction of the connector's plugin; None: no agent has brought it.
pub(super) fn kind(snapshot: &Snapshot, definition: &Connector) -> Option<Kind> {
    let catalog = Catalog::of(snapshot);
    let version = (*catalog.versions(&definition.plugin).first()?).to_owned();
    let entry = catalog.get(&definition.plugin, &version)?;
    Some(entry.plugin.kind())
}

/// Makes positions of all that is asked for, or says of each partition why it cannot start there.
pub(super) async fn settle(
    shared: &Shared,
    snapshot: &Snapshot,
    definition: &Connector,
    present: &[OffsetRecord],
    changes: &[Change],
    others: Option<&Wanted>,
) -> Result<Vec<Settled>, Refusal> {
    let is_sink = kind(snapshot, definition) == Some(Kind::Sink);
    let named: BTreeSet<Vec<u8>> = changes.iter().map(|c| offsets::identity(&c.partition)).collect();
    let rest = || {
        present
            .iter()
            .filter(|r| !named.contains(&offsets::identity(&r.partition)))
    };
    let mut all: Vec<Change> = changes.to_vec();
    match others {
        // A queue that is missing from the route stays as it is: the agent names those that there are.
        Some(Wanted::Ask(_)) if is_sink => {}
        Some(wanted) => {
            if rest().next().is_none() && changes.is_empty() {
                return Err(nothing_committed());
            }
            all.extend(rest().map(|record| other(record, wanted)));
        }
        None => {}
    }
    let mut settled = Vec::with_capacity(all.len());
    let mut violations = Vec::new();
    let mut asked: Vec<(&Change, OffsetChange)> = Vec::new();
    for change in &all {
        match &change.wanted {
            Wanted::Ask(wanted) => asked.push((change, wanted.clone())),
            Wanted::Committed(time) => {
                let record = present.iter().find(|record| record.partition == change.partition);
                let found = record
                    .ok_or_else(|| format!("nothing is committed for {}", offsets::shown(&change.partition)))
                    .and_then(|record| offsets::committed_at(record, *time));
                match found {
                    Ok(found) => settled.push(found),
                    Err(why) => violations.push(Violation {
                        field: format!("{}.committed_time", change.path),
                        message: why,
                        fix: "look at what is remembered: gantry connectors offsets history NAME".into(),
                    }),
                }
            }
        }
    }
    for part in parts(&asked, |(_, wanted)| wanted.encoded_len()) {
        let question = ResolveOffsets {
            changes: part.iter().map(|(_, wanted)| wanted.clone()).collect(),
            others: None,
        };
        let paths: Vec<&str> = part.iter().map(|(change, _)| change.path.as_str()).collect();
        let answered = resolve(shared, snapshot, definition, question).await?;
        take(answered, &paths, &mut settled, &mut violations);
        if !violations.is_empty() {
            break;
        }
    }
    if let Some(Wanted::Ask(wanted)) = others.filter(|_| is_sink && violations.is_empty()) {
        let question = ResolveOffsets {
            changes: Vec::new(),
            others: Some(wanted.clone()),
        };
        let mut queues = resolve(shared, snapshot, definition, question).await?;
        queues.retain(|queue| !named.contains(&offsets::identity(&queue.partition)));
        take(queues, &[], &mut settled, &mut violations);
    }
    if violations.is_empty() {
        Ok(settled)
    } else {
        Err(answers::invalid("the alteration", "", violations))
    }
}

/// How much there is to read after each position. An error says why that is not known.
pub(super) async fn lags(
    shared: &Shared,
    snapshot: &Snapshot,
    definition: &Connector,
    positions: Vec<PartitionPosition>,
) -> Result<Vec<Lag>, String> {
    let mut lags = Vec::with_capacity(positions.len());
    for part in parts(&positions, Message::encoded_len) {
        let question = Question::MeasureLag(MeasureLag {
            positions: part.to_vec(),
        });
        let answer = shared
            .handles
            .ask(snapshot, definition, question, |answer| match answer {
                Answer::MeasureLag(answer) => Some(answer.lags),
                _ => None,
            });
        let mut answer = answer.await.map_err(|unanswered| unanswered.why)?;
        answer.resize(part.len(), Lag::default());
        lags.extend(answer);
    }
    Ok(lags)
}

fn other(record: &OffsetRecord, wanted: &Wanted) -> Change {
    let partition = record.partition.clone();
    Change {
        path: "others".into(),
        wanted: match wanted {
            Wanted::Ask(change) => Wanted::Ask(OffsetChange {
                partition: partition.clone(),
                ..change.clone()
            }),
            Wanted::Committed(time) => Wanted::Committed(*time),
        },
        partition,
    }
}

async fn resolve(
    shared: &Shared,
    snapshot: &Snapshot,
    definition: &Connector,
    question: ResolveOffsets,
) -> Result<Vec<ResolvedOffset>, Refusal> {
    let question = Question::ResolveOffsets(question);
    let answer = shared
        .handles
        .ask(snapshot, definition, question, |answer| match answer {
            Answer::ResolveOffsets(answer) => Some(answer.offsets),
            _ => None,
        });
    answer.await.map_err(unanswered)
}

/// Sorts an answer into positions and refusals. `paths`: where in the request each was asked for.
fn take(
    answered: Vec<ResolvedOffset>,
    paths: &[&str],
    settled: &mut Vec<Settled>,
    violations: &mut Vec<Violation>,
) {
    for (at, resolved) in answered.into_iter().enumerate() {
        match resolved.refusal {
            None => settled.push(Settled {
                partition: resolved.partition,
                position: resolved.position,
                sink_state: None,
            }),
            Some(refusal) => violations.push(Violation {
                field: (*paths.get(at).unwrap_or(&"others")).to_owned(),
                message: format!("{}: {}", offsets::shown(&resolved.partition), refusal.message),
                fix: refusal.fix,
            }),
        }
    }
}

/// Cuts items into parts of a bounded number and size.
fn parts<T>(items: &[T], size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, item) in items.iter().enumerate() {
        let size = size(item);
        if at > from && (at - from == AT_ONCE || bytes + size > BYTES_AT_ONCE) {
            parts.push(&items[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += size;
    }
    if from < items.len() {
        parts.push(&items[from..]);
    }
    parts
}

fn nothing_committed() -> Refusal {
    Refusal::new(
        Reason::InvalidField,
        "nothing is committed, so there is no partition that others could mean",
    )
    .field(
        "others",
        "means the partitions that have a position; name the partitions in changes",
    )
}

fn unanswered(unanswered: Unanswered) -> Refusal {
    match unanswered.problem {
        Some(problem) if problem.domain() == Domain::User => {
            let message = format!("the offsets cannot be checked: {}", problem.message);
            Refusal::new(Reason::InvalidField, message)
                .field("changes", format!("{}; {}", problem.message, problem.fix))
        }
        _ => Refusal::new(
            Reason::NotAnswered,
            format!("no agent could check the offsets: {}", unanswered.why),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_everything_in_order_and_are_bounded() {
        let items: Vec<usize> = (0..1234).collect();
        let cut = parts(&items, |_| 100);
        assert_eq!(
            cut.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [500, 500, 234]
        );
        assert_eq!(cut.concat(), items);
        let large = parts(&items[..10], |_| BYTES_AT_ONCE / 2);
        assert_eq!(large.len(), 5);
        assert_eq!(
            parts(&items[..2], |_| BYTES_AT_ONCE * 2).len(),
            2,
            "one that is too large goes alone"
        );
        assert!(parts(&items[..0], |_| 1).is_empty());
    }
}
