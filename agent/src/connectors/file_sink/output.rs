use std::{
    io,
    path::{Path, PathBuf},
};

use gantry_connector::ConnectorError;
use tokio::time::Instant;

use super::{
    config::{OnExisting, Settings},
    disk::{Disk, OutFile},
    errors,
    state::Mark,
};

/// Written to the file at once.
const BUFFER: usize = 1 << 20;

/// The file of one queue, and the files that it has been before.
pub(super) struct Output {
    path: PathBuf,
    file: Option<Box<dyn OutFile>>,
    /// How far it has come, without `buffer`.
    mark: Mark,
    /// Where a failed batch has to be undone to.
    undo: Option<Mark>,
    buffer: Vec<u8>,
    /// When the first record of the present file was written by this task.
    since: Option<Instant>,
    unsynced: bool,
    unsynced_names: bool,
}

impl Output {
    /// Brings the file to a mark that is committed, or to what the configuration says if none is.
    pub(super) fn open(
        disk: &dyn Disk,
        path: PathBuf,
        committed: Option<Mark>,
        settings: &Settings,
    ) -> Result<Self, ConnectorError> {
        let mut output = Self {
            path,
            file: None,
            mark: Mark::default(),
            undo: None,
            buffer: Vec::new(),
            since: None,
            unsynced: true,
            unsynced_names: true,
        };
        match committed {
            Some(mark) => output.restore(disk, mark, settings)?,
            None => output.begin(disk, settings)?,
        }
        Ok(output)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// The first time: nothing was ever committed.
    fn begin(&mut self, disk: &dyn Disk, settings: &Settings) -> Result<(), ConnectorError> {
        let sequence = self.rotated(disk)?.into_iter().max().unwrap_or(0);
        let found = disk
            .stat(&self.path)
            .map_err(|e| errors::io("look at", &self.path, e))?;
        let length = match (found, settings.on_existing) {
            (Some((length, _)), OnExisting::Append) => length,
            (Some((length, _)), OnExisting::Fail) if length > 0 => return Err(errors::exists(&self.path)),
            _ => 0,
        };
        self.reopen(disk, Mark { sequence, length })
    }

    /// Goes back to exactly that mark: whatever came after it is removed.
    fn restore(&mut self, disk: &dyn Disk, mark: Mark, settings: &Settings) -> Result<(), ConnectorError> {
        self.file = None;
        let newer: Vec<_> = self
            .rotated(disk)?
            .into_iter()
            .filter(|n| *n > mark.sequence)
            .collect();
        let own = mark.sequence.saturating_add(1);
        if newer.contains(&own) {
            for n in newer.iter().filter(|n| **n > own) {
                let path = self.rotated_path(*n);
                disk.remove(&path).map_err(|e| errors::io("remove", &path, e))?;
            }
            disk.rename(&self.rotated_path(own), &self.path)
                .map_err(|e| errors::io("rename", &self.path, e))?;
        }
        let gone = !newer.is_empty() && !newer.contains(&own);
        let found = disk
            .stat(&self.path)
            .map_err(|e| errors::io("look at", &self.path, e))?;
        let length = found.map_or(0, |(length, _)| length);
        let mark = match (gone, length < mark.length) {
            (false, false) => mark,
            _ if !settings.continue_if_missing => {
                return Err(errors::missing(&self.path, found.map(|f| f.0), mark.length));
            }
            (true, _) => Mark {
                sequence: newer.into_iter().max().unwrap_or(mark.sequence),
                length,
            },
            (false, true) => Mark { length, ..mark },
        };
        self.reopen(disk, mark)
    }

    fn reopen(&mut self, disk: &dyn Disk, mark: Mark) -> Result<(), ConnectorError> {
        let mut file = disk
            .open(&self.path)
            .map_err(|e| errors::io("open", &self.path, e))?;
        file.truncate(mark.length)
            .map_err(|e| errors::io("truncate", &self.path, e))?;
        self.file = Some(file);
        self.mark = mark;
        self.undo = None;
        self.buffer.clear();
        self.since = (mark.length > 0).then(Instant::now);
        (self.unsynced, self.unsynced_names) = (true, true);
        Ok(())
    }

    /// The numbers of the files that it has been before.
    fn rotated(&self, disk: &dyn Disk) -> Result<Vec<u32>, ConnectorError> {
        let Some(name) = self.path.file_name().and_then(|n| n.to_str()) else {
            return Ok(vec![]);
        };
        let names = disk
            .list(self.dir())
            .map_err(|e| errors::io("open", &self.path, e))?;
        Ok(names
            .iter()
            .filter_map(|n| number(n.strip_prefix(name)?))
            .collect())
    }

    fn rotated_path(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number:06}"));
        path.into()
    }

