use super::{Action as A, Decision, *};

/// What users read.
const DOC: &str = include_str!("../../../../docs/lifecycle.md");

/// The table of the design, letter by letter: y yes, s same, n no.
const TABLE: [(Row, &str); 6] = [
    (Row::Running, "ysyynny"),
    (Row::Paused, "yysynny"),
    (Row::Failed, "ynnynyy"),
    (Row::Stopping, "synnnyy"),
    (Row::Stopped, "synnyyy"),
    (Row::Deleting, "nnnnnss"),
];

#[test]
fn every_cell() {
    assert_eq!(TABLE.map(|(row, _)| row), Row::ALL);
    for (row, cells) in TABLE {
        assert_eq!(cells.len(), A::ALL.len());
        for (action, cell) in A::ALL.into_iter().zip(cells.chars()) {
            let expected = match cell {
                'y' => Decision::Yes,
                's' => Decision::Same,
                _ => Decision::No,
            };
            assert_eq!(allowed(row, action), expected, "{row:?} {action:?}");
        }
    }
}

/// The table as docs/lifecycle.md has it.
fn documented() -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let name = |action: A| match action {
        A::AlterOffsets => "Alter, reset, undo offsets".to_owned(),
        A::ForceDelete => "Delete with `force`".to_owned(),
        other => format!("{other:?}"),
    };
    let head = ["row".to_owned()].into_iter().chain(A::ALL.map(name)).collect();
    let rule = vec!["---".to_owned(); A::ALL.len() + 1];
    let rows = Row::ALL.map(|r| {
        let label = match r {
            Row::Running => "RUNNING, also DEGRADED, PENDING, UNKNOWN".to_owned(),
            Row::Stopping => "STOPPED is wanted, tasks are still held".to_owned(),
            other => other.as_str().to_owned(),
        };
        let cells = A::ALL.map(|action| match allowed(r, action) {
            Decision::Yes => "yes".to_owned(),
            Decision::Same => "same".to_owned(),
            Decision::No => format!("no: {}", advice(r, action)),
        });
        row([label].into_iter().chain(cells).collect())
    });
    [row(head), row(rule)].into_iter().chain(rows).collect()
}

#[test]
fn the_documentation_has_this_table() {
    let table = documented();
    assert!(
        DOC.contains(&table),
        "docs/lifecycle.md lacks this table; put it there:\n{table}"
    );
}

#[test]
fn rows_are_chosen_by_what_the_user_wants() {
    use TargetState as T;
    for state in [
        State::Running,
        State::Degraded,
        State::Pending,
        State::Unknown,
        State::Stopped,
        State::Paused,
    ] {
        assert_eq!(Row::of(false, T::Running, state, true), Row::Running);
        assert_eq!(Row::of(false, T::Paused, state, true), Row::Paused);
        assert_eq!(Row::of(false, T::Stopped, state, true), Row::Stopping);
        assert_eq!(Row::of(false, T::Stopped, state, false), Row::Stopped);
    }
    assert_eq!(Row::of(false, T::Running, State::Failed, true), Row::Failed);
    assert_eq!(Row::of(false, T::Paused, State::Failed, false), Row::Failed);
    assert_eq!(Row::of(false, T::Stopped, State::Failed, true), Row::Stopping);
    assert_eq!(Row::of(true, T::Running, State::Failed, true), Row::Deleting);
}

#[test]
fn a_refused_action_suggests_one_that_is_allowed() {
    for row in Row::ALL {
        for action in A::ALL {
            if let Some(other) = meant(row, action) {
                assert_eq!(allowed(row, action), Decision::No, "{row:?} {action:?}");
                assert_eq!(allowed(row, other), Decision::Yes, "{row:?} {action:?}");
                let named = advice(row, action).starts_with(&other.as_str().to_lowercase());
                assert!(named, "{row:?} {action:?}: {}", advice(row, action));
            } else if allowed(row, action) == Decision::No {
                assert!(row == Row::Deleting || (row, action) == (Row::Stopping, A::AlterOffsets));
                assert!(
                    advice(row, action).starts_with("wait until"),
                    "{row:?} {action:?}"
                );
            }
        }
    }
}

#[test]
fn connectors_list_what_is_allowed() {
    assert_eq!(
        allowed_actions(Row::Running),
        [Listed::Stop, Listed::Pause, Listed::Restart]
    );
    assert_eq!(
        allowed_actions(Row::Stopped),
        [Listed::Resume, Listed::AlterOffsets, Listed::Delete]
    );
    assert_eq!(allowed_actions(Row::Deleting), []);
}
