use gantry_client::{
    Step,
    v1::{Agent, Task},
};

use super::{Session, wait};
use crate::{
    args::{Agents, Output},
    failure::Failure,
    render,
};

pub(super) async fn run(s: &Session, command: Agents) -> Result<(), Failure> {
    match command {
        Agents::List { watch: false } => {
            let (all, brake) = s.client.agents().await?;
            match render::structured(s.style, &all) {
                Some(text) => render::out(&text?)?,
                None => render::out(&render::agents(s.style, &all))?,
            }
            if let Some(why) = brake {
                render::note(&format!(
                    "the brake is on: {why}\n  fix: gantry agents release-brake"
                ));
            }
            Ok(())
        }
        Agents::List { watch: true } => {
            let mut watch = s.client.watch_agents();
            loop {
                match watch.next().await? {
                    Step::Upserted(agent) => show(s, &agent)?,
                    Step::Removed(name) => render::out(&format!("{name} removed"))?,
                    Step::Synced | Step::Restarted => {}
                }
            }
        }
        Agents::Describe { name } => {
            let agent = s.client.agent(&name).await?;
            if let Some(text) = render::structured(s.style, &agent) {
                return render::out(&text?);
            }
            let held = tasks_of(s, &agent.name).await?;
            render::out(&render::describe_agent(s.style, &agent, &held))
        }
        Agents::Cordon { name } => {
            let (agent, changed) = s.client.cordon(&name).await?;
            said(s, &agent, changed, "cordoned")
        }
        Agents::Uncordon { name } => {
            let (agent, changed) = s.client.uncordon(&name).await?;
            said(s, &agent, changed, "takes tasks again")
        }
        Agents::Drain { name, wait } => {
            let (agent, changed) = s.client.drain(&name).await?;
            said(s, &agent, changed, "draining")?;
            if wait.wait {
                wait::drained(s, &agent.name, wait.timeout).await
            } else {
                Ok(())
            }
        }
        Agents::ReleaseBrake => {
            let changed = s.client.release_brake().await?;
            render::out(if changed {
                "brake released"
            } else {
                "the brake was not on"
            })
        }
    }
}

/// All tasks that the agent holds, over all connectors.
async fn tasks_of(s: &Session, agent: &str) -> Result<Vec<Task>, Failure> {
    let mut watch = s.client.watch_tasks("-");
    let mut held = Vec::new();
    loop {
        match watch.next().await? {
            Step::Upserted(task) if task.agent == agent => held.push(*task),
            Step::Synced => return Ok(held),
            Step::Restarted => held.clear(),
            Step::Upserted(_) | Step::Removed(_) => {}
        }
    }
}

fn show(s: &Session, agent: &Agent) -> Result<(), Failure> {
    match render::structured(s.style, agent) {
        Some(text) => render::out(&text?),
        None => {
            let text = render::agents(s.style, std::slice::from_ref(agent));
            render::out(
                text.lines()
                    .nth(usize::from(s.style.output != Output::Name))
                    .unwrap_or_default(),
            )
        }
    }
}

fn said(s: &Session, agent: &Agent, changed: bool, what: &str) -> Result<(), Failure> {
    match render::structured(s.style, agent) {
        Some(text) => render::out(&text?),
        None if changed => render::out(&format!("{} {what}", agent.name)),
        None => render::out(&format!("{} unchanged", agent.name)),
    }
}
