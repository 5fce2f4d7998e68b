use std::{fmt, net::SocketAddr, path::Path};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// How one listener is secured. `Debug` shows no secret.
#[derive(Clone, Default)]
pub struct ListenerConfig {
    /// TLS; None: plain text.
    pub tls: Option<Tls>,
    /// Digests of accepted bearer tokens with the names of their owners. Empty: no token is asked for.
    tokens: Vec<([u8; 32], String)>,
}

/// Certificate and key, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// Certificate chain.
    pub certificate: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
    /// Clients must show a certificate of this CA.
    pub client_ca: Option<Vec<u8>>,
}

/// Why a listener is not started as configured.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Others could reach it, and nothing protects it.
    #[error("{address} is not a loopback address and has {missing}")]
    Exposed {
        /// The address.
        address: SocketAddr,
        /// What is missing.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of a token file is not `NAME TOKEN`.
    #[error("{path}:{line} is not of the form `NAME TOKEN`, with a token of at least 16 characters")]
    TokenLine {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
}

impl ListenerConfig {
    /// Reads tokens from a file: `NAME TOKEN` a line, `#` begins a comment.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], [`ConfigError::TokenLine`].
    pub fn with_token_file(mut self, path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: shown.clone(),
            source,
        })?;
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [name, token] if token.len() >= 16 => self = self.with_token(name, token),
                _ => {
                    return Err(ConfigError::TokenLine {
                        path: shown,
                        line: i + 1,
                    });
                }
            }
        }
        Ok(self)
    }

    /// Accepts this token as `name`.
    pub fn with_token(mut self, name: &str, token: &str) -> Self {
        self.tokens
            .push((Sha256::digest(token.as_bytes()).into(), name.to_owned()));
        self
    }

    /// Reads certificate and key, and the clients' CA if there is one.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`].
    pub fn with_tls(
        mut self,
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| ConfigError::Unreadable {
                path: path.display().to_string(),
                source,
            })
        };
        self.tls = Some(Tls {
            certificate: read(certificate)?,
            key: read(key)?,
            client_ca: client_ca.map(read).transpose()?,
        });
        Ok(self)
    }

    /// Whether callers have to say who they are.
    pub fn authenticates(&self) -> bool {
        !self.tokens.is_empty() || self.tls.as_ref().is_some_and(|t| t.client_ca.is_some())
    }

    /// Refuses what others could reach unprotected.
    ///
    /// # Errors
    /// [`ConfigError::Exposed`].
    pub fn check(&self, address: SocketAddr, insecure: bool) -> Result<(), ConfigError> {
        let missing = match (self.tls.is_some(), self.authenticates()) {
            (true, true) => return Ok(()),
            (false, false) => "neither TLS nor authentication",
            (false, true) => "no TLS",
            (true, false) => "no authentication",
        };
        if insecure || address.ip().is_loopback() {
            return Ok(());
        }
        Err(ConfigError::Exposed { address, missing })
    }

    pub(super) fn owner(&self, token: &str) -> Option<&str> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.tokens
            .iter()
            .find(|(known, _)| *known == digest)
            .map(|(_, name)| name.as_str())
    }

    pub(super) fn asks_for_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }
}

impl fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.tokens.iter().map(|(_, name)| name.as_str()).collect();
        f.debug_struct("ListenerConfig")
            .field("tls", &self.tls.is_some())
            .field("tokens", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_others_can_reach_must_be_protected() {
        let open = ListenerConfig::default();
        assert!(open.check(address("127.0.0.1:1"), false).is_ok());
        assert!(open.check(address("[::1]:1"), false).is_ok());
        assert!(open.check(address("0.0.0.0:1"), false).is_err());
        assert!(open.check(address("0.0.0.0:1"), true).is_ok());
        let half = ListenerConfig::default().with_token("ci", "0123456789abcdef");
        assert!(
            half.check(address("10.0.0.1:1"), false)
                .unwrap_err()
                .to_string()
                .contains("no TLS")
        );
    }

    #[test]
    fn tokens_are_read_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "# who\nci 0123456789abcdef\n\nops fedcba9876543210\n",
        )
        .unwrap();
        let config = ListenerConfig::default().with_token_file(file.path()).unwrap();
        assert_eq!(config.owner("fedcba9876543210"), Some("ops"));
        assert_eq!(config.owner("wrong"), None);
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
        std::fs::write(file.path(), "ci short\n").unwrap();
        let error = ListenerConfig::default()
            .with_token_file(file.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains(":1 "), "{error}");
    }
}
