//! Connectors that come, change and go while servers die: every verb that was acknowledged must hold in the end.

mod holds;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gantry_client::v1::Connector;
use gantry_client::v1::connector::TargetState;
use gantry_client::{Client, Error, Options};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use self::holds::{holds, nothing_is_left, seen};
use super::history::History;
use crate::connectors::definition;

/// The topic that they write to and read.
pub const TOPIC: &str = "rolling";
const PAUSE: Duration = Duration::from_millis(700);
/// So long one verb is tried at all replicas, one after the other.
const TRY: Duration = Duration::from_secs(20);
const CALL: Duration = Duration::from_secs(4);
const MOST: usize = 6;

/// What a connector must be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Gone,
    Present { version: u64, target: TargetState },
}

/// A verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Update,
    Pause,
    Resume,
    Stop,
    Delete,
}

/// What was asked of one name and may be so.
type Model = BTreeMap<String, Vec<Expected>>;

/// What was done.
#[derive(Debug, Default)]
struct Done {
    model: Model,
    acknowledged: u64,
    refused: BTreeMap<String, u64>,
    unknown: Vec<String>,
}

/// A series of verbs that goes on until it is finished.
#[derive(Debug)]
pub struct Rolling {
    endpoints: Vec<String>,
    stop: watch::Sender<bool>,
    work: Option<JoinHandle<Result<Done>>>,
}

impl Rolling {
    /// Begins. The verbs follow from the seed; which are acknowledged depends on the servers.
    pub fn start(endpoints: Vec<String>, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let series = Series {
            endpoints: endpoints.clone(),
            random: StdRng::seed_from_u64(seed),
            done: Done::default(),
            number: 0,
        };
        let work = tokio::spawn(series.run(stopped));
        Self {
            endpoints,
            stop,
            work: Some(work),
        }
    }

    /// Ends the series and checks that what was acknowledged holds. Says how many verbs there were.
    pub async fn finish(&mut self, history: &History, limit: Duration) -> Result<String> {
        self.stop.send_replace(true);
        let work = self.work.take().context("it is finished once")?;
        let done = work.await.context("the rolling series has panicked")??;
        history.catch_up(limit).await?;
        let what = "what was acknowledged holds";
        history
            .wait(limit, what, |view| {
                done.model
                    .iter()
                    .try_for_each(|(name, expected)| holds(view, name, expected))?;
                nothing_is_left(view)
            })
            .await?;
        self.api_agrees(&done.model).await?;
        Ok(format!(
            "{} verbs on {} connectors acknowledged and holding, of unknown outcome {:?}, refused {:?}",
            done.acknowledged,
            done.model.len(),
            done.unknown,
            done.refused
        ))
    }

    /// What the API says is what is stored.
    async fn api_agrees(&self, model: &Model) -> Result<()> {
        let client = Client::connect_lazy(&self.endpoints[0], Options::default())?;
        let listed = client.list("", gantry_client::v1::View::Full).await?;
        for (name, expected) in model {
            let found = listed.iter().find(|c| c.name == format!("connectors/{name}"));
            ensure!(
                expected.contains(&seen(found)),
                "the API lists {name} as {:?}; it must be one of {expected:?}",
                seen(found)
            );
        }
        Ok(())
    }
}

impl Drop for Rolling {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

struct Series {
    endpoints: Vec<String>,
    random: StdRng,
    done: Done,
    number: u64,
}

impl Series {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<Done> {
        loop {
            let (verb, name) = self.draw();
            tokio::select! {
                biased;
                // A verb that has begun is answered, or its outcome is unknown.
                _ = stopped.wait_for(|stop| *stop) => return Ok(self.done),
                () = sleep(PAUSE) => {}
            }
            self.number += 1;
            self.act(verb, name).await?;
        }
    }

    /// The next verb, on a connector of which it is known what it is.
    fn draw(&mut self) -> (Verb, String) {
        let present: Vec<(&String, &Expected)> = self
            .done
            .model
            .iter()
            .filter_map(|(name, expected)| match expected.as_slice() {
                [one @ Expected::Present { .. }] => Some((name, one)),
                _ => None,
            })
            .collect();
        let choice = self.random.random_range(0..10);
        let (pick, new) = (
            self.random.random_range(0..1_000),
            format!("rolling-{}", self.number),
        );
        let Some((name, expected)) = present.get(pick % present.len().max(1)) else {
            return (Verb::Create, new);
        };
        let Expected::Present { target, .. } = expected else {
            return (Verb::Create, new);
        };
        let verb = match (choice, target) {
            (0..3, _) if present.len() < MOST => return (Verb::Create, new),
            (0..3, _) => Verb::Delete,
            (3..5, _) => Verb::Update,
            (5, _) => Verb::Delete,
            (6..8, TargetState::Running) => Verb::Pause,
            (_, TargetState::Running) => Verb::Stop,
            (8, TargetState::Paused) => Verb::Stop,
            (_, _) => Verb::Resume,
        };
        (verb, (*name).clone())
    }

