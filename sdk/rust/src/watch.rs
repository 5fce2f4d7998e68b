use std::time::Duration;

use gantry_proto::v1::*;
use tonic::{Code, Streaming};

use crate::{Client, Error};

/// One step of a watch. After [`Step::Restarted`] everything that exists follows again.
#[derive(Clone, Debug)]
pub enum Step<T> {
    /// It now is this.
    Upserted(Box<T>),
    /// The resource of this name is gone, or no longer matches the filter.
    Removed(String),
    /// Everything that existed at the start has been given.
    Synced,
    /// History did not reach back to where the stream broke: forget what is known.
    Restarted,
}

macro_rules! watch {
    ($(#[$doc:meta])* $watch:ident, $resource:ident, $request:ident, $response:ident, $module:ident, $service:ident . $method:ident) => {
        $(#[$doc])*
        pub struct $watch {
            client: Client,
            request: $request,
            stream: Option<Streaming<$response>>,
            failures: u32,
        }

        impl $watch {
            pub(crate) fn new(client: Client, request: $request) -> Self {
                Self { client, request, stream: None, failures: 0 }
            }

            /// The next step. Breaks of the connection are bridged with the resume token.
            ///
            /// # Errors
            /// [`Error`]: refused for good, or not reachable for longer than the client's retries.
            pub async fn next(&mut self) -> Result<Step<$resource>, Error> {
                use $module::Event;
                loop {
                    let stream = match &mut self.stream {
                        Some(stream) => stream,
                        none => {
                            let opened = self.client.$service.clone().$method(self.request.clone()).await;
                            match opened {
                                Ok(answer) => none.insert(answer.into_inner()),
                                Err(status) if status.code() == Code::OutOfRange => {
                                    self.request.resume_token.clear();
                                    return Ok(Step::Restarted);
                                }
                                Err(status) => {
                                    self.pause(status).await?;
                                    continue;
                                }
                            }
                        }
                    };
                    match stream.message().await {
                        Ok(Some(message)) => {
                            self.failures = 0;
                            if !message.resume_token.is_empty() {
                                self.request.resume_token = message.resume_token;
                            }
                            match message.event {
                                Some(Event::Upserted(resource)) => return Ok(Step::Upserted(Box::new(resource))),
                                Some(Event::RemovedName(name)) => return Ok(Step::Removed(name)),
                                Some(Event::Synced(_)) => return Ok(Step::Synced),
                                None => {}
                            }
                        }
                        Ok(None) => self.stream = None,
                        Err(status) if status.code() == Code::OutOfRange => {
                            self.stream = None;
                            self.request.resume_token.clear();
                            return Ok(Step::Restarted);
                        }
                        Err(status) => {
                            self.stream = None;
                            self.pause(status).await?;
                        }
                    }
                }
            }

            async fn pause(&mut self, status: tonic::Status) -> Result<(), Error> {
                let again = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
                if !again || self.failures >= self.client.options.retries {
                    return Err(Error::from_status(&self.client.endpoint, status));
                }
                let ceiling = Duration::from_millis(100 << self.failures.min(5));
                tokio::time::sleep(ceiling.mul_f64(rand::random_range(0.5..1.0))).await;
                self.failures += 1;
                Ok(())
            }
        }
    };
}

watch!(
    /// Connectors as they change.
    ConnectorWatch, Connector, WatchConnectorsRequest, WatchConnectorsResponse, watch_connectors_response,
    connectors.watch_connectors
);
watch!(
    /// Tasks as they change.
    TaskWatch, Task, WatchTasksRequest, WatchTasksResponse, watch_tasks_response, connectors.watch_tasks
);
watch!(
    /// Agents as they change.
    AgentWatch, Agent, WatchAgentsRequest, WatchAgentsResponse, watch_agents_response, agents.watch_agents
);

impl Client {
    /// Watches connectors: those named, or all; those that match the filter.
    pub fn watch(&self, names: &[String], filter: &str) -> ConnectorWatch {
        let names = names
            .iter()
            .map(|n| {
                if n.contains('/') {
                    n.clone()
                } else {
                    format!("connectors/{n}")
                }
            })
            .collect();
        let request = WatchConnectorsRequest {
            names,
            filter: filter.to_owned(),
            view: View::Full as i32,
            ..Default::default()
        };
        ConnectorWatch::new(self.clone(), request)
    }

    /// Watches the tasks of a connector; `-`: of all.
    pub fn watch_tasks(&self, connector: &str) -> TaskWatch {
        let parent = if connector.contains('/') {
            connector.to_owned()
        } else {
            format!("connectors/{connector}")
        };
        TaskWatch::new(
            self.clone(),
            WatchTasksRequest {
                parent,
                ..Default::default()
            },
        )
    }

    /// Watches agents.
    pub fn watch_agents(&self) -> AgentWatch {
        AgentWatch::new(self.clone(), WatchAgentsRequest::default())
    }
}
