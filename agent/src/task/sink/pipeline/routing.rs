//! Whether the topics still have the queues that the sink was split for.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::*;
use crate::task::sink::route::is_stale;

impl Pipeline {
    /// Asks for the routes of the task's topics from time to time. Every topic is some task's.
    pub(super) fn look_at_routes(&mut self) {
        let now = Instant::now();
        if self.routing.is_some() || self.next_route > now || self.ending.is_some() {
            return;
        }
        self.next_route = now + self.ctx.limits.route_interval;
        let topics: BTreeSet<_> = self.ctx.spec.queues.iter().map(|q| q.topic.clone()).collect();
        let bus = self.ctx.bus.clone();
        self.routing = Some(
            async move {
                let asks = topics.iter().map(|topic| bus.route(topic));
                join_all(asks).await
            }
            .boxed(),
        );
    }

    /// Says so when the split no longer fits, and when it fits again.
    pub(super) async fn routed(&mut self, routes: Routes) {
        let is_whole = routes.iter().all(Result::is_ok);
        let route: Vec<Queue> = routes.into_iter().flatten().flatten().collect();
        let is_refused = |(index, _): &(usize, &Queue)| {
            let at = |spot: &Spot| *spot == Spot::Queue(*index);
            self.troubles
                .at(at)
                .is_some_and(|(_, failure)| failure.reason == "QUEUE_MISSING")
        };
        let refused: Vec<_> = self
            .names
            .iter()
            .enumerate()
            .filter(is_refused)
            .map(|(_, queue)| queue.clone())
            .collect();
        let stale = is_stale(&self.ctx.spec.route, &route, &refused);
        // A topic that could not be asked about does not make it fit.
        if stale != self.replan && (stale || is_whole) {
            tracing::info!(
                stale,
                queues = route.len(),
                "whether the split still fits has changed"
            );
            self.replan = stale;
            self.ctx.tell(RunEvent::ReplanWanted(stale)).await;
        }
    }
}
