//! What has to happen so that what runs becomes what is wanted. Pure.

use std::collections::BTreeMap;

use crate::key::TaskKey;

/// What a holder should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wish {
    /// Run.
    Run,
    /// Keep the place, move nothing.
    Pause,
    /// Finish, commit, confirm, end.
    Stop,
}

/// A task as it is wanted, or as it was last taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The right to commit.
    pub(crate) fence: i64,
    /// Revision of the want.
    pub(crate) want_revision: i64,
    /// The want.
    pub(crate) wish: Wish,
    /// Another value: restart.
    pub(crate) restart_nonce: String,
    /// Another value: restart with the new specification.
    pub(crate) spec_hash: String,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The right is gone: end without committing and forget it.
    Drop(TaskKey),
    /// A new right: end what ran under an older one without committing, begin anew.
    Adopt(TaskKey),
    /// The want is another; `restart`: what runs must be drained and run anew.
    Change {
        /// The task.
        key: TaskKey,
        /// Whether it must run anew.
        restart: bool,
    },
}

/// The commands, drops first. A wanted task with a lower fence than the one held is ignored.
pub(crate) fn diff(desired: &BTreeMap<TaskKey, Terms>, held: &BTreeMap<TaskKey, Terms>) -> Vec<Command> {
    let gone = held
        .keys()
        .filter(|key| !desired.contains_key(*key))
        .cloned()
        .map(Command::Drop);
    let changed = desired.iter().filter_map(|(key, wanted)| match held.get(key) {
        None => Some(Command::Adopt(key.clone())),
        Some(has) if wanted.fence > has.fence => Some(Command::Adopt(key.clone())),
        Some(has)
            if wanted.fence < has.fence || wanted.want_revision < has.want_revision || wanted == has =>
        {
            None
        }
        Some(has) => Some(Command::Change {
            key: key.clone(),
            restart: wanted.restart_nonce != has.restart_nonce || wanted.spec_hash != has.spec_hash,
        }),
    });
    gone.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms() -> impl Strategy<Value = Terms> {
        let wish = prop_oneof![Just(Wish::Run), Just(Wish::Pause), Just(Wish::Stop)];
        (1..4i64, 1..4i64, wish, "[ab]", "[ab]").prop_map(
            |(fence, want_revision, wish, restart_nonce, spec_hash)| Terms {
                fence,
                want_revision,
                wish,
                restart_nonce,
                spec_hash,
            },
        )
    }

    fn tasks() -> impl Strategy<Value = BTreeMap<TaskKey, Terms>> {
        proptest::collection::btree_map((0..5u32).prop_map(|n| TaskKey::new("c", n)), terms(), 0..5)
    }

    fn apply(desired: &BTreeMap<TaskKey, Terms>, held: &mut BTreeMap<TaskKey, Terms>) {
        for command in diff(desired, held) {
            match command {
                Command::Drop(key) => drop(held.remove(&key)),
                Command::Adopt(key) | Command::Change { key, .. } => {
                    drop(held.insert(key.clone(), desired[&key].clone()))
                }
            }
        }
    }

    proptest! {
        #[test]
        fn applying_twice_changes_nothing(desired in tasks(), mut held in tasks()) {
            apply(&desired, &mut held);
            prop_assert_eq!(diff(&desired, &held), vec![]);
        }

        #[test]
        fn exactly_the_wanted_tasks_are_held_and_no_fence_goes_back(desired in tasks(), before in tasks()) {
            let mut held = before.clone();
            apply(&desired, &mut held);
            prop_assert!(held.keys().eq(desired.keys()));
            for (key, has) in &held {
                let floor = before.get(key).map_or(0, |b| b.fence);
                prop_assert_eq!(has.fence, desired[key].fence.max(floor));
            }
        }
    }

    #[test]
    fn a_nonce_or_another_specification_restarts_and_another_wish_does_not() {
        let key = TaskKey::new("c", 0);
        let has = Terms {
            fence: 1,
            want_revision: 1,
            wish: Wish::Run,
            restart_nonce: "a".into(),
            spec_hash: "h".into(),
        };
        let held = BTreeMap::from([(key.clone(), has.clone())]);
        let change = |wanted: Terms| diff(&BTreeMap::from([(key.clone(), wanted)]), &held);
        let newer = Terms {
            want_revision: 2,
            ..has
        };
        let expect = |restart| {
            vec![Command::Change {
                key: key.clone(),
                restart,
            }]
        };
        assert_eq!(
            change(Terms {
                wish: Wish::Pause,
                ..newer.clone()
            }),
            expect(false)
        );
        assert_eq!(
            change(Terms {
                restart_nonce: "b".into(),
                ..newer.clone()
            }),
            expect(true)
        );
        assert_eq!(
            change(Terms {
                spec_hash: "i".into(),
                ..newer.clone()
            }),
            expect(true)
        );
        assert_eq!(
            change(Terms { fence: 2, ..newer }),
            vec![Command::Adopt(key.clone())]
        );
    }
}
