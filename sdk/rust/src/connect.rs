use std::{path::PathBuf, time::Duration};

use gantry_proto::v1::{
    agent_service_client::AgentServiceClient, connector_service_client::ConnectorServiceClient,
    plugin_service_client::PluginServiceClient,
};
use tonic::{
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::Error;

/// How to connect. The default is plain text without authentication, for loopback.
#[derive(Clone, Debug)]
pub struct Options {
    /// CA certificate (PEM) that the server's must be signed by. None: the endpoint's scheme decides and no private CA is known.
    pub ca: Option<PathBuf>,
    /// Certificate and key (PEM) to show to the server.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name that the server's certificate must have, if it is not the endpoint's host.
    pub domain: Option<String>,
    /// Used for every mutation instead of a new one for each.
    pub request_id: Option<String>,
    /// Bearer token.
    pub token: Option<String>,
    /// Deadline of one try of a call.
    pub call_timeout: Duration,
    /// How often a call that did not reach the control plane is sent again.
    pub retries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ca: None,
            identity: None,
            domain: None,
            request_id: None,
            token: None,
            call_timeout: Duration::from_secs(20),
            retries: 3,
        }
    }
}

pub(crate) type Authenticated = InterceptedService<Channel, Bearer>;

/// A connection to the control plane. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Client {
    pub(crate) endpoint: String,
    pub(crate) options: Options,
    pub(crate) connectors: ConnectorServiceClient<Authenticated>,
    pub(crate) plugins: PluginServiceClient<Authenticated>,
    pub(crate) agents: AgentServiceClient<Authenticated>,
}

impl Client {
    /// Connects with default options and makes sure that somebody answers.
    ///
    /// # Errors
    /// [`Error::Endpoint`], [`Error::Unreachable`].
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        Self::connect_with(endpoint, Options::default()).await
    }

    /// Connects and makes sure that somebody answers.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when the address or a certificate cannot be used; [`Error::Unreachable`].
    pub async fn connect_with(endpoint: &str, options: Options) -> Result<Self, Error> {
        let (target, bearer) = prepare(endpoint, &options)?;
        let channel = target.connect().await.map_err(|e| Error::Unreachable {
            endpoint: endpoint.to_owned(),
            why: deepest(&e),
        })?;
        Ok(Self::over(endpoint, options, channel, bearer))
    }

    /// Connects at the first call.
    ///
    /// # Errors
    /// [`Error::Endpoint`].
    pub fn connect_lazy(endpoint: &str, options: Options) -> Result<Self, Error> {
        let (target, bearer) = prepare(endpoint, &options)?;
        Ok(Self::over(endpoint, options, target.connect_lazy(), bearer))
    }

    fn over(endpoint: &str, options: Options, channel: Channel, bearer: Bearer) -> Self {
        let channel = InterceptedService::new(channel, bearer);
        Self {
            endpoint: endpoint.to_owned(),
            options,
            connectors: ConnectorServiceClient::new(channel.clone()),
            plugins: PluginServiceClient::new(channel.clone()),
            agents: AgentServiceClient::new(channel),
        }
    }
}

fn prepare(endpoint: &str, options: &Options) -> Result<(Endpoint, Bearer), Error> {
    let bad = |why: String| Error::Endpoint {
        endpoint: endpoint.to_owned(),
        why,
    };
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        return Err(bad("it must begin with http:// or https://".into()));
    }
    let mut target = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|e| bad(e.to_string()))?
        .connect_timeout(Duration::from_secs(3))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .user_agent(concat!("gantry-client/", env!("CARGO_PKG_VERSION")))
        .map_err(|e| bad(e.to_string()))?;
    if endpoint.starts_with("https://") {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| bad(format!("{}: {e}", path.display())));
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &options.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let Some((cert, key)) = &options.identity {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        if let Some(domain) = &options.domain {
            tls = tls.domain_name(domain.clone());
        }
        target = target.tls_config(tls).map_err(|e| bad(deepest(&e)))?;
    }
    let token = match &options.token {
        None => None,
        Some(token) => {
            let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
            let mut value =
                value.map_err(|_| bad("the token has characters that a header cannot carry".into()))?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    Ok((target, Bearer { token }))
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// Puts the token into each call.
#[derive(Clone)]
pub(crate) struct Bearer {
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}
