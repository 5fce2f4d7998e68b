//! Offsets of deleted connectors that were kept.

use gantry_proto::{
    error::{Reason, Refusal},
    v1::{ListRetainedOffsetsRequest, ListRetainedOffsetsResponse, RetainedOffsets},
};
use pbjson_types::Timestamp;

use crate::{
    api::{Shared, answers, paging::Paging},
    domain::Uid,
    store::retained::{Adoption, KEPT_FOR_S},
};

/// Newest first.
pub(in crate::api::connectors) async fn list(
    shared: &Shared,
    request: &ListRetainedOffsetsRequest,
) -> Result<ListRetainedOffsetsResponse, Refusal> {
    let paging = Paging::parse(request.page_size, &request.page_token, &["retained"])?;
    let store = &shared.handles.store;
    let mut kept: Vec<(String, Uid, RetainedOffsets)> = store
        .list_retained()
        .await
        .map_err(answers::store)?
        .into_iter()
        .map(|(uid, retained)| {
            let deleted = retained.delete_time.unwrap_or_default();
            let shown = RetainedOffsets {
                uid: uid.to_string(),
                connector: format!("connectors/{}", retained.connector),
                plugin: retained.plugin,
                delete_time: retained.delete_time,
                expire_time: Some(Timestamp {
                    seconds: deleted.seconds + KEPT_FOR_S,
                    ..deleted
                }),
                partition_count: 0,
            };
            (format!("{:019} {uid}", i64::MAX - deleted.seconds), uid, shown)
        })
        .collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    let after = paging.after.clone().unwrap_or_default();
    let rest = kept.iter().filter(|(order, ..)| *order > after);
    let (mut retained_offsets, next_page_token) =
        paging.cut(rest.map(|(order, _, shown)| (order.clone(), shown.clone())));
    for shown in &mut retained_offsets {
        let uid = Uid(shown.uid.as_str().into());
        let count = store.count_offsets(&uid).await.map_err(answers::store)?;
        shown.partition_count = i32::try_from(count).unwrap_or(i32::MAX);
    }
    Ok(ListRetainedOffsetsResponse {
        retained_offsets,
        next_page_token,
    })
}

/// What a new connector takes over. None: nothing is asked for.
pub(in crate::api::connectors) async fn adoption(
    shared: &Shared,
    uid: &str,
) -> Result<Option<Adoption>, Refusal> {
    if uid.is_empty() {
        return Ok(None);
    }
    let from = Uid(uid.into());
    let found = shared.handles.store.read_retained(&from).await;
    let Some(retained) = found.map_err(answers::store)? else {
        let message = format!("no offsets are kept under the uid {uid}");
        return Err(Refusal::new(Reason::RetainedOffsetsNotFound, message)
            .with("uid", uid)
            .field(
                "adopt_offsets_uid",
                "see which are: gantry connectors offsets retained",
            ));
    };
    Ok(Some(Adoption {
        from,
        seen: retained.mod_revision,
        plugin: retained.plugin.clone(),
    }))
}
