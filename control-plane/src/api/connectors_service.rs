use std::{collections::BTreeMap, sync::Arc};

use gantry_proto::{
    error::{Reason, Refusal},
    name::{ConnectorName, TaskName, parse_offsets_name},
    v1::{
        connector_service_server::ConnectorService, watch_connectors_response::Event as ConnectorEvent,
        watch_tasks_response::Event as TaskEvent, *,
    },
};
use tonic::{Request, Response, Status};

use super::{
    Shared, answers, connectors as flows,
    paging::Paging,
    principal::Principal,
    views::{Changed, ViewSet},
    watch::{self, Watched},
};
use crate::domain::{Uid, filter::Filter, lifecycle::Action};

/// ConnectorService.
pub struct Connectors(pub(super) Arc<Shared>);

type Answer<T> = Result<Response<T>, Status>;

fn connector_name(text: &str) -> Result<ConnectorName, Refusal> {
    ConnectorName::parse(text).map_err(|e| answers::bad_name("name", &e))
}

fn parent(text: &str) -> Result<ConnectorName, Refusal> {
    ConnectorName::parse(text).map_err(|e| answers::bad_name("parent", &e))
}

macro_rules! verb {
    ($self:ident, $request:ident, $action:expr, $response:ident) => {{
        let principal = Principal::of(&$request);
        let request = $request.into_inner();
        let name = connector_name(&request.name)?;
        let (connector, changed) =
            flows::verb(&$self.0, &principal, &name, $action, &request.request_id).await?;
        Ok(Response::new($response {
            connector: Some(connector),
            changed,
        }))
    }};
}

#[tonic::async_trait]
impl ConnectorService for Connectors {
    async fn create_connector(&self, request: Request<CreateConnectorRequest>) -> Answer<Connector> {
        let principal = Principal::of(&request);
        let created = flows::create(&self.0, &principal, request.into_inner()).await?;
        Ok(Response::new(created))
    }

    async fn get_connector(&self, request: Request<GetConnectorRequest>) -> Answer<Connector> {
        let request = request.into_inner();
        let name = connector_name(&request.name)?;
        let connector = flows::get(&self.0, &name).await?;
        Ok(Response::new(answers::trimmed(connector, request.view())))
    }

    async fn list_connectors(
        &self,
        request: Request<ListConnectorsRequest>,
    ) -> Answer<ListConnectorsResponse> {
        let request = request.into_inner();
        let filter = Filter::parse(&request.filter).map_err(|e| answers::bad_filter(&e))?;
        let paging = Paging::parse(
            request.page_size,
            &request.page_token,
            &["connectors", &request.filter],
        )?;
        let snapshot = flows::current(&self.0).await?;
        let after = paging.after.clone().unwrap_or_default();
        let found = snapshot
            .connectors
            .keys()
            .filter(|id| ***id > *after)
            .filter_map(|id| Some((id.to_string(), self.0.views.connector(&snapshot, id)?)))
            .filter(|(_, connector)| filter.matches(connector))
            .map(|(id, connector)| (id, answers::trimmed(connector, request.view())));
        let (connectors, next_page_token) = paging.cut(found);
        Ok(Response::new(ListConnectorsResponse {
            connectors,
            next_page_token,
        }))
    }

    async fn update_connector(&self, request: Request<UpdateConnectorRequest>) -> Answer<Connector> {
        let principal = Principal::of(&request);
        let updated = flows::update(&self.0, &principal, request.into_inner()).await?;
        Ok(Response::new(updated))
    }

    async fn patch_connector_config(
        &self,
        request: Request<PatchConnectorConfigRequest>,
    ) -> Answer<Connector> {
        let principal = Principal::of(&request);
        let patched = flows::patch(&self.0, &principal, request.into_inner()).await?;
        Ok(Response::new(patched))
    }

    async fn delete_connector(&self, request: Request<DeleteConnectorRequest>) -> Answer<Connector> {
        let principal = Principal::of(&request);
        let deleted = flows::delete(&self.0, &principal, request.into_inner()).await?;
        Ok(Response::new(deleted))
    }

    async fn validate_connector(
        &self,
        request: Request<ValidateConnectorRequest>,
    ) -> Answer<ValidateConnectorResponse> {
        let connector = request
            .into_inner()
            .connector
            .ok_or_else(|| answers::missing("connector"))?;
        Ok(Response::new(flows::validate(&self.0, connector).await?))
    }

    async fn pause_connector(
        &self,
        request: Request<PauseConnectorRequest>,
    ) -> Answer<PauseConnectorResponse> {
        verb!(
            self,
            request,
            flows::Verb::Target(Action::Pause),
            PauseConnectorResponse
        )
    }

