//! Follows the mirrored ranges: lists them at one revision, watches from the next, and recovers from whatever
//! breaks.
//!
//! The mirrored keys are several ranges (what is not mirrored sorts between them), so one stream carries
//! several watches, and the events of one transaction may come in several messages. Nothing is passed on
//! before every watch is known to have passed the revision: by an event of its own, or by etcd's answer to a
//! request for progress, which since 3.5.8 comes after all events up to its revision. A broken stream
//! therefore goes on from the last revision that was passed on, and what had come in part is thrown away.

use std::{collections::BTreeMap, time::Duration};

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use futures::{
    FutureExt,
    future::{BoxFuture, OptionFuture},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Key, Mirror, Raw, Store, StoreError, read::header_revision};
use crate::domain::stored;

/// How often the mirror is compared with a linearizable read.
const PULSE: Duration = Duration::from_secs(1);
/// A watch that has not shown for so long what a read has shown is dead, and a mirror that was not compared
/// for so long is cut off.
const SILENCE: Duration = Duration::from_secs(3);
/// etcd leaves a request for progress unanswered while a watch catches up: it is asked again after this,
/// doubling.
const ASK_AGAIN: Duration = Duration::from_millis(10);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(160);
/// Pause before a broken stream is opened anew, doubling.
const REOPEN: Duration = Duration::from_millis(20);
const REOPEN_MAX: Duration = Duration::from_secs(1);

/// Why a stream ended.
enum End {
    /// It broke: go on where the mirror is.
    Broken(String),
    /// The events after the mirror's revision are gone: list anew.
    Compacted,
    /// etcd's data is not what it was.
    AnotherStore,
}

/// Never returns.
pub(crate) async fn follow(store: Store, mirror: Mirror) {
    let mut pause = REOPEN;
    let mut another_store = false;
    loop {
        let sent = Instant::now();
        match list(&store).await {
            Ok((revision, values)) => {
                mirror.replace(revision, &values, another_store, sent);
                drop(values);
                pause = REOPEN;
                another_store = follow_from_here(&store, &mirror).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be listed");
                sleep(pause).await;
                pause = (pause * 2).min(REOPEN_MAX);
            }
        }
    }
}

/// Returns when everything has to be listed anew; true: because etcd's data is not what it was.
async fn follow_from_here(store: &Store, mirror: &Mirror) -> bool {
    let mut pause = REOPEN;
    loop {
        let opened = Instant::now();
        let end = match Follower::open(store, mirror).await {
            Ok(mut follower) => follower.run().await,
            Err(error) => End::Broken(error.to_string()),
        };
        match end {
            End::Broken(why) => {
                tracing::info!(why, revision = mirror.revision(), "the watch has broken");
                // A stream that is opened again at once has missed nothing.
                if mirror
                    .connection()
                    .fresh_at
                    .is_none_or(|at| at.elapsed() > SILENCE)
                {
                    mirror.cut();
                }
            }
            End::Compacted => {
                mirror.cut();
                tracing::info!(revision = mirror.revision(), "the watch is behind: listing anew");
                return false;
            }
            End::AnotherStore => {
                mirror.cut();
                tracing::warn!(revision = mirror.revision(), "the store was restored or replaced");
                return true;
            }
        }
        if opened.elapsed() > REOPEN_MAX {
            pause = REOPEN;
        }
        sleep(pause).await;
        pause = (pause * 2).min(REOPEN_MAX);
    }
}

/// All mirrored keys at one revision.
async fn list(store: &Store) -> Result<(i64, Vec<Raw>), StoreError> {
    let mut revision = 0;
    let mut values = Vec::new();
    for (from, to) in store.keys().mirrored_ranges() {
        let page = store.list_range(from, to, revision).await?;
        revision = page.revision;
        values.extend(page.values);
    }
    Ok((revision, values))
}

/// What a linearizable read said.
struct Pulse {
    sent: Instant,
    /// Revision of the mirror when it was sent.
    mirror: i64,
    answer: Result<i64, StoreError>,
}

