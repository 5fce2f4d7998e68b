use anyhow::{Context, ensure};
use gantry_client::v1::{ListConnectorsRequest, View};
use gantry_proto::error::Reason;
use gantry_tests::run;
use gantry_tests::wait::eventually;
use serde_json::json;

use super::{SOON, Site, TEST, reason, stopped};

#[test]
fn lists_come_in_pages_and_by_filter() {
    run(TEST, async |work| {
        let mut site = Site::start(work, &["one"]).await?;
        let names: Vec<String> = (0..25).map(|n| format!("list-{n:02}")).collect();
        // In another order than that of the pages.
        for (n, name) in names.iter().enumerate().rev() {
            let team = if n % 5 == 0 { "red" } else { "blue" };
            let more = json!({ "target_state": "TARGET_STATE_STOPPED", "labels": { "team": team } });
            site.create(name, &more).await?;
        }

        let request = |size: i32, token: &str, filter: &str| ListConnectorsRequest {
            page_size: size,
            page_token: token.to_owned(),
            filter: filter.to_owned(),
            view: View::Full as i32,
        };
        let (mut listed, mut token, mut first_token) = (Vec::new(), String::new(), String::new());
        loop {
            let page = site
                .raw
                .list_connectors(request(10, &token, ""))
                .await?
                .into_inner();
            ensure!(page.connectors.len() <= 10, "a page of {}", page.connectors.len());
            listed.extend(
                page.connectors
                    .into_iter()
                    .map(|c| c.name.trim_start_matches("connectors/").to_owned()),
            );
            // What comes and goes between two pages neither repeats nor hides what stays.
            if first_token.is_empty() {
                first_token.clone_from(&page.next_page_token);
                site.create("list-00a", &stopped()).await?;
                site.client.delete("list-03", false, false).await?;
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        ensure!(listed == names, "{listed:?}");

        // Tokens belong to their question.
        for bad in [
            request(10, &first_token, "labels.team=red"),
            request(10, "%%", ""),
            request(10, "AAAA", ""),
        ] {
            let reason =
                reason(site.raw.list_connectors(bad.clone()).await).with_context(|| format!("{bad:?}"))?;
            ensure!(reason == Reason::InvalidPageToken, "{bad:?}: {reason:?}");
        }
        ensure!(
            reason(site.raw.list_connectors(request(-1, "", "")).await)? == Reason::InvalidField,
            "negative size"
        );

        // Filters.
        for (filter, count) in [
            ("labels.team=red", 5),
            ("labels.team=\"red\" OR name:\"list-01\"", 6),
            ("labels.team=blue AND NOT state=STOPPED", 0),
            (
                "plugin=file-source AND target_state=STOPPED AND labels.team:*",
                24,
            ),
            ("kind!=SINK AND labels.team=red", 5),
            ("plugin=file-sink", 0),
        ] {
            eventually(SOON, &format!("{filter} matches {count}"), async || {
                let found = site.client.list(filter, View::Basic).await?;
                ensure!(found.len() == count, "{} match", found.len());
                // This view leaves the configuration out.
                ensure!(found.iter().all(|c| c.config.is_none()), "{found:?}");
                Ok(())
            })
            .await?;
        }
        for filter in [
            "state=",
            "nonsense=1",
            "state=RUNNING AND",
            "(state=RUNNING",
            "generation>3",
        ] {
            let reason = reason(site.raw.list_connectors(request(0, "", filter)).await).context(filter)?;
            ensure!(reason == Reason::InvalidFilter, "{filter}: {reason:?}");
        }
        Ok(())
    });
}