    /// Undoes what is left of a batch that failed.
    pub(super) fn finish_undo(&mut self, disk: &dyn Disk, settings: &Settings) -> Result<(), ConnectorError> {
        match self.undo.take() {
            Some(mark) => {
                let undone = self.restore(disk, mark, settings);
                if undone.is_err() {
                    self.undo = Some(mark);
                }
                undone
            }
            None => Ok(()),
        }
    }

    /// Takes a line; `end` is its newline or nothing.
    pub(super) fn push(
        &mut self,
        disk: &dyn Disk,
        line: &[u8],
        end: &[u8],
        settings: &Settings,
    ) -> Result<(), ConnectorError> {
        let size = (line.len() + end.len()) as u64;
        let before = self.mark.length + self.buffer.len() as u64;
        let too_large = settings
            .rotate_size
            .is_some_and(|max| before > 0 && before + size > max);
        if too_large || self.is_old(settings) {
            self.rotate(disk)?;
        }
        self.buffer.extend_from_slice(line);
        self.buffer.extend_from_slice(end);
        if self.since.is_none() && settings.rotate_interval.is_some() {
            self.since = Some(Instant::now());
        }
        if self.buffer.len() >= BUFFER {
            self.write_out()
        } else {
            Ok(())
        }
    }

    fn is_old(&self, settings: &Settings) -> bool {
        let since = self
            .since
            .filter(|_| self.mark.length > 0 || !self.buffer.is_empty());
        since
            .zip(settings.rotate_interval)
            .is_some_and(|(since, interval)| since.elapsed() >= interval)
    }

    /// Gives the buffer to the file.
    pub(super) fn write_out(&mut self) -> Result<(), ConnectorError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let Some(file) = &mut self.file else {
            return Err(errors::io("write to", &self.path, closed()));
        };
        file.write_at(&self.buffer, self.mark.length)
            .map_err(|e| errors::io("write to", &self.path, e))?;
        self.mark.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
        self.unsynced = true;
        Ok(())
    }

    /// Undoes everything after the mark, at once or at the next batch.
    pub(super) fn undo(&mut self, disk: &dyn Disk, mark: Mark, settings: &Settings) {
        self.buffer.clear();
        if self.undo.is_none() && self.mark == mark && self.file.is_some() {
            // A failed write may have left a part of itself behind the mark.
            let cut = self.file.as_mut().map(|f| f.truncate(mark.length));
            if matches!(cut, Some(Ok(()))) {
                return;
            }
        }
        let mark = self.undo.unwrap_or(mark);
        self.undo = self.restore(disk, mark, settings).is_err().then_some(mark);
    }

    fn rotate(&mut self, disk: &dyn Disk) -> Result<(), ConnectorError> {
        self.write_out()?;
        self.sync()?;
        let next = Mark {
            sequence: self.mark.sequence.saturating_add(1),
            length: 0,
        };
        let to = self.rotated_path(next.sequence);
        // The lock goes with the file; nobody else writes to the path meanwhile, or the open below fails.
        disk.rename(&self.path, &to)
            .map_err(|e| errors::io("rename", &self.path, e))?;
        self.file = None;
        self.since = None;
        self.reopen(disk, next)
    }

    /// Rotates by time, checks that the file is still where readers look for it, and makes its content durable.
    pub(super) fn flush(&mut self, disk: &dyn Disk, settings: &Settings) -> Result<(), ConnectorError> {
        self.finish_undo(disk, settings)?;
        if self.is_old(settings) {
            self.rotate(disk)?;
        }
        let found = disk
            .stat(&self.path)
            .map_err(|e| errors::io("look at", &self.path, e))?;
        let own = self.file.as_ref().map(|f| f.identity());
        if found.map(|(_, identity)| identity) != own {
            return Err(errors::removed(&self.path, settings.continue_if_missing));
        }
        self.sync()
    }

    fn sync(&mut self) -> Result<(), ConnectorError> {
        if let Some(file) = self.file.as_mut().filter(|_| self.unsynced) {
            file.sync().map_err(|e| errors::sync(&self.path, e))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Whether names in its directory have to be made durable; asked once.
    pub(super) fn names_changed(&self) -> bool {
        self.unsynced_names
    }

    pub(super) fn names_synced(&mut self) {
        self.unsynced_names = false;
    }
}

/// `.000001`
fn number(suffix: &str) -> Option<u32> {
    let digits = suffix.strip_prefix('.')?;
    (digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn closed() -> io::Error {
    io::Error::other("it is not open")
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn only_our_own_names_are_numbered_files() {
        assert_eq!(number(".000001"), Some(1));
        assert_eq!(number(".1234567"), Some(1_234_567));
        for other in [
            "",
            ".",
            ".1",
            ".00001",
            "000001",
            ".000001.gz",
            ".00000a",
            ".99999999999",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
