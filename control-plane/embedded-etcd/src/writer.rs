//! The one thread that writes the file. Whatever waits is applied together and made durable by one commit.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::apply::{Effects, State};
use crate::disk::Disk;
use crate::status;
use crate::store::Shared;

/// Applies one write, or takes note that it was refused, and returns what tells its caller; that is called when the
/// batch is durable or lost.
pub(crate) type Write = Box<dyn FnOnce(Result<Target<'_>, Status>) -> Answer + Send>;
pub(crate) type Target<'a> = (&'a mut State, &'a mut Effects);
pub(crate) type Answer = Box<dyn FnOnce(Result<(), Status>) + Send>;

pub(crate) enum Command {
    Write(Write),
    Defragment(oneshot::Sender<Result<(), Status>>),
    /// Finish what was queued before, close the file, then answer.
    Stop(oneshot::Sender<()>),
}

/// Writes that may wait at most; a caller that finds the queue full waits for room.
pub(crate) const QUEUE: usize = 1024;

/// Runs until it is told to stop or every sender is gone.
pub(crate) fn run(disk: Disk, shared: &Arc<Shared>, mut queue: mpsc::Receiver<Command>) {
    let _end = End(shared.clone());
    let mut writer = Writer {
        disk,
        shared: shared.clone(),
        failed: None,
    };
    let mut batch = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        let mut other = None;
        while let Some(command) = next.take() {
            match command {
                Command::Write(write) => {
                    batch.push(write);
                    if batch.len() < QUEUE {
                        next = queue.try_recv().ok();
                    }
                }
                command => other = Some(command),
            }
        }
        writer.write(&mut batch);
        match other {
            Some(Command::Defragment(answer)) => {
                // The caller may have gone away.
                let _ = answer.send(writer.defragment());
            }
            Some(Command::Stop(answer)) => {
                drop(writer);
                let _ = answer.send(());
                return;
            }
            Some(Command::Write(_)) | None => {}
        }
    }
}

/// Ends reads and watches with the thread, should it panic too: what they see would stand still.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Writer {
    disk: Disk,
    shared: Arc<Shared>,
    /// The memory is ahead of a disk that refused a commit: nothing may be written on top of it.
    failed: Option<String>,
}

impl Writer {
    fn write(&mut self, batch: &mut Vec<Write>) {
        if batch.is_empty() {
            return;
        }
        if let Some(cause) = &self.failed {
            for write in batch.drain(..) {
                write(Err(status::storage_failed(cause)))(Ok(()));
            }
            return;
        }
        let mut effects = Effects::default();
        let (answers, revision) = {
            let mut state = self.shared.state.write();
            let answers: Vec<Answer> = batch
                .drain(..)
                .map(|write| write(Ok((&mut state, &mut effects))))
                .collect();
            (answers, state.mvcc.head().revision)
        };
        let result = self.commit(revision, &effects);
        for answer in answers {
            answer(result.clone());
        }
    }

    fn commit(&mut self, revision: i64, effects: &Effects) -> Result<(), Status> {
        let written = if effects.is_empty() {
            Ok(())
        } else {
            self.disk.commit(revision, effects)
        };
        match written {
            Ok(()) => {
                self.shared.publish();
                Ok(())
            }
            Err(error) => {
                let cause = error.to_string();
                tracing::error!(
                    cause,
                    "the store writes nothing any more until it is started again"
                );
                let status = status::storage_failed(&cause);
                self.failed = Some(cause);
                Err(status)
            }
        }
    }

    fn defragment(&mut self) -> Result<(), Status> {
        self.disk
            .defragment()
            .map_err(|error| status::storage_failed(&error.to_string()))
    }
}
