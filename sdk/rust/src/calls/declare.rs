use gantry_proto::v1::*;

use super::connector_name;
use crate::{Client, Error};

/// How a connector is deleted.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    /// Only if it is still what was read under this etag. Empty: in any case.
    pub etag: String,
    /// Stop it first, from any state.
    pub force: bool,
    /// Keep the offsets under the old uid for 30 days.
    pub keep_offsets: bool,
    /// That it is gone already is no error.
    pub allow_missing: bool,
}

impl Client {
    /// What has to be written so that connectors are as given. `prune_filter`: those that are not given and match it (as in
    /// lists; empty matches all) are deleted; None: nothing is deleted. Writes nothing.
    ///
    /// # Errors
    /// [`Error`]. Definitions that are refused are in the plan.
    pub async fn plan(
        &self,
        connectors: &[Connector],
        prune_filter: Option<&str>,
    ) -> Result<PlanConnectorsResponse, Error> {
        let request = PlanConnectorsRequest {
            connectors: connectors.to_vec(),
            prune_filter: prune_filter.map(str::to_owned),
        };
        call!(self, connectors.plan_connectors(request))
    }

    /// Deletes a connector; answers with it in DELETING.
    ///
    /// # Errors
    /// [`Error`]; `ETAG_MISMATCH` when somebody else wrote meanwhile; `ACTION_NOT_ALLOWED` without `force` while it runs.
    pub async fn delete_with(&self, connector: &str, deletion: &Deletion) -> Result<Connector, Error> {
        let request = DeleteConnectorRequest {
            name: connector_name(connector),
            etag: deletion.etag.clone(),
            force: deletion.force,
            allow_missing: deletion.allow_missing,
            keep_offsets: deletion.keep_offsets,
            request_id: self.request_id(),
        };
        call!(self, connectors.delete_connector(request))
    }
}
