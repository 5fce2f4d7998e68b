use std::sync::Arc;

use futures::FutureExt;
use gantry_connector::{
    Config, ConnectorError, Env, Sink, SinkContext, SinkPartition, SinkPlugin, SinkRecord,
    testkit::{SinkWorld, check_sink, partitions},
};
use serde_json::{Map, Value, json};

use super::StubbornSinkPlugin;

struct World;

impl SinkWorld for World {
    fn plugin(&self) -> Arc<dyn SinkPlugin> {
        Arc::new(StubbornSinkPlugin)
    }

    fn set_up(&mut self) -> (Map<String, Value>, Env) {
        (Map::new(), Env::default())
    }

    fn rendered(&self, _: &SinkRecord) -> Vec<u8> {
        vec![]
    }

    fn contents(&mut self, _: &SinkPartition) -> Vec<u8> {
        vec![]
    }

    fn exactly_once(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn with_no_hook_chosen_it_keeps_the_contract() {
    check_sink(&mut World, 1).await;
}

fn config(hook: &str, does: &str) -> Config {
    let given = json!({ "hook": hook, "does": does });
    let spec = StubbornSinkPlugin.info().spec;
    spec.check(given.as_object().unwrap()).unwrap()
}

async fn open(config: Config) -> Result<Box<dyn Sink>, ConnectorError> {
    let mut sink = StubbornSinkPlugin.create();
    let context = SinkContext {
        config,
        partitions: partitions(1),
        total_partitions: 1,
        task: 0,
        tasks: 1,
        env: Env::default(),
    };
    sink.open(context).await?;
    Ok(sink)
}

#[tokio::test]
async fn each_hook_fails_and_hangs_if_it_is_the_chosen_one() {
    let asked = async |hook: &'static str, config: &Config| -> Result<(), ConnectorError> {
        if hook == "validate" {
            return match StubbornSinkPlugin.validate(config, &Env::default()).await.pop() {
                Some(finding) => Err(ConnectorError::task(finding.message)),
                None => Ok(()),
            };
        }
        let mut sink = open(config.clone()).await?;
        match hook {
            "open" => Ok(()),
            "write" => sink.write(vec![]).await.map(drop),
            "flush" => sink.flush().await.map(drop),
            _ => sink.close().await,
        }
    };
    for hook in ["validate", "open", "write", "flush", "close"] {
        let told = asked(hook, &config(hook, "fails")).await.unwrap_err();
        assert_eq!(told.chain(), format!("{hook} fails, as it is told"));
        assert!(
            asked(hook, &config(hook, "pends")).now_or_never().is_none(),
            "{hook}"
        );
        asked(hook, &config("none", "fails")).await.unwrap();
    }
}
