//! Finds a replica: which address, how long to wait.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gantry_proto::agent::v1::agent_session_service_client::AgentSessionServiceClient;
use hyper_util::rt::TokioIo;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{AgentError, TlsOptions, backoff::Jitter, config::Dial};

/// Client of the control plane.
pub(crate) type Client = AgentSessionServiceClient<InterceptedService<Channel, Bearer>>;

/// Adds the agent's token to every call.
#[derive(Clone, Default)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Knows all addresses and takes them in turn, in an order of its own.
pub(crate) struct Dialer {
    configured: Vec<String>,
    learned: BTreeSet<String>,
    round: Vec<String>,
    tls: Option<Arc<TlsOptions>>,
    bearer: Bearer,
    jitter: Jitter,
    dial: Option<Dial>,
}

impl Dialer {
    /// # Errors
    /// If an address or the token is malformed.
    pub(crate) fn new(
        servers: &[String],
        tls: Option<TlsOptions>,
        token: Option<&str>,
        jitter: Jitter,
        dial: Option<Dial>,
    ) -> Result<Self, AgentError> {
        if servers.is_empty() {
            return Err(AgentError::Config(
                "no address of the control plane is given; use --server URL".into(),
            ));
        }
        for server in servers {
            let known = server.starts_with("http://") || server.starts_with("https://");
            if !known || Endpoint::from_shared(server.clone()).is_err() {
                return Err(AgentError::Config(format!(
                    "'{server}' is not of the form http://host:port or https://host:port"
                )));
            }
        }
        let token = token.map(|t| format!("Bearer {t}").parse()).transpose();
        let mut token: Option<MetadataValue<Ascii>> =
            token.map_err(|_| AgentError::Config("the token has characters that cannot be sent".into()))?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self {
            configured: servers.to_vec(),
            learned: BTreeSet::new(),
            round: Vec::new(),
            tls: tls.map(Arc::new),
            bearer: Bearer(token),
            jitter,
            dial,
        })
    }

    /// These replicas live.
    pub(crate) fn learn(&mut self, addresses: &[String]) {
        let valid = addresses
            .iter()
            .filter(|a| Endpoint::from_shared((*a).clone()).is_ok());
        self.learned = valid.cloned().collect();
    }

    /// The next address: each once before any comes again.
    pub(crate) fn next_address(&mut self) -> String {
        if self.round.is_empty() {
            let all: BTreeSet<_> = self.configured.iter().chain(&self.learned).cloned().collect();
            self.round = all.into_iter().collect();
            self.jitter.shuffle(&mut self.round);
        }
        self.round.pop().unwrap_or_else(|| self.configured[0].clone())
    }

    /// Begins the next round with other addresses than this one.
    pub(crate) fn avoid(&mut self, address: &str) {
        self.round.clear();
        let first = self.next_address();
        self.round.push(first);
        if self.round.len() > 1
            && let Some(at) = self.round.iter().position(|a| a == address)
        {
            let avoided = self.round.remove(at);
            self.round.insert(0, avoided);
        }
    }

    /// A client of that address.
    ///
    /// # Errors
    /// If it cannot be reached within the time.
    pub(crate) async fn connect(&self, address: &str, within: Duration) -> Result<Client, Status> {
        let failed = |e: tonic::transport::Error| Status::unavailable(crate::problem::chain(&e));
        let mut endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(failed)?
            .connect_timeout(within)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        if address.starts_with("https://") {
            endpoint = endpoint.tls_config(self.tls_config()).map_err(failed)?;
        }
        let channel = match &self.dial {
            None => endpoint.connect().await,
            Some(dial) => {
                let (dial, address) = (dial.clone(), address.to_owned());
                let connector = tower::service_fn(move |_: http::Uri| {
                    let opened = dial(address.clone());
                    async move { opened.await.map(TokioIo::new) }
                });
                endpoint.connect_with_connector(connector).await
            }
        };
        let channel = channel.map_err(failed)?;
        Ok(AgentSessionServiceClient::with_interceptor(
            channel,
            self.bearer.clone(),
        ))
    }

    fn tls_config(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        let Some(options) = &self.tls else {
            return config.with_enabled_roots();
        };
        config = match options.ca.is_empty() {
            true => config.with_enabled_roots(),
            false => config.ca_certificate(Certificate::from_pem(&options.ca)),
        };
        if let Some((certificate, key)) = &options.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        if let Some(domain) = &options.domain {
            config = config.domain_name(domain.clone());
        }
        config
    }
}

