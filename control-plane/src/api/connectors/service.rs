use std::sync::Arc;

use gantry_proto::{
    error::Refusal,
    name::{ConnectorName, RevisionName, TaskName, parse_offsets_name},
    v1::{connector_service_server::ConnectorService, *},
};
use tonic::{Request, Response, Status};

use super::{
    declare, define, history, lifecycle, offsets, reads,
    request::Call,
    validate,
    watch::{WatchedConnectors, WatchedTasks},
};
use crate::{
    api::{Shared, answers, principal::Principal, watch},
    domain::change::Verb,
};

/// ConnectorService.
pub struct Connectors(pub(in crate::api) Arc<Shared>);

type Answer<T> = Result<Response<T>, Status>;

fn connector_name(text: &str) -> Result<ConnectorName, Refusal> {
    ConnectorName::parse(text).map_err(|e| answers::bad_name("name", &e))
}

fn task_name(text: &str) -> Result<TaskName, Refusal> {
    TaskName::parse(text).map_err(|e| answers::bad_name("name", &e))
}

fn parent(text: &str) -> Result<ConnectorName, Refusal> {
    ConnectorName::parse(text).map_err(|e| answers::bad_name("parent", &e))
}

/// A verb: `$verb` of the connector `$name`, both from the request `$call`.
macro_rules! verb {
    ($self:ident, $request:ident, $method:literal, $response:ident, |$call:ident| ($name:expr, $verb:expr)) => {{
        let principal = Principal::of(&$request);
        let mut $call = $request.into_inner();
        let id = std::mem::take(&mut $call.request_id);
        let (name, verb): (ConnectorName, Verb) = ($name, $verb);
        let call = Call::new($method, principal, &id, None, &$call)?;
        let answer = lifecycle::verb(&$self.0, &call, &name, verb).await?;
        let changed = answer.changed;
        Ok(Response::new($response {
            connector: Some(answer.present(&name)?),
            changed,
        }))
    }};
}

#[tonic::async_trait]
impl ConnectorService for Connectors {
    async fn create_connector(&self, request: Request<CreateConnectorRequest>) -> Answer<Connector> {
        let principal = Principal::of(&request);
        let created = define::create(&self.0, principal, request.into_inner()).await?;
        Ok(Response::new(created))
    }

    async fn get_connector(&self, request: Request<GetConnectorRequest>) -> Answer<Connector> {
        let request = request.into_inner();
        let connector = reads::connector(&self.0, &connector_name(&request.name)?).await?;
        Ok(Response::new(answers::trimmed(connector, request.view())))
    }

