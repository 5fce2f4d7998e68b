use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use gantry_proto::error::{Reason, Refusal};
use http::{Request, Response};
use sha2::{Digest, Sha256};
use tonic::{
    Status,
    body::Body,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};

use super::ListenerConfig;
use crate::api::Principal;

/// Finds out who calls, and refuses those who do not say.
#[derive(Clone)]
pub struct Authenticator {
    config: Arc<ListenerConfig>,
}

impl Authenticator {
    /// Accepts what `config` says.
    pub fn new(config: &ListenerConfig) -> Self {
        Self {
            config: Arc::new(config.clone()),
        }
    }

    /// As a layer around services.
    pub fn layer(&self) -> AuthenticatorLayer {
        AuthenticatorLayer(self.clone())
    }

    fn principal<B>(&self, request: &Request<B>) -> Result<Principal, Refusal> {
        if self.config.asks_for_tokens() {
            // Health tells nothing about anybody, and whoever checks it has no token.
            if request.uri().path().starts_with("/grpc.health.v1.Health/") {
                return Ok(Principal("health".into()));
            }
            let given = request.headers().get("authorization");
            let Some(given) = given else {
                return Err(unauthenticated("this listener asks for a bearer token"));
            };
            let token = given.to_str().ok().and_then(bearer);
            let Some(token) = token else {
                return Err(unauthenticated(
                    "the header `authorization` holds no bearer token",
                ));
            };
            let Some(owner) = self.config.owner(token) else {
                return Err(unauthenticated("the bearer token is not known"));
            };
            return Ok(Principal(owner.to_owned()));
        }
        let peer = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let certificate = peer
            .and_then(TlsConnectInfo::peer_certs)
            .and_then(|c| c.first().cloned());
        Ok(match certificate {
            Some(certificate) => {
                let digest = Sha256::digest(certificate.as_ref());
                Principal(
                    digest
                        .iter()
                        .take(8)
                        .fold("certificate-".to_owned(), |s, b| s + &format!("{b:02x}")),
                )
            }
            None => Principal("anonymous".into()),
        })
    }
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthenticated(what: &str) -> Refusal {
    let message = format!("{what}; send `authorization: Bearer TOKEN` (gantry: --token-file FILE)");
    Refusal::new(Reason::Unauthenticated, message)
}

/// See [`Authenticator::layer`].
#[derive(Clone)]
pub struct AuthenticatorLayer(Authenticator);

impl<S> Layer<S> for AuthenticatorLayer {
    type Service = Authenticated<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Authenticated {
            inner,
            authenticator: self.0.clone(),
        }
    }
}

/// A service that only those reach who said who they are.
#[derive(Clone)]
pub struct Authenticated<S> {
    inner: S,
    authenticator: Authenticator,
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.authenticator.principal(&request) {
            Ok(principal) => {
                request.extensions_mut().insert(principal);
                Box::pin(self.inner.call(request))
            }
            Err(refusal) => {
                let answer = Status::from(refusal).into_http();
                Box::pin(async move { Ok(answer) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn caller(path: &str, authorization: &[u8]) -> Result<Principal, Refusal> {
        let config = ListenerConfig::default().with_token("ci", TOKEN);
        let mut request = Request::builder().uri(path);
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        Authenticator::new(&config).principal(&request.body(()).unwrap())
    }

    #[test]
    fn a_known_token_names_the_caller() {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let header = format!("{scheme} {TOKEN}");
            assert_eq!(caller("/a/B", header.as_bytes()).unwrap(), Principal("ci".into()));
        }
    }

    #[test]
    fn others_are_refused_and_their_token_is_not_repeated() {
        let headers: [&[u8]; 6] = [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer 0123456789abcdeX",
            b"Basic 0123456789abcdef",
            b"Bearer \xff0123456789abcdef",
        ];
        for header in headers {
            let refusal = caller("/a/B", header).unwrap_err();
            assert_eq!(refusal.reason(), Reason::Unauthenticated);
            let status = Status::from(refusal);
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert!(!format!("{status:?}").contains("0123456789"), "{status:?}");
        }
        assert!(caller("/grpc.health.v1.Health/Check", b"").is_ok());
    }
}
