//! The store against the embedded etcd in memory, with a paused clock, and against a real etcd.

mod commits;
mod connectors;
mod fault;
mod golden;
mod guards;
mod keys;
mod leading;
mod mirror;
mod retained;
mod sessions;
mod support;
mod upkeep;
mod world;

/// Runs each test against both.
macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name($crate::store::tests::support::Backend::embedded()).await;
            })+
        }

        mod real_etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::store::tests::support::Backend::real().await).await;
            })+
        }
    };
}
pub(crate) use suite;
