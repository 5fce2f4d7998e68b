//! `gantry admin`: what is done to the store itself, not through the control plane.

use gantry_control_plane::{
    domain::stored,
    store::{Key, Store, StoreError, connect_options},
};

use crate::{
    args::{Admin, EtcdCluster},
    failure::{Exit, Failure},
    render::out,
};

pub(crate) async fn run(command: Admin) -> Result<(), Failure> {
    match command {
        Admin::Restored(etcd) => restored(&etcd).await,
    }
}

/// Gives the store another identity. Nothing else tells those who watch it that its history is not the one they know.
async fn restored(etcd: &EtcdCluster) -> Result<(), Failure> {
    let store = connect(etcd).await?;
    let at = || etcd.etcd.join(",");
    let failed = |error: StoreError| {
        let exit = match error {
            StoreError::NotSent { .. } | StoreError::Unknown { .. } => Exit::Unreachable,
            _ => Exit::Refused,
        };
        Failure::new(exit, error.to_string())
            .at(at())
            .fix("start etcd, or give its addresses with --etcd; then run this again")
    };
    let (present, _) = store
        .get::<stored::StoreId>(&Key::StoreId)
        .await
        .map_err(failed)?;
    let Some(present) = present else {
        let what = format!("this etcd holds no cluster {}", etcd.cluster);
        return Err(Failure::new(Exit::NotFound, what)
            .at(at())
            .fix("give --cluster and --etcd as `gantry server` has them"));
    };
    let id = format!("{:032x}", rand::random::<u128>());
    if store.rename(&id).await.map_err(failed)? {
        out(&format!(
            "the store of cluster {} was {} and is {id} now: agents end their tasks without a commit and begin anew",
            etcd.cluster, present.id
        ))
    } else {
        out("somebody else did it at the same time: once is enough")
    }
}

async fn connect(etcd: &EtcdCluster) -> Result<Store, Failure> {
    let client = etcd_client::Client::connect(&etcd.etcd, Some(connect_options())).await;
    let client = client.map_err(|error| {
        Failure::usage(format!("cannot use the address of etcd: {error}"))
            .at(etcd.etcd.join(","))
            .fix("give --etcd http://HOST:PORT[,...]")
    })?;
    Ok(Store::new(&client, &etcd.cluster))
}
