use futures::FutureExt;
use gantry_connector::{
    Config, ConnectorError, Env, Payload, Source, SourceContext, SourcePlugin, Start, StartPosition,
};
use serde_json::json;

use super::{StubbornSourcePlugin, source};

fn config(hook: &str, does: &str) -> Config {
    let given = json!({ "hook": hook, "does": does });
    let spec = StubbornSourcePlugin.info().spec;
    spec.check(given.as_object().unwrap()).unwrap()
}

fn at(number: u64) -> StartPosition {
    StartPosition {
        partition: source::partition(),
        position: source::position(number),
    }
}

async fn open(config: Config, positions: Vec<StartPosition>) -> Result<Box<dyn Source>, ConnectorError> {
    let mut source = StubbornSourcePlugin.create();
    let context = SourceContext {
        config,
        positions,
        task: 0,
        tasks: 1,
        env: Env::default(),
    };
    source.open(context).await?;
    Ok(source)
}

async fn numbers(source: &mut dyn Source) -> Vec<String> {
    let polled = source.poll(1000).await.unwrap();
    let text = |payload: &Payload| match payload {
        Payload::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    polled.records.iter().map(|r| text(&r.value)).collect()
}

#[tokio::test]
async fn it_sends_its_records_from_where_it_was_left_and_then_none() {
    let mut source = open(config("none", "fails"), vec![]).await.unwrap();
    assert_eq!(numbers(&mut *source).await, ["0", "1", "2"]);
    assert!(numbers(&mut *source).await.is_empty());
    let mut source = open(config("none", "fails"), vec![at(2)]).await.unwrap();
    assert_eq!(numbers(&mut *source).await, ["2"]);
    source.committed(&[]).await.unwrap();
    source.close().await.unwrap();
    let lag = StubbornSourcePlugin
        .lag(&config("none", "fails"), &at(1), &Env::default())
        .await;
    assert_eq!(lag.unwrap().map(|lag| lag.amount), Some(2));
}

#[tokio::test]
async fn each_hook_fails_and_hangs_if_it_is_the_chosen_one() {
    let env = Env::default();
    let asked = async |hook: &'static str, config: &Config| -> Result<(), ConnectorError> {
        let plugin = StubbornSourcePlugin;
        match hook {
            "validate" => match plugin.validate(config, &env).await.pop() {
                Some(finding) => Err(ConnectorError::task(finding.message)),
                None => Ok(()),
            },
            "plan" => plugin.plan_tasks(config, 1, &env).await.map(drop),
            "start_at" => {
                let partition = source::partition();
                let at = plugin.start_at(config, &partition, &Start::Earliest, &env);
                at.await.map(drop)
            }
            "lag" => plugin.lag(config, &at(0), &env).await.map(drop),
            "open" => open(config.clone(), vec![]).await.map(drop),
            _ => {
                let mut source = open(config.clone(), vec![]).await?;
                match hook {
                    "poll" => {
                        source.poll(1000).await?;
                        source.poll(1000).await.map(drop)
                    }
                    "committed" => source.committed(&[]).await,
                    _ => source.close().await,
                }
            }
        }
    };
    for hook in [
        "validate",
        "plan",
        "start_at",
        "lag",
        "open",
        "poll",
        "committed",
        "close",
    ] {
        let told = asked(hook, &config(hook, "fails")).await.unwrap_err();
        assert_eq!(told.chain(), format!("{hook} fails, as it is told"));
        assert!(
            asked(hook, &config(hook, "pends")).now_or_never().is_none(),
            "{hook}"
        );
        asked(hook, &config("none", "fails")).await.unwrap();
    }
}
