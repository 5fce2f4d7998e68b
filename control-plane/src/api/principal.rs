use tonic::Request;

/// Who makes a call, as the authentication layer found out. Without authentication: `anonymous`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal(pub String);

impl Principal {
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .unwrap_or_else(|| Self("anonymous".into()))
    }
}
