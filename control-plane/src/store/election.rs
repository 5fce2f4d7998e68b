use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Expect, Key, Lease, Mirror, Store, StoreError, codec::FORMAT};
use crate::domain::stored;

/// Pause after a try that failed.
const RETRY: Duration = Duration::from_millis(200);
/// A lost campaign shows in the mirror within this, or the campaign is tried again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who stands for election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Id of the replica.
    pub replica: String,
    /// New with every start of the process. Tells an own win whose answer was lost from another's.
    pub incarnation: String,
    /// Address for users.
    pub address: String,
    /// Random identity that the store gets if this replica is its first leader.
    pub new_store_id: String,
}

/// The right to lead, until `lost` is cancelled.
#[derive(Debug, Clone)]
pub struct Leadership {
    /// `create_revision` of the key `leader`: every write of the leader compares it.
    pub term: i64,
    /// When this replica learned of its election. What it measures itself begins no earlier.
    pub since: Instant,
    /// Cancelled when this replica no longer leads, at the latest two thirds of a lease after it was last
    /// confirmed.
    pub lost: CancellationToken,
}

/// Elects a leader with a key on a lease. Dropping the handle does not end it.
#[derive(Debug, Clone)]
pub struct Election {
    leadership: watch::Receiver<Option<Leadership>>,
}

impl Election {
    /// Stands for election until `stop` is cancelled, then resigns.
    ///
    /// The first leader of a store writes its identity and format before it is announced.
    pub fn spawn(
        store: Store,
        mirror: Mirror,
        lease: Lease,
        candidate: Candidate,
        stop: CancellationToken,
    ) -> Self {
        let (sender, leadership) = watch::channel(None);
        let task = Task {
            store,
            mirror,
            lease,
            candidate,
            leadership: sender,
        };
        tokio::spawn(task.run(stop));
        Self { leadership }
    }

    /// This replica's leadership as of now; None: it does not lead.
    pub fn leadership(&self) -> Option<Leadership> {
        self.leadership.borrow().clone()
    }

    /// Every change of it; `changed()` fails once the task has ended.
    pub fn watch(&self) -> watch::Receiver<Option<Leadership>> {
        self.leadership.clone()
    }

    /// Waits until the task has ended, after `stop`.
    pub async fn ended(&self) {
        let mut leadership = self.watch();
        while leadership.changed().await.is_ok() {}
    }
}

struct Task {
    store: Store,
    mirror: Mirror,
    lease: Lease,
    candidate: Candidate,
    leadership: watch::Sender<Option<Leadership>>,
}

