//! What happens when a task fails.

use gantry_client::v1::{RestartPolicy, Task};
use pbjson_types::Duration;

use super::{short, tables::until};

/// A restart policy in words, with what counts where nothing is given.
pub(super) fn policy(given: Option<&RestartPolicy>) -> String {
    let given = given.copied().unwrap_or_default();
    let first = span(given.initial_backoff.as_ref(), 1);
    let longest = span(given.max_backoff.as_ref(), 60);
    let healthy = span(given.healthy_period.as_ref(), 60);
    let most = match given.max_restarts {
        0 => "no limit".to_owned(),
        most => format!("at most {most} in a row"),
    };
    format!("after up to {first}, doubling to {longest}; {most}; counted anew after {healthy} in good health")
}

/// The task that is tried next of all that wait for it.
pub(super) fn next_attempt(tasks: &[Task]) -> Option<String> {
    let time = |t: &&Task| t.next_attempt_time.map(|at| (at.seconds, at.nanos));
    let next = tasks.iter().filter(|t| time(t).is_some()).min_by_key(time)?;
    let when = until(next.next_attempt_time.as_ref());
    Some(format!(
        "task {} {when}, restarts so far: {}",
        short(&next.name),
        next.restarts
    ))
}

fn span(given: Option<&Duration>, unset: i64) -> String {
    let (seconds, millis) = given.map_or((unset, 0), |d| (d.seconds, d.nanos / 1_000_000));
    match (seconds, millis) {
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{seconds}.{millis:03}s"),
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::Timestamp;

    use super::*;

    #[test]
    fn a_policy_is_said_with_its_defaults() {
        assert_eq!(
            policy(None),
            "after up to 1s, doubling to 60s; no limit; counted anew after 60s in good health"
        );
        let given = RestartPolicy {
            initial_backoff: Some(Duration {
                seconds: 0,
                nanos: 250_000_000,
            }),
            max_backoff: Some(Duration {
                seconds: 2,
                nanos: 500_000_000,
            }),
            max_restarts: 3,
            healthy_period: None,
        };
        let said = policy(Some(&given));
        assert!(
            said.starts_with("after up to 250ms, doubling to 2.500s; at most 3 in a row;"),
            "{said}"
        );
    }

    #[test]
    fn the_next_attempt_is_the_earliest() {
        let task = |n: u32, seconds: Option<i64>| Task {
            name: format!("connectors/c/tasks/{n}"),
            next_attempt_time: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
            restarts: 2,
            ..Task::default()
        };
        assert_eq!(next_attempt(&[task(0, None)]), None);
        let next = next_attempt(&[task(0, None), task(1, Some(9)), task(2, Some(5))]);
        assert_eq!(next.as_deref(), Some("task 2 now, restarts so far: 2"));
    }
}
