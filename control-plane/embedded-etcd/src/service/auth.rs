//! The one call of etcd's Auth service that tools make unasked: is authentication on? It never is.
//!
//! The client crate does not export the types of this call, so that they and the service are written out here.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use etcd_client::proto::PbResponseHeader;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::{Store, header, status};

#[derive(Clone)]
pub(super) struct Auth {
    store: Store,
}

impl Auth {
    pub(super) fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct AuthStatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct AuthStatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<PbResponseHeader>,
    #[prost(bool, tag = "2")]
    enabled: bool,
    #[prost(uint64, tag = "3")]
    auth_revision: u64,
}

impl UnaryService<AuthStatusRequest> for Auth {
    type Response = AuthStatusResponse;
    type Future = std::future::Ready<Result<Response<AuthStatusResponse>, Status>>;

    fn call(&mut self, _: Request<AuthStatusRequest>) -> Self::Future {
        std::future::ready(self.store.read().map(|state| {
            Response::new(AuthStatusResponse {
                header: header(state.mvcc.visible().revision),
                enabled: false,
                auth_revision: 1,
            })
        }))
    }
}

impl NamedService for Auth {
    const NAME: &'static str = "etcdserverpb.Auth";
}

impl tower::Service<http::Request<Body>> for Auth {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/etcdserverpb.Auth/AuthStatus" {
                return Ok(status::not_embedded("authentication").into_http());
            }
            let codec = ProstCodec::<AuthStatusResponse, AuthStatusRequest>::default();
            Ok(Grpc::new(codec).unary(service, request).await)
        })
    }
}
