use std::{
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use bytes::Bytes;
use gantry_connector::{ConnectorError, Fields, Value};
use sha2::{Digest, Sha256};

/// How much of a file's beginning tells it from others.
pub(super) const HEAD_BYTES: usize = 1024;

/// How many earlier files of a path are remembered with its position.
const REMEMBERED: usize = 64;

/// A place in the files of one path, stored as `{byte, file}`.
///
/// `byte` is the next byte to read, of the decompressed content if the file is compressed. `file` says of which file, for example
/// `inode=5640121 head=1024:9f86d081884c7d65`. A person who sets a position may leave `file` out: then whatever file is at the path
/// is read from that byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) byte: u64,
    pub(super) file: Option<FileId>,
}

/// Tells a file from others that were or will be under the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    /// Finds the file when it has been renamed; may change when it is copied or restored.
    pub(super) inode: u64,
    pub(super) head: Head,
    /// Files that were under this path before, have been read to their end, and now have a name that is read too; latest
    /// last. Empty for most.
    pub(super) done: Vec<Done>,
}

/// Length and hash of a file's beginning, at most [`HEAD_BYTES`], as it was when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: usize,
    pub(super) hash: u64,
}

/// A file that has been read to its end and left, because another took its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) inode: u64,
    /// Where reading ended, in bytes of the content.
    pub(super) byte: u64,
    pub(super) head: Head,
}

impl Head {
    /// Of a file that begins so.
    pub(super) fn of(beginning: &[u8]) -> Self {
        let beginning = &beginning[..beginning.len().min(HEAD_BYTES)];
        let digest = Sha256::digest(beginning);
        let hash = digest.iter().take(8).fold(0, |h, b| h << 8 | u64::from(*b));
        Self {
            len: beginning.len(),
            hash,
        }
    }

    /// Whether a file that begins so may be the one it was taken from.
    pub(super) fn fits(&self, beginning: &[u8]) -> bool {
        beginning.get(..self.len).is_some_and(|b| Self::of(b) == *self)
    }
}

impl FileId {
    /// Remembers a file that was left.
    pub(super) fn remember(done: &mut Vec<Done>, left: Done) {
        done.retain(|d| d.inode != left.inode);
        done.push(left);
        if done.len() > REMEMBERED {
            done.remove(0);
        }
    }
}

impl Place {
    pub(super) fn from_fields(partition: &Fields, position: &Fields) -> Result<Self, ConnectorError> {
        let refused = |what: &str| {
            ConnectorError::user(format!("position {position} of {partition} {what}")).fix(
                "set it to byte=N, the number of bytes of the file to skip, or reset the connector's offsets",
            )
        };
        if position.iter().any(|(name, _)| name != "byte" && name != "file") {
            return Err(refused("has a field that is neither byte nor file"));
        }
        let byte = position
            .uint("byte")
            .ok_or_else(|| refused("has no number byte"))?;
        let file = match position.get("file") {
            None => None,
            Some(Value::Str(text)) => Some(
                text.parse()
                    .map_err(|()| refused("has a file that cannot be read"))?,
            ),
            Some(_) => return Err(refused("has a file that is not a text")),
        };
        Ok(Self { byte, file })
    }
}

/// The partition of a path: `{path}`. A name that is not UTF-8 is stored as bytes.
pub(super) fn partition(path: &Path) -> Fields {
    let value = match path.to_str() {
        Some(text) => Value::from(text),
        None => Bytes::copy_from_slice(path.as_os_str().as_bytes()).into(),
    };
    Fields::new().with("path", value)
}

/// The path of a partition.
pub(super) fn path_of(partition: &Fields) -> Result<PathBuf, ConnectorError> {
    let only = partition.iter().count() == 1;
    let path = match partition.get("path").filter(|_| only) {
        Some(Value::Str(text)) => PathBuf::from(&**text),
        Some(Value::Bytes(bytes)) => PathBuf::from(std::ffi::OsStr::from_bytes(bytes)),
        _ => PathBuf::new(),
    };
    if path.is_absolute() {
        return Ok(path);
    }
    Err(
        ConnectorError::user(format!("partition {partition} is not one of file-source")).fix(
            "a partition is path=/ABSOLUTE/PATH; remove this one with `gantry connectors offsets reset`",
        ),
    )
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode={} head={}", self.inode, self.head)?;
        for (i, done) in self.done.iter().enumerate() {
            let before = if i == 0 { " done=" } else { "," };
            write!(f, "{before}{}@{}:{}", done.inode, done.byte, done.head)?;
        }
        Ok(())
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.len, self.hash)
    }
}

