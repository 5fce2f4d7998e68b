//! As many instances of the client as the requests in flight need. RocketMQ's takes 512 at a time on a connection and no
//! more, and every idle task has a long poll in flight.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gantry_rocketmq_session::NoAnswer;
use parking_lot::Mutex;

use super::{
    answer::Answer,
    client::{self, Client, Request},
};

/// Requests in flight on one instance. Some room is left for those that were dropped and are not yet forgotten.
const LANE_SEATS: usize = 448;

/// Instances that are added as they are needed, one connection per address each.
pub(super) struct Lanes {
    namesrv: Arc<str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lanes: Vec<Arc<Lane>>,
    shut_down: bool,
}

struct Lane {
    client: Client,
    taken: AtomicUsize,
}

/// A request's place on a lane, given back when dropped.
struct Seat(Arc<Lane>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    pub(super) fn new(namesrv: Arc<str>) -> Self {
        Self {
            namesrv,
            state: Mutex::default(),
        }
    }

    /// [`Client::call`] on the first instance with room.
    pub(super) async fn call(
        &self,
        address: &Arc<str>,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        let Some(seat) = self.seat() else {
            return Err(client::shut_down());
        };
        seat.0.client.call(address, request, timeout).await
    }

    /// Closes all connections. Calls fail from now on.
    pub(super) async fn shutdown(&self) {
        let lanes = {
            let mut state = self.state.lock();
            state.shut_down = true;
            std::mem::take(&mut state.lanes)
        };
        futures::future::join_all(lanes.iter().map(|lane| lane.client.shutdown())).await;
    }

    /// Seats are taken under the lock, so that none is given twice.
    fn seat(&self) -> Option<Seat> {
        let mut state = self.state.lock();
        if state.shut_down {
            return None;
        }
        let free = state
            .lanes
            .iter()
            .find(|lane| lane.taken.load(Ordering::Relaxed) < LANE_SEATS)
            .cloned();
        let lane = free.unwrap_or_else(|| {
            let lane = Arc::new(Lane {
                client: Client::new(self.namesrv.clone()),
                taken: AtomicUsize::new(0),
            });
            state.lanes.push(lane.clone());
            lane
        });
        lane.taken.fetch_add(1, Ordering::Relaxed);
        Some(Seat(lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_added_when_all_seats_are_taken_and_used_again_in_order() {
        let lanes = Lanes::new("127.0.0.1:1".into());
        let mut seats: Vec<Seat> = (0..LANE_SEATS + 1).map(|_| lanes.seat().unwrap()).collect();
        assert_eq!(lanes.state.lock().lanes.len(), 2);
        let first = seats.swap_remove(0).0.clone();
        assert!(Arc::ptr_eq(&lanes.seat().unwrap().0, &first));
        drop(seats);
        assert!(
            lanes
                .state
                .lock()
                .lanes
                .iter()
                .all(|lane| lane.taken.load(Ordering::Relaxed) == 0)
        );
    }
}
