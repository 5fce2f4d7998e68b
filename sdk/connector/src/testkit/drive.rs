//! Calls of a source as Gantry makes them.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use tokio::time::{Instant, timeout};

use super::Rng;
use crate::{
    Config, ConnectorError, Env, Fields, Polled, Source, SourceContext, SourcePlugin, SourceRecord,
    StartPosition,
};

/// Longest time for records that must come, and for one call.
const PATIENCE: Duration = Duration::from_secs(120);

/// How the calls of `poll` are disturbed.
pub(super) struct Manner {
    pub(super) max_bytes: usize,
    /// Drops pending futures.
    pub(super) interrupt: Option<Rng>,
}

impl Manner {
    pub(super) fn calm() -> Self {
        Self {
            max_bytes: 1 << 20,
            interrupt: None,
        }
    }
}

pub(super) struct TaskOf {
    pub(super) config: Config,
    pub(super) env: Env,
    pub(super) task: u32,
    pub(super) tasks: u32,
}

impl TaskOf {
    pub(super) async fn open(
        &self,
        plugin: &dyn SourcePlugin,
        positions: Vec<StartPosition>,
    ) -> Result<Box<dyn Source>, (Box<dyn Source>, ConnectorError)> {
        let mut source = plugin.create();
        let context = SourceContext {
            config: self.config.clone(),
            positions,
            task: self.task,
            tasks: self.tasks,
            env: self.env.clone(),
        };
        match timeout(PATIENCE, source.open(context)).await {
            Ok(Ok(())) => Ok(source),
            Ok(Err(e)) => Err((source, e)),
            Err(_) => panic!("open has not returned within {PATIENCE:?}"),
        }
    }

    pub(super) async fn must_open(
        &self,
        plugin: &dyn SourcePlugin,
        positions: Vec<StartPosition>,
    ) -> Box<dyn Source> {
        match self.open(plugin, positions).await {
            Ok(source) => source,
            Err((_, e)) => panic!("open failed: {} ({:?})", e.chain(), e.fix_text()),
        }
    }
}

/// Polls until there are at least `wanted` records.
pub(super) async fn read(source: &mut dyn Source, wanted: usize, manner: &mut Manner) -> Vec<SourceRecord> {
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while records.len() < wanted {
        assert!(
            Instant::now() < deadline,
            "{} of {wanted} records within {PATIENCE:?}",
            records.len()
        );
        let polled = poll(source, manner).await;
        assert!(
            !polled.end || records.len() + polled.records.len() >= wanted,
            "ended after {} of {wanted} records",
            records.len()
        );
        let empty = polled.records.is_empty();
        records.extend(polled.records);
        match polled.idle_for.filter(|_| empty) {
            Some(idle) => tokio::time::sleep(idle).await,
            None => tokio::task::yield_now().await,
        }
    }
    records
}

/// Checks that nothing follows.
pub(super) async fn expect_nothing_more(source: &mut dyn Source, manner: &mut Manner) {
    for _ in 0..3 {
        let Some(polled) = try_poll(source, manner, Duration::from_secs(10)).await else {
            continue;
        };
        assert!(
            polled.records.is_empty(),
            "{} records more than there are",
            polled.records.len()
        );
        tokio::time::sleep(polled.idle_for.unwrap_or_default()).await;
    }
}

async fn poll(source: &mut dyn Source, manner: &mut Manner) -> Polled {
    try_poll(source, manner, PATIENCE)
        .await
        .unwrap_or_else(|| panic!("poll has not returned within {PATIENCE:?}"))
}

async fn try_poll(source: &mut dyn Source, manner: &mut Manner, patience: Duration) -> Option<Polled> {
    let mut left = if manner.interrupt.is_some() { 20 } else { 0 };
    loop {
        let mut call = source.poll(manner.max_bytes);
        let interrupted = poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if left > 0 && manner.interrupt.as_mut().is_some_and(|rng| rng.one_in(2)) => {
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        });
        match timeout(patience, interrupted).await {
            Ok(Some(Ok(polled))) => return Some(polled),
            Ok(Some(Err(e))) => panic!("poll failed: {} ({:?})", e.chain(), e.fix_text()),
            Ok(None) => left -= 1,
            Err(_) => return None,
        }
        tokio::task::yield_now().await;
    }
}

/// The position that may be committed after these records, by partition: that of the last one.
pub(super) fn positions_after(records: &[SourceRecord]) -> Vec<(Arc<Fields>, Fields)> {
    let mut positions: Vec<(Arc<Fields>, Fields)> = Vec::new();
    for r in records {
        match positions.iter_mut().find(|(p, _)| *p == r.partition) {
            Some((_, position)) => *position = r.position.clone(),
            None => positions.push((r.partition.clone(), r.position.clone())),
        }
    }
    positions
}

pub(super) fn as_start(positions: &[(Arc<Fields>, Fields)]) -> Vec<StartPosition> {
    let each = positions.iter();
    each.map(|(p, position)| StartPosition {
        partition: (**p).clone(),
        position: position.clone(),
    })
    .collect()
}