struct Follower<'a> {
    store: &'a Store,
    mirror: &'a Mirror,
    stream: WatchStream,
    /// By watch id, which counts from 1: everything up to this revision has come.
    passed: Vec<i64>,
    /// What has come but not for every watch, by revision.
    waiting: BTreeMap<i64, Vec<(Key, Option<Raw>)>>,
    /// When to ask for progress again, and the pause after that; None: nothing is missing.
    ask_at: Option<(Instant, Duration)>,
    /// A revision that the store has, and when a read found it; the mirror has to reach it.
    owed: Option<(i64, Instant, Instant)>,
    next_pulse: Instant,
    /// When the last message came.
    heard: Instant,
}

impl<'a> Follower<'a> {
    /// Opens a stream with one watch for each range, from the mirror's revision on.
    async fn open(store: &'a Store, mirror: &'a Mirror) -> Result<Self, StoreError> {
        let seen = mirror.revision();
        let patience = store.settings().call_timeout;
        let silent = |_| StoreError::unknown("no answer to a watch");
        let mut opened: Option<WatchStream> = None;
        let mut passed = Vec::new();
        for (id, (from, to)) in (1..).zip(store.keys().mirrored_ranges()) {
            let options = WatchOptions::new()
                .with_range(to)
                .with_start_revision(seen + 1)
                .with_watch_id(id)
                .with_fragment();
            match &mut opened {
                Some(stream) => stream.watch(from, Some(options)).await?,
                None => {
                    let mut client = store.watch_client();
                    opened = Some(
                        timeout(patience, client.watch(from, Some(options)))
                            .await
                            .map_err(silent)??,
                    );
                }
            }
            passed.push(seen);
        }
        let stream = opened.ok_or_else(|| StoreError::Invalid {
            message: "nothing to watch".to_owned(),
        })?;
        let (waiting, ask_at, owed) = (BTreeMap::new(), None, None);
        let now = Instant::now();
        Ok(Self {
            store,
            mirror,
            stream,
            passed,
            waiting,
            ask_at,
            owed,
            next_pulse: now,
            heard: now,
        })
    }

    async fn run(&mut self) -> End {
        let mut pulse: Option<BoxFuture<'static, Pulse>> = None;
        loop {
            let far = Instant::now() + PULSE;
            let ask_at = self.ask_at.map_or(far, |(at, _)| at);
            let silent_at = self
                .owed
                .map_or(far, |(_, _, found)| found.max(self.heard) + SILENCE);
            tokio::select! {
                biased;
                message = self.stream.message() => match message {
                    Ok(Some(message)) => if let Err(end) = self.take(&message) {
                        return end;
                    },
                    Ok(None) => return End::Broken("etcd closed the stream".to_owned()),
                    Err(error) => return End::Broken(error.to_string()),
                },
                Some(answer) = OptionFuture::from(pulse.as_mut()), if pulse.is_some() => {
                    pulse = None;
                    self.next_pulse = answer.sent + PULSE;
                    if let Err(end) = self.compare(answer) {
                        return end;
                    }
                }
                () = self.mirror.shared.ask.notified() => {
                    self.ask_at.get_or_insert((Instant::now(), ASK_AGAIN));
                }
                () = sleep_until(ask_at), if self.ask_at.is_some() => {
                    if self.stream.request_progress().await.is_err() {
                        return End::Broken("the stream takes no requests".to_owned());
                    }
                    self.ask_at = self.ask_at
                        .map(|(_, pause)| (Instant::now() + pause, (pause * 2).min(ASK_AGAIN_MAX)));
                }
                () = sleep_until(silent_at), if self.owed.is_some() => {
                    return End::Broken("the watch is silent".to_owned());
                }
                () = sleep_until(self.next_pulse), if pulse.is_none() => {
                    pulse = Some(pulse_once(self.store.clone(), self.mirror.revision()).boxed());
                }
            }
        }
    }

