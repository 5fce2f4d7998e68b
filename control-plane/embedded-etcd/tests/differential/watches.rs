//! What watches deliver.

use std::fmt::Write;
use std::time::Duration;

use etcd_client::WatchStream;
use etcd_client::proto::PbEvent;
use tokio::sync::watch;

use crate::answers::plain;

pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);

fn note(seen: &mut String, event: &PbEvent) -> i64 {
    writeln!(seen, "{event:?}").expect("writes to a string");
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// What a watch delivers up to and including a revision that is only known later. Previous values are left out: etcd
/// reads them when it sends, and may find them compacted.
pub(crate) async fn live_events(mut stream: WatchStream, mut until: watch::Receiver<i64>) -> String {
    let mut seen = String::new();
    let mut last = 0;
    while last < *until.borrow() {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = until.changed() => continue,
        };
        match message {
            Ok(Some(message)) if !message.canceled() => {
                for mut event in message.0.events {
                    event.prev_kv = None;
                    last = note(&mut seen, &event);
                }
            }
            other => return format!("{seen}ended: {other:?}"),
        }
    }
    seen
}

/// What a watch delivers up to and including revision `until`, or how it ended.
pub(crate) async fn events(stream: &mut WatchStream, until: i64) -> String {
    let mut seen = String::new();
    let mut last = 0;
    while last < until {
        match tokio::time::timeout(ANSWER_WITHIN, stream.message()).await {
            Ok(Ok(Some(message))) if message.canceled() => {
                let mut message = message.0;
                plain(&mut message.header);
                return format!("{seen}{message:?}");
            }
            Ok(Ok(Some(message))) => {
                for event in &message.0.events {
                    last = note(&mut seen, event);
                }
            }
            other => return format!("{seen}ended: {other:?}"),
        }
    }
    seen
}
