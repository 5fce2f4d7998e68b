use std::{fmt, time::Duration};

use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// A client that has connected must be done with the handshake by then.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Certificate and key, as PEM. `Debug` shows neither.
#[derive(Clone)]
pub struct Tls {
    /// Certificate chain.
    pub certificate: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
    /// Clients must show a certificate of this CA.
    pub client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// A server that speaks TLS.
    ///
    /// # Errors
    /// If certificate, key or CA are no PEM or do not belong together.
    pub(super) fn server(&self, server: Server) -> Result<Server, tonic::transport::Error> {
        // Two providers of cryptography are compiled in, ours and that of a dependency; rustls takes neither by itself.
        // Whoever has chosen one before has the last word.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .timeout(HANDSHAKE);
        if let Some(ca) = &self.client_ca {
            config = config.client_ca_root(Certificate::from_pem(ca));
        }
        server.tls_config(config)
    }

    /// Whether it can be used.
    ///
    /// # Errors
    /// As [`Tls::server`].
    pub(super) fn check(&self) -> Result<(), tonic::transport::Error> {
        self.server(Server::builder()).map(drop)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("client_ca", &self.client_ca.is_some())
            .finish_non_exhaustive()
    }
}
