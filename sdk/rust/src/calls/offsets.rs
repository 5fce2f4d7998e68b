use std::time::Duration;

use gantry_proto::v1::*;

use super::connector_name;
use crate::{Client, Error};

/// Agents may have to be asked, one after the other.
const ASKING: Duration = Duration::from_secs(60);

fn offsets_name(connector: &str) -> String {
    let name = connector_name(connector);
    if name.ends_with("/offsets") {
        name
    } else {
        format!("{name}/offsets")
    }
}

impl Client {
    /// The committed positions of a connector.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn offsets(&self, connector: &str) -> Result<ConnectorOffsets, Error> {
        self.offsets_with(connector, false, false).await
    }

    /// The committed positions of a connector, with how much there is to read after each (an agent is asked), with earlier
    /// positions, or with both.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn offsets_with(
        &self,
        connector: &str,
        include_lag: bool,
        include_history: bool,
    ) -> Result<ConnectorOffsets, Error> {
        let mut all = ConnectorOffsets::default();
        let mut token = String::new();
        loop {
            let request = GetConnectorOffsetsRequest {
                name: offsets_name(connector),
                include_lag,
                include_history,
                page_size: 0,
                page_token: token,
            };
            let client = self.patient();
            let page = call!(&client, connectors.get_connector_offsets(request))?;
            token = page.next_page_token.clone();
            let mut partitions = std::mem::take(&mut all.partitions);
            partitions.extend(page.partitions);
            all = ConnectorOffsets { partitions, ..page };
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Sets positions of a stopped connector, all or none; `others` is for every partition that `changes` does not name.
    /// With `validate_only` nothing is stored and the answer tells what would change.
    ///
    /// # Errors
    /// [`Error`]; `ACTION_NOT_ALLOWED` unless it is stopped and no agent holds a task of it; `NOT_ANSWERED` when no agent can
    /// check the positions.
    pub async fn alter_offsets(
        &self,
        connector: &str,
        changes: Vec<OffsetChange>,
        others: Option<OffsetChange>,
        validate_only: bool,
    ) -> Result<AlterConnectorOffsetsResponse, Error> {
        let request = AlterConnectorOffsetsRequest {
            name: offsets_name(connector),
            changes,
            others,
            validate_only,
            request_id: self.request_id(),
        };
        let client = self.patient();
        call!(&client, connectors.alter_connector_offsets(request))
    }

    /// Forgets positions of a stopped connector, so that it reads from the beginning; no partition named: of all.
    ///
    /// # Errors
    /// [`Error`]; `ACTION_NOT_ALLOWED` unless it is stopped and no agent holds a task of it.
    pub async fn reset_offsets(
        &self,
        connector: &str,
        partitions: Vec<Partition>,
        validate_only: bool,
    ) -> Result<AlterConnectorOffsetsResponse, Error> {
        let request = ResetConnectorOffsetsRequest {
            name: offsets_name(connector),
            partitions,
            validate_only,
            request_id: self.request_id(),
        };
        call!(self, connectors.reset_connector_offsets(request))
    }

    /// Takes back the last alteration of a stopped connector's offsets, or goes back to the positions of an epoch.
    ///
    /// # Errors
    /// [`Error`]; `ACTION_NOT_ALLOWED` unless it is stopped and no agent holds a task of it; `NOTHING_TO_UNDO`.
    pub async fn undo_offsets(
        &self,
        connector: &str,
        epoch: Option<i64>,
        validate_only: bool,
    ) -> Result<AlterConnectorOffsetsResponse, Error> {
        let request = UndoConnectorOffsetsRequest {
            name: offsets_name(connector),
            epoch,
            validate_only,
            request_id: self.request_id(),
        };
        call!(self, connectors.undo_connector_offsets(request))
    }

    /// Offsets of deleted connectors that were kept, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn retained_offsets(&self) -> Result<Vec<RetainedOffsets>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let request = ListRetainedOffsetsRequest {
                page_size: 500,
                page_token: token,
            };
            let page = call!(self, connectors.list_retained_offsets(request))?;
            all.extend(page.retained_offsets);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Creates a connector that goes on where a deleted one was left, whose offsets were kept under `uid`.
    ///
    /// # Errors
    /// [`Error`]; `RETAINED_OFFSETS_NOT_FOUND`.
    pub async fn create_adopting(
        &self,
        mut connector: Connector,
        uid: &str,
        validate_only: bool,
    ) -> Result<Connector, Error> {
        connector.name = connector_name(&connector.name);
        let request = CreateConnectorRequest {
            connector_id: String::new(),
            connector: Some(connector),
            validate_only,
            request_id: self.request_id(),
            adopt_offsets_uid: uid.to_owned(),
        };
        call!(self, connectors.create_connector(request))
    }

    /// With a deadline that leaves time for agents to be asked.
    fn patient(&self) -> Self {
        let mut client = self.clone();
        client.options.call_timeout = client.options.call_timeout.max(ASKING);
        client
    }
}
