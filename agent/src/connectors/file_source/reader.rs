use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::DirEntryExt,
    path::{Path, PathBuf},
    time::Duration,
};

use gantry_connector::{Env, Value};
use tokio::time::Instant;

use super::{
    batch::{Batch, Origin},
    claims::Claims,
    config::Settings,
    decide::{self, AtPath, Look, Next, Patience},
    discover::Patterns,
    open_file::{Filled, Inode, OpenFile, Stat},
    overtaken,
    position::{Done, FileId, Place},
    trouble::Trouble,
};

/// How long a file that cannot be read is left alone while others can.
const RETRY: Duration = Duration::from_secs(30);

/// So many blocks are thrown away at once on the way to a position in compressed data.
const SKIPPED_AT_ONCE: usize = 64;

/// Reads the files that are under one path one after the other, each to its end.
pub(super) struct PathReader {
    pub(super) path: PathBuf,
    pub(super) origin: Origin,
    pub(super) state: State,
    /// Files of this path that have been left.
    done: Vec<Done>,
    /// The first file is read from its end.
    pub(super) from_end: bool,
    /// It has failed and waits until then.
    pub(super) retry_at: Option<Instant>,
}

pub(super) enum State {
    /// No file is open. With a place: the file of that place has been read so far.
    Closed {
        place: Option<Place>,
        seen: Option<(Inode, Stat)>,
    },
    Open(Box<Opened>),
}

pub(super) struct Opened {
    pub(super) file: OpenFile,
    /// A person has set the position: it must exist.
    pub(super) by_hand: bool,
    /// Has been read to its end, for now.
    pub(super) at_end: bool,
    pub(super) last_growth: Instant,
    pub(super) at_path: AtPath,
    pub(super) at_path_since: Instant,
    /// Another file that had the path follows it: whoever wrote it has gone over long ago.
    pub(super) followed: bool,
    /// The rest of it cannot be read, which has been told.
    pub(super) damaged: bool,
}

/// What a reader works with.
pub(super) struct Tools<'a> {
    pub(super) settings: &'a Settings,
    pub(super) patterns: &'a Patterns,
    pub(super) env: &'a Env,
    pub(super) claims: &'a mut Claims,
    pub(super) now: Instant,
    /// How many files may be open.
    pub(super) max_open: usize,
    /// Others wait for a file to be closed.
    pub(super) crowded: bool,
    /// What has failed is tried again at once.
    pub(super) retry: bool,
}

/// How a reader has left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more at once.
    More,
    /// The end, for now.
    End,
    /// The end, for now; something begins to happen: it is to be looked at again soon.
    Soon,
    /// Must wait: too many files are open, or the last attempt failed a moment ago.
    Later,
    /// The file was deleted and read to its end.
    Gone,
}

