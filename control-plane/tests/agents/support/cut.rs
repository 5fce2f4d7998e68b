//! A connection to etcd that can be cut.

use std::sync::Arc;

use futures::StreamExt;
use gantry_embedded_etcd::Transport;
use http_body_util::{BodyStream, StreamBody};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

/// Cuts one connection, and lets it through again.
#[derive(Clone, Default)]
pub(crate) struct Cut {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    streams: CancellationToken,
}

impl Cut {
    pub(crate) fn around(&self, inner: Transport) -> Transport {
        let this = self.clone();
        Transport::new(service_fn(move |request: http::Request<tonic::body::Body>| {
            let (cut, streams) = {
                let state = this.state.lock();
                (state.cut, state.streams.clone())
            };
            let inner = inner.clone();
            async move {
                if cut {
                    return Err("connection lost".into());
                }
                let response = inner.oneshot(request).await?;
                Ok(response.map(|body| until(streams, body)))
            }
        }))
    }

    /// Nothing passes any more.
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock();
        state.cut = true;
        std::mem::take(&mut state.streams).cancel();
    }

    pub(crate) fn heal(&self) {
        self.state.lock().cut = false;
    }
}

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
