//! The file: the newest version of every key, the leases and the revision. History is never written.

use std::path::{Path, PathBuf};

use etcd_client::proto::PbKeyValue;
use prost::Message;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};

use crate::Error;
use crate::apply::Effects;

/// Key -> its encoded `mvccpb.KeyValue`.
const KEYS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
/// Lease id -> ttl in seconds.
const LEASES: TableDefinition<i64, i64> = TableDefinition::new("leases");
/// The numbers below, by name.
const META: TableDefinition<&str, i64> = TableDefinition::new("meta");

const FORMAT: &str = "format";
const REVISION: &str = "revision";
const BOOT: &str = "boot";

const SUPPORTED_FORMAT: i64 = 1;
const FIRST_REVISION: i64 = 1;

/// The file is only read when it is opened, so that redb's default of 1 GiB would buy nothing.
const CACHE_BYTES: usize = 32 << 20;
/// A file is compacted at start when it is larger than this and mostly empty.
const COMPACT_ABOVE_BYTES: u64 = 64 << 20;

/// What a file held when it was opened.
#[derive(Debug)]
pub(crate) struct Contents {
    /// False for a new file.
    pub(crate) existed: bool,
    pub(crate) revision: i64,
    /// How often the file was opened, this time included.
    pub(crate) boot: i64,
    pub(crate) keys: Vec<PbKeyValue>,
    /// Id and ttl in seconds.
    pub(crate) leases: Vec<(i64, i64)>,
}

/// The open and locked file.
pub(crate) struct Disk {
    database: Database,
    path: PathBuf,
}

impl Disk {
    /// Opens or creates the file and locks it.
    ///
    /// An existing file moves on by one revision that changes nothing: the deletes of its last revision are not on
    /// disk, so that a watch must not start at it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Contents), Error> {
        let storage = |source: redb::Error| Error::Storage {
            path: path.to_owned(),
            source: source.into(),
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| Error::Storage {
                path: path.to_owned(),
                source: source.into(),
            })?;
        }
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => Error::AlreadyOpen {
                    path: path.to_owned(),
                },
                error => storage(error.into()),
            })?;
        let mut disk = Self {
            database,
            path: path.to_owned(),
        };
        disk.start().map_err(storage)??;
        let contents = disk.read().map_err(storage)??;
        disk.shrink(&contents);
        Ok((disk, contents))
    }

    /// Writes the numbers a new file needs, or counts the start of an existing one.
    fn start(&self) -> Result<Result<(), Error>, redb::Error> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        {
            txn.open_table(KEYS)?;
            txn.open_table(LEASES)?;
            let mut meta = txn.open_table(META)?;
            let read = |name: &str| -> Result<Option<i64>, redb::Error> {
                Ok(meta.get(name)?.map(|value| value.value()))
            };
            let (format, revision, boot) = (read(FORMAT)?, read(REVISION)?, read(BOOT)?);
            if let Some(found) = format.filter(|format| *format > SUPPORTED_FORMAT) {
                return Ok(Err(Error::NewerFormat {
                    path: self.path.clone(),
                    found,
                    supported: SUPPORTED_FORMAT,
                }));
            }
            let revision = revision.map_or(FIRST_REVISION, |revision| revision + 1);
            meta.insert(FORMAT, SUPPORTED_FORMAT)?;
            meta.insert(REVISION, revision)?;
            meta.insert(BOOT, boot.unwrap_or(0) + 1)?;
        }
        txn.commit()?;
        Ok(Ok(()))
    }

    fn read(&self) -> Result<Result<Contents, Error>, redb::Error> {
        let txn = self.database.begin_read()?;
        let meta = txn.open_table(META)?;
        let number =
            |name: &str| -> Result<i64, redb::Error> { Ok(meta.get(name)?.map_or(0, |value| value.value())) };
        let (revision, boot) = (number(REVISION)?, number(BOOT)?);

        let table = txn.open_table(KEYS)?;
        let mut keys = Vec::with_capacity(usize::try_from(table.len()?).unwrap_or(0));
        for row in table.iter()? {
            let (key, value) = row?;
            match PbKeyValue::decode(value.value()) {
                Ok(kv) if kv.key == key.value() && kv.mod_revision <= revision => keys.push(kv),
                Ok(_) => return Ok(Err(self.corrupt("a value does not belong to its key"))),
                Err(error) => return Ok(Err(self.corrupt(&error.to_string()))),
            }
        }
        let leases = txn
            .open_table(LEASES)?
            .iter()?
            .map(|row| row.map(|(id, ttl)| (id.value(), ttl.value())))
            .collect::<Result<_, _>>()?;
        Ok(Ok(Contents {
            existed: boot > 1,
            revision,
            boot,
            keys,
            leases,
        }))
    }

    fn corrupt(&self, reason: &str) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }

    fn shrink(&mut self, contents: &Contents) {
        let used: usize = contents
            .keys
            .iter()
            .map(|kv| 2 * kv.key.len() + kv.value.len() + 64)
            .sum();
        let used = u64::try_from(used).unwrap_or(u64::MAX);
        if self.bytes() > COMPACT_ABOVE_BYTES.max(used.saturating_mul(4))
            && let Err(error) = self.database.compact()
        {
            tracing::warn!(path = %self.path.display(), %error, "the store could not be compacted");
        }
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Writes a batch; when it returns, the batch survives a crash.
    pub(crate) fn commit(&self, revision: i64, effects: &Effects) -> Result<(), redb::Error> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        {
            let mut keys = txn.open_table(KEYS)?;
            let mut value = Vec::new();
            for (key, kv) in &effects.keys {
                match kv {
                    Some(kv) => {
                        value.clear();
                        kv.encode_raw(&mut value);
                        keys.insert(key.as_slice(), value.as_slice())?;
                    }
                    None => {
                        keys.remove(key.as_slice())?;
                    }
                }
            }
        }
        if !effects.leases.is_empty() {
            let mut leases = txn.open_table(LEASES)?;
            for (id, ttl) in &effects.leases {
                match ttl {
                    Some(ttl) => leases.insert(id, ttl)?,
                    None => leases.remove(id)?,
                };
            }
        }
        txn.open_table(META)?.insert(REVISION, revision)?;
        txn.commit()?;
        Ok(())
    }

    /// Gives unused parts of the file back. Takes time in proportion to the file.
    pub(crate) fn defragment(&mut self) -> Result<(), redb::Error> {
        while self.database.compact()? {}
        Ok(())
    }
}
