//! ValidateConnector: every finding as data, and what could not be checked.

use gantry_proto::{
    error::Refusal,
    v1::{Connector, Finding, ValidateConnectorResponse, finding::Severity},
};

use crate::{
    api::Shared,
    domain::{catalog::Catalog, validate},
};

pub(super) async fn validate(
    shared: &Shared,
    connector: Connector,
) -> Result<ValidateConnectorResponse, Refusal> {
    let snapshot = shared.current().await?;
    let id = connector
        .name
        .strip_prefix("connectors/")
        .unwrap_or(&connector.name)
        .to_owned();
    let normal = validate::normalise(&id, &connector);
    let mut findings: Vec<Finding> = validate::validate(&id, &normal, &Catalog::of(&snapshot))
        .into_iter()
        .map(|v| Finding {
            severity: Severity::Error.into(),
            field: v.field,
            message: v.message,
            fix: v.fix,
        })
        .collect();
    let mut not_checked = Vec::new();
    if findings.is_empty() {
        match shared.handles.ask_validate(&snapshot, &normal).await {
            Ok(found) => findings.extend(found),
            Err(why) => not_checked.push(format!("the plugin's own checks: {why}")),
        }
    } else {
        not_checked.push("the plugin's own checks: the definition has errors already".into());
    }
    Ok(ValidateConnectorResponse {
        findings,
        not_checked,
    })
}
