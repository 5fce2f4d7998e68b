use std::collections::BTreeSet;

use anyhow::{bail, ensure};
use gantry_client::Step;
use gantry_client::v1::WatchConnectorsRequest;
use gantry_client::v1::connector_service_client::ConnectorServiceClient;
use gantry_proto::error::Reason;
use gantry_tests::run;
use tokio::time::timeout;

use super::{SOON, Site, TEST, reason, stopped};

#[test]
fn a_watch_outlives_the_server() {
    run(TEST, async |work| {
        let mut site = Site::start(work, &["one"]).await?;
        for name in ["watched-a", "watched-b"] {
            site.create(name, &stopped()).await?;
        }
        let mut watch = site.client.watch(&[], "");
        let mut seen = BTreeSet::new();
        loop {
            match timeout(SOON, watch.next()).await?? {
                Step::Upserted(connector) => seen.insert(connector.name.clone()),
                Step::Synced => break,
                step => bail!("{step:?} before all that exists"),
            };
        }
        ensure!(seen.len() == 2, "{seen:?}");

        let status = site.cluster.stop_server().await?;
        ensure!(status.success(), "the server ended with {status}");
        site.cluster.start_server().await?;
        site.create("watched-c", &stopped()).await?;
        site.client.delete("watched-a", false, false).await?;
        let (mut created, mut removed) = (false, false);
        let mut anew = BTreeSet::new();
        while !(created && removed) {
            match timeout(SOON, watch.next()).await?? {
                Step::Upserted(connector) => {
                    created |= connector.name == "connectors/watched-c";
                    anew.insert(connector.name.clone());
                }
                Step::Removed(name) => removed |= name == "connectors/watched-a",
                // The new process remembers no history: everything that exists is told anew.
                Step::Restarted => anew.clear(),
                Step::Synced => removed |= !anew.contains("connectors/watched-a"),
            }
        }
        // What is no token is refused for good.
        let request = WatchConnectorsRequest {
            resume_token: "nonsense".into(),
            ..Default::default()
        };
        let mut raw = ConnectorServiceClient::connect(site.cluster.endpoint()).await?;
        let refused = match raw.watch_connectors(request).await {
            Ok(stream) => stream.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        ensure!(reason(refused)? == Reason::InvalidField, "nonsense as a token");
        Ok(())
    });
}
