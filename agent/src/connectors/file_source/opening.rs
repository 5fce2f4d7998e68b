use std::{fs, io, os::unix::fs::DirEntryExt, path::Path};

use super::{
    batch::Batch,
    decide::{self, Begin, Candidate},
    open_file::{Inode, OpenFile, Stat},
    overtaken,
    position::Place,
    reader::{Opened, PathReader, State, Tools, at_path},
    trouble::Trouble,
};

/// How a reader comes to a file.
impl PathReader {
    /// Opens the file where the place says, if there is one and it has not been read already.
    pub(super) fn open(&mut self, tools: &mut Tools, batch: &mut Batch) -> Result<(), Trouble> {
        let State::Closed { place, .. } = &self.state else {
            return Ok(());
        };
        let there = self.there();
        if self.is_unchanged() {
            return Ok(());
        }
        let place = place.clone();
        let at_path = match there {
            Some((inode, _)) if !tools.claims.held_by_other(inode, &self.path) => self.open_path(tools)?,
            _ => None,
        };
        match (place, at_path) {
            (Some(place), at_path) => self.open_at(&place, at_path, tools, batch),
            (None, Some(file)) => match self.unread_from(&file, tools) {
                Some(0) if std::mem::take(&mut self.from_end) => self.begin(file, u64::MAX, false, tools),
                Some(byte) => self.begin(file, byte, false, tools),
                None => Ok(()),
            },
            (None, None) => Ok(()),
        }
    }

    /// What is at the path.
    fn there(&self) -> Option<(Inode, Stat)> {
        let meta = fs::metadata(&self.path).ok()?;
        Some(((&meta).into(), (&meta).into()))
    }

    /// Whether the path shows what it did when its file was closed.
    pub(super) fn is_unchanged(&self) -> bool {
        matches!(&self.state, State::Closed { seen: Some(seen), .. } if self.there() == Some(*seen))
    }

    fn open_at(
        &mut self,
        place: &Place,
        at_path: Option<OpenFile>,
        tools: &mut Tools,
        batch: &mut Batch,
    ) -> Result<(), Trouble> {
        let wanted = place.file.as_ref().map(|id| id.inode);
        let elsewhere = at_path.as_ref().map(|f| f.inode().1) != wanted;
        let renamed = if elsewhere {
            self.find_renamed(place, tools)
        } else {
            None
        };
        let candidate = |file: &Option<OpenFile>| match file {
            Some(f) => self
                .candidate(f, place)
                .map(Some)
                .map_err(|e| Trouble::io("read", &self.path, e)),
            None => Ok(None),
        };
        let choice = decide::begin(place, candidate(&at_path)?, candidate(&renamed)?);
        match (choice, at_path, renamed) {
            (Begin::AtPath(byte), Some(file), _) | (Begin::Renamed(byte), _, Some(file)) => {
                self.begin(file, byte, place.file.is_none(), tools)
            }
            (Begin::Anew(why), Some(file), _) => {
                let Some(byte) = self.unread_from(&file, tools) else {
                    return Ok(());
                };
                self.begin(file, byte, false, tools)?;
                let left = place.byte;
                let reason =
                    format!("{why}; whether anything followed byte {left} of what was there is not known");
                batch.gap(&self.origin, 0, reason);
                Ok(())
            }
            (Begin::Refuse(why), ..) => Err(Trouble::position(&self.path, place.byte, &why)),
            _ => Ok(()),
        }
    }

