//! A connection to etcd that can be cut, and led to another etcd.

use std::sync::Arc;

use futures::StreamExt;
use gantry_embedded_etcd::Transport;
use http_body_util::{BodyStream, StreamBody};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

/// Cuts one connection, lets it through again, or leads it elsewhere.
#[derive(Clone, Default)]
pub(crate) struct Cut {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    /// Where it leads; None: where it was made for.
    led_to: Option<Transport>,
    streams: CancellationToken,
}

impl Cut {
    pub(crate) fn around(&self, inner: Transport) -> Transport {
        let this = self.clone();
        Transport::new(service_fn(move |request: http::Request<tonic::body::Body>| {
            let (cut, streams, inner) = {
                let state = this.state.lock();
                let to = state.led_to.clone().unwrap_or_else(|| inner.clone());
                (state.cut, state.streams.clone(), to)
            };
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

    /// Everything goes to another etcd from now on; open streams break.
    pub(crate) fn lead_to(&self, other: Transport) {
        let mut state = self.state.lock();
        state.led_to = Some(other);
        std::mem::take(&mut state.streams).cancel();
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
