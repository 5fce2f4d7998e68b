use gantry_client::{
    Changed, Step,
    v1::{Connector, View, connector::TargetState, finding::Severity},
};
use gantry_proto::{Struct, StructValue};

use super::{Session, edit, history, offsets, wait};
use crate::{
    args::{Connectors, Create, Output, Wait},
    definition,
    failure::{Exit, Failure},
    render,
};

pub(super) async fn run(s: &Session, command: Connectors) -> Result<(), Failure> {
    match command {
        Connectors::List { filter, watch: false } => {
            let all = s.client.list(&filter, View::Full).await?;
            match render::structured(s.style, &all) {
                Some(text) => render::out(&text?),
                None => render::out(&render::connectors(s.style, &all)),
            }
        }
        Connectors::List { filter, watch: true } => follow(s, &[], &filter).await,
        Connectors::Get { name, watch: true } => follow(s, &[name], "").await,
        Connectors::Get { name, watch: false } => show(s, &s.client.get(&name).await?, true),
        Connectors::Describe { name } => describe(s, &name).await,
        Connectors::Create(create) => run_create(s, create).await,
        Connectors::Edit { name } => edit::run(s, &name).await,
        Connectors::Validate { file } => validate(s, &file).await,
        Connectors::Delete {
            name,
            keep_offsets,
            force,
            wait: w,
        } => {
            let connector = s.client.delete(&name, force, keep_offsets).await?;
            if w.wait {
                wait::gone(s, &connector.name, w.timeout).await?;
                return render::out(&format!("{} deleted", connector.name));
            }
            render::out(&format!("{} is being deleted", connector.name))
        }
        Connectors::Pause(v) => verb(s, s.client.pause(&v.name).await?, "pausing", "paused", v.wait).await,
        Connectors::Resume(v) => {
            verb(s, s.client.resume(&v.name).await?, "resuming", "running", v.wait).await
        }
        Connectors::Stop(v) => verb(s, s.client.stop(&v.name).await?, "stopping", "stopped", v.wait).await,
        Connectors::Restart {
            name,
            only_failed,
            task,
            wait: w,
        } => {
            let answer = match task {
                Some(n) => s.client.restart_task(&name, n).await?,
                None => s.client.restart(&name, only_failed).await?,
            };
            verb(s, answer, "restarting", "restarted", w).await
        }
        Connectors::Tasks { name, watch: false } => {
            let all = s.client.tasks(&name).await?;
            match render::structured(s.style, &all) {
                Some(text) => render::out(&text?),
                None => render::out(&render::tasks(s.style, &all)),
            }
        }
        Connectors::Tasks { name, watch: true } => {
            let mut watch = s.client.watch_tasks(&name);
            loop {
                match watch.next().await? {
                    Step::Upserted(task) => match render::structured(s.style, &*task) {
                        Some(text) => render::out(&text?)?,
                        None => render::out(last_line(&render::tasks(s.style, std::slice::from_ref(&task))))?,
                    },
                    Step::Removed(name) => render::out(&format!("{name} removed"))?,
                    Step::Synced | Step::Restarted => {}
                }
            }
        }
        Connectors::Events { name } => {
            let all = s.client.events(&name, 100).await?;
            match render::structured(s.style, &all) {
                Some(text) => render::out(&text?),
                None => render::out(&render::events(&all)),
            }
        }
        Connectors::History { name } => history::list(s, &name).await,
        Connectors::Diff(diff) => history::diff(s, &diff).await,
        Connectors::Rollback(rollback) => history::rollback(s, &rollback).await,
        Connectors::Offsets(command) => offsets::run(s, command).await,
    }
}

async fn describe(s: &Session, name: &str) -> Result<(), Failure> {
    let connector = s.client.get(name).await?;
    if let Some(text) = render::structured(s.style, &connector) {
        return render::out(&text?);
    }
    let (tasks, offsets, events) = tokio::try_join!(
        s.client.tasks(name),
        s.client.offsets(name),
        s.client.events(name, 8)
    )?;
    render::out(&render::describe_connector(
        s.style, &connector, &tasks, &offsets, &events,
    ))
}

