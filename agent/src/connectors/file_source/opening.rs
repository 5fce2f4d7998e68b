use std::{fs, io, os::unix::fs::DirEntryExt};

use super::{
    batch::Batch,
    decide::{self, AtPath, Begin, Candidate},
    open_file::{Inode, OpenFile, Stat},
    position::Place,
    reader::{Opened, PathReader, State, Tools},
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

    fn candidate(&self, file: &OpenFile, place: &Place) -> io::Result<Candidate> {
        let fits = match &place.file {
            Some(id) => file.fits(&id.head)?,
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

    /// The place's file under another name in the same directory.
    fn find_renamed(&self, place: &Place, tools: &Tools) -> Option<OpenFile> {
        let (id, dir) = (place.file.as_ref()?, self.path.parent()?);
        let entries = fs::read_dir(dir).ok()?;
        let mut found = entries
            .flatten()
            .filter(|e| e.ino() == id.inode && e.path() != self.path);
        found.find_map(|entry| {
            let resolved = tools.env.paths.resolve(&entry.path()).ok()?;
            let file = OpenFile::open(&resolved, tools.settings.compression).ok()?;
            (!tools.claims.held_by_other(file.inode(), &self.path)).then_some(file)
        })
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
        self.retry_at = None;
        self.state = State::Open(Box::new(Opened {
            file,
            by_hand,
            at_end: false,
            last_growth: tools.now,
            at_path: AtPath::Same,
            at_path_since: tools.now,
        }));
        self.name_file();
        Ok(())
    }
}
