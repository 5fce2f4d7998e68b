//! Every guard of the protocol's table is needed: with it a write that rests on something old is refused,
//! without it the same write passes.

mod agents;
mod leader;
mod users;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    support::Backend,
    world::{NAME, World, delete, grant, leader, put, task, uid},
};
use crate::{
    domain::stored,
    store::{Key, Prefix},
};

/// What changes behind the back of a writer.
enum Disturb {
    /// A key is written anew.
    Touch(Key),
    /// A key is removed and written anew.
    Recreate(Key),
    /// Another replica was elected.
    NewLeader,
    /// Another task of the connector gets a grant.
    GrantAppears,
    /// A key appears that was not there.
    Appears(Key),
}

impl Disturb {
    /// What the guard compares.
    fn target(&self) -> String {
        match self {
            Self::Touch(key) | Self::Recreate(key) | Self::Appears(key) => key.to_string(),
            Self::NewLeader => Key::Leader.to_string(),
            Self::GrantAppears => Prefix::Grants(uid()).to_string(),
        }
    }

    async fn happen(&self, world: &World) {
        let store = &world.store;
        match self {
            Self::Touch(key) => world.touch(key).await,
            Self::Recreate(key) => {
                let raw = store.get_raw(key).await.expect("a read").0.expect("a value");
                delete(store, key.clone()).await;
                assert!(
                    store
                        .guarded()
                        .put_bytes(key, raw.value, 0)
                        .run()
                        .await
                        .expect("a write")
                        .applied
                );
            }
            Self::NewLeader => {
                delete(store, Key::Leader).await;
                put(store, Key::Leader, &leader("b")).await;
            }
            Self::GrantAppears => {
                put(store, Key::Grant(task(7)), &grant("i9")).await;
            }
            Self::Appears(key @ Key::Request(..)) => {
                put(store, key.clone(), &stored::RequestRecord::default()).await;
            }
            Self::Appears(key) => {
                put(
                    store,
                    key.clone(),
                    &stored::OffsetsHead {
                        epoch: 1,
                        ..Default::default()
                    },
                )
                .await;
            }
        }
    }
}

static CLUSTERS: AtomicUsize = AtomicUsize::new(0);

async fn world(backend: &Backend, prepare: impl AsyncFn(&mut World)) -> World {
    let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let mut world = World::new(backend.store(&format!("guards-{number}")).await).await;
    prepare(&mut world).await;
    world
}

/// Shows of each guard that `act` passes undisturbed, is refused when its guard is broken, and would pass
/// without it.
async fn needs(
    backend: &Backend,
    what: &str,
    guards: impl IntoIterator<Item = Disturb>,
    prepare: impl AsyncFn(&mut World),
    act: impl AsyncFn(&World) -> bool,
) {
    assert!(
        act(&world(backend, &prepare).await).await,
        "{what}: refused although nothing has changed"
    );
    for disturb in guards {
        let target = disturb.target();
        let guarded = world(backend, &prepare).await;
        disturb.happen(&guarded).await;
        assert!(!act(&guarded).await, "{what}: {target} is not compared");
        let unguarded = world(backend, &prepare).await;
        disturb.happen(&unguarded).await;
        unguarded.store.leave_out(&target);
        assert!(
            act(&unguarded).await,
            "{what}: {target} is refused by something else too, so this shows nothing"
        );
    }
}

async fn as_it_is(_: &mut World) {}

fn spec() -> Disturb {
    Disturb::Touch(Key::Connector(NAME.into()))
}