async fn run_create(s: &Session, create: Create) -> Result<(), Failure> {
    let wanted = match &create.file {
        Some(file) => definition::read(file)?,
        None => vec![definition::Definition {
            connector: from_flags(&create)?,
            place: String::new(),
        }],
    };
    let adopted = create.adopt_offsets.as_deref().unwrap_or_default();
    if !adopted.is_empty() && wanted.len() > 1 {
        return Err(
            Failure::usage("one connector can take the offsets over, and the file defines several")
                .at(format!("--adopt-offsets {adopted}"))
                .fix("give a file that defines that connector alone"),
        );
    }
    for d in wanted {
        let name = render::short(&d.connector.name).to_owned();
        let created = s
            .client
            .create_adopting(d.connector, adopted, create.validate_only)
            .await
            .map_err(|e| {
                let failure = Failure::from(e);
                if d.place.is_empty() {
                    failure
                } else {
                    failure.at(d.place.clone())
                }
            })?;
        if create.validate_only {
            render::out(&format!("connectors/{name} is valid"))?;
            continue;
        }
        if let Some(text) = render::structured(s.style, &created) {
            render::out(&text?)?;
        } else {
            render::out(&format!("{} created", created.name))?;
        }
        if create.wait.wait {
            wait::followed(s, &created.name, created.generation, create.wait.timeout).await?;
        }
    }
    Ok(())
}

fn from_flags(create: &Create) -> Result<Connector, Failure> {
    let target = match (create.paused, create.stopped) {
        (true, _) => TargetState::Paused,
        (_, true) => TargetState::Stopped,
        _ => TargetState::Running,
    };
    let mut fields = std::collections::HashMap::new();
    for (key, value) in &create.set {
        if fields.insert(key.clone(), config_value(value)).is_some() {
            return Err(Failure::usage(format!("{key} is set twice"))
                .at(format!("--set {key}={value}"))
                .fix(format!("give a list as one value: --set '{key}=[\"A\",\"B\"]'")));
        }
    }
    Ok(Connector {
        name: create.name.clone().unwrap_or_default(),
        plugin: create.plugin.clone().unwrap_or_default(),
        topic: create.topic.clone().unwrap_or_default(),
        tasks_max: create.tasks.unwrap_or_default(),
        target_state: target as i32,
        config: Some(Struct { fields }),
        ..Connector::default()
    })
}

/// `--set paths='["a","b"]'` is a list; everything else is text, which the control plane reads by the parameter's type.
fn config_value(text: &str) -> StructValue {
    let json = text
        .starts_with(['[', '{'])
        .then(|| serde_json::from_str::<StructValue>(text).ok())
        .flatten();
    json.unwrap_or_else(|| StructValue {
        kind: Some(gantry_proto::struct_value::Kind::StringValue(text.to_owned())),
    })
}

async fn validate(s: &Session, file: &std::path::Path) -> Result<(), Failure> {
    let mut errors = 0;
    for d in definition::read(file)? {
        let name = render::short(&d.connector.name).to_owned();
        let answer = s.client.validate(d.connector).await?;
        errors += answer
            .findings
            .iter()
            .filter(|f| f.severity() == Severity::Error)
            .count();
        match render::structured(s.style, &answer) {
            Some(text) => render::out(&text?)?,
            None => render::out(&render::validation(&name, &d.place, &answer))?,
        }
    }
    if errors > 0 {
        let what = if errors == 1 {
            "one error was found".to_owned()
        } else {
            format!("{errors} errors were found")
        };
        return Err(Failure::new(Exit::Refused, what)
            .at(file.display().to_string())
            .fix("change what is named above"));
    }
    Ok(())
}

async fn verb(s: &Session, answer: Changed, doing: &str, done: &str, w: Wait) -> Result<(), Failure> {
    if let Some(text) = render::structured(s.style, &answer.connector) {
        render::out(&text?)?;
    } else if !answer.changed {
        render::out(&format!("{} unchanged: it was so already", answer.connector.name))?;
    } else if !w.wait {
        render::out(&format!("{} {doing}", answer.connector.name))?;
    }
    if w.wait {
        wait::followed(s, &answer.connector.name, answer.connector.generation, w.timeout).await?;
        if s.style.output == Output::Table && answer.changed {
            render::out(&format!("{} {done}", answer.connector.name))?;
        }
    }
    Ok(())
}

async fn follow(s: &Session, names: &[String], filter: &str) -> Result<(), Failure> {
    let mut watch = s.client.watch(names, filter);
    let mut first = true;
    loop {
        match watch.next().await? {
            Step::Upserted(connector) => {
                show(s, &connector, first)?;
                first = false;
            }
            Step::Removed(name) => render::out(&format!("{name} removed"))?,
            Step::Synced | Step::Restarted => {}
        }
    }
}

fn show(s: &Session, connector: &Connector, head: bool) -> Result<(), Failure> {
    match render::structured(s.style, connector) {
        Some(text) => render::out(&text?),
        None => {
            let text = render::connectors(s.style, std::slice::from_ref(connector));
            render::out(if head { &text } else { last_line(&text) })
        }
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}
