//! Watches: all that exists, `synced`, then every latest state; resumable while the history reaches back.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gantry_proto::error::{Reason, Refusal};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    Shared, answers,
    views::{Changed, ViewSet},
};

/// A client that reads nothing for so long is cut off; it has its token.
const SLOW_READER: Duration = Duration::from_secs(30);
/// A replica that is behind a token waits so long.
const BEHIND: Duration = Duration::from_secs(5);
/// Without changes a token is sent this often.
const PROGRESS: Duration = Duration::from_secs(10);
const ANOTHER_STORE: &str = "the store was restored or replaced";

/// One kind of resource that can be watched.
pub(super) trait Watched: Clone + Send + Sync + 'static {
    /// The key it is known by.
    type Key: Ord + Clone + Send + Sync;
    /// The resource.
    type Resource: Send + Sync;
    /// Message of the stream.
    type Message: Send + 'static;

    /// What the watcher may see, by key.
    fn select(&self, set: &ViewSet) -> BTreeMap<Self::Key, Arc<Self::Resource>>;
    /// The key of a change, if it is of this kind and of interest.
    fn key(&self, changed: &Changed) -> Option<Self::Key>;
    /// A message of the stream. An empty token: the watch cannot be resumed after it.
    fn message(&self, news: News<'_, Self>, resume_token: String) -> Self::Message;
}

/// What a watcher is told.
pub(super) enum News<'a, W: Watched> {
    /// This is its latest state.
    Upserted(&'a Arc<W::Resource>),
    /// It is gone, or no longer of interest.
    Removed(&'a W::Key),
    /// All that exists was told.
    Synced,
    /// Nothing has happened, up to the token.
    Progress,
}

pub(super) type Stream<M> = ReceiverStream<Result<M, Status>>;

/// Opens a watch that has everything which was acknowledged before: whoever was told of a write sees it. Errors come before
/// the stream begins.
pub(super) async fn open<W: Watched>(
    shared: &Shared,
    watched: W,
    resume: &str,
) -> Result<Stream<W::Message>, Refusal> {
    let present = shared.current().await?.revision;
    let views = &shared.views;
    let mut sets = views.subscribe();
    let from = match resume {
        "" => {
            wait_for(&mut sets, present).await?;
            None
        }
        token => {
            let (store_id, revision) = read_token(token)?;
            if wait_for(&mut sets, present).await?.store_id != store_id {
                return Err(expired(ANOTHER_STORE));
            }
            wait_for(&mut sets, revision).await?;
            let changes = views
                .changes_after(revision)
                .ok_or_else(|| expired("history no longer reaches back to it"))?;
            Some(changes)
        }
    };
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let _ = run(sets, watched, from, &sender).await;
    });
    Ok(ReceiverStream::new(receiver))
}

async fn wait_for(
    sets: &mut tokio::sync::watch::Receiver<Arc<ViewSet>>,
    revision: i64,
) -> Result<Arc<ViewSet>, Refusal> {
    let reached = timeout(BEHIND, sets.wait_for(|set| set.revision >= revision)).await;
    match reached {
        Ok(Ok(set)) => Ok(set.clone()),
        Ok(Err(_)) => Err(Refusal::new(Reason::ShuttingDown, "this replica is stopping")),
        Err(_) => Err(answers::replica_behind()),
    }
}

/// Ends when the client has gone, reads nothing, or the replica stops.
async fn run<W: Watched>(
    mut sets: tokio::sync::watch::Receiver<Arc<ViewSet>>,
    watched: W,
    resumed: Option<Vec<Changed>>,
    sender: &mpsc::Sender<Result<W::Message, Status>>,
) -> Result<(), Gone> {
    let mut set = sets.borrow_and_update().clone();
    let mut shown = watched.select(&set);
    let token = write_token(&set);
    match resumed {
        None => {
            for resource in shown.values() {
                send(sender, watched.message(News::Upserted(resource), String::new())).await?;
            }
        }
        Some(changes) => {
            let keys: BTreeSet<W::Key> = changes.iter().filter_map(|c| watched.key(c)).collect();
            for key in keys {
                let message = match shown.get(&key) {
                    Some(resource) => watched.message(News::Upserted(resource), String::new()),
                    None => watched.message(News::Removed(&key), String::new()),
                };
                send(sender, message).await?;
            }
        }
    }
    send(sender, watched.message(News::Synced, token)).await?;
    loop {
        match timeout(PROGRESS, sets.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                return end(
                    sender,
                    Refusal::new(Reason::ShuttingDown, "this replica is stopping"),
                )
                .await;
            }
            Err(_) => {
                let token = write_token(&sets.borrow());
                send(sender, watched.message(News::Progress, token)).await?;
                continue;
            }
        }
        let before = std::mem::replace(&mut set, sets.borrow_and_update().clone());
        if set.replaces(&before) {
            return end(sender, expired(ANOTHER_STORE)).await;
        }
        let now = watched.select(&set);
        let gone: Vec<W::Key> = shown.keys().filter(|k| !now.contains_key(k)).cloned().collect();
        let changed: Vec<&Arc<W::Resource>> = now
            .iter()
            .filter(|(key, resource)| !shown.get(key).is_some_and(|old| Arc::ptr_eq(old, resource)))
            .map(|(_, resource)| resource)
            .collect();
        // Only the last step of a set may name its revision: resuming in the middle would skip the rest.
        let mut left = gone.len() + changed.len();
        let mut token = || {
            left -= 1;
            if left == 0 {
                write_token(&set)
            } else {
                String::new()
            }
        };
        for key in &gone {
            send(sender, watched.message(News::Removed(key), token())).await?;
        }
        for resource in changed {
            send(sender, watched.message(News::Upserted(resource), token())).await?;
        }
        shown = now;
    }
}

struct Gone;

async fn send<M: Send>(sender: &mpsc::Sender<Result<M, Status>>, message: M) -> Result<(), Gone> {
    within(sender.send(Ok(message))).await
}

async fn end<M: Send>(sender: &mpsc::Sender<Result<M, Status>>, refusal: Refusal) -> Result<(), Gone> {
    within(sender.send(Err(refusal.into()))).await
}

async fn within<E>(sent: impl Future<Output = Result<(), E>>) -> Result<(), Gone> {
    match timeout(SLOW_READER, sent).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Gone),
    }
}

fn write_token(set: &ViewSet) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{}", set.store_id, set.revision))
}

fn read_token(token: &str) -> Result<(String, i64), Refusal> {
    let text = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|b| String::from_utf8(b).ok());
    let parts = text
        .as_deref()
        .and_then(|t| t.rsplit_once('/'))
        .and_then(|(s, r)| Some((s.to_owned(), r.parse().ok()?)));
    parts.ok_or_else(|| {
        Refusal::new(Reason::InvalidField, "the resume token is damaged").field(
            "resume_token",
            "take it unchanged from an earlier answer, or leave it empty",
        )
    })
}

fn expired(why: &str) -> Refusal {
    Refusal::new(
        Reason::ResumeTokenExpired,
        format!("the watch cannot be resumed: {why}; start over without a token"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        let set = ViewSet {
            revision: 42,
            store_id: "ab/cd".into(),
            ..ViewSet::default()
        };
        assert_eq!(read_token(&write_token(&set)).unwrap(), ("ab/cd".into(), 42));
        assert!(read_token("?").is_err());
    }
}
