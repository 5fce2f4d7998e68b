//! Calls of plugins' code that questions make: on threads of their own, bounded where they do not end.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    metrics::Metrics,
    problem::{Cause, Failure},
};

/// The calls under way, and those that nobody waits for any more and that do not end.
#[derive(Clone)]
pub(crate) struct Calls {
    open: Arc<Mutex<Open>>,
    /// Most of one plugin that do not end.
    most: usize,
    metrics: Metrics,
}

#[derive(Default)]
struct Open {
    next: u64,
    calls: BTreeMap<u64, Call>,
}

struct Call {
    plugin: &'static str,
    hook: &'static str,
    given_up: bool,
}

/// Held by who waits for the call: dropped before there is an answer, it gives the call up.
pub(super) struct Waiting {
    calls: Calls,
    number: u64,
}

/// Held by the thread of the call, until its end.
pub(super) struct Running {
    calls: Calls,
    number: u64,
}

impl Calls {
    pub(crate) fn new(most: usize, metrics: Metrics) -> Self {
        Self {
            open: Arc::default(),
            most,
            metrics,
        }
    }

    /// Begins a call.
    ///
    /// # Errors
    /// If as many of the plugin hang as may: each keeps a thread, and perhaps a processor.
    pub(super) fn begin(
        &self,
        plugin: &'static str,
        hook: &'static str,
    ) -> Result<(Waiting, Running), Failure> {
        let mut open = self.open.lock();
        let hang: Vec<_> = open
            .calls
            .values()
            .filter(|call| call.given_up && call.plugin == plugin)
            .map(|call| call.hook)
            .collect();
        if hang.len() >= self.most {
            let what = format!(
                "{plugin} is asked nothing more on this agent: {} of its calls have not returned ({})",
                hang.len(),
                hang.join(", ")
            );
            let fix = "look for a call that blocks in the plugin, and restart the agent";
            return Err(Failure::new(Cause::External, "PLUGIN_HANGS", what).fix(fix));
        }
        open.next += 1;
        let number = open.next;
        let call = Call {
            plugin,
            hook,
            given_up: false,
        };
        open.calls.insert(number, call);
        let waiting = Waiting {
            calls: self.clone(),
            number,
        };
        let running = Running {
            calls: self.clone(),
            number,
        };
        Ok((waiting, running))
    }
}

impl Waiting {
    /// There is an answer, although its thread may not have ended quite yet.
    pub(super) fn answered(self) {
        self.calls.open.lock().calls.remove(&self.number);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(call) = self.calls.open.lock().calls.get_mut(&self.number) {
            call.given_up = true;
            self.calls.metrics.thread_leaked();
            tracing::warn!(
                plugin = call.plugin,
                hook = call.hook,
                "the hook did not return in time and is given up"
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = self.calls.open.lock().calls.remove(&self.number);
        if ended.is_some_and(|call| call.given_up) {
            self.calls.metrics.leaked_thread_ended();
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_counted_named_and_bounded_for_its_plugin_alone() {
        let metrics = Metrics::new();
        let calls = Calls::new(2, metrics.clone());
        let leaked = || {
            let text = metrics.text();
            let line = text
                .lines()
                .find(|line| line.starts_with("gantry_agent_leaked_threads "));
            line.unwrap().rsplit(' ').next().unwrap().to_owned()
        };
        let begin = |plugin, hook| calls.begin(plugin, hook).map_err(|failure| failure.message);
        // However many are under way at a time, and however many have been.
        for _ in 0..3 {
            let open: Vec<_> = (0..5).map(|_| begin("a", "lag").unwrap()).collect();
            assert_eq!(leaked(), "0");
            for (waiting, running) in open {
                waiting.answered();
                drop(running);
            }
        }
        let mut hang = Vec::new();
        for hook in ["lag", "validate"] {
            let (waiting, running) = begin("a", hook).unwrap();
            drop(waiting);
            hang.push(running);
        }
        assert_eq!(leaked(), "2");
        let refused = begin("a", "lag").err().unwrap();
        assert!(
            refused.contains("2 of its calls have not returned (lag, validate)"),
            "{refused}"
        );
        assert!(begin("b", "lag").is_ok());
        hang.pop();
        assert_eq!(leaked(), "1");
        let (waiting, running) = begin("a", "lag").unwrap();
        // It ends before anybody has lost patience.
        drop(running);
        drop(waiting);
        assert_eq!(leaked(), "1");
    }
}
