//! etcd's gRPC services: each call is checked, handed to the store and answered.

mod auth;
mod cluster;
mod kv;
mod lease;
mod maintenance;
mod watch;

use std::pin::Pin;

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer};
use tokio::sync::watch as latest;
use tokio_stream::Stream;
use tonic::Status;
use tonic::service::Routes;

use crate::Store;

/// The largest message taken off the wire. Larger than etcd's limit, so that etcd's own error is given.
const MAX_DECODED_BYTES: usize = 32 << 20;

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One endpoint of a store, and the switch that ends its streams.
#[derive(Clone)]
struct Endpoint {
    store: Store,
    stop: Option<latest::Receiver<bool>>,
}

impl Endpoint {
    /// Ends when this endpoint or its store is to stop.
    async fn stopped(&self) {
        let mut signal = self.store.signal();
        let store = signal.wait_for(|signal| signal.stopped);
        let endpoint = async {
            match self.stop.clone() {
                Some(mut stop) => drop(stop.wait_for(|stop| *stop).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = store => {}
            () = endpoint => {}
        }
    }
}

/// Every service of `store`. Streams end when `stop` turns true.
pub(crate) fn routes(store: &Store, stop: Option<latest::Receiver<bool>>) -> Routes {
    let endpoint = Endpoint {
        store: store.clone(),
        stop,
    };
    Routes::new(PbKvServer::new(endpoint.clone()).max_decoding_message_size(MAX_DECODED_BYTES))
        .add_service(PbWatchServer::new(endpoint.clone()))
        .add_service(PbLeaseServer::new(endpoint.clone()))
        .add_service(PbMaintenanceServer::new(endpoint.clone()))
        .add_service(PbClusterServer::new(endpoint))
        .add_service(auth::Auth::new(store))
        .prepare()
}
