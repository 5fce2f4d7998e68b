use std::{collections::BTreeMap, sync::Arc};

use gantry_proto::{
    error::{Reason, Refusal},
    name::AgentName,
    v1::{
        agent_service_server::AgentService,
        watch_agents_response::{Event, Synced},
        *,
    },
};
use tonic::{Request, Response, Status};

use super::{
    Shared, answers,
    paging::Paging,
    views::{Changed, ViewSet},
    watch::{self, News, Watched},
};
use crate::{
    domain::{stored, view},
    store::{Expect, Key, codec::FORMAT},
};

/// A write that loses against others is decided anew so often.
const TRIES: u32 = 5;

/// AgentService.
pub struct Agents(pub(super) Arc<Shared>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AgentService for Agents {
    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Answer<Agent> {
        let name = parse(&request.into_inner().name)?;
        Ok(Response::new(self.view(&name).await?))
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Answer<ListAgentsResponse> {
        let request = request.into_inner();
        let paging = Paging::parse(request.page_size, &request.page_token, &["agents"])?;
        let snapshot = self.0.current().await?;
        let after = paging.after.clone().unwrap_or_default();
        let found = view::agent_views(&snapshot)
            .into_iter()
            .filter(|(name, _)| **name > *after)
            .map(|(name, agent)| (name.to_string(), agent));
        let (agents, next_page_token) = paging.cut(found);
        let brake = self.0.handles.brake();
        Ok(Response::new(ListAgentsResponse {
            agents,
            next_page_token,
            brake,
        }))
    }

    async fn cordon_agent(&self, request: Request<CordonAgentRequest>) -> Answer<CordonAgentResponse> {
        let name = parse(&request.into_inner().name)?;
        let (agent, changed) = self.settle(&name, |s| s.cordoned = true).await?;
        Ok(Response::new(CordonAgentResponse {
            agent: Some(agent),
            changed,
        }))
    }

    async fn uncordon_agent(&self, request: Request<UncordonAgentRequest>) -> Answer<UncordonAgentResponse> {
        let name = parse(&request.into_inner().name)?;
        let (agent, changed) = self
            .settle(&name, |s| {
                s.cordoned = false;
                s.draining = false;
            })
            .await?;
        Ok(Response::new(UncordonAgentResponse {
            agent: Some(agent),
            changed,
        }))
    }

    async fn drain_agent(&self, request: Request<DrainAgentRequest>) -> Answer<DrainAgentResponse> {
        let name = parse(&request.into_inner().name)?;
        let (agent, changed) = self
            .settle(&name, |s| {
                s.cordoned = true;
                s.draining = true;
            })
            .await?;
        Ok(Response::new(DrainAgentResponse {
            agent: Some(agent),
            changed,
        }))
    }

    async fn release_brake(&self, _: Request<ReleaseBrakeRequest>) -> Answer<ReleaseBrakeResponse> {
        let changed = self.0.handles.release_brake().await?;
        Ok(Response::new(ReleaseBrakeResponse { changed }))
    }

    type WatchAgentsStream = watch::Stream<WatchAgentsResponse>;

    async fn watch_agents(&self, request: Request<WatchAgentsRequest>) -> Answer<Self::WatchAgentsStream> {
        let token = request.into_inner().resume_token;
        let stream = watch::open(&self.0, WatchedAgents, &token).await?;
        Ok(Response::new(stream))
    }
}

fn parse(text: &str) -> Result<AgentName, Refusal> {
    AgentName::parse(text).map_err(|e| answers::bad_name("name", &e))
}

fn no_agent(name: &AgentName) -> Refusal {
    Refusal::new(Reason::AgentNotFound, format!("there is no agent {name}"))
        .resource("gantry/Agent", name.to_string())
        .with("name", name.to_string())
}

impl Agents {
    async fn view(&self, name: &AgentName) -> Result<Agent, Refusal> {
        let snapshot = self.0.current().await?;
        view::agent_view(&snapshot, name.id()).ok_or_else(|| no_agent(name))
    }

    /// Changes what people said of an agent. Setting the same again writes nothing, so a repeated request is harmless.
    async fn settle(
        &self,
        name: &AgentName,
        change: impl Fn(&mut stored::AgentSettings),
    ) -> Result<(Agent, bool), Refusal> {
        self.view(name).await?;
        let key = Key::Agent(name.id().into());
        let store = &self.0.handles.store;
        for _ in 0..TRIES {
            let (present, _) = store
                .get::<stored::AgentSettings>(&key)
                .await
                .map_err(answers::store)?;
            let seen = present.as_ref().map_or(0, |p| p.mod_revision);
            let before = present.map(|p| (*p.value).clone()).unwrap_or_default();
            let mut after = before.clone();
            change(&mut after);
            if after == before {
                return Ok((self.view(name).await?, false));
            }
            after.format = FORMAT;
            let written = store
                .guarded()
                .expect(&Expect::ModRevision(key.clone(), seen))
                .put(&key, &after)
                .run()
                .await;
            if written.map_err(answers::store)?.applied {
                return Ok((self.view(name).await?, true));
            }
        }
        Err(answers::contended(&name.to_string()))
    }
}

#[derive(Clone)]
struct WatchedAgents;

impl Watched for WatchedAgents {
    type Key = Arc<str>;
    type Resource = Agent;
    type Message = WatchAgentsResponse;

    fn select(&self, set: &ViewSet) -> BTreeMap<Arc<str>, Arc<Agent>> {
        set.agents.clone()
    }

    fn key(&self, changed: &Changed) -> Option<Arc<str>> {
        match changed {
            Changed::Agent(name) => Some(name.clone()),
            _ => None,
        }
    }

    fn message(&self, news: News<'_, Self>, resume_token: String) -> WatchAgentsResponse {
        let event = match news {
            News::Upserted(agent) => Some(Event::Upserted((**agent).clone())),
            News::Removed(name) => Some(Event::RemovedName(format!("agents/{name}"))),
            News::Synced => Some(Event::Synced(Synced {})),
            News::Progress => None,
        };
        WatchAgentsResponse { event, resume_token }
    }
}
