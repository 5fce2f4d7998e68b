//! A connection to etcd that loses what it is told to lose.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use http_body_util::{BodyStream, StreamBody};
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt, service_fn, util::BoxCloneSyncService};

pub(crate) type Transport =
    BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, BoxError>;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is carried out, and the answer is lost.
    LoseAnswer,
    /// It is lost, and the caller does not learn that.
    LoseRequest,
    /// The caller is told at once that it is lost, and it is carried out after this time.
    Late(Duration),
    /// It is carried out after this time, and it is the last that the caller ever sent.
    LateAndLast(Duration),
}

/// Faults of one connection.
#[derive(Clone)]
pub(crate) struct Faults {
    state: Arc<Mutex<State>>,
}

struct State {
    inner: Transport,
    /// For calls whose path ends so, how many more are left alone, and what then happens to one.
    planned: Vec<(&'static str, usize, Fault)>,
    cut: bool,
    /// Cancelled to break the streams that are open.
    streams: CancellationToken,
    calls: Vec<String>,
}

impl Faults {
    pub(crate) fn around(inner: Transport) -> (Transport, Self) {
        let state = State {
            inner,
            planned: Vec::new(),
            cut: false,
            streams: CancellationToken::new(),
            calls: Vec::new(),
        };
        let faults = Self {
            state: Arc::new(Mutex::new(state)),
        };
        let this = faults.clone();
        let service = service_fn(move |request| this.clone().call(request));
        (BoxCloneSyncService::new(service), faults)
    }

    /// The next call whose path ends so meets a fault.
    pub(crate) fn next(&self, path: &'static str, fault: Fault) {
        self.after(path, 0, fault);
    }

    /// As [`next`](Self::next), `count` calls later.
    pub(crate) fn after(&self, path: &'static str, count: usize, fault: Fault) {
        self.state.lock().planned.push((path, count, fault));
    }

    /// Breaks the streams that are open; new ones may be opened.
    pub(crate) fn break_streams(&self) {
        let mut state = self.state.lock();
        std::mem::take(&mut state.streams).cancel();
    }

    /// Nothing passes any more, and nobody is told.
    pub(crate) fn cut(&self) {
        self.state.lock().cut = true;
        self.break_streams();
    }

    pub(crate) fn heal(&self) {
        self.state.lock().cut = false;
    }

    /// From now on the connection leads elsewhere.
    pub(crate) fn lead_to(&self, inner: Transport) {
        self.state.lock().inner = inner;
        self.break_streams();
    }

    /// Calls so far whose path ends so.
    pub(crate) fn calls(&self, path: &str) -> usize {
        self.state
            .lock()
            .calls
            .iter()
            .filter(|call| call.ends_with(path))
            .count()
    }

    async fn call(
        self,
        request: http::Request<tonic::body::Body>,
    ) -> Result<http::Response<tonic::body::Body>, BoxError> {
        let path = request.uri().path().to_owned();
        let (inner, fault, cut, streams) = {
            let mut state = self.state.lock();
            state.calls.push(path.clone());
            let fault = state.fault(&path);
            let cut = state.cut;
            state.cut |= matches!(fault, Some(Fault::LateAndLast(_)));
            (state.inner.clone(), fault, cut, state.streams.clone())
        };
        if cut {
            return Err("connection lost".into());
        }
        match fault {
            None => {
                let response = inner.oneshot(request).await?;
                Ok(response.map(|body| until(streams, body)))
            }
            Some(Fault::LoseAnswer) => {
                drop(inner.oneshot(request).await?);
                Err("connection lost".into())
            }
            Some(Fault::LoseRequest) => Err("connection lost".into()),
            Some(Fault::Late(after) | Fault::LateAndLast(after)) => {
                tokio::spawn(async move {
                    sleep(after).await;
                    // Its caller is gone.
                    drop(inner.oneshot(request).await);
                });
                Err("connection lost".into())
            }
        }
    }
}

impl State {
    fn fault(&mut self, path: &str) -> Option<Fault> {
        let index = self
            .planned
            .iter()
            .position(|(suffix, _, _)| path.ends_with(suffix))?;
        if self.planned[index].1 > 0 {
            self.planned[index].1 -= 1;
            return None;
        }
        Some(self.planned.remove(index).2)
    }
}

/// A body that breaks when `streams` is cancelled.
fn until(streams: CancellationToken, body: tonic::body::Body) -> tonic::body::Body {
    let broken = streams.clone();
    let frames = BodyStream::new(body).take_until(streams.cancelled_owned());
    let end = futures::stream::once(async move {
        broken
            .is_cancelled()
            .then(|| Err(tonic::Status::unavailable("connection lost")))
    });
    tonic::body::Body::new(StreamBody::new(
        frames.chain(end.filter_map(|end| async move { end })),
    ))
}
