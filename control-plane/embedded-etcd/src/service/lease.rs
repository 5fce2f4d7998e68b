use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService,
    PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Endpoint, ResponseStream};
use crate::{apply, header, status};

/// Answers to keep-alives that wait to be read.
const WAITING_ANSWERS: usize = 16;

#[tonic::async_trait]
impl PbLeaseService for Endpoint {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let now = Instant::now();
        let (id, ttl) = self
            .store
            .write(move |state, effects| apply::grant(state, effects, request.id, request.ttl, now))
            .await?;
        self.store.lease_granted();
        Ok(Response::new(PbLeaseGrantResponse {
            header: header(self.store.read()?.mvcc.visible().revision),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        let revision = self
            .store
            .write(move |state, effects| apply::revoke(state, effects, id))
            .await?;
        Ok(Response::new(PbLeaseRevokeResponse {
            header: header(revision),
        }))
    }

    type LeaseKeepAliveStream = ResponseStream<PbLeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (answers, stream) = mpsc::channel(WAITING_ANSWERS);
        tokio::spawn(keep_alive(self.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let state = self.store.read()?;
        let mut response = PbLeaseTimeToLiveResponse {
            header: header(state.mvcc.visible().revision),
            id: request.id,
            ttl: -1,
            ..PbLeaseTimeToLiveResponse::default()
        };
        if let Some(lease) = state.leases.get(request.id) {
            response.ttl = lease.remaining(Instant::now());
            response.granted_ttl = lease.ttl;
            if request.keys {
                response.keys = lease.keys.iter().cloned().collect();
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        _: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let state = self.store.read()?;
        Ok(Response::new(PbLeaseLeasesResponse {
            header: header(state.mvcc.visible().revision),
            leases: state.leases.ids().map(|id| PbLeaseStatus { id }).collect(),
        }))
    }
}

async fn keep_alive(
    endpoint: Endpoint,
    mut requests: Streaming<PbLeaseKeepAliveRequest>,
    answers: mpsc::Sender<Result<PbLeaseKeepAliveResponse, Status>>,
) {
    let stopped = endpoint.stopped();
    tokio::pin!(stopped);
    loop {
        let request = tokio::select! {
            biased;
            () = answers.closed() => return,
            () = &mut stopped => {
                let _ = answers.send(Err(status::stopped())).await;
                return;
            }
            request = requests.next() => request,
        };
        let Some(Ok(PbLeaseKeepAliveRequest { id })) = request else {
            return;
        };
        let answer = endpoint
            .store
            .renew(id)
            .map(|(revision, ttl)| PbLeaseKeepAliveResponse {
                header: header(revision),
                id,
                ttl,
            });
        let failed = answer.is_err();
        if answers.send(answer).await.is_err() || failed {
            return;
        }
    }
}
