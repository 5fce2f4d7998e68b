use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Endpoint, ResponseStream};
use crate::check::MAX_REQUEST_BYTES;
use crate::watch::{Spec, Step, Watcher, fragments};
use crate::{Store, header, status};

/// Responses that wait to be read. When they are full the stream stops looking at the history.
const WAITING_RESPONSES: usize = 4;
/// How often a quiet watcher that asked for it is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);
/// The watch id of what concerns no watch, or all of them.
const NO_WATCH: i64 = -1;

#[tonic::async_trait]
impl PbWatchService for Endpoint {
    type WatchStream = ResponseStream<PbWatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (responses, stream) = mpsc::channel(WAITING_RESPONSES);
        tokio::spawn(run(self.clone(), request.into_inner(), responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Why a stream ends.
enum End {
    /// Nobody reads it any more.
    Unread,
    Stopped(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        End::Stopped(status)
    }
}

async fn run(
    endpoint: Endpoint,
    requests: Streaming<PbWatchRequest>,
    responses: mpsc::Sender<Result<PbWatchResponse, Status>>,
) {
    let stopped = endpoint.stopped();
    let mut stream = Stream {
        store: endpoint.store.clone(),
        watchers: BTreeMap::new(),
        next_id: 0,
        responses: responses.clone(),
    };
    let end = tokio::select! {
        biased;
        () = stopped => End::Stopped(status::stopped()),
        end = stream.serve(requests) => end,
    };
    if let End::Stopped(status) = end {
        // Whoever reads slowly learns it from the end of the stream instead.
        let _ = responses.try_send(Err(status));
    }
}

/// The watches of one client stream.
struct Stream {
    store: Store,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    responses: mpsc::Sender<Result<PbWatchResponse, Status>>,
}

impl Stream {
    async fn serve(&mut self, mut requests: Streaming<PbWatchRequest>) -> End {
        let mut signal = self.store.signal();
        let responses = self.responses.clone();
        let mut open = true;
        let start = Instant::now() + PROGRESS_INTERVAL;
        let mut progress = tokio::time::interval_at(start, PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reports_progress = self.watchers.values().any(Watcher::progress_notify);
            let result = tokio::select! {
                biased;
                () = responses.closed() => return End::Unread,
                request = requests.next(), if open => match request {
                    Some(Ok(request)) => self.handle(request).await,
                    // A client may stop asking and go on reading.
                    Some(Err(_)) | None => {
                        open = false;
                        Ok(())
                    }
                },
                changed = signal.changed() => match changed {
                    Ok(()) => self.advance().await,
                    Err(_) => return End::Stopped(status::stopped()),
                },
                _ = progress.tick(), if reports_progress => self.report_progress().await,
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    async fn handle(&mut self, request: PbWatchRequest) -> Result<(), End> {
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(create)) => {
                let key = if create.key.is_empty() {
                    vec![0]
                } else {
                    create.key
                };
                let spec = Spec {
                    key,
                    range_end: create.range_end,
                    start_revision: create.start_revision,
                    filters: create.filters,
                    prev_kv: create.prev_kv,
                    fragment: create.fragment,
                    progress_notify: create.progress_notify,
                };
                self.create(create.watch_id, spec).await?;
                self.advance().await
            }
            Some(PbWatchRequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                self.advance().await?;
                self.answer_progress().await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, wanted_id: i64, spec: Spec) -> Result<(), End> {
        let refusal = if spec.start_revision < 0 {
            Some(status::compacted().message().to_owned())
        } else if spec.is_empty() {
            Some("mvcc: watcher range is empty".to_owned())
        } else if wanted_id != 0 && self.watchers.contains_key(&wanted_id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
        } else {
            None
        };
        let (revision, watcher) = {
            let state = self.store.read()?;
            let watcher = Watcher::new(spec, &state.mvcc);
            (state.mvcc.visible().revision, watcher)
        };
        let response = PbWatchResponse {
            header: header(revision),
            created: true,
            ..PbWatchResponse::default()
        };
        if let Some(reason) = refusal {
            return self
                .send(PbWatchResponse {
                    watch_id: NO_WATCH,
                    canceled: true,
                    cancel_reason: reason,
                    ..response
                })
                .await;
        }
        let id = if wanted_id == 0 {
            self.unused_id()
        } else {
            wanted_id
        };
        self.watchers.insert(id, watcher);
        self.send(PbWatchResponse {
            watch_id: id,
            ..response
        })
        .await
    }

    fn unused_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    async fn cancel(&mut self, id: i64) -> Result<(), End> {
        if self.watchers.remove(&id).is_none() {
            return Ok(());
        }
        let revision = self.store.read()?.mvcc.visible().revision;
        self.send(PbWatchResponse {
            header: header(revision),
            watch_id: id,
            canceled: true,
            ..PbWatchResponse::default()
        })
        .await
    }

    /// Sends every watcher what it has not seen, a piece at a time in turn.
    async fn advance(&mut self) -> Result<(), End> {
        let mut behind: Vec<i64> = self.watchers.keys().copied().collect();
        while !behind.is_empty() {
            let mut still_behind = Vec::new();
            for id in behind {
                let Some(watcher) = self.watchers.get_mut(&id) else {
                    continue;
                };
                let step = watcher.step(&self.store.read()?.mvcc);
                match step {
                    Step::Idle => {}
                    Step::Compacted(compact_revision) => {
                        self.watchers.remove(&id);
                        // etcd sends this one without a revision.
                        self.send(PbWatchResponse {
                            header: header(0),
                            watch_id: id,
                            canceled: true,
                            compact_revision,
                            ..PbWatchResponse::default()
                        })
                        .await?;
                    }
                    Step::Moved { events, revision } => {
                        still_behind.push(id);
                        if events.is_empty() {
                            continue;
                        }
                        let limit = if watcher.fragment() {
                            MAX_REQUEST_BYTES
                        } else {
                            usize::MAX
                        };
                        let response = PbWatchResponse {
                            header: header(revision),
                            watch_id: id,
                            events,
                            ..PbWatchResponse::default()
                        };
                        for part in fragments(response, limit) {
                            self.send(part).await?;
                        }
                    }
                }
            }
            behind = still_behind;
        }
        Ok(())
    }

    /// Answers a request for the progress of all watches, if all have started.
    async fn answer_progress(&self) -> Result<(), End> {
        let mut oldest = None;
        for watcher in self.watchers.values() {
            let Some(seen) = watcher.progress() else {
                return Ok(());
            };
            oldest = Some(oldest.map_or(seen, |oldest: i64| oldest.min(seen)));
        }
        match oldest {
            Some(revision) => self.send_progress(NO_WATCH, revision).await,
            None => Ok(()),
        }
    }

    async fn report_progress(&mut self) -> Result<(), End> {
        self.advance().await?;
        let mut due = Vec::new();
        for (id, watcher) in &mut self.watchers {
            if !watcher.progress_notify() {
                continue;
            }
            let quiet = std::mem::replace(&mut watcher.wants_progress, true);
            if let (true, Some(revision)) = (quiet, watcher.progress()) {
                due.push((*id, revision));
            }
        }
        for (id, revision) in due {
            self.send_progress(id, revision).await?;
        }
        Ok(())
    }

    async fn send_progress(&self, watch_id: i64, revision: i64) -> Result<(), End> {
        self.send(PbWatchResponse {
            header: header(revision),
            watch_id,
            ..PbWatchResponse::default()
        })
        .await
    }

    async fn send(&self, response: PbWatchResponse) -> Result<(), End> {
        self.responses.send(Ok(response)).await.map_err(|_| End::Unread)
    }
}
