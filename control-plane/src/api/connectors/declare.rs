//! PlanConnectors: what has to be written so that connectors are as declared.

use gantry_proto::{
    error::Refusal,
    v1::{PlanConnectorsRequest, PlanConnectorsResponse, PlannedChange},
};
use prost::Message;

use crate::{
    api::{Shared, answers, paging::MAX_PAGE_BYTES},
    domain::{declare, filter::Filter},
};

pub(super) async fn plan(
    shared: &Shared,
    request: &PlanConnectorsRequest,
) -> Result<PlanConnectorsResponse, Refusal> {
    let filter = request.prune_filter.as_deref().map(Filter::parse).transpose();
    let filter = filter.map_err(|e| answers::bad_filter_in("prune_filter", &e))?;
    let wanted = declare::by_name(&request.connectors).map_err(|v| answers::invalid("the request", "", v))?;
    let snapshot = shared.current().await?;
    let plan = declare::plan(&snapshot, &wanted, |id| {
        let Some(filter) = &filter else { return false };
        let view = shared.views.connector(&snapshot, id);
        view.is_some_and(|connector| filter.matches(&connector))
    });
    let mut plan = plan.map_err(|e| answers::not_comparable(&e))?;
    cut(&mut plan.changes, MAX_PAGE_BYTES);
    Ok(PlanConnectorsResponse {
        changes: plan.changes,
        plan_hash: plan.hash,
    })
}

/// Leaves out the differences that do not fit.
fn cut(changes: &mut [PlannedChange], mut room: usize) {
    for change in changes {
        let all = std::mem::take(&mut change.differences);
        for difference in all {
            let size = difference.encoded_len() + 8;
            if change.omitted == 0 && size <= room {
                room -= size;
                change.differences.push(difference);
            } else {
                change.omitted = change.omitted.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::v1::FieldDifference;

    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let difference = |path: &str| FieldDifference {
            path: path.into(),
            ..FieldDifference::default()
        };
        let change = || PlannedChange {
            differences: vec![difference("a"), difference(&"b".repeat(100)), difference("c")],
            ..PlannedChange::default()
        };
        let mut changes = [change(), change()];
        cut(&mut changes, 1 << 20);
        assert_eq!(changes, [change(), change()]);
        cut(&mut changes, 30);
        let told = changes.map(|c| (c.differences.len(), c.omitted));
        assert_eq!(told, [(1, 2), (1, 2)]);
    }
}
