use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use gantry_connector::{ConnectorError, Env, Fields, Polled, Source, SourceContext};
use tokio::time::Instant;

use super::{
    batch::Batch,
    claims::Claims,
    config::Settings,
    discover::{Patterns, task_of},
    position::{self, Place},
    reader::{PathReader, Progress, Tools},
    trouble::Trouble,
};

/// So many files are open before those that were read to their end are closed.
const MAX_OPEN: usize = 512;
/// Looks come so much less often the longer nothing was read, ...
const QUIETER: u32 = 16;
/// ... but at least so often, unless less is wanted.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Reads lines. See [`super::FileSourcePlugin`].
#[derive(Default)]
pub(super) struct FileSource {
    task: Option<Task>,
}

struct Task {
    settings: Settings,
    patterns: Patterns,
    env: Env,
    number: u32,
    tasks: u32,
    readers: BTreeMap<u64, PathReader>,
    /// By path; every reader is in it.
    ids: HashMap<PathBuf, u64>,
    next_id: u64,
    /// Readers that have more at once, in order of their turns.
    ready: VecDeque<u64>,
    claims: Claims,
    look_at: Instant,
    /// When something was last read, or began to happen.
    read_at: Instant,
    scan_at: Instant,
    /// Of files that were there at the start; the first `poll` tells.
    opening: Batch,
    /// Something went wrong while there were records: an empty poll looks again whether it still does.
    untold: bool,
    /// The last poll was answered with an error, so the next one looks again at once.
    failing: bool,
}

#[async_trait]
impl Source for FileSource {
    async fn open(&mut self, context: SourceContext) -> Result<(), ConnectorError> {
        self.task = Some(Task::open(context)?);
        Ok(())
    }

    async fn poll(&mut self, max_bytes: usize) -> Result<Polled, ConnectorError> {
        let task = self
            .task
            .as_mut()
            .ok_or_else(|| ConnectorError::task("file-source is not open"))?;
        task.poll(max_bytes)
    }

    async fn committed(&mut self, _: &[(Arc<Fields>, Fields)]) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.task = None;
        Ok(())
    }
}

impl Task {
    fn open(context: SourceContext) -> Result<Self, ConnectorError> {
        let settings = Settings::read(&context.config)?;
        let patterns = Patterns::new(&settings.paths, &settings.exclude)?;
        let now = Instant::now();
        let mut task = Self {
            patterns,
            env: context.env,
            number: context.task,
            tasks: context.tasks,
            readers: BTreeMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            claims: Claims::default(),
            look_at: now + settings.poll_interval,
            read_at: now,
            scan_at: now + settings.scan_interval,
            opening: Batch::new(1),
            untold: false,
            failing: false,
            settings,
        };
        let fresh = context.positions.is_empty();
        for start in context.positions {
            let path = position::path_of(&start.partition)?;
            let place = Place::from_fields(&start.partition, &start.position)?;
            place
                .file
                .iter()
                .flat_map(|f| &f.done)
                .for_each(|done| task.claims.finish(*done));
            if task.patterns.covers(&path) && task.is_mine(&path) {
                task.add(path, Some(place), false);
            }
        }
        // Files with a place first: another path must not take one of them that was renamed.
        let mut troubles = task.look(now);
        troubles.extend(task.scan(now, fresh && task.settings.from_end));
        troubles.extend(task.look(now));
        task.failing = !troubles.is_empty();
        match troubles.into_iter().find(|t| t.permanent) {
            Some(trouble) => Err(trouble.at_start()),
            None => Ok(task),
        }
    }

    fn is_mine(&self, path: &std::path::Path) -> bool {
        task_of(path, self.tasks) == self.number
    }

    fn add(&mut self, path: PathBuf, place: Option<Place>, from_end: bool) {
        let reader = PathReader::new(path.clone(), place, from_end, self.settings.key_is_path);
        self.ids.insert(path, self.next_id);
        self.readers.insert(self.next_id, reader);
        self.next_id += 1;
    }

    fn remove(&mut self, id: u64) {
        if let Some(reader) = self.readers.remove(&id) {
            self.ids.remove(reader.path());
        }
    }

    /// Finds files that nobody reads yet.
    fn scan(&mut self, now: Instant, from_end: bool) -> Vec<Trouble> {
        let (mut found, troubles) = self.patterns.matches();
        found.extend(self.patterns.literal().cloned());
        for path in found {
            if !self.ids.contains_key(&path) && self.is_mine(&path) && !self.claims.covers(&path) {
                self.add(path, None, from_end);
            }
        }
        self.scan_at = now + spread(now.elapsed(), self.settings.scan_interval);
        troubles
    }

