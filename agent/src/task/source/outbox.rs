//! Which records go to which queue next. Pure.
//!
//! One batch is in flight per queue, so that what arrives in a queue is in the source's order. Many queues are in flight at
//! once. Records with a key wait at the queue of their key; others go, as whole batches, to whichever queue is free first.

use std::collections::VecDeque;

use gantry_bus::Queue;
use tokio::time::Instant;

use crate::{
    backoff::{Backoff, Jitter},
    task::{
        BUS,
        convert::{Outgoing, fnv1a},
    },
};

/// Batches of records without key are not made smaller than this only to spread them.
const SPREAD: usize = 1000;

/// Records on their way to the queues of a topic.
pub(super) struct Outbox<T> {
    lanes: Vec<Lane<T>>,
    keyless: VecDeque<Outgoing<T>>,
    turn: usize,
    /// Most records in a batch.
    pub(super) most_records: usize,
    /// Most bytes in a batch.
    pub(super) most_bytes: usize,
}

struct Lane<T> {
    queue: Queue,
    /// Batches that have to go first: sent before, or parts of one that was refused.
    again: VecDeque<Vec<Outgoing<T>>>,
    keyed: VecDeque<Outgoing<T>>,
    in_flight: Option<Vec<Outgoing<T>>>,
    rest_until: Option<Instant>,
    backoff: Backoff,
}

/// What holds records back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blocked<'a> {
    /// A queue whose batch is not taken.
    pub(super) queue: &'a Queue,
    /// Records that wait for such a queue while another one is free, because their key belongs there.
    pub(super) behind: usize,
}

impl<T> Outbox<T> {
    pub(super) fn new(queues: Vec<Queue>, most_records: usize, most_bytes: usize, jitter: &Jitter) -> Self {
        let lane = |queue| Lane {
            queue,
            again: VecDeque::new(),
            keyed: VecDeque::new(),
            in_flight: None,
            rest_until: None,
            backoff: Backoff::new(BUS, jitter.clone()),
        };
        let lanes = queues.into_iter().map(lane).collect();
        Self {
            lanes,
            keyless: VecDeque::new(),
            turn: 0,
            most_records: most_records.max(1),
            most_bytes,
        }
    }

    /// The queues.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.lanes.iter().map(|l| &l.queue)
    }

    /// Takes a record in.
    pub(super) fn push(&mut self, record: Outgoing<T>) {
        match &record.key {
            None => self.keyless.push_back(record),
            Some(key) => {
                let lane = (fnv1a(key.as_bytes()) % self.lanes.len() as u64) as usize;
                self.lanes[lane].keyed.push_back(record);
            }
        }
    }

    /// A queue that is free, and the batch that it shall send now. It stays here until [`Outbox::sent`] or [`Outbox::failed`].
    pub(super) fn next(&mut self, now: Instant) -> Option<(usize, &Queue, &[Outgoing<T>])> {
        let free = self.lanes.iter().filter(|l| l.is_free(now)).count();
        let count = self.lanes.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let lane = &mut self.lanes[at];
            if !lane.is_free(now) {
                continue;
            }
            let batch = match lane.again.pop_front() {
                Some(batch) => batch,
                None if !lane.keyed.is_empty() => take(&mut lane.keyed, self.most_records, self.most_bytes),
                None => {
                    let share = (self.keyless.len() / free.max(1))
                        .max(SPREAD)
                        .min(self.most_records);
                    take(&mut self.keyless, share, self.most_bytes)
                }
            };
            if batch.is_empty() {
                continue;
            }
            self.turn = (at + 1) % count;
            lane.rest_until = None;
            let lane = &mut self.lanes[at];
            return Some((at, &lane.queue, lane.in_flight.insert(batch)));
        }
        None
    }

    /// The queue has stored its batch: here it is.
    pub(super) fn sent(&mut self, lane: usize) -> Vec<Outgoing<T>> {
        let lane = &mut self.lanes[lane];
        lane.backoff.reset();
        lane.in_flight.take().unwrap_or_default()
    }

    /// The queue did not take its batch, or it is not known: the same again, before anything else, after a pause.
    pub(super) fn failed(&mut self, lane: usize, now: Instant) {
        let lane = &mut self.lanes[lane];
        if let Some(batch) = lane.in_flight.take() {
            lane.again.push_front(batch);
        }
        lane.rest_until = Some(now + lane.backoff.fail());
    }

    /// The batch was refused because of its content. A batch of one is given back; a larger one is halved and tried again.
    pub(super) fn refused(&mut self, lane: usize) -> Option<Outgoing<T>> {
        let lane = &mut self.lanes[lane];
        let mut batch = lane.in_flight.take()?;
        if batch.len() == 1 {
            return batch.pop();
        }
        let second = batch.split_off(batch.len() / 2);
        lane.again.push_front(second);
        lane.again.push_front(batch);
        None
    }

    /// What holds records back, if a queue has not taken its batch.
    pub(super) fn blocked(&self) -> Option<Blocked<'_>> {
        let is_stuck = |l: &&Lane<T>| l.in_flight.is_some() || !l.again.is_empty();
        let stuck = || self.lanes.iter().filter(is_stuck);
        let worst = stuck().max_by_key(|l| l.keyed.len())?;
        let free = stuck().count() < self.lanes.len();
        let behind = if free {
            stuck().map(|l| l.keyed.len()).sum()
        } else {
            0
        };
        Some(Blocked {
            queue: &worst.queue,
            behind,
        })
    }

    /// When a resting queue may be tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lanes
            .iter()
            .filter(|l| l.in_flight.is_none())
            .filter_map(|l| l.rest_until)
            .min()
    }
}