    async fn resume_connector(
        &self,
        request: Request<ResumeConnectorRequest>,
    ) -> Answer<ResumeConnectorResponse> {
        verb!(
            self,
            request,
            flows::Verb::Target(Action::Resume),
            ResumeConnectorResponse
        )
    }

    async fn stop_connector(&self, request: Request<StopConnectorRequest>) -> Answer<StopConnectorResponse> {
        verb!(
            self,
            request,
            flows::Verb::Target(Action::Stop),
            StopConnectorResponse
        )
    }

    async fn restart_connector(
        &self,
        request: Request<RestartConnectorRequest>,
    ) -> Answer<RestartConnectorResponse> {
        let only_failed = request.get_ref().only_failed;
        verb!(
            self,
            request,
            flows::Verb::Restart { only_failed },
            RestartConnectorResponse
        )
    }

    async fn restart_task(&self, request: Request<RestartTaskRequest>) -> Answer<RestartTaskResponse> {
        let principal = Principal::of(&request);
        let request = request.into_inner();
        let name = TaskName::parse(&request.name).map_err(|e| answers::bad_name("name", &e))?;
        let verb = flows::Verb::RestartTask(name.task);
        let (connector, changed) =
            flows::verb(&self.0, &principal, &name.connector, verb, &request.request_id).await?;
        Ok(Response::new(RestartTaskResponse {
            connector: Some(connector),
            changed,
        }))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Answer<Task> {
        let name = TaskName::parse(&request.into_inner().name).map_err(|e| answers::bad_name("name", &e))?;
        let text = name.to_string();
        let tasks = self.tasks_of(&name.connector).await?;
        let found = tasks.into_iter().find(|t| t.name == text).ok_or_else(|| {
            Refusal::new(Reason::TaskNotFound, format!("there is no task {text}"))
                .resource("gantry/Task", text.clone())
                .with("name", text.clone())
        })?;
        Ok(Response::new(found))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        let request = request.into_inner();
        let name = parent(&request.parent)?;
        let paging = Paging::parse(
            request.page_size,
            &request.page_token,
            &["tasks", &request.parent],
        )?;
        let after: Option<u32> = paging.after.as_ref().and_then(|a| a.parse().ok());
        let numbered = self.tasks_of(&name).await?.into_iter().filter_map(|task| {
            let n = TaskName::parse(&task.name).ok()?.task;
            (after.is_none_or(|a| n > a)).then(|| (n.to_string(), task))
        });
        let (tasks, next_page_token) = paging.cut(numbered);
        Ok(Response::new(ListTasksResponse {
            tasks,
            next_page_token,
        }))
    }

    async fn get_connector_offsets(
        &self,
        request: Request<GetConnectorOffsetsRequest>,
    ) -> Answer<ConnectorOffsets> {
        let text = request.into_inner().name;
        let name = parse_offsets_name(&text).map_err(|e| answers::bad_name("name", &e))?;
        Ok(Response::new(flows::offsets(&self.0, &name).await?))
    }

    async fn list_connector_events(
        &self,
        request: Request<ListConnectorEventsRequest>,
    ) -> Answer<ListConnectorEventsResponse> {
        let request = request.into_inner();
        let name = parent(&request.parent)?;
        let paging = Paging::parse(
            request.page_size,
            &request.page_token,
            &["events", &request.parent],
        )?;
        let before: Option<i64> = paging.after.as_ref().and_then(|a| a.parse().ok());
        let events = flows::events(&self.0, &name).await?;
        let newest_first = events
            .into_iter()
            .rev()
            .filter(|e| before.is_none_or(|b| e.sequence < b));
        let (events, next_page_token) = paging.cut(newest_first.map(|e| (e.sequence.to_string(), e)));
        Ok(Response::new(ListConnectorEventsResponse {
            events,
            next_page_token,
        }))
    }

    type WatchConnectorsStream = watch::Stream<WatchConnectorsResponse>;

    async fn watch_connectors(
        &self,
        request: Request<WatchConnectorsRequest>,
    ) -> Answer<Self::WatchConnectorsStream> {
        let request = request.into_inner();
        let filter = Filter::parse(&request.filter).map_err(|e| answers::bad_filter(&e))?;
        let mut names = Vec::new();
        for name in &request.names {
            names.push(
                ConnectorName::parse(name)
                    .map_err(|e| answers::bad_name("names", &e))?
                    .id()
                    .into(),
            );
        }
        let watched = WatchedConnectors {
            names: names.into(),
            filter: filter.into(),
            view: request.view(),
        };
        Ok(Response::new(
            watch::open(
                &self.0.views,
                watched,
                &request.resume_token,
                flows::current(&self.0).await?.revision,
            )
            .await?,
        ))
    }

    type WatchTasksStream = watch::Stream<WatchTasksResponse>;

    async fn watch_tasks(&self, request: Request<WatchTasksRequest>) -> Answer<Self::WatchTasksStream> {
        let request = request.into_inner();
        let connector = match request.parent.as_str() {
            "connectors/-" => None,
            text => Some(parent(text)?.id().into()),
        };
        let watched = WatchedTasks { connector };
        Ok(Response::new(
            watch::open(
                &self.0.views,
                watched,
                &request.resume_token,
                flows::current(&self.0).await?.revision,
            )
            .await?,
        ))
    }
}

impl Connectors {
    async fn tasks_of(&self, name: &ConnectorName) -> Result<Vec<Task>, Refusal> {
        let snapshot = flows::current(&self.0).await?;
        let stored = snapshot
            .connectors
            .get(name.id())
            .ok_or_else(|| answers::no_connector(&name.to_string()))?;
        Ok(self.0.views.tasks(&snapshot, &Uid(stored.uid.as_str().into())))
    }
}

#[derive(Clone)]
struct WatchedConnectors {
    names: Arc<[Arc<str>]>,
    filter: Arc<Filter>,
    view: View,
}

impl Watched for WatchedConnectors {
    type Key = Arc<str>;
    type Resource = Connector;
    type Message = WatchConnectorsResponse;