    /// Looks at every file that is not being read.
    fn look(&mut self, now: Instant) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut gone = Vec::new();
        let crowded = self.claims.held() >= MAX_OPEN;
        let mut waits = false;
        let mut tools = Tools {
            settings: &self.settings,
            patterns: &self.patterns,
            env: &self.env,
            claims: &mut self.claims,
            now,
            max_open: MAX_OPEN,
            crowded,
            retry: self.failing,
        };
        for (id, reader) in &mut self.readers {
            if reader.has_more() {
                continue;
            }
            match reader.look(&mut tools, &mut self.opening) {
                Ok(Progress::More) => self.ready.push_back(*id),
                Ok(Progress::Later) => waits = true,
                Ok(Progress::Soon) => self.read_at = now,
                Ok(Progress::End) if self.settings.follow => {}
                Ok(Progress::End) if self.patterns.is_literal(reader.path()) => {
                    troubles.push(Trouble::missing(
                        reader.path(),
                        "create the file, or correct paths",
                    ));
                }
                Ok(Progress::Gone) if self.patterns.is_literal(reader.path()) => {}
                Ok(Progress::End | Progress::Gone) => gone.push(*id),
                Err(trouble) => {
                    reader.fail(&mut tools);
                    troubles.push(trouble);
                }
            }
        }
        gone.into_iter().for_each(|id| self.remove(id));
        let pause = if waits && crowded {
            Duration::ZERO
        } else {
            pause(now - self.read_at, self.settings.poll_interval)
        };
        self.look_at = now + spread(now.elapsed(), pause);
        troubles
    }

    fn poll(&mut self, max_bytes: usize) -> Result<Polled, ConnectorError> {
        let now = Instant::now();
        let (mut batch, mut troubles) = self.turn(now, max_bytes);
        if batch.is_empty() && troubles.is_empty() && std::mem::take(&mut self.untold) {
            self.failing = true;
            (batch, troubles) = self.turn(now, max_bytes);
        }
        if !batch.is_empty() {
            self.untold |= !troubles.is_empty();
            return Ok(Polled {
                records: batch.records,
                gaps: batch.gaps,
                ..Polled::default()
            });
        }
        if let Some(trouble) = troubles.into_iter().next() {
            self.failing = true;
            return Err(trouble.error);
        }
        if !self.ready.is_empty() {
            return Ok(Polled::default());
        }
        if !self.settings.follow && self.readers.is_empty() {
            return Ok(Polled {
                end: true,
                ..Polled::default()
            });
        }
        let next = if self.settings.follow {
            self.look_at.min(self.scan_at)
        } else {
            self.look_at
        };
        Ok(Polled {
            idle_for: Some(next.saturating_duration_since(now)),
            ..Polled::default()
        })
    }

    /// Looks for what is new, if it is time, and reads.
    fn turn(&mut self, now: Instant, max_bytes: usize) -> (Batch, Vec<Trouble>) {
        let mut troubles = Vec::new();
        if self.settings.follow && (self.failing || now >= self.scan_at) {
            troubles.extend(self.scan(now, false));
            self.look_at = now;
        }
        if self.failing || now >= self.look_at {
            troubles.extend(self.look(now));
        }
        self.failing = false;
        let mut batch = std::mem::replace(&mut self.opening, Batch::new(1));
        batch.set_max(max_bytes);
        troubles.extend(self.read(now, &mut batch));
        if !batch.is_empty() {
            self.read_at = now;
        }
        (batch, troubles)
    }

    /// Reads from the files whose turn it is until the batch is full.
    fn read(&mut self, now: Instant, batch: &mut Batch) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        while !batch.is_full() {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(reader) = self.readers.get_mut(&id) else {
                continue;
            };
            let mut tools = Tools {
                settings: &self.settings,
                patterns: &self.patterns,
                env: &self.env,
                claims: &mut self.claims,
                now,
                max_open: MAX_OPEN,
                crowded: false,
                retry: false,
            };
            match reader.read(&tools, batch) {
                Ok(Progress::More) => {
                    self.ready.push_back(id);
                    break;
                }
                Ok(_) if self.settings.follow => {}
                Ok(_) => {
                    reader.close(&mut tools);
                    self.remove(id);
                }
                Err(trouble) => {
                    reader.fail(&mut tools);
                    troubles.push(trouble);
                }
            }
        }
        troubles
    }
}

/// How long to wait for the next look after nothing was read for so long: what has been quiet will probably stay so, and
/// many quiet tasks must cost nearly nothing.
fn pause(quiet: Duration, wanted: Duration) -> Duration {
    (quiet / QUIETER).clamp(wanted, LONGEST_PAUSE.max(wanted))
}

/// How long to wait for the next look, so that looking takes a tenth of the time at most.
fn spread(took: Duration, wanted: Duration) -> Duration {
    wanted.max(took * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quiet_is_looked_at_less_often() {
        let (second, wanted) = (Duration::from_secs(1), Duration::from_millis(200));
        assert_eq!(pause(second, wanted), wanted);
        assert_eq!(pause(second * 16, wanted), second);
        assert_eq!(pause(second * 1000, wanted), second * 2);
        assert_eq!(pause(second * 1000, second * 5), second * 5);
    }
}