    async fn list_connectors(
        &self,
        request: Request<ListConnectorsRequest>,
    ) -> Answer<ListConnectorsResponse> {
        let page = reads::connectors(&self.0, request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn update_connector(&self, request: Request<UpdateConnectorRequest>) -> Answer<Connector> {
        let principal = Principal::of(&request);
        let updated = define::update(&self.0, principal, request.into_inner()).await?;
        Ok(Response::new(updated))
    }

    async fn patch_connector_config(
        &self,
        request: Request<PatchConnectorConfigRequest>,
    ) -> Answer<Connector> {
        let principal = Principal::of(&request);
        let patched = define::patch(&self.0, principal, request.into_inner()).await?;
        Ok(Response::new(patched))
    }

    async fn delete_connector(&self, request: Request<DeleteConnectorRequest>) -> Answer<Connector> {
        let principal = Principal::of(&request);
        let deleted = lifecycle::delete(&self.0, principal, request.into_inner()).await?;
        Ok(Response::new(deleted))
    }

    async fn validate_connector(
        &self,
        request: Request<ValidateConnectorRequest>,
    ) -> Answer<ValidateConnectorResponse> {
        let connector = request.into_inner().connector;
        let connector = connector.ok_or_else(|| answers::missing("connector"))?;
        Ok(Response::new(validate::validate(&self.0, connector).await?))
    }

    async fn pause_connector(
        &self,
        request: Request<PauseConnectorRequest>,
    ) -> Answer<PauseConnectorResponse> {
        verb!(self, request, "PauseConnector", PauseConnectorResponse, |call| (
            connector_name(&call.name)?,
            Verb::Pause
        ))
    }

    async fn resume_connector(
        &self,
        request: Request<ResumeConnectorRequest>,
    ) -> Answer<ResumeConnectorResponse> {
        verb!(
            self,
            request,
            "ResumeConnector",
            ResumeConnectorResponse,
            |call| (connector_name(&call.name)?, Verb::Resume)
        )
    }

    async fn stop_connector(&self, request: Request<StopConnectorRequest>) -> Answer<StopConnectorResponse> {
        verb!(self, request, "StopConnector", StopConnectorResponse, |call| (
            connector_name(&call.name)?,
            Verb::Stop
        ))
    }

    async fn restart_connector(
        &self,
        request: Request<RestartConnectorRequest>,
    ) -> Answer<RestartConnectorResponse> {
        verb!(
            self,
            request,
            "RestartConnector",
            RestartConnectorResponse,
            |call| (
                connector_name(&call.name)?,
                Verb::Restart {
                    only_failed: call.only_failed
                }
            )
        )
    }

    async fn restart_task(&self, request: Request<RestartTaskRequest>) -> Answer<RestartTaskResponse> {
        let name = task_name(&request.get_ref().name)?;
        verb!(self, request, "RestartTask", RestartTaskResponse, |call| (
            name.connector,
            Verb::RestartTask(name.task)
        ))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Answer<Task> {
        let name = task_name(&request.into_inner().name)?;
        Ok(Response::new(reads::task(&self.0, &name).await?))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        let request = request.into_inner();
        let name = parent(&request.parent)?;
        Ok(Response::new(reads::tasks(&self.0, &name, &request).await?))
    }

    async fn get_connector_offsets(
        &self,
        request: Request<GetConnectorOffsetsRequest>,
    ) -> Answer<ConnectorOffsets> {
        let request = request.into_inner();
        let name = parse_offsets_name(&request.name);
        let name = name.map_err(|e| answers::bad_name("name", &e))?;
        Ok(Response::new(offsets::get(&self.0, &name, &request).await?))
    }

    async fn alter_connector_offsets(
        &self,
        request: Request<AlterConnectorOffsetsRequest>,
    ) -> Answer<AlterConnectorOffsetsResponse> {
        let principal = Principal::of(&request);
        let altered = offsets::alter(&self.0, principal, request.into_inner()).await?;
        Ok(Response::new(altered))
    }

    async fn reset_connector_offsets(
        &self,
        request: Request<ResetConnectorOffsetsRequest>,
    ) -> Answer<AlterConnectorOffsetsResponse> {
        let principal = Principal::of(&request);
        let altered = offsets::reset(&self.0, principal, request.into_inner()).await?;
        Ok(Response::new(altered))
    }

    async fn undo_connector_offsets(
        &self,
        request: Request<UndoConnectorOffsetsRequest>,
    ) -> Answer<AlterConnectorOffsetsResponse> {
        let principal = Principal::of(&request);
        let altered = offsets::undo(&self.0, principal, request.into_inner()).await?;
        Ok(Response::new(altered))
    }

    async fn list_retained_offsets(
        &self,
        request: Request<ListRetainedOffsetsRequest>,
    ) -> Answer<ListRetainedOffsetsResponse> {
        let page = offsets::list_retained(&self.0, request.get_ref()).await?;
        Ok(Response::new(page))
    }

    async fn list_connector_revisions(
        &self,
        request: Request<ListConnectorRevisionsRequest>,
    ) -> Answer<ListConnectorRevisionsResponse> {
        let request = request.into_inner();
        let name = parent(&request.parent)?;
        Ok(Response::new(history::list(&self.0, &name, &request).await?))
    }

    async fn get_connector_revision(
        &self,
        request: Request<GetConnectorRevisionRequest>,
    ) -> Answer<ConnectorRevision> {
        let name = RevisionName::parse(&request.into_inner().name);
        let name = name.map_err(|e| answers::bad_name("name", &e))?;
        Ok(Response::new(history::get(&self.0, &name).await?))
    }

    async fn diff_connector_revisions(
        &self,
        request: Request<DiffConnectorRevisionsRequest>,
    ) -> Answer<DiffConnectorRevisionsResponse> {
        let request = request.into_inner();
        let name = connector_name(&request.name)?;
        let compared = history::diff(&self.0, &name, request.from_revision, request.to_revision).await?;
        Ok(Response::new(compared))
    }

    async fn rollback_connector(
        &self,
        request: Request<RollbackConnectorRequest>,
    ) -> Answer<RollbackConnectorResponse> {
        let principal = Principal::of(&request);
        let rolled_back = history::rollback(&self.0, principal, request.into_inner()).await?;
        Ok(Response::new(rolled_back))
    }

    async fn plan_connectors(
        &self,
        request: Request<PlanConnectorsRequest>,
    ) -> Answer<PlanConnectorsResponse> {
        let plan = declare::plan(&self.0, &request.into_inner()).await?;
        Ok(Response::new(plan))
    }

    async fn list_connector_events(
        &self,
        request: Request<ListConnectorEventsRequest>,
    ) -> Answer<ListConnectorEventsResponse> {
        let request = request.into_inner();
        let name = parent(&request.parent)?;
        Ok(Response::new(reads::events(&self.0, &name, &request).await?))
    }

    type WatchConnectorsStream = watch::Stream<WatchConnectorsResponse>;

    async fn watch_connectors(
        &self,
        request: Request<WatchConnectorsRequest>,
    ) -> Answer<Self::WatchConnectorsStream> {
        let request = request.into_inner();
        let watched = WatchedConnectors::parse(&request)?;
        let stream = watch::open(&self.0, watched, &request.resume_token).await?;
        Ok(Response::new(stream))
    }

    type WatchTasksStream = watch::Stream<WatchTasksResponse>;

    async fn watch_tasks(&self, request: Request<WatchTasksRequest>) -> Answer<Self::WatchTasksStream> {
        let request = request.into_inner();
        let watched = WatchedTasks::parse(&request.parent)?;
        let stream = watch::open(&self.0, watched, &request.resume_token).await?;
        Ok(Response::new(stream))
    }
}