    fn select(&self, set: &ViewSet) -> BTreeMap<Arc<str>, Arc<Connector>> {
        let wanted = |id: &Arc<str>| self.names.is_empty() || self.names.contains(id);
        set.connectors
            .iter()
            .filter(|(id, connector)| wanted(id) && self.filter.matches(connector))
            .map(|(id, connector)| (id.clone(), connector.clone()))
            .collect()
    }

    fn key(&self, changed: &Changed) -> Option<Arc<str>> {
        match changed {
            Changed::Connector(id) if self.names.is_empty() || self.names.contains(id) => Some(id.clone()),
            _ => None,
        }
    }

    fn upserted(&self, connector: &Connector, resume_token: String) -> WatchConnectorsResponse {
        let connector = answers::trimmed(connector.clone(), self.view);
        WatchConnectorsResponse {
            event: Some(ConnectorEvent::Upserted(connector)),
            resume_token,
        }
    }

    fn removed(&self, id: &Arc<str>, resume_token: String) -> WatchConnectorsResponse {
        let event = Some(ConnectorEvent::RemovedName(format!("connectors/{id}")));
        WatchConnectorsResponse { event, resume_token }
    }

    fn synced(&self, resume_token: String) -> WatchConnectorsResponse {
        let event = Some(ConnectorEvent::Synced(watch_connectors_response::Synced {}));
        WatchConnectorsResponse { event, resume_token }
    }

    fn progress(&self, resume_token: String) -> WatchConnectorsResponse {
        WatchConnectorsResponse {
            event: None,
            resume_token,
        }
    }
}

#[derive(Clone)]
struct WatchedTasks {
    connector: Option<Arc<str>>,
}

impl Watched for WatchedTasks {
    type Key = (Arc<str>, u32);
    type Resource = Task;
    type Message = WatchTasksResponse;

    fn select(&self, set: &ViewSet) -> BTreeMap<Self::Key, Arc<Task>> {
        match &self.connector {
            None => set.tasks.clone(),
            Some(id) => {
                let range = (id.clone(), 0)..=(id.clone(), u32::MAX);
                set.tasks
                    .range(range)
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            }
        }
    }

    fn key(&self, changed: &Changed) -> Option<Self::Key> {
        match changed {
            Changed::Task(id, n) if self.connector.as_ref().is_none_or(|wanted| wanted == id) => {
                Some((id.clone(), *n))
            }
            _ => None,
        }
    }

    fn upserted(&self, task: &Task, resume_token: String) -> WatchTasksResponse {
        WatchTasksResponse {
            event: Some(TaskEvent::Upserted(task.clone())),
            resume_token,
        }
    }

    fn removed(&self, (id, n): &Self::Key, resume_token: String) -> WatchTasksResponse {
        let event = Some(TaskEvent::RemovedName(format!("connectors/{id}/tasks/{n}")));
        WatchTasksResponse { event, resume_token }
    }

    fn synced(&self, resume_token: String) -> WatchTasksResponse {
        let event = Some(TaskEvent::Synced(watch_tasks_response::Synced {}));
        WatchTasksResponse { event, resume_token }
    }

    fn progress(&self, resume_token: String) -> WatchTasksResponse {
        WatchTasksResponse {
            event: None,
            resume_token,
        }
    }
}
