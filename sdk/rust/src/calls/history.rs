use gantry_proto::v1::*;

use super::connector_name;
use crate::{Client, Error};

impl Client {
    /// The definitions that a connector has had, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revisions(&self, connector: &str, view: View) -> Result<Vec<ConnectorRevision>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let request = ListConnectorRevisionsRequest {
                parent: connector_name(connector),
                page_size: 500,
                page_token: token,
                view: view as i32,
            };
            let page = call!(self, connectors.list_connector_revisions(request))?;
            all.extend(page.revisions);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// A definition that a connector has had, by number from 1.
    ///
    /// # Errors
    /// [`Error`]; `REVISION_NOT_FOUND`.
    pub async fn revision(&self, connector: &str, revision: i64) -> Result<ConnectorRevision, Error> {
        let name = format!("{}/revisions/{revision}", connector_name(connector));
        let request = GetConnectorRevisionRequest { name };
        call!(self, connectors.get_connector_revision(request))
    }

    /// In which fields revision `to` differs from revision `from`; `to` unset: the present definition.
    ///
    /// # Errors
    /// [`Error`]; `REVISION_NOT_FOUND`.
    pub async fn diff_revisions(
        &self,
        connector: &str,
        from: i64,
        to: Option<i64>,
    ) -> Result<DiffConnectorRevisionsResponse, Error> {
        let request = DiffConnectorRevisionsRequest {
            name: connector_name(connector),
            from_revision: from,
            to_revision: to.unwrap_or_default(),
        };
        call!(self, connectors.diff_connector_revisions(request))
    }

    /// Gives a connector the definition of a revision again; with an `etag` only if it is still what was read, empty: in any
    /// case. The target state stays. With `validate_only` nothing is stored and the answer tells what would change.
    ///
    /// # Errors
    /// [`Error`]; `REVISION_NOT_FOUND`; `ETAG_MISMATCH` when somebody else wrote meanwhile.
    pub async fn rollback(
        &self,
        connector: &str,
        revision: i64,
        etag: &str,
        validate_only: bool,
    ) -> Result<RollbackConnectorResponse, Error> {
        let request = RollbackConnectorRequest {
            name: connector_name(connector),
            revision,
            etag: etag.to_owned(),
            validate_only,
            request_id: self.request_id(),
        };
        call!(self, connectors.rollback_connector(request))
    }
}
