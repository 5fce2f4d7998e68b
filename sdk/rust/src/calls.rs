use std::{future::Future, time::Duration};

use gantry_proto::v1::*;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{Client, Error};

/// Answer of a verb.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The connector now.
    pub connector: Connector,
    /// False: it was so already and nothing was written.
    pub changed: bool,
}

/// One try and its repetitions: UNAVAILABLE means that the same call may be sent again.
macro_rules! call {
    ($client:expr, $service:ident . $method:ident ( $request:expr )) => {{
        let client = $client;
        let request = $request;
        client
            .repeat(|| {
                let mut service = client.$service.clone();
                let request = request.clone();
                async move { service.$method(client.request(request)).await }
            })
            .await
    }};
}

mod declare;
mod history;
mod offsets;

pub use declare::Deletion;

macro_rules! verb {
    ($(#[$doc:meta])* $name:ident, $method:ident, $request:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error`]; `ACTION_NOT_ALLOWED` when the connector's state does not allow it.
        pub async fn $name(&self, connector: &str) -> Result<Changed, Error> {
            let request = $request { name: connector_name(connector), request_id: self.request_id() };
            let answer = call!(self, connectors.$method(request))?;
            changed(answer.connector, answer.changed)
        }
    };
}

fn changed(connector: Option<Connector>, changed: bool) -> Result<Changed, Error> {
    Ok(Changed {
        connector: connector.unwrap_or_default(),
        changed,
    })
}

fn connector_name(given: &str) -> String {
    if given.contains('/') {
        given.to_owned()
    } else {
        format!("connectors/{given}")
    }
}

fn agent_name(given: &str) -> String {
    if given.contains('/') {
        given.to_owned()
    } else {
        format!("agents/{given}")
    }
}

impl Client {
    /// Creates a connector; its `name` may be the bare id.
    ///
    /// # Errors
    /// [`Error`]; all violations are in `Error::Refused`.
    pub async fn create(&self, connector: Connector, validate_only: bool) -> Result<Connector, Error> {
        self.create_adopting(connector, "", validate_only).await
    }

    /// Gets a connector by name or id.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, connector: &str) -> Result<Connector, Error> {
        let request = GetConnectorRequest {
            name: connector_name(connector),
            view: View::Full as i32,
        };
        call!(self, connectors.get_connector(request))
    }

    /// Lists all connectors that match the filter, page by page.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self, filter: &str, view: View) -> Result<Vec<Connector>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let request = ListConnectorsRequest {
                page_size: 500,
                page_token: token,
                filter: filter.to_owned(),
                view: view as i32,
            };
            let page = call!(self, connectors.list_connectors(request))?;
            all.extend(page.connectors);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Updates the fields named by `mask` (top-level names or `*`); with the connector's `etag` set the write is conditional.
    ///
    /// # Errors
    /// [`Error`]; `ETAG_MISMATCH` when somebody else wrote meanwhile.
    pub async fn update(
        &self,
        mut connector: Connector,
        mask: &[&str],
        allow_missing: bool,
    ) -> Result<Connector, Error> {
        connector.name = connector_name(&connector.name);
        let update_mask = (!mask.is_empty()).then(|| gantry_proto::FieldMask {
            paths: mask.iter().map(|p| (*p).to_owned()).collect(),
        });
        let request = UpdateConnectorRequest {
            connector: Some(connector),
            update_mask,
            allow_missing,
            validate_only: false,
            request_id: self.request_id(),
        };
        call!(self, connectors.update_connector(request))
    }

    /// Deletes a connector; answers with it in DELETING.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, connector: &str, force: bool, keep_offsets: bool) -> Result<Connector, Error> {
        let deletion = Deletion {
            force,
            keep_offsets,
            ..Deletion::default()
        };
        self.delete_with(connector, &deletion).await
    }

    /// Runs every check and returns what they find.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn validate(&self, mut connector: Connector) -> Result<ValidateConnectorResponse, Error> {
        connector.name = connector_name(&connector.name);
        call!(
            self,
            connectors.validate_connector(ValidateConnectorRequest {
                connector: Some(connector)
            })
        )
    }

    verb!(
        /// Lets no more record move.
        pause, pause_connector, PauseConnectorRequest
    );
    verb!(
        /// Runs a paused or stopped connector.
        resume, resume_connector, ResumeConnectorRequest
    );
    verb!(
        /// Ends the tasks; configuration and offsets stay.
        stop, stop_connector, StopConnectorRequest
    );

    /// Restarts all tasks or only the failed ones.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn restart(&self, connector: &str, only_failed: bool) -> Result<Changed, Error> {
        let request = RestartConnectorRequest {
            name: connector_name(connector),
            only_failed,
            request_id: self.request_id(),
        };
        let answer = call!(self, connectors.restart_connector(request))?;
        changed(answer.connector, answer.changed)
    }

    /// Restarts one task.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn restart_task(&self, connector: &str, task: u32) -> Result<Changed, Error> {
        let name = format!("{}/tasks/{task}", connector_name(connector));
        let answer = call!(
            self,
            connectors.restart_task(RestartTaskRequest {
                name,
                request_id: self.request_id()
            })
        )?;
        changed(answer.connector, answer.changed)
    }

    /// All tasks of a connector.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn tasks(&self, connector: &str) -> Result<Vec<Task>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let request = ListTasksRequest {
                parent: connector_name(connector),
                page_size: 500,
                page_token: token,
            };
            let page = call!(self, connectors.list_tasks(request))?;
            all.extend(page.tasks);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// The newest events of a connector, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn events(&self, connector: &str, limit: i32) -> Result<Vec<Event>, Error> {
        let request = ListConnectorEventsRequest {
            parent: connector_name(connector),
            page_size: limit,
            page_token: String::new(),
        };
        Ok(call!(self, connectors.list_connector_events(request))?.events)
    }

    /// All plugins that agents have, each in its highest version.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn plugins(&self) -> Result<Vec<Plugin>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let page = call!(
                self,
                plugins.list_plugins(ListPluginsRequest {
                    page_size: 500,
                    page_token: token
                })
            )?;
            all.extend(page.plugins);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// A plugin with its parameters.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn plugin(&self, plugin: &str) -> Result<Plugin, Error> {
        let name = if plugin.contains('/') {
            plugin.to_owned()
        } else {
            format!("plugins/{plugin}")
        };
        call!(
            self,
            plugins.get_plugin(GetPluginRequest {
                name,
                version: String::new()
            })
        )
    }

    /// All agents, and why tasks of lost agents are not placed anew, if so.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn agents(&self) -> Result<(Vec<Agent>, Option<String>), Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let page = call!(
                self,
                agents.list_agents(ListAgentsRequest {
                    page_size: 500,
                    page_token: token
                })
            )?;
            all.extend(page.agents);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok((all, Some(page.brake).filter(|b| !b.is_empty())));
            }
        }
    }

    /// An agent.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn agent(&self, agent: &str) -> Result<Agent, Error> {
        call!(
            self,
            agents.get_agent(GetAgentRequest {
                name: agent_name(agent)
            })
        )
    }

    /// Places no more task on the agent. Answers whether that changed anything.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn cordon(&self, agent: &str) -> Result<(Agent, bool), Error> {
        let request = CordonAgentRequest {
            name: agent_name(agent),
            request_id: self.request_id(),
        };
        let answer = call!(self, agents.cordon_agent(request))?;
        Ok((answer.agent.unwrap_or_default(), answer.changed))
    }

    /// Ends a cordon or a drain.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn uncordon(&self, agent: &str) -> Result<(Agent, bool), Error> {
        let request = UncordonAgentRequest {
            name: agent_name(agent),
            request_id: self.request_id(),
        };
        let answer = call!(self, agents.uncordon_agent(request))?;
        Ok((answer.agent.unwrap_or_default(), answer.changed))
    }

    /// Moves the agent's tasks elsewhere.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn drain(&self, agent: &str) -> Result<(Agent, bool), Error> {
        let request = DrainAgentRequest {
            name: agent_name(agent),
            request_id: self.request_id(),
        };
        let answer = call!(self, agents.drain_agent(request))?;
        Ok((answer.agent.unwrap_or_default(), answer.changed))
    }

    /// Places tasks anew although many agents were lost at once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn release_brake(&self) -> Result<bool, Error> {
        Ok(call!(self, agents.release_brake(ReleaseBrakeRequest {}))?.changed)
    }

    fn request_id(&self) -> String {
        self.options
            .request_id
            .clone()
            .unwrap_or_else(|| Uuid::new_v4().to_string())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.options.call_timeout);
        request
    }

    async fn repeat<T, F, Fut>(&self, mut attempt: F) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut tries = 0;
        loop {
            let status = match attempt().await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            if status.code() != Code::Unavailable || tries >= self.options.retries {
                return Err(Error::from_status(&self.endpoint, status));
            }
            let asked = status.get_details_retry_info().and_then(|r| r.retry_delay);
            let ceiling = asked.unwrap_or(Duration::from_millis(100 << tries.min(5)));
            tokio::time::sleep(ceiling.mul_f64(rand::random_range(0.5..1.0))).await;
            tries += 1;
        }
    }
}
