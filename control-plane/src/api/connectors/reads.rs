//! Connectors, their tasks and their events, one by one and in pages.

use gantry_proto::{
    error::Refusal,
    name::{ConnectorName, TaskName},
    v1::{
        Connector, ListConnectorEventsRequest, ListConnectorEventsResponse, ListConnectorsRequest,
        ListConnectorsResponse, ListTasksRequest, ListTasksResponse, Task,
    },
};

use crate::{
    api::{Shared, answers, paging::Paging},
    domain::{Uid, Versioned, filter::Filter, stored},
};

pub(super) async fn connector(shared: &Shared, name: &ConnectorName) -> Result<Connector, Refusal> {
    let snapshot = shared.current().await?;
    shared
        .views
        .connector(&snapshot, name.id())
        .ok_or_else(|| answers::no_connector(&name.to_string()))
}

pub(super) async fn connectors(
    shared: &Shared,
    request: ListConnectorsRequest,
) -> Result<ListConnectorsResponse, Refusal> {
    let filter = Filter::parse(&request.filter).map_err(|e| answers::bad_filter(&e))?;
    let paging = Paging::parse(
        request.page_size,
        &request.page_token,
        &["connectors", &request.filter],
    )?;
    let snapshot = shared.current().await?;
    let after = paging.after.clone().unwrap_or_default();
    let found = snapshot
        .connectors
        .keys()
        .filter(|id| ***id > *after)
        .filter_map(|id| Some((id.to_string(), shared.views.connector(&snapshot, id)?)))
        .filter(|(_, connector)| filter.matches(connector))
        .map(|(id, connector)| (id, answers::trimmed(connector, request.view())));
    let (connectors, next_page_token) = paging.cut(found);
    Ok(ListConnectorsResponse {
        connectors,
        next_page_token,
    })
}

pub(super) async fn task(shared: &Shared, name: &TaskName) -> Result<Task, Refusal> {
    let text = name.to_string();
    let tasks = tasks_of(shared, &name.connector).await?;
    let found = tasks.into_iter().find(|t| t.name == text);
    found.ok_or_else(|| answers::no_task(&text))
}

pub(super) async fn tasks(
    shared: &Shared,
    name: &ConnectorName,
    request: &ListTasksRequest,
) -> Result<ListTasksResponse, Refusal> {
    let question = ["tasks", &request.parent];
    let paging = Paging::parse(request.page_size, &request.page_token, &question)?;
    let after: Option<u32> = paging.after.as_ref().and_then(|a| a.parse().ok());
    let numbered = tasks_of(shared, name).await?.into_iter().filter_map(|task| {
        let n = TaskName::parse(&task.name).ok()?.task;
        (after.is_none_or(|a| n > a)).then(|| (n.to_string(), task))
    });
    let (tasks, next_page_token) = paging.cut(numbered);
    Ok(ListTasksResponse {
        tasks,
        next_page_token,
    })
}

/// Newest first.
pub(super) async fn events(
    shared: &Shared,
    name: &ConnectorName,
    request: &ListConnectorEventsRequest,
) -> Result<ListConnectorEventsResponse, Refusal> {
    let question = ["events", &request.parent];
    let paging = Paging::parse(request.page_size, &request.page_token, &question)?;
    let before: Option<i64> = paging.after.as_ref().and_then(|a| a.parse().ok());
    let present = stored(shared, name).await?;
    let uid = Uid(present.uid.as_str().into());
    let events = shared.handles.store.list_events(&uid).await;
    let newest_first = events
        .map_err(answers::store)?
        .into_iter()
        .rev()
        .filter(|e| before.is_none_or(|b| e.sequence < b));
    let (events, next_page_token) = paging.cut(newest_first.map(|e| (e.sequence.to_string(), e)));
    Ok(ListConnectorEventsResponse {
        events,
        next_page_token,
    })
}

/// The connector as it is stored, read from the store itself.
pub(super) async fn stored(
    shared: &Shared,
    name: &ConnectorName,
) -> Result<Versioned<stored::Connector>, Refusal> {
    let read = shared.handles.store.read_connector(name.id()).await;
    let (present, _) = read.map_err(answers::store)?;
    present.ok_or_else(|| answers::no_connector(&name.to_string()))
}

async fn tasks_of(shared: &Shared, name: &ConnectorName) -> Result<Vec<Task>, Refusal> {
    let snapshot = shared.current().await?;
    let stored = snapshot
        .connectors
        .get(name.id())
        .ok_or_else(|| answers::no_connector(&name.to_string()))?;
    let uid = Uid(stored.uid.as_str().into());
    Ok(shared.views.tasks(&snapshot, &uid))
}
