//! An etcd inside the process: for one machine, for tests and for simulation.
//!
//! [`Store`] answers etcd's KV, Watch and Lease services as etcd 3.6 does, down to the texts of its errors, and enough
//! of its Maintenance and Cluster services for `etcdctl` to look inside. The same client code therefore runs against
//! it and against a real etcd:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), etcd_client::Error> {
//! let store = gantry_embedded_etcd::Store::in_memory();
//! let mut client = store.client().await?;
//! client.put("key", "value", None).await?;
//! assert_eq!(client.get("key", None).await?.kvs()[0].value(), b"value");
//! store.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is kept
//!
//! [`Store::open`] keeps the newest version of every key, the leases and the revision in one file. The history, which
//! old reads and late watches need, is kept in memory only: the last 100,000 revisions or 256 MiB, whichever is less.
//! So compaction costs nothing and the file stays about as large as its contents. After a restart everything up to the
//! revision of the start is compacted: a watch that had seen everything goes on, any other is told so and must list
//! again, which etcd's clients must be able to do in any case.
//!
//! # Where it differs from etcd
//!
//! - One member only: there is no Raft, and reads are linearizable at no cost.
//! - The shortest lease is 1 s. A lease ends when its time is over, not up to half a second later.
//! - A start takes a revision of its own.
//! - Authentication, snapshots, hashes and changes of the membership are not there; no quota is enforced.
//! - A disk that refuses a commit ends all writing until the process is started again; reads go on.

mod apply;
mod check;
mod disk;
mod error;
mod key_range;
mod lease;
mod mvcc;
mod range;
mod service;
mod status;
mod store;
mod txn;
mod watch;
mod writer;

pub use error::Error;
pub use store::{Store, Transport};

use etcd_client::proto::PbResponseHeader;

/// One cluster of one member that has led since its first term.
const CLUSTER_ID: u64 = 0x6761_6e74_7279_0001;
const MEMBER_ID: u64 = 0x6761_6e74_7279_0002;
const RAFT_TERM: u64 = 2;
/// The release of etcd whose behaviour this follows, as clients ask for it.
const ETCD_VERSION: &str = "3.6.0";

fn header(revision: i64) -> Option<PbResponseHeader> {
    Some(PbResponseHeader {
        cluster_id: CLUSTER_ID,
        member_id: MEMBER_ID,
        revision,
        raft_term: RAFT_TERM,
    })
}
