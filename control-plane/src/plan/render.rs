use std::fmt::Write;

use gantry_proto::agent::v1::task_assignment::Want;

use super::{Action, Ended, Plan, TaskGuard};
use crate::domain::{Snapshot, TaskId, stored, time::millis};

/// A plan as an operator would read it. Connectors and agents by name, as the snapshot has them.
pub fn render(plan: &Plan, snapshot: &Snapshot, now_ms: i64) -> String {
    let mut out = String::new();
    for action in &plan.actions {
        line(&mut out, &show(action, snapshot, now_ms));
    }
    if plan.actions.is_empty() {
        line(&mut out, "nothing to do");
    }
    for r in &plan.report {
        let task = r.task.map_or_else(String::new, |n| format!("/{n}"));
        line(
            &mut out,
            &format!("because {}{task} {}: {}", r.connector, r.code, r.text),
        );
    }
    if let Some(at) = plan.wake_at_ms {
        line(&mut out, &format!("wake in {} ms", at - now_ms));
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn show(action: &Action, snapshot: &Snapshot, now_ms: i64) -> String {
    let task = |t: &TaskId| {
        let name = snapshot.names.get(&t.uid).map_or("?", |n| &**n);
        format!("{name}/{}", t.n)
    };
    match action {
        Action::PlanTasks {
            connector,
            plan_generation,
            plugin_version,
            agents,
            ..
        } => {
            format!(
                "split {connector} as plan {plan_generation} with version {plugin_version}, asking {}",
                agents.join(", ")
            )
        }
        Action::SetPointer { connector, value, .. } => {
            format!("point {connector} {}", pointer(value, now_ms))
        }
        Action::Grant {
            task: t,
            guard,
            grant,
            want,
            ended,
        } => {
            let had = snapshot.grants.get(t).filter(|_| guard.grant > 0);
            let from = match (had, ended) {
                (Some(old), Some(why)) => {
                    format!(" from {} ({}), {}", old.agent, old.instance_uid, ended_text(*why))
                }
                _ => String::new(),
            };
            let host = if grant.host_id.is_empty() {
                String::new()
            } else {
                format!(" host {}", grant.host_id)
            };
            format!(
                "grant {} to {} ({}){from}: {} plan {}{host}{}",
                task(t),
                grant.agent,
                grant.instance_uid,
                show_want(want, now_ms),
                grant.plan_generation,
                compared(guard)
            )
        }
        Action::SetWant { task: t, guard, want } => {
            format!("want {}: {}{}", task(t), show_want(want, now_ms), compared(guard))
        }
        Action::EndGrant { task: t, guard, why } => {
            let holder = snapshot.grants.get(t).map_or("?", |g| g.value.agent.as_str());
            format!(
                "end {} on {holder}, {}{}",
                task(t),
                ended_text(*why),
                compared(guard)
            )
        }
        Action::RemoveTask { task: t, guard } => format!("remove task {}{}", task(t), compared(guard)),
        Action::RemovePlan {
            uid, plan_generation, ..
        } => {
            let name = snapshot.names.get(uid).map_or("?", |n| &**n);
            format!("remove plan {plan_generation} of {name}")
        }
        Action::FinishDelete {
            connector,
            keep_offsets,
            ..
        } => {
            format!(
                "delete {connector}{}",
                if *keep_offsets {
                    ", keeping its offsets"
                } else {
                    ""
                }
            )
        }
    }
}

fn pointer(value: &stored::PlanPointer, now_ms: i64) -> String {
    let mut text = match value.plan_generation {
        0 => "no plan".to_owned(),
        g => format!(
            "plan {g} with {} tasks is right for generation {}",
            value.tasks, value.generation
        ),
    };
    if let Some(problem) = &value.problem {
        let _ = write!(
            text,
            ", generation {} has a problem, {}: {}",
            value.problem_generation, problem.reason, problem.message
        );
    }
    if let Some(next) = &value.next_attempt_time {
        let _ = write!(text, ", next attempt in {} ms", millis(next) - now_ms);
    }
    text
}

fn show_want(want: &stored::Want, now_ms: i64) -> String {
    let mut text = match want.want() {
        Want::Unspecified => "nothing",
        Want::Run => "RUN",
        Want::Pause => "PAUSE",
        Want::Stop => "STOP",
    }
    .to_owned();
    if !want.restart_nonce.is_empty() {
        let _ = write!(text, " nonce {}", want.restart_nonce);
    }
    for r in &want.refusals {
        let left = r.until.as_ref().map_or(0, millis) - now_ms;
        let _ = write!(
            text,
            " (refused by {} {} times, left alone for {left} ms)",
            r.agent, r.times
        );
    }
    text
}

fn ended_text(why: Ended) -> &'static str {
    match why {
        Ended::Confirmed => "CONFIRMED",
        Ended::Goodbye => "GOODBYE",
        Ended::Silent => "SILENT",
        Ended::Absent => "ABSENT",
        Ended::Replaced => "REPLACED",
        Ended::Refused => "REFUSED",
    }
}

fn compared(guard: &TaskGuard) -> String {
    let mut text = format!(
        " [{}@{} pointer@{} grant@{} want@{}",
        guard.connector, guard.spec, guard.pointer, guard.grant, guard.want
    );
    if let Some((agent, revision)) = &guard.instance {
        let _ = write!(text, " instance {agent}@{revision}");
    }
    if let Some(revision) = guard.status {
        let _ = write!(text, " status@{revision}");
    }
    text.push(']');
    text
}