impl FromStr for FileId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (mut inode, mut head, mut done) = (None, None, Vec::new());
        for word in text.split_whitespace() {
            match word.split_once('=').ok_or(())? {
                ("inode", v) => inode = Some(v.parse().map_err(drop)?),
                ("head", v) => head = Some(v.parse()?),
                ("done", v) => done = v.split(',').map(str::parse).collect::<Result<_, _>>()?,
                _ => return Err(()),
            }
        }
        Ok(Self {
            inode: inode.ok_or(())?,
            head: head.ok_or(())?,
            done,
        })
    }
}

impl FromStr for Head {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (len, hash) = text.split_once(':').ok_or(())?;
        let len = len.parse().map_err(drop)?;
        if len > HEAD_BYTES {
            return Err(());
        }
        Ok(Self {
            len,
            hash: u64::from_str_radix(hash, 16).map_err(drop)?,
        })
    }
}

impl FromStr for Done {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (inode, rest) = text.split_once('@').ok_or(())?;
        let (byte, head) = rest.split_once(':').ok_or(())?;
        Ok(Self {
            inode: inode.parse().map_err(drop)?,
            byte: byte.parse().map_err(drop)?,
            head: head.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    /// What is stored outlives this version: the texts must stay readable.
    #[test]
    fn the_stored_form_is_this_one() {
        let head = Head::of(b"test");
        let mut id = FileId {
            inode: 5_640_121,
            head,
            done: vec![],
        };
        assert_eq!(id.to_string(), "inode=5640121 head=4:9f86d081884c7d65");
        FileId::remember(
            &mut id.done,
            Done {
                inode: 7,
                byte: 99,
                head,
            },
        );
        FileId::remember(
            &mut id.done,
            Done {
                inode: 8,
                byte: 0,
                head,
            },
        );
        let text = id.to_string();
        assert_eq!(
            text,
            "inode=5640121 head=4:9f86d081884c7d65 done=7@99:4:9f86d081884c7d65,8@0:4:9f86d081884c7d65"
        );
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn a_head_fits_a_file_that_grew_and_no_other() {
        let head = Head::of(b"abc");
        assert!(head.fits(b"abc") && head.fits(b"abcdef"));
        assert!(!head.fits(b"ab") && !head.fits(b"abd") && !head.fits(b""));
        assert!(Head::of(b"").fits(b"anything"));
        assert_eq!(Head::of(&[7; 5000]).len, HEAD_BYTES);
    }

    #[test]
    fn only_the_last_few_are_remembered() {
        let mut done = Vec::new();
        let left = |inode| Done {
            inode,
            byte: 1,
            head: Head::of(b""),
        };
        (0..100).for_each(|inode| FileId::remember(&mut done, left(inode)));
        FileId::remember(&mut done, left(50));
        assert_eq!(
            (done.len(), done[0].inode, done[REMEMBERED - 1].inode),
            (REMEMBERED, 36, 50)
        );
    }

    #[test]
    fn positions_of_people_are_read_and_nonsense_is_refused() {
        let p = partition(Path::new("/a"));
        let place = |f: Fields| Place::from_fields(&p, &f).map_err(|e| e.to_string());
        assert_eq!(
            place(Fields::new().with("byte", 5i64)),
            Ok(Place { byte: 5, file: None })
        );
        for bad in [
            Fields::new(),
            Fields::new().with("byte", -5i64),
            Fields::new().with("byte", "5"),
            Fields::new().with("line", 5u64),
            Fields::new().with("byte", 5u64).with("line", 5u64),
            Fields::new().with("byte", 5u64).with("file", "x"),
            Fields::new()
                .with("byte", 5u64)
                .with("file", "inode=1 head=4000:00"),
            Fields::new().with("byte", 5u64).with("file", 1u64),
        ] {
            assert!(place(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_file_name_has_a_partition() {
        let strange = PathBuf::from(std::ffi::OsString::from_vec(b"/a/\xff.log".to_vec()));
        for path in [PathBuf::from("/var/log/é.log"), strange] {
            assert_eq!(path_of(&partition(&path)).unwrap(), path);
        }
        assert!(path_of(&Fields::new()).is_err());
        assert!(path_of(&Fields::new().with("path", "relative")).is_err());
        assert!(path_of(&Fields::new().with("path", "/a").with("topic", "t")).is_err());
    }
}
