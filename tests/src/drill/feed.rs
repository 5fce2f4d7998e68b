//! Writes numbered records to where sources read, at a steady rate, and knows what it has written.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::lines::Make;
use crate::wait::eventually;

const TICK: Duration = Duration::from_millis(20);

/// Where the records go.
#[derive(Debug, Clone)]
pub enum Place {
    /// To the end of these files, by turns, a line each.
    Files(Vec<PathBuf>),
    /// To this directory, a file each, whose name is the record's number.
    Directory(PathBuf),
}

/// Writes until it is told to stop.
#[derive(Debug)]
pub struct Feeder {
    written: Arc<Written>,
    stop: watch::Sender<bool>,
    work: Option<JoinHandle<Result<()>>>,
}

/// What has been written.
#[derive(Debug)]
pub struct Written {
    place: Place,
    /// For each file, where each of its lines ends. A directory counts as one file; there each record is one byte long.
    ends: Mutex<Vec<Vec<u64>>>,
    /// How many there were after each tick.
    counts: Mutex<Vec<(Instant, u64)>>,
}

impl Feeder {
    /// Begins with record 0, `rate` a second.
    pub fn start(place: Place, rate: u32, make: Make) -> Result<Self> {
        let files = match &place {
            Place::Files(paths) => paths.iter().map(|path| open(path)).collect::<Result<_>>()?,
            Place::Directory(path) => {
                fs::create_dir_all(path)?;
                Vec::new()
            }
        };
        let written = Arc::new(Written {
            ends: Mutex::new(vec![Vec::new(); files.len().max(1)]),
            counts: Mutex::default(),
            place,
        });
        let (stop, stopped) = watch::channel(false);
        let writer = Writer {
            written: written.clone(),
            // Of each file the beginning of a line whose end comes with the next tick.
            rest: vec![Vec::new(); files.len()],
            files,
            make,
            number: 0,
        };
        let work = tokio::spawn(writer.run(rate, stopped));
        Ok(Self {
            written,
            stop,
            work: Some(work),
        })
    }

    /// What has been written.
    pub fn written(&self) -> &Arc<Written> {
        &self.written
    }

    /// Waits until so many records more have been written than now, and gives how many there are.
    pub async fn more(&self, records: u64, limit: Duration) -> Result<u64> {
        let until = self.written.count() + records;
        eventually(
            limit,
            &format!("record {until} is written"),
            async || match self.written.count() {
                count if count >= until => Ok(count),
                count => Err(format!("{count} are written")),
            },
        )
        .await
    }

    /// Writes the last line's end, and gives how many records there are.
    pub async fn stop(&mut self) -> Result<u64> {
        self.stop.send_replace(true);
        if let Some(work) = self.work.take() {
            work.await.context("the feeder has panicked")??;
        }
        Ok(self.written.count())
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

impl Written {
    /// How many whole records have been written.
    pub fn count(&self) -> u64 {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().map(|ends| ends.len() as u64).sum()
    }

    /// How many whole records had been written at that time, and perhaps a few more.
    pub fn count_at(&self, at: Instant) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let after = counts.partition_point(|(then, _)| *then < at);
        counts.get(after).or(counts.last()).map_or(0, |(_, count)| *count)
    }

    fn note(&self) {
        let count = self.count();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.push((Instant::now(), count));
    }

    /// How many records of a file end at or before this byte. `file`: its path, or that of the directory.
    pub fn before(&self, file: &str, byte: u64) -> Result<u64> {
        let index = match &self.place {
            Place::Files(paths) => paths.iter().position(|path| path.as_os_str() == file),
            Place::Directory(path) => (path.as_os_str() == file).then_some(0),
        };
        let Some(index) = index else {
            bail!("{file} is not written to");
        };
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ends[index].partition_point(|end| *end <= byte) as u64)
    }

    fn add(&self, file: usize, end: u64) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends[file].push(end);
    }

    fn end_of(&self, file: usize) -> u64 {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends[file].last().copied().unwrap_or(0)
    }
}

struct Writer {
    written: Arc<Written>,
    files: Vec<File>,
    rest: Vec<Vec<u8>>,
    make: Make,
    number: u64,
}