    /// Opens the oldest of the files that had the path after the one that was left and were renamed before they could be
    /// read, and tells of those that cannot be. Whether there is one.
    pub(super) fn open_overtaken(
        &mut self,
        left: &(Inode, Stat),
        tools: &mut Tools,
        batch: &mut Batch,
    ) -> Result<bool, Trouble> {
        let compression = tools.settings.compression;
        let found = overtaken::find(&self.path, left, compression, tools.patterns, tools.claims);
        let mut found = found.into_iter().peekable();
        while let Some(next) = found.next() {
            let opened = tools.env.paths.resolve(&next.path).map_err(|e| e.chain());
            let opened = opened.and_then(|at| OpenFile::open(&at, compression).map_err(|e| e.to_string()));
            let why = match opened {
                Ok(_) if !next.readable => "its name does not say for sure, or it is compressed".to_owned(),
                Ok(file) => match self.unread_from(&file, tools) {
                    Some(byte) => {
                        self.begin(file, byte, false, tools)?;
                        if let State::Open(o) = &mut self.state {
                            o.followed = found.peek().is_some();
                        }
                        return Ok(true);
                    }
                    None => continue,
                },
                Err(why) => why,
            };
            let name = next.path.file_name().unwrap_or_default().display();
            let reason = format!(
                "{name} seems to have had this path and was renamed before it could be read; it is left out: {why}. Read it by a \
                 path of its own, and name rotated files in `paths` too, if files are rotated so quickly or while nobody reads"
            );
            batch.gap(&self.origin, next.bytes, reason);
        }
        Ok(false)
    }

    fn candidate(&self, file: &OpenFile, place: &Place) -> io::Result<Candidate> {
        let fits = match &place.file {
            Some(id) => file.fits(&id.head)? || file.content_fits(&id.head)?,
            None => true,
        };
        let size = file.is_plain()?.then_some(file.stat().size);
        Ok(Candidate {
            inode: file.inode().1,
            fits,
            size,
        })
    }

    /// Where a file without a place begins: where it was left when another path had it. None: nothing is left of it.
    fn unread_from(&self, file: &OpenFile, tools: &Tools) -> Option<u64> {
        match tools.claims.finished(file.inode()) {
            Some(done) if file.fits(&done.head).unwrap_or(false) => {
                let grew = file.is_plain().unwrap_or(false) && file.stat().size > done.byte;
                grew.then_some(done.byte)
            }
            _ => Some(0),
        }
    }

    fn open_path(&self, tools: &Tools) -> Result<Option<OpenFile>, Trouble> {
        let resolved = tools.env.paths.resolve(&self.path).map_err(Trouble::from)?;
        match OpenFile::open(&resolved, tools.settings.compression) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Trouble::io("open", &self.path, e)),
        }
    }

    /// The place's file under another name in the same directory, or what became of it when it was compressed.
    fn find_renamed(&self, place: &Place, tools: &Tools) -> Option<OpenFile> {
        let id = place.file.as_ref()?;
        let open = |at: &Path| {
            let resolved = tools.env.paths.resolve(at).ok()?;
            let file = OpenFile::open(&resolved, tools.settings.compression).ok()?;
            (!tools.claims.held_by_other(file.inode(), &self.path)).then_some(file)
        };
        let same = overtaken::beside(&self.path)
            .filter(|e| e.ino() == id.inode && e.path() != self.path)
            .find_map(|e| open(&e.path()));
        if same.as_ref().is_some_and(|f| f.fits(&id.head).unwrap_or(false)) {
            return same;
        }
        let mut packed = overtaken::compressed(&self.path)
            .filter_map(|at| open(&at))
            .filter(|f| f.content_fits(&id.head).unwrap_or(false));
        // With equal beginnings nobody can tell which one it is.
        match (packed.next(), packed.next()) {
            (Some(only), None) => Some(only),
            _ => same,
        }
    }

    fn begin(
        &mut self,
        mut file: OpenFile,
        byte: u64,
        by_hand: bool,
        tools: &mut Tools,
    ) -> Result<(), Trouble> {
        file.start_at(byte, tools.settings.max_line)
            .map_err(|e| Trouble::io("read", &self.path, e))?;
        tools.claims.hold(file.inode(), &self.path);
        let at_path = at_path(&self.path, file.inode(), tools);
        self.retry_at = None;
        self.state = State::Open(Box::new(Opened {
            file,
            by_hand,
            at_end: false,
            last_growth: tools.now,
            at_path,
            at_path_since: tools.now,
            followed: false,
            damaged: false,
        }));
        self.name_file();
        Ok(())
    }
}
