use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::{
    Key, Prefix, Raw, Store, StoreError,
    codec::{self, Stored},
    read::header_revision,
};

/// etcd's limit for compares, for operations of success and for those of failure, each.
const MAX_OPS: usize = 128;

/// What a transaction expects of the store. All expectations have to hold for it to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// There is no such key.
    Absent(Key),
    /// Last written at this revision; 0: there is no such key.
    ModRevision(Key, i64),
    /// Created at this revision; 0: there is no such key.
    CreateRevision(Key, i64),
    /// No key has this prefix.
    NoneUnder(Prefix),
    /// Some key has this prefix.
    PresentUnder(Prefix),
}

#[cfg(test)]
impl Expect {
    fn target(&self) -> String {
        match self {
            Self::Absent(key) | Self::ModRevision(key, _) | Self::CreateRevision(key, _) => key.to_string(),
            Self::NoneUnder(prefix) | Self::PresentUnder(prefix) => prefix.to_string(),
        }
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnOutcome {
    /// True: all expectations held, everything was written. False: nothing was.
    pub applied: bool,
    /// With `applied` and something written: the revision of the write. Else the revision of the store.
    pub revision: i64,
    /// Answers to the reads of the branch that was taken, in the order in which they were added.
    pub reads: Vec<Vec<Raw>>,
}

impl TxnOutcome {
    /// The single value that read number `index` found.
    pub fn read(&self, index: usize) -> Option<&Raw> {
        self.reads.get(index).and_then(|values| values.first())
    }
}

/// A transaction: expectations, what is written if they hold, what is read if they do or do not.
///
/// No key may be written twice in one transaction, and no part may have more than 128 elements.
#[derive(Debug, Clone)]
#[must_use]
pub struct Guarded {
    store: Store,
    expect: Vec<Compare>,
    success: Vec<TxnOp>,
    failure: Vec<TxnOp>,
    writes: bool,
    /// First mistake in building it.
    mistake: Option<StoreError>,
}

impl Guarded {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            expect: Vec::new(),
            success: Vec::new(),
            failure: Vec::new(),
            writes: false,
            mistake: None,
        }
    }

    /// Adds an expectation.
    pub fn expect(mut self, expect: &Expect) -> Self {
        #[cfg(test)]
        if self.store.leaves_out(&expect.target()) {
            return self;
        }
        let keys = self.store.keys();
        let equal = CompareOp::Equal;
        self.expect.push(match expect {
            Expect::Absent(key) => Compare::create_revision(keys.path(key), equal, 0),
            Expect::ModRevision(key, revision) => Compare::mod_revision(keys.path(key), equal, *revision),
            Expect::CreateRevision(key, revision) => {
                Compare::create_revision(keys.path(key), equal, *revision)
            }
            // Over a range every key has to hold; over an empty one etcd compares a key of zeros.
            Expect::NoneUnder(prefix) => {
                Compare::create_revision(keys.prefix(prefix), equal, 0).with_prefix()
            }
            Expect::PresentUnder(prefix) => {
                Compare::create_revision(keys.prefix(prefix), CompareOp::Greater, 0).with_prefix()
            }
        });
        self
    }

    /// Adds expectations.
    pub fn expect_all<'a>(self, all: impl IntoIterator<Item = &'a Expect>) -> Self {
        all.into_iter().fold(self, Self::expect)
    }

    /// Writes a value.
    pub fn put<T: Stored + Clone>(self, key: &Key, value: &T) -> Self {
        self.put_bytes(key, codec::encode(value), 0)
    }

    /// Writes a value that goes when the lease ends.
    pub fn put_leased<T: Stored + Clone>(self, key: &Key, value: &T, lease: i64) -> Self {
        self.put_bytes(key, codec::encode(value), lease)
    }

    pub(crate) fn put_bytes(mut self, key: &Key, value: Vec<u8>, lease: i64) -> Self {
        let options = (lease != 0).then(|| PutOptions::new().with_lease(lease));
        self.success
            .push(TxnOp::put(self.store.keys().path(key), value, options));
        self.writes = true;
        self
    }

    /// Removes a key; one that is not there is no error.
    pub fn delete(mut self, key: &Key) -> Self {
        self.success
            .push(TxnOp::delete(self.store.keys().path(key), None));
        self.writes = true;
        self
    }

    /// Removes everything under a prefix.
    pub fn delete_under(mut self, prefix: &Prefix) -> Self {
        let options = DeleteOptions::new().with_prefix();
        self.success
            .push(TxnOp::delete(self.store.keys().prefix(prefix), Some(options)));
        self.writes = true;
        self
    }

    /// Removes everything from `from` up to and without `to`, both as stored.
    pub(crate) fn delete_range(mut self, from: String, to: String) -> Self {
        self.success
            .push(TxnOp::delete(from, Some(DeleteOptions::new().with_range(to))));
        self.writes = true;
        self
    }

    /// Reads a key if the expectations hold.
    pub fn read(mut self, key: &Key) -> Self {
        self.success.push(TxnOp::get(self.store.keys().path(key), None));
        self
    }

    /// Reads at most `limit` values under a prefix if the expectations hold; 0: all.
    pub fn read_under(mut self, prefix: &Prefix, limit: i64) -> Self {
        let options = GetOptions::new().with_prefix().with_limit(limit);
        self.success
            .push(TxnOp::get(self.store.keys().prefix(prefix), Some(options)));
        self
    }

    /// Reads a key if an expectation does not hold.
    pub fn or_read(mut self, key: &Key) -> Self {
        self.failure.push(TxnOp::get(self.store.keys().path(key), None));
        self
    }

    /// Remembers a mistake that the caller found while building; [`run`](Self::run) returns it.
    pub(crate) fn fail(mut self, mistake: StoreError) -> Self {
        self.mistake.get_or_insert(mistake);
        self
    }

    /// Carries it out.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]: it may have been, or may still be carried out. [`StoreError::LeaseGone`]: a
    /// lease of a put has ended. Others as of any write.
    pub async fn run(self) -> Result<TxnOutcome, StoreError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let largest = self.expect.len().max(self.success.len()).max(self.failure.len());
        if largest > MAX_OPS {
            return Err(StoreError::TooLarge {
                what: "a transaction".to_owned(),
                size: largest,
                limit: MAX_OPS,
            });
        }
        let txn = Txn::new()
            .when(self.expect)
            .and_then(self.success)
            .or_else(self.failure);
        let answer = self.store.txn(txn, !self.writes).await?;
        let reads = answer
            .op_responses()
            .into_iter()
            .filter_map(|response| match response {
                TxnOpResponse::Get(mut get) => {
                    Some(get.take_kvs().into_iter().map(|kv| self.store.raw(kv)).collect())
                }
                _ => None,
            })
            .collect();
        Ok(TxnOutcome {
            applied: answer.succeeded(),
            revision: header_revision(answer.header()),
            reads,
        })
    }
}
