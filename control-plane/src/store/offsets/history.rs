//! The last positions that a record keeps, so that people can go back to one.

use prost::Message;

use super::MAX_RECORD;
use crate::domain::stored::{OffsetRecord, PastPosition};

/// Positions kept beside the present one.
const KEPT: usize = 10;
/// Positions less than this apart are not both kept: with a commit every second all would be of the last
/// seconds.
const SPACING_S: i64 = 60;

/// Makes the record that replaces `last`: its position joins the history if it is far enough from the one
/// before.
pub(super) fn with_history(mut record: OffsetRecord, last: Option<&OffsetRecord>) -> OffsetRecord {
    if let Some(last) = last {
        record.history.clone_from(&last.history);
        let newest = record.history.last().map(seconds);
        if newest.is_none_or(|newest| last.time.map_or(0, |time| time.seconds) - newest >= SPACING_S) {
            record.history.push(PastPosition {
                position: last.position.clone(),
                time: last.time,
                sink_state: last.sink_state.clone(),
            });
        }
    }
    fit(record)
}

/// Leaves positions out until the record has no more than it keeps, and, oldest first, until it is small enough to be
/// stored.
pub(crate) fn fit(mut record: OffsetRecord) -> OffsetRecord {
    thin(&mut record.history);
    while record.encoded_len() > MAX_RECORD && !record.history.is_empty() {
        record.history.remove(0);
    }
    record
}

/// Leaves out what is closest to its neighbours for its age, so that minutes, hours and days are all
/// represented. The oldest and the newest stay.
fn thin(history: &mut Vec<PastPosition>) {
    while history.len() > KEPT {
        let now = history.last().map_or(0, seconds);
        let crowded = (1..history.len() - 1).min_by_key(|&i| {
            let gap = seconds(&history[i + 1]) - seconds(&history[i - 1]);
            let age = now - seconds(&history[i]);
            // Gap per age, in integers: the newer of two equally spaced positions is worth more.
            (i128::from(gap.max(0)) << 32) / i128::from(age.max(0) + SPACING_S)
        });
        history.remove(crowded.unwrap_or(0));
    }
}

fn seconds(past: &PastPosition) -> i64 {
    past.time.map_or(0, |time| time.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetRecord {
        OffsetRecord {
            time: Some(pbjson_types::Timestamp { seconds, nanos: 0 }),
            ..OffsetRecord::default()
        }
    }

    #[test]
    fn a_week_of_commits_leaves_positions_of_minutes_hours_and_days() {
        let mut record = at(0);
        let week = 7 * 24 * 3600;
        for second in (1..=week).step_by(7) {
            record = with_history(at(second), Some(&record));
            assert!(record.history.len() <= KEPT);
        }
        let ages: Vec<i64> = record.history.iter().map(|past| week - seconds(past)).collect();
        assert!(ages.is_sorted_by(|a, b| a > b), "{ages:?}");
        assert!(ages.iter().any(|age| *age < 5 * 60), "{ages:?}");
        assert!(
            ages.iter().any(|age| (5 * 60..6 * 3600).contains(age)),
            "{ages:?}"
        );
        assert!(
            ages.iter().any(|age| (6 * 3600..3 * 24 * 3600).contains(age)),
            "{ages:?}"
        );
        assert!(ages.iter().any(|age| *age > 3 * 24 * 3600), "{ages:?}");
    }

    #[test]
    fn history_gives_way_to_the_limit_of_a_record() {
        let big = |seconds| {
            let mut record = at(seconds);
            record.sink_state = vec![1; 4096];
            let value = gantry_proto::v1::value::Kind::StringValue("x".repeat(10_000));
            record
                .position
                .insert("p".to_owned(), gantry_proto::v1::Value { kind: Some(value) });
            record
        };
        let mut record = big(0);
        for minute in 1..20 {
            record = with_history(big(minute * 60), Some(&record));
            assert!(record.encoded_len() <= MAX_RECORD);
        }
        assert!(!record.history.is_empty());
    }
}
