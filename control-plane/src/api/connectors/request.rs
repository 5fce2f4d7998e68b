//! Who asks for a change, and how the same request is known when it is sent again.

use gantry_proto::{
    error::{Reason, Refusal},
    name::ConnectorName,
    v1::Connector,
};
use pbjson_types::Struct;
use prost::Message;

use super::change::{Answer, shown};
use crate::{
    api::{Shared, answers, principal::Principal},
    domain::hash::Hasher,
    store::connectors::{ConnectorOutcome, Request},
};

/// A call that changes something.
pub(super) struct Call {
    /// Who makes it.
    pub(super) principal: Principal,
    /// Its identity, if the client gave it a `request_id`.
    pub(super) request: Option<Request>,
}

impl Call {
    /// `hashed`: the request without its id and without the configuration, which is hashed by content, not by encoding.
    pub(super) fn new<M: Message>(
        method: &str,
        principal: Principal,
        request_id: &str,
        config: Option<&Struct>,
        hashed: &M,
    ) -> Result<Self, Refusal> {
        if request_id.is_empty() {
            let request = None;
            return Ok(Self { principal, request });
        }
        let id = uuid::Uuid::parse_str(request_id).map_err(|_| {
            Refusal::new(Reason::InvalidField, "request_id is not a UUID")
                .field("request_id", "must be a UUID4 or empty")
        })?;
        let mut hasher = Hasher::new("request 1");
        hasher.structure(config);
        hasher.message(hashed);
        let request = Some(Request {
            method: method.into(),
            principal: principal.0.as_str().into(),
            id: id.to_string().into(),
            hash: hasher.digest(),
        });
        Ok(Self { principal, request })
    }

    /// As [`new`](Self::new), for a request that carries a whole definition.
    pub(super) fn defining<M: Message + Clone>(
        method: &str,
        principal: Principal,
        request_id: &str,
        request: &M,
        connector: impl Fn(&mut M) -> Option<&mut Connector>,
    ) -> Result<Self, Refusal> {
        let mut rest = request.clone();
        let config = connector(&mut rest).and_then(|c| c.config.take());
        Self::new(method, principal, request_id, config.as_ref(), &rest)
    }

    pub(super) fn request_id(&self) -> String {
        self.request
            .as_ref()
            .map(|r| r.id.to_string())
            .unwrap_or_default()
    }

    /// The answer, if an earlier call of the same request had its effect.
    pub(super) async fn replayed(
        &self,
        shared: &Shared,
        name: &ConnectorName,
    ) -> Result<Option<Answer>, Refusal> {
        let Some(request) = &self.request else {
            return Ok(None);
        };
        let outcome = shared.handles.store.replayed(request, name.id()).await;
        match outcome.map_err(answers::store)? {
            None | Some(ConnectorOutcome::Conflict(_)) => Ok(None),
            Some(ConnectorOutcome::Reused) => Err(reused()),
            Some(ConnectorOutcome::Done {
                connector, changed, ..
            }) => {
                let connector = match connector {
                    Some(present) => Some(shown(shared, name, &present).await),
                    None => None,
                };
                Ok(Some(Answer { connector, changed }))
            }
        }
    }
}

pub(super) fn reused() -> Refusal {
    Refusal::new(
        Reason::RequestIdReused,
        "this request_id was used for another request",
    )
    .field("request_id", "make a new one for every request")
}

#[cfg(test)]
mod tests {
    use gantry_proto::v1::{CreateConnectorRequest, StopConnectorRequest};

    use super::*;

    const ID: &str = "6f1b1b52-6f5c-4a5e-9d0c-0d4d1a9b7a11";

    fn hash(topic: &str, config: &[(&str, &str)]) -> [u8; 32] {
        let fields = config
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned().into()));
        let request = CreateConnectorRequest {
            connector: Some(Connector {
                topic: topic.into(),
                config: Some(fields.collect()),
                ..Connector::default()
            }),
            ..CreateConnectorRequest::default()
        };
        let who = Principal("me".into());
        let call = Call::defining("CreateConnector", who, ID, &request, |r| r.connector.as_mut());
        call.ok().and_then(|c| c.request).expect("it has an id").hash
    }

    #[test]
    fn a_request_is_known_by_its_content() {
        let many: Vec<_> = (0..40).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
        let forward: Vec<_> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        assert_eq!(hash("t", &forward), hash("t", &backward));
        assert_ne!(hash("t", &forward), hash("u", &forward));
        assert_ne!(hash("t", &forward), hash("t", &forward[1..]));
    }

    #[test]
    fn an_id_is_a_uuid_or_left_out() {
        let stop = StopConnectorRequest::default();
        let call = |id| Call::new("StopConnector", Principal("me".into()), id, None, &stop);
        assert!(call("").is_ok_and(|c| c.request.is_none()));
        assert!(call("7").is_err_and(|e| e.reason() == Reason::InvalidField));
        // However it is written.
        let upper = call(&ID.to_uppercase()).ok().and_then(|c| c.request);
        assert_eq!(upper.map(|r| r.id.to_string()).as_deref(), Some(ID));
    }
}
