use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use flate2::read::MultiGzDecoder;

use super::{
    config::Compression,
    lines::LineBuffer,
    position::{HEAD_BYTES, Head},
};

/// Read at once. Also what a line that is kept keeps in memory.
const BLOCK: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file that is being read. It stays the same file when its path is renamed or deleted.
pub(super) struct OpenFile {
    file: File,
    compression: Compression,
    gzip: Option<Box<Gzip>>,
    inode: Inode,
    head: Head,
    /// It does not begin any more as it did.
    head_lost: bool,
    stat: Stat,
    largest: u64,
    lines: LineBuffer,
}

/// Device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Inode(pub(super) u64, pub(super) u64);

/// What tells that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Bytes on disk.
    pub(super) size: u64,
    pub(super) modified: (i64, i64),
    /// Whether it still has a name.
    pub(super) linked: bool,
}

/// Decompression cannot seek: what lies before a position is decompressed and thrown away.
struct Gzip {
    decoder: MultiGzDecoder<BufReader<File>>,
    skipped: u64,
    /// `u64::MAX`: to the end.
    skip_to: u64,
    /// Size of the file when the decoder came to its end.
    ended_at: u64,
}

/// What an attempt to read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// There is more to cut into lines.
    Bytes,
    /// A step on the way to the position.
    Skipped,
    /// The end, for now.
    End,
    /// The end, in the middle of compressed data.
    CutOff,
    /// The content ends before the position.
    Short,
}

impl From<&Metadata> for Inode {
    fn from(m: &Metadata) -> Self {
        Self(m.dev(), m.ino())
    }
}

impl From<&Metadata> for Stat {
    fn from(m: &Metadata) -> Self {
        Self {
            size: m.len(),
            modified: (m.mtime(), m.mtime_nsec()),
            linked: m.nlink() > 0,
        }
    }
}

impl OpenFile {
    /// Opens a regular file; nothing is read but its head.
    pub(super) fn open(path: &Path, compression: Compression) -> io::Result<Self> {
        // The path is resolved: a link that has come meanwhile is not followed. A pipe must not make the open wait.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let head = Head::of(&beginning(&file)?);
        let lines = LineBuffer::new(0, 0);
        let (inode, stat) = ((&meta).into(), Stat::from(&meta));
        Ok(Self {
            file,
            compression,
            gzip: None,
            inode,
            head,
            head_lost: false,
            stat,
            largest: stat.size,
            lines,
        })
    }

    pub(super) fn inode(&self) -> Inode {
        self.inode
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// As it was when it was last looked at.
    pub(super) fn stat(&self) -> Stat {
        self.stat
    }

    /// Bytes that it once had and that were never read, as far as that can be known.
    pub(super) fn unread(&self) -> u64 {
        if self.gzip.is_some() {
            0
        } else {
            self.largest.saturating_sub(self.lines.read_to())
        }
    }

    /// Whether a position in it is a place on disk.
    pub(super) fn is_plain(&self) -> io::Result<bool> {
        Ok(match self.compression {
            Compression::None => true,
            Compression::Gzip => false,
            Compression::Auto => !beginning(&self.file)?.starts_with(&GZIP_MAGIC),
        })
    }

    pub(super) fn lines(&mut self) -> &mut LineBuffer {
        &mut self.lines
    }

    /// Whether the file begins as that head says.
    pub(super) fn fits(&self, head: &Head) -> io::Result<bool> {
        Ok(head.fits(&beginning(&self.file)?))
    }

    /// Whether it is compressed and what was compressed begins as that head says.
    pub(super) fn content_fits(&self, head: &Head) -> io::Result<bool> {
        if head.len == 0 || self.is_plain()? {
            return Ok(false);
        }
        let mut gzip = Gzip::begin(&self.file, 0)?;
        let mut content = Vec::with_capacity(HEAD_BYTES);
        let read = gzip
            .decoder
            .by_ref()
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut content);
        // What is damaged fits nothing.
        Ok(read.is_ok() && head.fits(&content))
    }

    /// Goes to a byte of the content; `u64::MAX` is the end.
    pub(super) fn start_at(&mut self, byte: u64, max_line: usize) -> io::Result<()> {
        let plain = self.is_plain()?;
        self.gzip = if plain {
            None
        } else {
            Some(Box::new(Gzip::begin(&self.file, byte)?))
        };
        let known = match byte {
            u64::MAX if plain => self.stat.size,
            u64::MAX => 0,
            byte => byte,
        };
        self.lines = LineBuffer::new(known, max_line);
        Ok(())
    }