impl Writer {
    async fn run(mut self, rate: u32, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let begin = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => break,
                _ = ticks.tick() => {}
            }
            let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u64;
            self.write(due)?;
            self.written.note();
        }
        for file in 0..self.files.len() {
            self.finish_line(file)?;
        }
        self.written.note();
        Ok(())
    }

    /// Writes records up to number `due`. The last line of each file is left half written.
    fn write(&mut self, due: u64) -> Result<()> {
        if let Place::Directory(dir) = &self.written.place {
            for number in self.number..due {
                // A file appears whole.
                let hidden = dir.join(format!(".{number}"));
                fs::write(&hidden, (self.make)(number))?;
                fs::rename(&hidden, dir.join(number.to_string()))?;
                self.written.add(0, number + 1);
            }
            self.number = self.number.max(due);
            return Ok(());
        }
        for file in 0..self.files.len() {
            let own: Vec<u64> = (self.number..due)
                .filter(|number| *number % self.files.len() as u64 == file as u64)
                .collect();
            let Some((last, whole)) = own.split_last() else {
                continue;
            };
            self.finish_line(file)?;
            let mut text = Vec::new();
            let mut end = self.written.end_of(file);
            let mut ends = Vec::new();
            for number in whole {
                let line = (self.make)(*number) + "\n";
                text.extend_from_slice(line.as_bytes());
                end += line.len() as u64;
                ends.push(end);
            }
            let line = ((self.make)(*last) + "\n").into_bytes();
            // Anywhere, also within a character.
            let cut = 1 + (*last as usize * 7) % (line.len() - 1);
            text.extend_from_slice(&line[..cut]);
            self.rest[file] = line[cut..].to_vec();
            self.files[file].write_all(&text)?;
            for end in ends {
                self.written.add(file, end);
            }
        }
        self.number = self.number.max(due);
        Ok(())
    }

    fn finish_line(&mut self, file: usize) -> Result<()> {
        let rest = std::mem::take(&mut self.rest[file]);
        if rest.is_empty() {
            return Ok(());
        }
        self.files[file].write_all(&rest)?;
        let length = self.files[file].metadata()?.len();
        self.written.add(file, length);
        Ok(())
    }
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("opening {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{Tally, split, unicode};

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn files_get_every_line_and_their_ends_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..3).map(|n| dir.path().join(n.to_string())).collect();
        let begin = Instant::now();
        let mut feeder = Feeder::start(Place::Files(paths.clone()), 5_000, unicode).unwrap();
        feeder.more(1_000, LIMIT).await.unwrap();
        let total = feeder.stop().await.unwrap();
        let written = feeder.written();
        assert_eq!(written.count_at(Instant::now()), total);
        let halfway = written.count_at(begin + (Instant::now() - begin) / 2);
        assert!((1..total).contains(&halfway), "{halfway}");
        let mut lines = Vec::new();
        for path in &paths {
            let bytes = fs::read(path).unwrap();
            let (name, own) = (path.to_str().unwrap(), split(&bytes));
            let written = feeder.written();
            assert_eq!(
                written.before(name, bytes.len() as u64).unwrap(),
                own.len() as u64
            );
            let second = own[0].len() as u64 + 1;
            assert_eq!(written.before(name, second).unwrap(), 1);
            assert_eq!(written.before(name, second - 1).unwrap(), 0);
            lines.extend(own);
        }
        let lines = lines.iter().map(Vec::as_slice);
        Tally::of(lines, total, unicode).exact().unwrap();
    }

    #[tokio::test]
    async fn a_directory_gets_a_file_for_each_record() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Directory(dir.path().join("in"));
        let mut feeder = Feeder::start(place, 1_000, unicode).unwrap();
        feeder.more(50, LIMIT).await.unwrap();
        let total = feeder.stop().await.unwrap();
        assert_eq!(fs::read_dir(dir.path().join("in")).unwrap().count() as u64, total);
        assert_eq!(fs::read_to_string(dir.path().join("in/3")).unwrap(), unicode(3));
        let name = dir.path().join("in");
        assert_eq!(feeder.written().before(name.to_str().unwrap(), 7).unwrap(), 7);
    }
}
