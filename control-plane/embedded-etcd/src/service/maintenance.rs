use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse,
    PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest, PbSnapshotResponse,
    PbStatusRequest, PbStatusResponse,
};
use tonic::{Request, Response, Status};

use super::{Endpoint, ResponseStream};
use crate::{ETCD_VERSION, MEMBER_ID, RAFT_TERM, header, status};

#[tonic::async_trait]
impl PbMaintenanceService for Endpoint {
    async fn status(&self, _: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        let (revision, live_bytes) = {
            let state = self.store.read()?;
            (state.mvcc.visible().revision, state.mvcc.live_bytes())
        };
        let file_bytes = self.store.file_bytes();
        let in_use = i64::try_from(live_bytes).unwrap_or(i64::MAX);
        let index = u64::try_from(revision).unwrap_or(0);
        Ok(Response::new(PbStatusResponse {
            header: header(revision),
            version: ETCD_VERSION.to_owned(),
            storage_version: ETCD_VERSION.to_owned(),
            db_size: file_bytes.map_or(in_use, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            db_size_in_use: in_use,
            leader: MEMBER_ID,
            raft_index: index,
            raft_applied_index: index,
            raft_term: RAFT_TERM,
            ..PbStatusResponse::default()
        }))
    }

    async fn alarm(&self, _: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        let revision = self.store.read()?.mvcc.visible().revision;
        Ok(Response::new(PbAlarmResponse {
            header: header(revision),
            alarms: Vec::new(),
        }))
    }

    async fn defragment(
        &self,
        _: Request<PbDefragmentRequest>,
    ) -> Result<Response<PbDefragmentResponse>, Status> {
        self.store.defragment().await?;
        let revision = self.store.read()?.mvcc.visible().revision;
        Ok(Response::new(PbDefragmentResponse {
            header: header(revision),
        }))
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        Err(status::not_embedded("Hash"))
    }

    async fn hash_kv(&self, _: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        Err(status::not_embedded("HashKV"))
    }

    type SnapshotStream = ResponseStream<PbSnapshotResponse>;

    async fn snapshot(
        &self,
        _: Request<PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(status::not_embedded("Snapshot"))
    }

    async fn move_leader(
        &self,
        _: Request<PbMoveLeaderRequest>,
    ) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(status::not_embedded("MoveLeader"))
    }

    async fn downgrade(
        &self,
        _: Request<PbDowngradeRequest>,
    ) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(status::not_embedded("Downgrade"))
    }
}