/// Why there is no session: the causes as well, and what to do where that is known. The texts looked for are those of rustls, which
/// gives no others.
pub(super) fn why(status: &Status, address: &str) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(e) = cause {
        let line = e.to_string();
        if !text.contains(&line) {
            text = format!("{text}: {line}");
        }
        cause = e.source();
    }
    let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    // Without details, nobody but the transport has spoken.
    let transport = status.details().is_empty();
    let advice = if says(&["UnknownIssuer", "BadSignature"]) {
        "give the CA that signed the control plane's certificate with --ca"
    } else if says(&["InvalidContentType"]) {
        "write http:// in --server: the control plane does not speak TLS there"
    } else if address.starts_with("https://")
        && transport
        && !says(&["invalid peer certificate", "refused", "welcome"])
    {
        // Who asks for certificates may be gone before the agent has read why.
        "if the control plane asks for certificates, give one that it accepts with --cert and --key"
    } else if address.starts_with("http://") && transport && !says(&["refused", "welcome"]) {
        "write https:// in --server, if the control plane speaks TLS there"
    } else {
        return text;
    };
    format!("{text}; {advice}")
}

/// How long one attempt may take, and the longest pause after it: three of both fit into two thirds of the lease.
pub(crate) fn attempt_times(lease: Duration, tasks_run: bool) -> (Duration, Duration) {
    if lease.is_zero() || !tasks_run {
        return (Duration::from_secs(5), Duration::from_secs(5));
    }
    (lease / 6, lease / 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(servers: &[&str]) -> Result<Dialer, AgentError> {
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        Dialer::new(&servers, None, Some("t"), Jitter::new(1), None)
    }

    #[test]
    fn every_address_comes_once_a_round() {
        let mut d = dialer(&["http://a:1", "http://b:1"]).unwrap();
        d.learn(&["http://c:1".into(), "http://a:1".into()]);
        for _ in 0..3 {
            let round: BTreeSet<_> = (0..3).map(|_| d.next_address()).collect();
            assert_eq!(round.len(), 3);
        }
        d.avoid("http://b:1");
        assert_ne!(d.next_address(), "http://b:1");
    }

    #[test]
    fn what_is_known_to_help_is_said() {
        let told = |message: &str, address: &str| why(&Status::unavailable(message), address);
        let secure = "https://a:1";
        for (message, address, advice) in [
            ("invalid peer certificate: UnknownIssuer", secure, "--ca"),
            ("transport error", secure, "--cert and --key"),
            (
                "received corrupt message of type InvalidContentType",
                secure,
                "http://",
            ),
            ("transport error", "http://a:1", "https://"),
        ] {
            let said = told(message, address);
            assert!(said.starts_with(message) && said.contains(advice), "{said}");
        }
        assert_eq!(told("Connection refused", secure), "Connection refused");
        let refused =
            gantry_proto::error::Refusal::new(gantry_proto::error::Reason::Unauthenticated, "no token");
        assert_eq!(why(&refused.into(), secure), "no token");
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for bad in [&["a:1"][..], &[], &["ftp://a:1"], &["http://"]] {
            assert!(matches!(dialer(bad), Err(AgentError::Config(_))), "{bad:?}");
        }
    }

    #[test]
    fn three_attempts_fit_into_two_thirds_of_a_lease() {
        let lease = Duration::from_secs(9);
        let (attempt, pause) = attempt_times(lease, true);
        assert!((attempt + pause) * 3 <= lease * 2 / 3);
    }
}
