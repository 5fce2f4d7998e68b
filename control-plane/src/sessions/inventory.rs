//! What an agent runs from earlier sessions, put together from its chunks. Pure.

use gantry_proto::{
    agent::v1::{Inventory, RunningTask},
    digest,
    error::{Reason, Refusal},
};

/// Tasks in all chunks together.
const TASKS: usize = 100_000;

/// Chunks that have come so far.
pub struct Collector {
    missing: i32,
    tasks: Vec<RunningTask>,
}

impl Collector {
    /// For a hello that announces so many chunks.
    pub fn new(chunks: i32) -> Self {
        Self {
            missing: chunks,
            tasks: Vec::new(),
        }
    }

    /// All chunks have come.
    pub fn is_complete(&self) -> bool {
        self.missing <= 0
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// More than was announced, or another digest.
    pub fn push(&mut self, chunk: Inventory) -> Result<(), Refusal> {
        if self.is_complete() || self.tasks.len() + chunk.tasks.len() > TASKS {
            return Err(malformed("has more than was announced"));
        }
        self.missing -= 1;
        self.tasks.extend(chunk.tasks);
        if self.is_complete() && digest::of_inventory(&self.tasks) != chunk.digest {
            return Err(malformed("has another digest than its tasks"));
        }
        Ok(())
    }

    /// The tasks.
    pub fn finish(self) -> Vec<RunningTask> {
        self.tasks
    }
}

fn malformed(what: &str) -> Refusal {
    Refusal::new(Reason::InvalidField, format!("the inventory {what}")).field("inventory", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: u32) -> RunningTask {
        RunningTask {
            connector_uid: "u".into(),
            task: n,
            ..RunningTask::default()
        }
    }

    fn digest(tasks: &[RunningTask]) -> Vec<u8> {
        digest::of_inventory(tasks)
    }

    #[test]
    fn chunks_are_put_together_and_checked() {
        let all = [task(0), task(1), task(2)];
        let mut c = Collector::new(2);
        c.push(Inventory {
            tasks: all[..2].to_vec(),
            digest: Vec::new(),
        })
        .unwrap();
        assert!(!c.is_complete());
        c.push(Inventory {
            tasks: all[2..].to_vec(),
            digest: digest(&all),
        })
        .unwrap();
        assert_eq!(c.finish(), all);
    }

    #[test]
    fn a_wrong_digest_and_too_many_chunks_are_refused() {
        assert!(
            Collector::new(1)
                .push(Inventory {
                    tasks: vec![task(0)],
                    digest: vec![1]
                })
                .is_err()
        );
        assert!(Collector::new(0).push(Inventory::default()).is_err());
    }
}
