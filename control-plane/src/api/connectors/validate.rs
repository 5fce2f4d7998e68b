//! ValidateConnector: every finding as data, and what could not be checked.

use gantry_proto::{
    error::Refusal,
    v1::{Connector, Finding, ValidateConnectorResponse, finding::Severity},
};

use crate::{
    api::Shared,
    domain::{
        Violation,
        catalog::Catalog,
        validate::{self, recommended},
    },
};

/// So many agents that were not asked are named.
const NAMED: usize = 5;

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
    let catalog = Catalog::of(&snapshot);
    let errors = validate::validate(&id, &normal, &catalog);
    let sound = errors.is_empty();
    let mut findings: Vec<Finding> = errors.into_iter().map(|v| finding(Severity::Error, v)).collect();
    let warnings = validate::warnings(&id, &normal, &catalog, &snapshot);
    findings.extend(warnings.into_iter().map(|v| finding(Severity::Warning, v)));
    let mut not_checked = Vec::new();
    if sound {
        match shared.handles.ask_validate(&snapshot, &normal).await {
            Ok(checked) => {
                findings.extend(checked.findings);
                not_checked.extend(elsewhere(&checked.agent, &checked.others));
            }
            Err(unanswered) => not_checked.push(format!("what needs an agent: {}", unanswered.why)),
        }
    } else {
        not_checked.push("what needs an agent: the definition has errors already".into());
    }
    for finding in &mut findings {
        if finding.recommended.is_empty() {
            finding.recommended = recommended(&finding.field, &normal, &catalog);
        }
    }
    // What cannot work comes first.
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    Ok(ValidateConnectorResponse {
        findings,
        not_checked,
    })
}

fn finding(severity: Severity, v: Violation) -> Finding {
    Finding {
        severity: severity.into(),
        field: v.field,
        message: v.message,
        fix: v.fix,
        recommended: Vec::new(),
    }
}

/// What one agent can reach another one may not.
fn elsewhere(asked: &str, others: &[String]) -> Option<String> {
    let more = others.len().saturating_sub(NAMED);
    let named = others.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (!others.is_empty()).then(|| {
        format!("whether it is so on every agent: {asked} was asked, and tasks may also go to {named}{more}")
    })
}

#[cfg(test)]
mod tests {
    use super::elsewhere;

    #[test]
    fn agents_that_were_not_asked_are_named_up_to_a_few() {
        let names = |n: usize| (0..n).map(|i| format!("a{i}")).collect::<Vec<_>>();
        assert_eq!(elsewhere("x", &[]), None);
        assert!(elsewhere("x", &names(2)).unwrap().ends_with("go to a0, a1"));
        assert!(elsewhere("x", &names(7)).unwrap().ends_with("a4 and 2 more"));
    }
}
