//! Which questions an agent is asked now: one at a time for each plugin. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_proto::agent::v1::Ask;
use tokio::time::Instant;

use crate::domain::stored::AskRecord;

/// How long a plugin is given when an ask does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Questions of one session.
#[derive(Debug, Default)]
pub struct Asks {
    sent: BTreeMap<Arc<str>, Sent>,
}

#[derive(Debug)]
struct Sent {
    plugin: String,
    /// The plugin counts as busy until then. None: answered.
    busy_until: Option<Instant>,
}

impl Asks {
    /// The questions to send now, of all that are stored for the agent.
    pub fn due<'a>(
        &mut self,
        instance_uid: &str,
        stored: impl IntoIterator<Item = (&'a Arc<str>, &'a AskRecord)>,
        now: Instant,
    ) -> Vec<Ask> {
        let stored: BTreeMap<&Arc<str>, &AskRecord> = stored.into_iter().collect();
        self.sent.retain(|id, _| stored.contains_key(id));
        let mut due = Vec::new();
        for (id, record) in stored {
            let Some(ask) = &record.ask else { continue };
            let other_instance = !record.instance_uid.is_empty() && record.instance_uid != instance_uid;
            if other_instance || self.sent.contains_key(id) || self.is_busy(&ask.plugin, now) {
                continue;
            }
            let timeout = ask
                .timeout
                .and_then(|t| Duration::try_from(t).ok())
                .unwrap_or(TIMEOUT);
            self.sent.insert(
                id.clone(),
                Sent {
                    plugin: ask.plugin.clone(),
                    busy_until: Some(now + timeout),
                },
            );
            due.push(Ask {
                id: id.to_string(),
                ..ask.clone()
            });
        }
        due
    }

    /// Takes an answer. False: nobody asked, or it was answered before.
    pub fn answered(&mut self, id: &str) -> bool {
        self.sent
            .get_mut(id)
            .is_some_and(|sent| sent.busy_until.take().is_some())
    }

    /// When a plugin counts as free again although it gave no answer.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.sent
            .values()
            .filter_map(|s| s.busy_until)
            .filter(|until| *until > now)
            .min()
    }

    fn is_busy(&self, plugin: &str, now: Instant) -> bool {
        self.sent
            .values()
            .any(|s| s.plugin == plugin && s.busy_until.is_some_and(|until| now < until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(plugin: &str, instance: &str) -> AskRecord {
        let ask = Ask {
            plugin: plugin.into(),
            ..Ask::default()
        };
        AskRecord {
            ask: Some(ask),
            instance_uid: instance.into(),
            ..AskRecord::default()
        }
    }

    #[test]
    fn one_question_a_plugin_at_a_time_each_delivered_once() {
        let now = Instant::now();
        let stored: BTreeMap<Arc<str>, AskRecord> = [
            ("a".into(), record("x", "i")),
            ("b".into(), record("x", "i")),
            ("c".into(), record("y", "")),
            ("d".into(), record("z", "other")),
        ]
        .into();
        let mut asks = Asks::default();
        let ids = |asks: &mut Asks, now| -> Vec<String> {
            asks.due("i", &stored, now).into_iter().map(|a| a.id).collect()
        };
        assert_eq!(ids(&mut asks, now), ["a", "c"]);
        assert!(ids(&mut asks, now).is_empty());
        assert!(asks.answered("a"));
        assert!(!asks.answered("a"));
        assert_eq!(ids(&mut asks, now), ["b"]);
        assert!(ids(&mut asks, now + TIMEOUT).is_empty());
        assert!(!asks.answered("d"));
    }

    #[test]
    fn a_plugin_that_does_not_answer_is_asked_the_next_question_after_its_time() {
        let now = Instant::now();
        let stored: BTreeMap<Arc<str>, AskRecord> =
            [("a".into(), record("x", "")), ("b".into(), record("x", ""))].into();
        let mut asks = Asks::default();
        assert_eq!(asks.due("i", &stored, now).len(), 1);
        let free = asks.next_due(now).unwrap();
        assert_eq!(asks.next_due(free), None, "what is over is waited for no more");
        assert_eq!(asks.due("i", &stored, free)[0].id, "b");
    }
}
