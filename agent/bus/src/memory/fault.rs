//! Faults for tests: what goes wrong, where, and for how long.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{BusErrorKind, OutMessage, Queue};

/// The calls of [`crate::Bus`], to say what a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`crate::Bus::route`]
    Route,
    /// [`crate::Bus::create_topic`]
    CreateTopic,
    /// [`crate::Bus::send`]
    Send,
    /// [`crate::Bus::pull`]
    Pull,
    /// [`crate::Bus::bounds`]
    Bounds,
    /// [`crate::Bus::offset_at`]
    OffsetAt,
    /// [`crate::Bus::mirror_offset`]
    MirrorOffset,
}

type MessageFilter = Arc<dyn Fn(&OutMessage) -> bool + Send + Sync>;

#[derive(Clone)]
pub(super) enum Effect {
    /// The call fails and does nothing; of every call if none is named.
    Fail(Option<Call>, BusErrorKind),
    /// The batch is stored and the answer is lost.
    AnswerLost,
    /// The batch is stored and the answer comes later.
    AckDelay(Duration),
    /// A batch with such a message is refused.
    Reject(MessageFilter),
}

/// Something that goes wrong on a [`super::MemoryBus`]. Without a modifier it applies to every queue, each time, until
/// [`super::MemoryBus::heal`] or [`FaultHandle::clear`].
///
/// ```
/// # use gantry_bus::memory::{Fault, MemoryBus};
/// # let bus = MemoryBus::new();
/// bus.fault(Fault::answer_lost().topic("orders").after(2).times(1));
/// ```
#[derive(Clone)]
pub struct Fault {
    pub(super) effect: Effect,
    topic: Option<Box<str>>,
    queue: Option<u32>,
    after: u64,
    times: u64,
    lasting: Option<Duration>,
    chance: Option<(f64, u64)>,
}

impl Fault {
    /// Every call fails `Unavailable` and does nothing; pulls that wait fail at once.
    pub fn unavailable() -> Self {
        Self::new(Effect::Fail(None, BusErrorKind::Unavailable))
    }

    /// Calls of this kind fail with that error and do nothing.
    pub fn fails(call: Call, kind: BusErrorKind) -> Self {
        Self::new(Effect::Fail(Some(call), kind))
    }

    /// Sends fail `Unavailable` and nothing is stored.
    pub fn not_stored() -> Self {
        Self::fails(Call::Send, BusErrorKind::Unavailable)
    }

    /// Sends fail `Unavailable` although the batch was stored: the outcome the caller cannot know.
    pub fn answer_lost() -> Self {
        Self::new(Effect::AnswerLost)
    }

    /// Sends store at once and answer after this time (of tokio's clock).
    pub fn ack_delay(delay: Duration) -> Self {
        Self::new(Effect::AckDelay(delay))
    }

    /// A batch is refused as `MessageRejected` if the condition is true of any message in it.
    pub fn reject(condition: impl Fn(&OutMessage) -> bool + Send + Sync + 'static) -> Self {
        Self::new(Effect::Reject(Arc::new(condition)))
    }

    fn new(effect: Effect) -> Self {
        Self {
            effect,
            topic: None,
            queue: None,
            after: 0,
            times: u64::MAX,
            lasting: None,
            chance: None,
        }
    }

    /// Only calls about this topic.
    pub fn topic(mut self, topic: &str) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Only calls about the queue with this id (of any topic, unless one is named).
    pub fn queue(mut self, id: u32) -> Self {
        self.queue = Some(id);
        self
    }

    /// Spares the first so many calls that it would apply to.
    pub fn after(mut self, calls: u64) -> Self {
        self.after = calls;
        self
    }

    /// Applies so many times and is over then.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Is over after this time (of tokio's clock, counted from [`super::MemoryBus::fault`]).
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasting = Some(time);
        self
    }

    /// Applies to each call with this probability (0 to 1), the same way each time for the same seed.
    pub fn chance(mut self, probability: f64, seed: u64) -> Self {
        self.chance = Some((probability, seed));
        self
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = match &self.effect {
            Effect::Fail(call, kind) => format!("fail {call:?} {kind:?}"),
            Effect::AnswerLost => "answer lost".into(),
            Effect::AckDelay(delay) => format!("ack delay {delay:?}"),
            Effect::Reject(_) => "reject".into(),
        };
        f.debug_struct("Fault")
            .field("effect", &effect)
            .field("topic", &self.topic)
            .field("queue", &self.queue)
            .finish()
    }
}

/// A fault in force: counts what it did and ends it.
#[derive(Clone, Debug)]
pub struct FaultHandle(pub(super) Arc<State>);

impl FaultHandle {
    /// How many calls it has changed so far.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::SeqCst)
    }

    /// Ends it. Other faults stay.
    pub fn clear(&self) {
        self.0.left.store(0, Ordering::SeqCst);
    }
}

#[derive(Debug)]
pub(super) struct State {
    spare: AtomicU64,
    left: AtomicU64,
    hits: AtomicU64,
    draws: AtomicU64,
}

/// A fault with what is left of it.
pub(super) struct Active {
    pub(super) fault: Fault,
    pub(super) state: Arc<State>,
    until: Option<Instant>,
}

/// What a call is about, for [`Active::strikes`].
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) call: Call,
    pub(super) topic: &'a str,
    pub(super) queue: Option<u32>,
    pub(super) batch: &'a [OutMessage],
}

impl<'a> Target<'a> {
    pub(super) fn of_queue(call: Call, queue: &'a Queue) -> Self {
        Self {
            call,
            topic: &queue.topic,
            queue: Some(queue.id),
            batch: &[],
        }
    }
}

impl Active {
    pub(super) fn new(fault: Fault) -> Self {
        let state = State {
            spare: AtomicU64::new(fault.after),
            left: AtomicU64::new(fault.times),
            hits: AtomicU64::new(0),
            draws: AtomicU64::new(0),
        };
        let until = fault.lasting.map(|time| Instant::now() + time);
        Self {
            fault,
            state: Arc::new(state),
            until,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.left.load(Ordering::SeqCst) == 0 || self.until.is_some_and(|end| Instant::now() >= end)
    }

    /// Whether it applies to this call; counts the call if so. Called under the bus's lock.
    pub(super) fn strikes(&self, target: Target<'_>) -> bool {
        if self.is_over() || !self.covers(target) {
            return false;
        }
        if self.state.spare.load(Ordering::SeqCst) > 0 {
            self.state.spare.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if let Some((probability, seed)) = self.fault.chance {
            let draw = self.state.draws.fetch_add(1, Ordering::SeqCst);
            if unit_interval(seed, draw) >= probability {
                return false;
            }
        }
        if self.fault.times != u64::MAX {
            self.state.left.fetch_sub(1, Ordering::SeqCst);
        }
        self.state.hits.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn covers(&self, target: Target<'_>) -> bool {
        let call = match &self.fault.effect {
            Effect::Fail(call, _) => call.is_none_or(|call| call == target.call),
            Effect::AnswerLost | Effect::AckDelay(_) => target.call == Call::Send,
            Effect::Reject(condition) => {
                target.call == Call::Send && target.batch.iter().any(|m| condition(m))
            }
        };
        call && self
            .fault
            .topic
            .as_deref()
            .is_none_or(|topic| topic == target.topic)
            && self.fault.queue.is_none_or(|id| target.queue == Some(id))
    }
}

/// The `draw`-th number of the seed's sequence (SplitMix64), from 0 to 1.
fn unit_interval(seed: u64, draw: u64) -> f64 {
    let mut z = seed.wrapping_add(draw.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
