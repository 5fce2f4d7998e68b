use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{Endpoint, ResponseStream};
use crate::{apply, check, header, range, status, txn};

#[tonic::async_trait]
impl PbKvService for Endpoint {
    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let request = request.into_inner();
        range::check(&request)?;
        let selection = {
            let state = self.store.read()?;
            range::select(&state.mvcc, state.mvcc.visible(), &request)?
        };
        Ok(Response::new(selection.into_response()))
    }

    type RangeStreamStream = ResponseStream<PbRangeStreamResponse>;

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(status::not_embedded("RangeStream"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let request = request.into_inner();
        check::size(request.encoded_len())?;
        check::put(&request)?;
        let response = self
            .store
            .write(move |state, effects| apply::put(state, effects, request))
            .await?;
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        let request = request.into_inner();
        check::size(request.encoded_len())?;
        check::delete(&request)?;
        let response = self
            .store
            .write(move |state, effects| Ok(apply::delete(state, effects, &request)))
            .await?;
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let request = request.into_inner();
        check::size(request.encoded_len())?;
        check::txn(&request)?;
        let response = if txn::is_read_only(&request) {
            let state = self.store.read()?;
            txn::read(&state.mvcc, state.mvcc.visible(), &request)?
        } else {
            self.store
                .write(move |state, effects| apply::txn(state, effects, request))
                .await?
        };
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        let revision = request.into_inner().revision;
        let newest = self
            .store
            .write(move |state, _| apply::compact(state, revision))
            .await?;
        Ok(Response::new(PbCompactionResponse {
            header: header(newest),
        }))
    }
}
