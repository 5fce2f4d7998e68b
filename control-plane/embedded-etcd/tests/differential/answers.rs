//! What a server answers, as a text in which two servers can be compared.

use std::fmt::{Debug, Write};

use etcd_client::proto::{
    PbLeaseLeasesResponse, PbLeaseTimeToLiveResponse, PbResponseHeader, PbTxnOpResponse, PbTxnResponse,
};
use etcd_client::{Client, Error, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions};

use crate::generator::LEASES;
use crate::ops::{Op, delete_request, get_request, put_options, txn_request};

/// Only the revision of a header is comparable.
pub(crate) fn plain(header: &mut Option<PbResponseHeader>) {
    if let Some(header) = header {
        *header = PbResponseHeader {
            revision: header.revision,
            ..PbResponseHeader::default()
        };
    }
}

fn plain_txn(response: &mut PbTxnResponse) {
    plain(&mut response.header);
    for op in &mut response.responses {
        match &mut op.response {
            Some(PbTxnOpResponse::ResponseRange(response)) => plain(&mut response.header),
            Some(PbTxnOpResponse::ResponsePut(response)) => plain(&mut response.header),
            Some(PbTxnOpResponse::ResponseDeleteRange(response)) => plain(&mut response.header),
            Some(PbTxnOpResponse::ResponseTxn(response)) => plain_txn(response),
            None => {}
        }
    }
}

fn answer<T: Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(response) => format!("{response:?}"),
        Err(Error::GRpcStatus(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(error) => format!("{error:?}"),
    }
}

/// The response without what differs between any two servers.
macro_rules! answered {
    ($result:expr) => {
        answered!($result, |_| ())
    };
    ($result:expr, $settle:expr) => {
        answer($result.map(|response| {
            let mut response = response.0;
            plain(&mut response.header);
            $settle(&mut response);
            response
        }))
    };
}

/// Carries out an operation and tells its answer.
pub(crate) async fn run(client: &mut Client, op: Op) -> String {
    match op {
        Op::Put(put) => {
            let options = put_options(&put);
            answered!(client.put(put.key, put.value, Some(options)).await)
        }
        Op::Get(get) => {
            let (key, options) = get_request(&get);
            answered!(client.get(key, Some(options)).await)
        }
        Op::Delete(delete) => {
            let (key, options) = delete_request(&delete);
            answered!(client.delete(key, Some(options)).await)
        }
        Op::Txn(txn) => answered!(client.txn(txn_request(&txn)).await, plain_txn),
        Op::Compact(revision) => answered!(client.compact(revision, None).await),
        Op::Grant { id, ttl } => {
            let options = LeaseGrantOptions::new().with_id(id);
            answered!(client.lease_grant(ttl, Some(options)).await)
        }
        Op::Revoke(id) => answered!(client.lease_revoke(id).await),
        Op::TimeToLive(id) => {
            let options = LeaseTimeToLiveOptions::new().with_keys();
            let result = client.lease_time_to_live(id, Some(options)).await;
            answered!(result, |response: &mut PbLeaseTimeToLiveResponse| {
                response.keys.sort();
                response.ttl = response.ttl.signum();
            })
        }
        Op::Leases => answered!(client.leases().await, |response: &mut PbLeaseLeasesResponse| {
            response.leases.sort_by_key(|lease| lease.id);
        }),
    }
}

/// The newest revision.
pub(crate) async fn revision(client: &mut Client) -> i64 {
    let response = client.get("none", None).await.expect("an answer");
    response.header().expect("a header").revision()
}

/// All keys and leases.
pub(crate) async fn everything(client: &mut Client) -> String {
    let options = GetOptions::new().with_all_keys();
    let mut response = client.get("", Some(options)).await.expect("an answer");
    // A restart of the embedded store takes a revision.
    response.0.header = None;
    let mut state = format!("{response:?}");
    for id in 1..=LEASES {
        let options = LeaseTimeToLiveOptions::new().with_keys();
        let lease = client.lease_time_to_live(id, Some(options)).await;
        let mut lease = lease.expect("an answer").0;
        lease.keys.sort();
        write!(state, " {} {:?}", lease.granted_ttl, lease.keys).expect("writes to a string");
    }
    state
}