    /// Looks at the file anew: its size, and whether it still begins as it did.
    pub(super) fn look(&mut self) -> io::Result<bool> {
        let before = self.stat;
        self.stat = (&self.file.metadata()?).into();
        if (self.stat.size, self.stat.modified) != (before.size, before.modified) {
            self.refresh_head()?;
        }
        // What was written anew says nothing about what was there before.
        if !self.head_lost {
            self.largest = self.largest.max(self.stat.size);
        }
        Ok(!self.head_lost)
    }

    /// Takes more of the beginning into the head while it is shorter than it can be.
    fn refresh_head(&mut self) -> io::Result<()> {
        let beginning = beginning(&self.file)?;
        if !self.head.fits(&beginning) {
            self.head_lost = true;
        } else if beginning.len() > self.head.len {
            self.head = Head::of(&beginning);
        }
        Ok(())
    }

    /// Up to where it has been read: of the content if plain, of the file if compressed.
    pub(super) fn consumed(&self) -> u64 {
        self.gzip
            .as_ref()
            .map_or_else(|| self.lines.read_to(), |g| g.ended_at)
    }

    /// Goes on after the file has grown.
    pub(super) fn resume(&mut self, max_line: usize) -> io::Result<()> {
        if self.gzip.is_some() {
            self.gzip = Some(Box::new(Gzip::begin(&self.file, self.lines.read_to())?));
        } else if self.lines.read_to() == 0 {
            self.start_at(0, max_line)?;
        }
        Ok(())
    }

    /// Reads a block. To be called when no whole line is left.
    pub(super) fn fill(&mut self) -> io::Result<Filled> {
        let filled = match &mut self.gzip {
            Some(gzip) => gzip.fill(&self.file, &mut self.lines)?,
            None => {
                let at = self.lines.read_to();
                let left = self.stat.size.saturating_sub(at).clamp(4096, BLOCK as u64) as usize;
                match self
                    .lines
                    .fill(left, |room| retry(|| self.file.read_at(room, at)))?
                {
                    0 => Filled::End,
                    _ => Filled::Bytes,
                }
            }
        };
        if filled == Filled::Bytes && self.head.len < HEAD_BYTES {
            self.refresh_head()?;
        }
        Ok(filled)
    }
}

impl Gzip {
    fn begin(file: &File, skip_to: u64) -> io::Result<Self> {
        let mut clone = file.try_clone()?;
        clone.seek(SeekFrom::Start(0))?;
        let decoder = MultiGzDecoder::new(BufReader::with_capacity(64 * 1024, clone));
        Ok(Self {
            decoder,
            skipped: 0,
            skip_to,
            ended_at: 0,
        })
    }

    fn fill(&mut self, mut file: &File, lines: &mut LineBuffer) -> io::Result<Filled> {
        let skip = self.skip_to - self.skipped;
        let got = if skip > 0 {
            let mut void = vec![0; usize::try_from(skip).unwrap_or(BLOCK).min(BLOCK)];
            retry(|| self.decoder.read(&mut void))
        } else {
            lines.fill(BLOCK, |room| retry(|| self.decoder.read(room)))
        };
        let cut_off = matches!(&got, Err(e) if e.kind() == io::ErrorKind::UnexpectedEof);
        let got = if cut_off { 0 } else { got? };
        if got > 0 && skip > 0 {
            self.skipped += got as u64;
            return Ok(Filled::Skipped);
        }
        if got > 0 {
            return Ok(Filled::Bytes);
        }
        self.ended_at = file.stream_position()?;
        if skip > 0 && self.skip_to == u64::MAX {
            self.skip_to = self.skipped;
            lines.restart(self.skipped);
        } else if skip > 0 {
            return Ok(if cut_off { Filled::CutOff } else { Filled::Short });
        }
        Ok(if cut_off { Filled::CutOff } else { Filled::End })
    }
}

/// At most [`HEAD_BYTES`] from the beginning, as they are on disk.
fn beginning(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_BYTES];
    let mut len = 0;
    loop {
        match retry(|| file.read_at(&mut bytes[len..], len as u64))? {
            0 => break,
            n => len += n,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