    async fn act(&mut self, verb: Verb, name: String) -> Result<()> {
        let before = self.done.model.get(&name).and_then(|all| all.first().cloned());
        let before = before.unwrap_or(Expected::Gone);
        let after = expected_after(verb, &before, self.number);
        let options = Options {
            // Not drawn from the seed: on a store that is used again it would be an old request.
            request_id: Some(uuid::Uuid::new_v4().to_string()),
            call_timeout: CALL,
            retries: 0,
            ..Options::default()
        };
        let outcome = self.on_any(verb, &name, &options).await?;
        let known = match outcome {
            Outcome::Acknowledged => {
                self.done.acknowledged += 1;
                vec![after]
            }
            Outcome::Refused(reason) => {
                *self
                    .done
                    .refused
                    .entry(format!("{verb:?}: {reason}"))
                    .or_default() += 1;
                vec![before]
            }
            Outcome::Unknown(last) => {
                self.done.unknown.push(format!("{verb:?} {name}: {last}"));
                vec![before, after]
            }
        };
        self.done.model.insert(name, known);
        Ok(())
    }

    /// Asks one replica after the other, with one request id, so that it happens once.
    async fn on_any(&self, verb: Verb, name: &str, options: &Options) -> Result<Outcome> {
        let deadline = Instant::now() + TRY;
        let first = self.number as usize;
        let mut sent = false;
        for attempt in 0.. {
            let endpoint = &self.endpoints[(first + attempt) % self.endpoints.len()];
            let client = Client::connect_lazy(endpoint, options.clone())?;
            let last = match timeout(CALL, call(&client, verb, name, self.number)).await {
                Ok(Ok(())) => return Ok(Outcome::Acknowledged),
                Ok(Err(Error::Refused {
                    reason,
                    message,
                    code,
                    ..
                })) => {
                    let text = format!("{code:?} {reason}: {message}");
                    // Refused for good, not only for now.
                    let for_now = matches!(
                        code,
                        tonic::Code::Unavailable
                            | tonic::Code::DeadlineExceeded
                            | tonic::Code::Aborted
                            | tonic::Code::ResourceExhausted
                            | tonic::Code::Unknown
                    );
                    if !for_now {
                        // An earlier try may have done it.
                        return Ok(if sent {
                            Outcome::Unknown(text)
                        } else {
                            Outcome::Refused(text)
                        });
                    }
                    text
                }
                Ok(Err(error @ Error::Endpoint { .. })) => bail!(error),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            sent = true;
            if Instant::now() >= deadline {
                return Ok(Outcome::Unknown(last));
            }
            sleep(Duration::from_millis(100)).await;
        }
        unreachable!("the loop has no end")
    }
}

#[derive(Debug)]
enum Outcome {
    Acknowledged,
    Refused(String),
    /// The last answer.
    Unknown(String),
}

fn expected_after(verb: Verb, before: &Expected, number: u64) -> Expected {
    let (version, target) = match before {
        Expected::Present { version, target } => (*version, *target),
        Expected::Gone => (number, TargetState::Running),
    };
    let to = |version, target| Expected::Present { version, target };
    match verb {
        Verb::Create => to(number, TargetState::Running),
        Verb::Update => to(number, target),
        Verb::Pause => to(version, TargetState::Paused),
        Verb::Resume => to(version, TargetState::Running),
        Verb::Stop => to(version, TargetState::Stopped),
        Verb::Delete => Expected::Gone,
    }
}

async fn call(client: &Client, verb: Verb, name: &str, number: u64) -> Result<(), Error> {
    let wanted = || wanted(name, number);
    match verb {
        Verb::Create => client.create(wanted(), false).await.map(drop),
        Verb::Update => client.update(wanted(), &["labels"], false).await.map(drop),
        Verb::Pause => client.pause(name).await.map(drop),
        Verb::Resume => client.resume(name).await.map(drop),
        Verb::Stop => client.stop(name).await.map(drop),
        Verb::Delete => client.delete(name, true, false).await.map(drop),
    }
}

/// Every other one is a source, the rest are sinks.
fn wanted(name: &str, number: u64) -> Connector {
    let more = json!({ "labels": { "version": number.to_string() }, "tasks_max": 2 });
    let source = name.bytes().next_back().is_some_and(|digit| digit % 2 == 0);
    let (plugin, config) = if source {
        ("generator-source", json!({ "rate": 20, "partitions": 2 }))
    } else {
        ("blackhole-sink", json!({}))
    };
    definition(name, plugin, TOPIC, &config, &more).expect("the definition does not depend on anything")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_change_what_is_expected() {
        let running = expected_after(Verb::Create, &Expected::Gone, 3);
        let paused = expected_after(Verb::Pause, &running, 4);
        let updated = expected_after(Verb::Update, &paused, 5);
        assert_eq!(
            updated,
            Expected::Present {
                version: 5,
                target: TargetState::Paused
            }
        );
        assert_eq!(expected_after(Verb::Delete, &updated, 6), Expected::Gone);
        let written = wanted("a", 5);
        assert_eq!(
            seen(Some(&written)),
            Expected::Present {
                version: 5,
                target: written.target_state()
            }
        );
        assert_eq!(seen(None), Expected::Gone);
    }
}
