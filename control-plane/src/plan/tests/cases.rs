//! Stories in `testdata/plan/*.txt`: what happens, and what the planner makes of it. `UPDATE_GOLDEN=1` writes them anew.
//!
//! A case is a list of steps. Lines before a step's `->` change the store; after it stands the plan. The plan is then
//! carried out. Words: see `change`.

use std::{fmt::Write, path::Path};

use gantry_proto::v1::{connector::TargetState, problem::Domain, task::State};

use super::model::{Model, connector, plugin, session, task};
use crate::{
    domain::{stored, time::timestamp},
    plan::{BrakeState, Facts, failed_ask, plan, render},
};

const START_MS: i64 = 1_000_000;

struct Case {
    model: Model,
    facts: Facts,
    now_ms: i64,
    /// The next plan is looked at, not carried out.
    dry: bool,
}

#[test]
fn stories_are_planned_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/plan");
    #[allow(clippy::disallowed_methods, reason = "a switch of this test alone")]
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    assert!(files.len() >= 20, "cases are in {}", dir.display());
    let mut wrong = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let story = tell(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        if story == text {
            continue;
        }
        if update {
            std::fs::write(&file, story).unwrap();
        } else {
            let _ = writeln!(wrong, "--- {} should be\n{story}", file.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The story with the plans that the planner makes now.
fn tell(text: &str) -> Result<String, String> {
    let facts = Facts {
        lease_ms: 9_000,
        ..Facts::default()
    };
    let mut case = Case {
        model: Model::default(),
        facts,
        now_ms: START_MS,
        dry: false,
    };
    let mut out = String::new();
    for line in text.lines().filter(|l| !l.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        let line = line.trim();
        if line == "->" {
            let made = plan(&case.model.snapshot, &case.facts, case.now_ms);
            for line in render(&made, &case.model.snapshot, case.now_ms).lines() {
                writeln!(out, "  {line}").unwrap();
            }
            if !std::mem::take(&mut case.dry) {
                case.model.now_ms = case.now_ms;
                case.model.apply(&made, &case.facts);
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            let words: Vec<_> = line.split_whitespace().collect();
            case.change(&words).map_err(|e| format!("{line:?}: {e}"))?;
        }
    }
    Ok(out)
}

/// `key=value` among the words.
fn given<'w>(words: &[&'w str], key: &str) -> Option<&'w str> {
    words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
}

fn number<T: std::str::FromStr>(words: &[&str], key: &str, default: T) -> Result<T, String> {
    given(words, key).map_or(Ok(default), |n| {
        n.parse().map_err(|_| format!("{key} is not a number"))
    })
}

fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split(',')
        .filter_map(|p| p.split_once(':'))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
}

