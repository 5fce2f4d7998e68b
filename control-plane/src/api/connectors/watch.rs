//! WatchConnectors and WatchTasks.

use std::{collections::BTreeMap, sync::Arc};

use gantry_proto::{
    error::Refusal,
    name::ConnectorName,
    v1::{
        Connector, Task, View, WatchConnectorsRequest, WatchConnectorsResponse, WatchTasksResponse,
        watch_connectors_response::{Event as ConnectorEvent, Synced as ConnectorsSynced},
        watch_tasks_response::{Event as TaskEvent, Synced as TasksSynced},
    },
};

use crate::{
    api::{
        answers,
        views::{Changed, ViewSet},
        watch::{News, Watched},
    },
    domain::filter::Filter,
};

#[derive(Clone)]
pub(super) struct WatchedConnectors {
    /// Empty: all.
    names: Arc<[Arc<str>]>,
    filter: Arc<Filter>,
    view: View,
}

impl WatchedConnectors {
    pub(super) fn parse(request: &WatchConnectorsRequest) -> Result<Self, Refusal> {
        let filter = Filter::parse(&request.filter).map_err(|e| answers::bad_filter(&e))?;
        let names = request.names.iter().map(|name| {
            let name = ConnectorName::parse(name).map_err(|e| answers::bad_name("names", &e))?;
            Ok(name.id().into())
        });
        Ok(Self {
            names: names.collect::<Result<_, Refusal>>()?,
            filter: filter.into(),
            view: request.view(),
        })
    }
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

    fn message(&self, news: News<'_, Self>, resume_token: String) -> WatchConnectorsResponse {
        let event = match news {
            News::Upserted(connector) => {
                let connector = answers::trimmed((**connector).clone(), self.view);
                Some(ConnectorEvent::Upserted(connector))
            }
            News::Removed(id) => Some(ConnectorEvent::RemovedName(format!("connectors/{id}"))),
            News::Synced => Some(ConnectorEvent::Synced(ConnectorsSynced {})),
            News::Progress => None,
        };
        WatchConnectorsResponse { event, resume_token }
    }
}

#[derive(Clone)]
pub(super) struct WatchedTasks {
    /// Id of the connector. None: the tasks of all.
    connector: Option<Arc<str>>,
}

impl WatchedTasks {
    pub(super) fn parse(parent: &str) -> Result<Self, Refusal> {
        if parent == "connectors/-" {
            return Ok(Self { connector: None });
        }
        let name = ConnectorName::parse(parent).map_err(|e| answers::bad_name("parent", &e))?;
        let connector = Some(name.id().into());
        Ok(Self { connector })
    }
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
                let tasks = set.tasks.range(range);
                tasks.map(|(k, v)| (k.clone(), v.clone())).collect()
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

    fn message(&self, news: News<'_, Self>, resume_token: String) -> WatchTasksResponse {
        let event = match news {
            News::Upserted(task) => Some(TaskEvent::Upserted((**task).clone())),
            News::Removed((id, n)) => Some(TaskEvent::RemovedName(format!("connectors/{id}/tasks/{n}"))),
            News::Synced => Some(TaskEvent::Synced(TasksSynced {})),
            News::Progress => None,
        };
        WatchTasksResponse { event, resume_token }
    }
}