    fn take(&mut self, message: &WatchResponse) -> Result<(), End> {
        self.heard = Instant::now();
        if message.canceled() {
            if message.compact_revision() > 0 {
                return Err(End::Compacted);
            }
            return Err(End::Broken(format!(
                "etcd cancelled the watch: {}",
                message.cancel_reason()
            )));
        }
        if message.created() {
            return Ok(());
        }
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let raw = self.store.raw(kv.clone());
            let Some(key) = raw.key.clone() else { continue };
            let revision = raw.mod_revision;
            let value = (event.event_type() == EventType::Put).then_some(raw);
            self.waiting.entry(revision).or_default().push((key, value));
        }
        // Within a message that is cut in pieces a revision may be incomplete.
        if message.0.fragment {
            return Ok(());
        }
        match message.events().last().and_then(|event| event.kv()) {
            Some(last) => {
                let watch = usize::try_from(message.watch_id())
                    .ok()
                    .and_then(|id| id.checked_sub(1));
                if let Some(passed) = watch.and_then(|watch| self.passed.get_mut(watch)) {
                    *passed = last.mod_revision().max(*passed);
                }
            }
            // An answer about progress; only one that is about all watches (id -1) is asked for.
            None if message.watch_id() < 0 => {
                let revision = header_revision(message.header());
                for passed in &mut self.passed {
                    *passed = revision.max(*passed);
                }
            }
            None => {}
        }
        self.pass_on()
    }

    /// Gives the mirror what is complete, and sees to it that the rest will be.
    fn pass_on(&mut self) -> Result<(), End> {
        let complete = self.passed.iter().copied().min().unwrap_or(0);
        let later = self.waiting.split_off(&(complete + 1));
        let ready = std::mem::replace(&mut self.waiting, later);
        let changes: Vec<_> = ready
            .into_iter()
            .flat_map(|(revision, changes)| changes.into_iter().map(move |(key, raw)| (revision, key, raw)))
            .collect();
        if self.is_renamed(&changes) {
            return Err(End::AnotherStore);
        }
        self.mirror.advance(complete, changes);
        if let Some((revision, sent, _)) = self.owed
            && complete >= revision
        {
            self.mirror.fresh(sent);
            self.owed = None;
        }
        if self.waiting.is_empty() && self.owed.is_none() {
            self.ask_at = None;
        } else {
            self.ask_at.get_or_insert((Instant::now(), ASK_AGAIN));
        }
        Ok(())
    }

    /// Somebody gave the store another identity after a restore.
    fn is_renamed(&self, changes: &[(i64, Key, Option<Raw>)]) -> bool {
        let Some(known) = self
            .mirror
            .read(|snapshot| snapshot.store_id.as_ref().map(|id| id.id.clone()))
        else {
            return false;
        };
        changes
            .iter()
            .filter(|(_, key, _)| *key == Key::StoreId)
            .any(|(_, _, raw)| {
                let id = raw.as_ref().and_then(|raw| raw.decode::<stored::StoreId>().ok());
                id.is_none_or(|id| id.id != known)
            })
    }

    fn compare(&mut self, pulse: Pulse) -> Result<(), End> {
        match pulse.answer {
            // Every read since the mirror's revision shows it, unless that revision is of another history.
            Ok(revision) if revision < pulse.mirror => Err(End::AnotherStore),
            Ok(revision) => {
                if self.mirror.revision() >= revision {
                    self.mirror.fresh(pulse.sent);
                } else if self.owed.is_none() {
                    self.owed = Some((revision, pulse.sent, Instant::now()));
                    self.ask_at.get_or_insert((Instant::now(), ASK_AGAIN));
                }
                Ok(())
            }
            // etcd cannot be read: the mirror may be behind, and does not know by how much.
            Err(_) => {
                self.mirror.cut();
                Ok(())
            }
        }
    }
}

async fn pulse_once(store: Store, mirror: i64) -> Pulse {
    let sent = Instant::now();
    let answer = store.get_raw(&Key::StoreId).await.map(|(_, revision)| revision);
    Pulse { sent, mirror, answer }
}