impl Case {
    fn change(&mut self, words: &[&str]) -> Result<(), String> {
        let name = words.get(1).copied().unwrap_or_default();
        let has = |word: &str| words.contains(&word);
        match words[0] {
            // plugin 1.0.0 [host-local] [exclusive]
            "plugin" => {
                let mut plugin = plugin(name);
                (plugin.host_local, plugin.exclusive) = (has("host-local"), has("exclusive"));
                self.model.put_plugin(plugin);
            }
            // agent a a1 [host=h] [plugins=p@1.0.0,...] [capacity=n] [labels=k:v,...] [silent] [gone=a0,...]
            "agent" => {
                let mut s = session(words[2], given(words, "host").unwrap_or(name));
                s.capacity = number(words, "capacity", 0)?;
                s.silent = has("silent");
                s.labels = pairs(given(words, "labels").unwrap_or_default()).collect();
                s.gone = given(words, "gone")
                    .unwrap_or_default()
                    .split(',')
                    .map(str::to_owned)
                    .collect();
                if let Some(plugins) = given(words, "plugins") {
                    s.plugins = plugins.split(',').map(str::to_owned).collect();
                }
                self.model.put_session(name, s);
            }
            "session-gone" => self.model.remove_session(name),
            "cordon" => self.model.put_settings(name, |a| a.cordoned = true),
            "drain" => self.model.put_settings(name, |a| a.draining = true),
            "uncordon" => self
                .model
                .put_settings(name, |a| *a = stored::AgentSettings::default()),
            // connector c [tasks=n] [target=..] [selector=k:v,...] [version=..] [shared-storage]
            "connector" => {
                let mut c = connector(name, number(words, "tasks", 1)?);
                define(&mut c, words)?;
                self.model.put_connector(name, c);
            }
            // update c: as connector, changes what is named.
            "update" => {
                let mut c = (*self
                    .model
                    .snapshot
                    .connectors
                    .get(name)
                    .ok_or("no such connector")?
                    .value)
                    .clone();
                c.generation += 1;
                define(&mut c, words)?;
                self.model.put_connector(name, c);
            }
            "restart" => self
                .model
                .edit_connector(name, |c| c.restart_nonce = words[2].into()),
            "restart-task" => {
                let (c, n) = name.split_once('/').ok_or("c/n")?;
                let n = n.parse().map_err(|_| "c/n")?;
                self.model
                    .edit_connector(c, |c| drop(c.task_restart_nonces.insert(n, words[2].into())));
            }
            "delete" => self.model.edit_connector(name, |c| {
                c.delete_time = Some(timestamp(START_MS));
                c.keep_offsets = words.contains(&"keep-offsets");
            }),
            // obey [c/n]: agents do what is wanted.
            "obey" if words.len() == 1 => self.model.obey(),
            "obey" => {
                let task = parse_task(name)?;
                let grant = self.model.snapshot.grants.get(&task).cloned().ok_or("no grant")?;
                self.model.obey_one(&task, &grant);
            }
            // status c/n STATE [want=present|none|old] [fence=present|old] [refused=why] [replan]
            "status" => self.status(words)?,
            "plan-fails" => {
                let domain = if has("for-good") {
                    Domain::User
                } else {
                    Domain::External
                };
                let problem = gantry_proto::v1::Problem {
                    domain: domain.into(),
                    reason: "UNREACHABLE".into(),
                    message: "the database does not answer".into(),
                    ..Default::default()
                };
                let pointer = failed_ask(&self.model.snapshot, name, problem, self.now_ms);
                self.model.put_pointer(name, pointer);
            }
            "absent" => {
                let ms = words[2].parse().map_err(|_| "not a number")?;
                self.facts.absent_ms.insert(name.into(), ms);
            }
            "present" => drop(self.facts.absent_ms.remove(name)),
            "brake" => self.facts.brake = Some(BrakeState { lost: 3, of: 4 }),
            "release-brake" => self.facts.brake = None,
            "max-moves" => self.facts.max_moves = name.parse().map_err(|_| "not a number")?,
            "after" => self.now_ms += name.parse::<i64>().map_err(|_| "not a number")?,
            "dry" => self.dry = true,
            other => return Err(format!("unknown word {other}")),
        }
        Ok(())
    }

    fn status(&mut self, words: &[&str]) -> Result<(), String> {
        let id = parse_task(words[1])?;
        let state = State::from_str_name(&format!("STATE_{}", words[2])).ok_or("unknown state")?;
        let grant = self.model.snapshot.grants.get(&id).ok_or("no grant")?;
        let want = self.model.snapshot.wants.get(&id).map_or(0, |w| w.mod_revision);
        let refusal = given(words, "refused").map(|why| stored::Refusal {
            message: why.into(),
            ..Default::default()
        });
        let status = stored::Status {
            agent: grant.agent.clone(),
            instance_uid: grant.instance_uid.clone(),
            fence: if given(words, "fence") == Some("old") {
                grant.mod_revision - 1
            } else {
                grant.mod_revision
            },
            want_revision: match given(words, "want") {
                Some("none") => 0,
                Some("old") => want - 1,
                _ => want,
            },
            state: state.into(),
            refusal,
            replan_wanted: words.contains(&"replan"),
            ..Default::default()
        };
        self.model.put_status(id, status);
        Ok(())
    }
}

fn define(c: &mut stored::Connector, words: &[&str]) -> Result<(), String> {
    let d = c.definition.get_or_insert_default();
    d.tasks_max = number(words, "tasks", d.tasks_max)?;
    if let Some(target) = given(words, "target") {
        let target = TargetState::from_str_name(&format!("TARGET_STATE_{target}")).ok_or("unknown target")?;
        d.set_target_state(target);
    }
    if let Some(selector) = given(words, "selector") {
        d.agent_selector = pairs(selector).collect();
    }
    if let Some(version) = given(words, "version") {
        d.plugin_version = version.into();
    }
    if let Some(topic) = given(words, "topic") {
        d.topic = topic.into();
    }
    if words.contains(&"shared-storage") {
        d.config = serde_json::from_str(r#"{"shared_storage": true}"#).ok();
    }
    Ok(())
}

fn parse_task(text: &str) -> Result<crate::domain::TaskId, String> {
    let (connector, n) = text.split_once('/').ok_or("a task is c/n")?;
    Ok(task(connector, n.parse().map_err(|_| "a task is c/n")?))
}