impl Task {
    async fn run(self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.stand() => {}
        }
        let term = self
            .leadership
            .borrow()
            .as_ref()
            .map(|leadership| leadership.term);
        self.step_down("this replica stops");
        if let Some(term) = term {
            self.resign(term).await;
        }
    }

    async fn stand(&self) {
        self.mirror.ready().await;
        loop {
            if self.fresh_lease().await.is_none() {
                return;
            }
            match self.win().await {
                Ok(Some(term)) => self.lead(term).await,
                Ok(None) => self.leader_changed().await,
                Err(error) => {
                    tracing::debug!(%error, "the election is interrupted");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits until the lease may be acted on; None: there will be none any more.
    async fn fresh_lease(&self) -> Option<i64> {
        let mut state = self.lease.watch();
        loop {
            if self.lease.is_fresh() {
                return self.lease.id();
            }
            state.changed().await.ok()?;
        }
    }

    /// Takes the key if nobody has it. Returns the term if it is now this replica's.
    async fn win(&self) -> Result<Option<i64>, StoreError> {
        if let Some(leader) = self.mirror.read(|snapshot| snapshot.leader.clone())
            && leader.incarnation != self.candidate.incarnation
        {
            return Ok(None);
        }
        let Some(lease) = self.fresh_lease().await else {
            return Ok(None);
        };
        let value = stored::Leader {
            format: FORMAT,
            replica: self.candidate.replica.clone(),
            incarnation: self.candidate.incarnation.clone(),
            address: self.candidate.address.clone(),
        };
        let outcome = self
            .store
            .guarded()
            .expect(&Expect::Absent(Key::Leader))
            .put_leased(&Key::Leader, &value, lease)
            .or_read(&Key::Leader)
            .run()
            .await;
        let held = match outcome {
            Ok(outcome) if outcome.applied => return Ok(Some(outcome.revision)),
            Ok(outcome) => {
                let held = outcome.read(0).cloned();
                if held.is_none() {
                    return Ok(None);
                }
                // So that the mirror, which is asked first, is not older than this answer.
                let _ = self
                    .mirror
                    .wait_revision(outcome.revision, Instant::now() + PATIENCE)
                    .await;
                held
            }
            // It may have been won, and may still be: the next turn finds the key with this incarnation.
            Err(error) if error.may_have_been_written() => self.store.get_raw(&Key::Leader).await?.0,
            Err(error) => {
                if error == StoreError::LeaseGone {
                    self.lease.check();
                }
                return Err(error);
            }
        };
        let Some(held) = held else { return Ok(None) };
        let leader = held.decode::<stored::Leader>()?;
        if leader.incarnation != self.candidate.incarnation {
            return Ok(None);
        }
        if held.lease == lease {
            return Ok(Some(leader.create_revision));
        }
        // Left from an earlier lease of this process, which may end at any moment.
        self.resign(leader.create_revision).await;
        Ok(None)
    }

    async fn lead(&self, term: i64) {
        if !self.prepare(term).await {
            return;
        }
        let leadership = Leadership {
            term,
            since: Instant::now(),
            lost: CancellationToken::new(),
        };
        tracing::info!(term, "this replica leads");
        self.leadership.send_replace(Some(leadership));
        let mut revisions = self.mirror.subscribe();
        loop {
            let Some(until) = self.lease.fresh_until() else {
                return self.step_down("the lease has ended or was not confirmed in time");
            };
            if self.deposed(term) {
                return self.step_down("the key has gone");
            }
            tokio::select! {
                biased;
                changed = revisions.changed() => if changed.is_err() {
                    return self.step_down("the mirror has ended");
                },
                () = sleep_until(until) => {}
            }
        }
    }

    /// The mirror has seen the term and its end.
    fn deposed(&self, term: i64) -> bool {
        self.mirror.read(|snapshot| {
            snapshot.revision >= term
                && snapshot
                    .leader
                    .as_ref()
                    .is_none_or(|leader| leader.create_revision != term)
        })
    }

    /// Gives the store its identity if it has none, and waits until the mirror has seen the term. False: lost
    /// before.
    async fn prepare(&self, term: i64) -> bool {
        while self.lease.is_fresh() && !self.deposed(term) {
            let Err(error) = self.found(term).await else {
                return true;
            };
            tracing::debug!(%error, "the new term is not ready");
            sleep(RETRY).await;
        }
        false
    }

    async fn found(&self, term: i64) -> Result<(), StoreError> {
        let lead = Expect::CreateRevision(Key::Leader, term);
        let id = stored::StoreId {
            format: FORMAT,
            id: self.candidate.new_store_id.clone(),
        };
        let format = stored::ClusterFormat {
            format: FORMAT,
            writes: FORMAT,
        };
        // Each is left alone where it exists, which is what their expectations say.
        let identity = self
            .store
            .guarded()
            .expect(&lead)
            .expect(&Expect::Absent(Key::StoreId));
        identity.put(&Key::StoreId, &id).run().await?;
        let formats = self
            .store
            .guarded()
            .expect(&lead)
            .expect(&Expect::Absent(Key::Format));
        let outcome = formats.put(&Key::Format, &format).run().await?;
        self.mirror
            .wait_revision(outcome.revision.max(term), Instant::now() + PATIENCE)
            .await
    }

    fn step_down(&self, why: &str) {
        if let Some(leadership) = self.leadership.send_replace(None) {
            tracing::info!(term = leadership.term, why, "this replica no longer leads");
            leadership.lost.cancel();
        }
    }

    /// Gives the key back, so that another replica need not wait for the lease to end.
    async fn resign(&self, term: i64) {
        let lead = Expect::CreateRevision(Key::Leader, term);
        let given_back = self
            .store
            .guarded()
            .expect(&lead)
            .delete(&Key::Leader)
            .run()
            .await;
        if let Err(error) = given_back {
            tracing::debug!(%error, term, "the key could not be given back; it goes with its lease");
        }
    }

    /// Waits until the leader's key may be free.
    async fn leader_changed(&self) {
        let mut revisions = self.mirror.subscribe();
        loop {
            let held_by_other = self.mirror.read(|snapshot| {
                snapshot
                    .leader
                    .as_ref()
                    .is_some_and(|leader| leader.incarnation != self.candidate.incarnation)
            });
            if !held_by_other {
                // The mirror may be behind the answer that sent us here.
                return sleep(RETRY).await;
            }
            if revisions.changed().await.is_err() {
                return sleep(PATIENCE).await;
            }
        }
    }
}
