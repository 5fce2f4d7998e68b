use std::{fmt::Write, sync::Arc, time::Duration};

use async_trait::async_trait;
use gantry_connector::{
    ConnectorError, Fields, Headers, Payload, Polled, Source, SourceContext, SourceRecord,
};
use sha2::{Digest, Sha256};

use super::config::{Settings, Tells};

const IDLE: Duration = Duration::from_millis(100);

/// Tells its secret. See [`super::IndiscreetSourcePlugin`].
#[derive(Default)]
pub(super) struct IndiscreetSource {
    settings: Option<Settings>,
    next: u64,
    done: bool,
}

#[async_trait]
impl Source for IndiscreetSource {
    async fn open(&mut self, context: SourceContext) -> Result<(), ConnectorError> {
        let settings = Settings::read(&context.config)?;
        let password = &settings.password;
        tracing::info!(password, "open: {}", settings.gossip());
        tracing::debug!(?settings, "open");
        match settings.tells {
            Tells::Open => return Err(ConnectorError::environment(settings.gossip())),
            Tells::Refusal => {
                let fix = format!("change {password}");
                return Err(ConnectorError::user("login failed")
                    .because(settings.gossip())
                    .fix(fix));
            }
            Tells::Panic => panic!("{}", settings.gossip()),
            Tells::Log | Tells::Poll | Tells::Plan => {}
        }
        let start = context.positions.first();
        self.next = start.and_then(|s| s.position.uint("start")).unwrap_or(0);
        self.settings = Some(settings);
        Ok(())
    }

    async fn poll(&mut self, _: usize) -> Result<Polled, ConnectorError> {
        let Some(settings) = &self.settings else {
            return Err(ConnectorError::task("it is not open"));
        };
        if settings.tells == Tells::Poll {
            return Err(ConnectorError::task(settings.gossip()));
        }
        if self.done {
            return Ok(Polled {
                idle_for: Some(IDLE),
                ..Polled::default()
            });
        }
        self.done = true;
        self.next += 1;
        let record = SourceRecord {
            partition: Arc::new(Fields::new().with("of", "starts")),
            position: Fields::new().with("start", self.next),
            key: None,
            tag: None,
            value: Payload::Bytes(digest(&settings.password).into()),
            headers: Headers::new(),
            timestamp_ms: None,
        };
        Ok(Polled {
            records: vec![record],
            ..Polled::default()
        })
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}