impl<T> Lane<T> {
    fn is_free(&self, now: Instant) -> bool {
        self.in_flight.is_none() && self.rest_until.is_none_or(|until| until <= now)
    }
}

/// Takes records from the front: at least one if there is any, at most so many and so many bytes.
fn take<T>(from: &mut VecDeque<Outgoing<T>>, most_records: usize, most_bytes: usize) -> Vec<Outgoing<T>> {
    let mut bytes = 0;
    let fits = |r: &&Outgoing<T>| {
        bytes += r.weight;
        bytes <= most_bytes
    };
    let count = from
        .iter()
        .take(most_records)
        .take_while(fits)
        .count()
        .max(1)
        .min(from.len());
    from.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use gantry_connector::Headers;
    use proptest::prelude::*;

    use super::*;

    fn record(n: u64, key: Option<&str>) -> Outgoing<u64> {
        Outgoing {
            ticket: n,
            key: key.map(Into::into),
            tag: None,
            value: None,
            headers: Headers::new(),
            weight: 10,
        }
    }

    fn outbox(queues: u32, most: usize) -> Outbox<u64> {
        let queue = |id| Queue {
            topic: "t".into(),
            broker: "b".into(),
            id,
        };
        Outbox::new((0..queues).map(queue).collect(), most, 1000, &Jitter::new(1))
    }

    fn tickets(batch: &[Outgoing<u64>]) -> Vec<u64> {
        batch.iter().map(|r| r.ticket).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_batch_goes_again_unchanged_and_blocks_only_its_queue() {
        let mut out = outbox(2, 2);
        (0..6).for_each(|n| out.push(record(n, None)));
        let now = Instant::now();
        assert_eq!(
            out.next(now).map(|(l, _, b)| (l, tickets(b))),
            Some((0, vec![0, 1]))
        );
        assert_eq!(
            out.next(now).map(|(l, _, b)| (l, tickets(b))),
            Some((1, vec![2, 3]))
        );
        assert!(out.next(now).is_none());
        out.failed(0, now);
        out.sent(1);
        assert_eq!(
            out.next(now).map(|(l, _, b)| (l, tickets(b))),
            Some((1, vec![4, 5]))
        );
        assert!(out.next(now).is_none());
        let due = out.due().unwrap();
        assert_eq!(
            out.next(due).map(|(l, _, b)| (l, tickets(b))),
            Some((0, vec![0, 1]))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_keys_wait_behind_a_queue_while_another_one_is_free() {
        let blocked = |keys: &[Option<&str>], fail: &[usize]| {
            let (mut out, now) = (outbox(2, 1), Instant::now());
            for (n, key) in (0..).zip(keys) {
                out.push(record(n, *key));
            }
            let mut flying = Vec::new();
            for _ in 0..20 {
                while let Some((lane, ..)) = out.next(now) {
                    flying.push(lane);
                }
                for lane in std::mem::take(&mut flying) {
                    match fail.contains(&lane) {
                        true => out.failed(lane, now),
                        false => drop(out.sent(lane)),
                    }
                }
            }
            out.blocked().map(|b| (b.queue.id, b.behind))
        };
        let lane = (fnv1a(b"k") % 2) as usize;
        let both = [Some("k"), Some("k"), Some("k"), None];
        assert_eq!(blocked(&both, &[]), None);
        assert_eq!(blocked(&both, &[lane]), Some((lane as u32, 2)));
        assert_eq!(blocked(&both, &[0, 1]).map(|(_, behind)| behind), Some(0));
        assert_eq!(blocked(&[None, None], &[0]).map(|(_, behind)| behind), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_batch_is_halved_until_the_record_is_found() {
        let mut out = outbox(1, 8);
        (0..8).for_each(|n| out.push(record(n, None)));
        let (mut sent, mut bad) = (vec![], vec![]);
        while let Some((lane, _, batch)) = out.next(Instant::now()) {
            if tickets(batch).contains(&5) {
                bad.extend(out.refused(lane).map(|r| r.ticket));
            } else {
                sent.extend(tickets(&out.sent(lane)));
            }
        }
        assert_eq!((sent, bad), (vec![0, 1, 2, 3, 4, 6, 7], vec![5]));
    }

    proptest! {
        /// Whatever fails: every record is sent, and those of one key in order.
        #[test]
        fn keys_keep_their_order(keys in proptest::collection::vec(proptest::option::of("[a-d]"), 1..80), faults in proptest::collection::vec(0..4u8, 400), queues in 1..5u32, most in 1..9usize) {
            let mut out = outbox(queues, most);
            keys.iter().enumerate().for_each(|(n, k)| out.push(record(n as u64, k.as_deref())));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let sent = runtime.block_on(async {
                let (mut sent, mut faults, mut flying) = (vec![], faults.into_iter(), VecDeque::new());
                loop {
                    while let Some((lane, _, batch)) = out.next(Instant::now()) {
                        prop_assert!(batch.len() <= most.max(1));
                        flying.push_back(lane);
                    }
                    match flying.pop_front() {
                        Some(lane) if faults.next() == Some(0) => out.failed(lane, Instant::now()),
                        Some(lane) => sent.extend(tickets(&out.sent(lane))),
                        None => match out.due() {
                            Some(due) => tokio::time::sleep_until(due).await,
                            None => break,
                        },
                    }
                }
                Ok(sent)
            })?;
            prop_assert_eq!(sent.len(), keys.len());
            for key in ["a", "b", "c", "d"] {
                let of_key: Vec<_> = sent.iter().filter(|n| keys[**n as usize].as_deref() == Some(key)).collect();
                prop_assert!(of_key.is_sorted(), "{:?}", of_key);
            }
        }
    }
}
