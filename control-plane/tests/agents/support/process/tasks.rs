//! What the process does with what it is assigned.

use gantry_control_plane::{domain::TaskId, sessions::service::AgentService};
use gantry_proto::{
    agent::v1::{
        Assignment, AssignmentAck, ReadOffsetsRequest, TaskAck, TaskAssignment, TaskRef,
        open_session_request::Message as Request, task_ack, task_assignment::Want,
    },
    digest,
    google::rpc,
    v1::task::State,
};
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use super::{Held, Process, Sender, id, id_of};

impl Process {
    pub(super) async fn assigned(&mut self, chunk: Assignment, out: &Sender, service: &AgentService) {
        let Some(push) = self.complete(chunk) else { return };
        assert!(push.revision >= self.revision, "a push never goes back");
        let resync = {
            let mut script = self.script.lock();
            let resync = script.resyncs > 0;
            script.resyncs -= u32::from(resync);
            resync
        };
        if resync {
            self.seen.lock().resyncs.push(Instant::now());
            let ack = AssignmentAck {
                revision: push.revision,
                resync,
                tasks: Vec::new(),
            };
            return self.send(out, Request::AssignmentAck(ack)).await;
        }
        self.revision = push.revision;
        let full = push.base_revision == 0;
        {
            let mut seen = self.seen.lock();
            if full {
                seen.full_sets += 1;
                let named: Vec<_> = push.tasks.iter().map(|t| id(&t.connector_uid, t.task)).collect();
                seen.tasks.retain(|id, _| named.contains(id));
            } else {
                seen.deltas += 1;
            }
            for gone in &push.removed {
                seen.tasks.remove(&id_of(gone));
            }
        }
        let mut acks = Vec::new();
        for task in push.tasks {
            if self.script.lock().refuse {
                acks.push(refusal(&task));
                continue;
            }
            self.apply(task, out, service).await;
        }
        if self.script.lock().mute {
            return;
        }
        let ack = AssignmentAck {
            revision: push.revision,
            resync: false,
            tasks: acks,
        };
        self.send(out, Request::AssignmentAck(ack)).await;
    }

    /// A push, put together from its chunks, when the last of them has come.
    fn complete(&mut self, chunk: Assignment) -> Option<Assignment> {
        assert_eq!(
            usize::try_from(chunk.chunk).unwrap(),
            self.chunks.len(),
            "in order"
        );
        assert!(chunk.encoded_len() <= 1 << 20);
        let last = chunk.last;
        self.chunks.push(chunk);
        if !last {
            return None;
        }
        let mut push = Assignment::default();
        let chunks = std::mem::take(&mut self.chunks);
        let mut seen = self.seen.lock();
        seen.chunks = seen.chunks.max(chunks.len());
        for chunk in chunks {
            push.revision = chunk.revision;
            push.base_revision = chunk.base_revision;
            push.tasks.extend(chunk.tasks);
            push.removed.extend(chunk.removed);
            push.digest = chunk.digest;
        }
        assert_eq!(push.digest, digest::of_assignments(&push.tasks));
        Some(push)
    }

    async fn apply(&mut self, task: TaskAssignment, out: &Sender, service: &AgentService) {
        let id = id(&task.connector_uid, task.task);
        let present = self.seen.lock().tasks.get(&id).cloned();
        assert!(task.spec.is_some(), "the spec comes with the task");
        let runs_on = present.as_ref().is_some_and(|p| {
            p.fence == task.fence
                && p.state == State::Running
                && p.nonce == task.restart_nonce
                && p.hash == task.spec_hash
        });
        let held = Held {
            fence: task.fence,
            want_revision: task.want_revision,
            state: if runs_on { State::Running } else { State::Starting },
            nonce: task.restart_nonce.clone(),
            hash: task.spec_hash.clone(),
            traceparent: task.traceparent.clone(),
            since: present.as_ref().map_or(0, |p| p.since),
            sequence: 0,
            confirmed: false,
        };
        self.seen.lock().tasks.insert(id.clone(), held);
        let state = match task.want() {
            Want::Pause => State::Paused,
            Want::Stop => State::Stopped,
            _ => State::Running,
        };
        if state == State::Running && !runs_on {
            let read = service
                .read_offsets(ReadOffsetsRequest {
                    agent: self.name.clone(),
                    instance_uid: self.uid.clone(),
                    task: Some(TaskRef {
                        connector_uid: id.uid.to_string(),
                        task: id.n,
                    }),
                    fence: task.fence,
                })
                .await;
            match read {
                Ok(_) => self.seen.lock().starts.push((id.clone(), Instant::now())),
                Err(status) if status.code() == Code::FailedPrecondition => {
                    self.seen.lock().tasks.remove(&id);
                    return;
                }
                // Again with the next push, or the next session.
                Err(_) => return,
            }
        }
        if self.script.lock().stubborn && state != State::Running {
            return;
        }
        if !(runs_on && state == State::Running) {
            self.set(&id, state);
            self.report(out, &id, state != State::Running).await;
        }
    }

    pub(super) fn set(&mut self, id: &TaskId, state: State) {
        self.clock += 1;
        if let Some(task) = self.seen.lock().tasks.get_mut(id) {
            task.state = state;
            task.since = self.clock;
            task.confirmed = state == State::Paused || state == State::Stopped;
        }
    }
}

fn refusal(task: &TaskAssignment) -> TaskAck {
    TaskAck {
        task: Some(TaskRef {
            connector_uid: task.connector_uid.clone(),
            task: task.task,
        }),
        fence: task.fence,
        outcome: task_ack::Outcome::Refused.into(),
        error: Some(rpc::Status {
            code: 9,
            message: "not here".into(),
            details: Vec::new(),
        }),
    }
}