impl PathReader {
    /// Nothing is opened yet. `place` is where the path was left; without it, the first file is read from its beginning,
    /// or from its end if `from_end`.
    pub(super) fn new(path: PathBuf, place: Option<Place>, from_end: bool, key_is_path: bool) -> Self {
        let origin = Origin::new(&path, key_is_path);
        let done = place
            .iter()
            .flat_map(|p| &p.file)
            .flat_map(|f| f.done.clone())
            .collect();
        Self {
            path,
            origin,
            state: State::Closed { place, seen: None },
            done,
            from_end,
            retry_at: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a file that has not been read to its end.
    pub(super) fn has_more(&self) -> bool {
        matches!(&self.state, State::Open(o) if !o.at_end)
    }

    /// Brings the field `file` of positions up to date.
    pub(super) fn name_file(&mut self) {
        if let State::Open(o) = &self.state {
            let id = FileId {
                inode: o.file.inode().1,
                head: o.file.head(),
                done: self.done.clone(),
            };
            self.origin.file = Value::from(id.to_string());
        }
    }

    /// Reads until the batch is full or the end is reached.
    pub(super) fn read(&mut self, tools: &Tools, batch: &mut Batch) -> Result<Progress, Trouble> {
        let max_line = tools.settings.max_line;
        let mut skipped = 0;
        let State::Open(o) = &mut self.state else {
            return Ok(Progress::End);
        };
        let same_head = o.file.look().map_err(|e| Trouble::io("read", &self.path, e))?;
        loop {
            let State::Open(o) = &mut self.state else {
                return Ok(Progress::End);
            };
            while !batch.is_full() {
                let Some(piece) = o.file.lines().next_line() else {
                    break;
                };
                batch.push(piece, &self.origin, max_line);
            }
            if batch.is_full() || skipped == SKIPPED_AT_ONCE {
                return Ok(Progress::More);
            }
            if !same_head {
                o.at_end = true;
                return Ok(Progress::End);
            }
            let head = o.file.head();
            let filled = match o.file.fill() {
                // It must not keep the path's later files from being read.
                Err(e) if o.at_path != AtPath::Same && is_damage(&e) => {
                    (o.at_end, o.damaged) = (true, true);
                    let byte = o.file.lines().read_to();
                    let reason = format!("a rotated file is damaged after byte {byte} of its content: {e}");
                    batch.gap(&self.origin, 0, reason);
                    return Ok(Progress::End);
                }
                filled => filled.map_err(|e| Trouble::io("read", &self.path, e))?,
            };
            let head_grew = o.file.head() != head;
            match filled {
                Filled::Bytes => o.last_growth = tools.now,
                Filled::Skipped => skipped += 1,
                Filled::End => {
                    o.at_end = true;
                    if !tools.settings.follow {
                        self.send_rest(max_line, batch);
                    }
                    return Ok(Progress::End);
                }
                Filled::CutOff => {
                    o.at_end = true;
                    let ended = !tools.settings.follow;
                    return if ended {
                        Err(Trouble::cut_off(&self.path))
                    } else {
                        Ok(Progress::End)
                    };
                }
                Filled::Short => {
                    o.at_end = true;
                    return self.shorter_than_position(tools, batch);
                }
            }
            if head_grew {
                self.name_file();
            }
        }
    }

    fn shorter_than_position(&mut self, tools: &Tools, batch: &mut Batch) -> Result<Progress, Trouble> {
        let State::Open(o) = &mut self.state else {
            return Ok(Progress::End);
        };
        let byte = o.file.lines().read_to();
        if o.by_hand {
            return Err(Trouble::position(&self.path, byte, "the content is shorter"));
        }
        o.file
            .start_at(0, tools.settings.max_line)
            .map_err(|e| Trouble::io("read", &self.path, e))?;
        o.at_end = false;
        batch.gap(
            &self.origin,
            0,
            format!("the content ends before byte {byte}; it is read from its beginning"),
        );
        Ok(Progress::More)
    }

    fn send_rest(&mut self, max_line: usize, batch: &mut Batch) {
        if let State::Open(o) = &mut self.state
            && let Some(rest) = o.file.lines().take_rest()
        {
            batch.push(rest, &self.origin, max_line);
        }
    }

    /// Looks at the path and at the file that was read to its end.
    pub(super) fn look(&mut self, tools: &mut Tools, batch: &mut Batch) -> Result<Progress, Trouble> {
        let State::Open(o) = &mut self.state else {
            let waits = self.retry_at.is_some_and(|at| tools.now < at) && !tools.retry;
            if waits || (tools.claims.held() >= tools.max_open && !self.is_unchanged()) {
                return Ok(Progress::Later);
            }
            self.open(tools, batch)?;
            return Ok(self.progress());
        };
        let max_line = tools.settings.max_line;
        let same_head = o.file.look().map_err(|e| Trouble::io("read", &self.path, e))?;
        let at_path = at_path(&self.path, o.file.inode(), tools);
        if at_path != o.at_path {
            (o.at_path, o.at_path_since) = (at_path, tools.now);
        }
        let stat = o.file.stat();
        let consumed = if o.damaged { stat.size } else { o.file.consumed() };
        let look = Look {
            size: stat.size,
            consumed,
            same_head,
            linked: stat.linked,
            has_rest: o.file.lines().has_rest(),
            path: at_path,
            quiet: tools.now - o.last_growth,
            path_for: tools.now - o.at_path_since,
            crowded: tools.crowded,
        };
        let patience = Patience {
            idle_flush: tools.settings.idle_flush,
            rotate_wait: if o.followed {
                Duration::ZERO
            } else {
                tools.settings.rotate_wait
            },
        };
        match decide::next(&look, patience) {
            Next::Wait if tools.settings.follow && (look.has_rest || look.path == AtPath::Other) => {
                return Ok(Progress::Soon);
            }
            Next::Wait => {}
            Next::Read => {
                o.at_end = false;
                o.file
                    .resume(max_line)
                    .map_err(|e| Trouble::io("read", &self.path, e))?;
                self.name_file();
            }
            Next::Anew => {
                let lost = o.file.unread();
                self.send_rest(max_line, batch);
                if lost > 0 {
                    let reason = format!("the file was cut off when {consumed} bytes of it had been read");
                    batch.gap(&self.origin, lost, reason);
                }
                self.close(tools);
                self.state = State::Closed {
                    place: None,
                    seen: None,
                };
                self.open(tools, batch)?;
            }
            Next::SendRest => self.send_rest(max_line, batch),
            Next::Leave => {
                let left = (o.file.inode(), stat);
                self.send_rest(max_line, batch);
                self.leave(tools);
                self.state = State::Closed {
                    place: None,
                    seen: None,
                };
                if !self.open_overtaken(&left, tools, batch)? {
                    self.open(tools, batch)?;
                }
            }
            Next::Close => self.close(tools),
            Next::Forget => {
                self.leave(tools);
                return Ok(Progress::Gone);
            }
        }
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        if self.has_more() {
            Progress::More
        } else {
            Progress::End
        }
    }

    /// Closes the file; its place is kept.
    pub(super) fn close(&mut self, tools: &mut Tools) {
        let State::Open(o) = &mut self.state else { return };
        let inode = o.file.inode();
        tools.claims.release(inode);
        let file = FileId {
            inode: inode.1,
            head: o.file.head(),
            done: self.done.clone(),
        };
        let place = Place {
            byte: o.file.lines().handed_out(),
            file: Some(file),
        };
        let seen = (o.at_path == AtPath::Same).then(|| (inode, o.file.stat()));
        self.state = State::Closed {
            place: Some(place),
            seen,
        };
    }

    /// Closes the file because it cannot be read; it is tried again from where it was left.
    pub(super) fn fail(&mut self, tools: &mut Tools) {
        self.close(tools);
        if let State::Closed { seen, .. } = &mut self.state {
            *seen = None;
        }
        self.retry_at = Some(tools.now + RETRY);
    }

    /// Keeps of the files that were left those that would be read again under the name they have now.
    fn forget_unread(&mut self, patterns: &Patterns, left: &Stat) {
        let again = overtaken::beside(&self.path)
            .filter(|e| patterns.covers(&e.path()) || overtaken::may_come_again(&self.path, e, left));
        let inodes: HashSet<u64> = again.map(|e| e.ino()).collect();
        self.done.retain(|d| inodes.contains(&d.inode));
    }

    /// Closes the file for good.
    fn leave(&mut self, tools: &mut Tools) {
        let State::Open(o) = &mut self.state else { return };
        let inode = o.file.inode();
        let done = Done {
            inode: inode.1,
            byte: o.file.lines().read_to(),
            head: o.file.head(),
        };
        let stat = o.file.stat();
        tools.claims.release(inode);
        if stat.linked {
            tools.claims.finish(done);
            FileId::remember(&mut self.done, done);
            self.forget_unread(tools.patterns, &stat);
        }
        self.close(tools);
    }
}

/// The content cannot be read, now or later.
fn is_damage(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
}

pub(super) fn at_path(path: &Path, held: Inode, tools: &Tools) -> AtPath {
    let Ok(meta) = fs::metadata(path) else {
        return AtPath::Nothing;
    };
    let inode = Inode::from(&meta);
    let read = tools
        .claims
        .finished(inode)
        .is_some_and(|done| done.byte == meta.len());
    if inode == held {
        AtPath::Same
    } else if meta.len() == 0 || read || tools.claims.held_by_other(inode, path) {
        AtPath::Idle
    } else {
        AtPath::Other
    }
}
