use std::{collections::HashMap, fmt, net::SocketAddr, path::Path};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::Tls;

/// Shortest token that is accepted.
const TOKEN: usize = 16;

type TokenDigest = [u8; 32];

/// How one listener is secured. `Debug` shows no secret.
#[derive(Clone, Default)]
pub struct ListenerConfig {
    /// TLS; None: plain text.
    pub tls: Option<Tls>,
    /// Digests of accepted bearer tokens with the names of their owners. Empty: no token is asked for.
    tokens: HashMap<TokenDigest, String>,
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
    /// Certificate and key are no PEM, or do not belong together.
    #[error("the certificate {certificate} cannot be used with the key {key}")]
    Certificate {
        /// File of the certificate.
        certificate: String,
        /// File of the key.
        key: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The clients' CA is no PEM certificate.
    #[error("{path} holds no certificate of a CA")]
    ClientCa {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// A line of a token file is not `NAME TOKEN`.
    #[error(
        "{path}:{line} is not of the form `NAME TOKEN`, with a token of at least {TOKEN} visible ASCII characters"
    )]
    TokenLine {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// A token stands for two names.
    #[error("{path}:{line} has the token of another line")]
    TokenTwice {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// Everybody would be let in.
    #[error("{path} holds no token")]
    NoToken {
        /// The file.
        path: String,
    },
}

impl ListenerConfig {
    /// Reads tokens from a file: `NAME TOKEN` a line, `#` begins a comment.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], [`ConfigError::TokenLine`], [`ConfigError::TokenTwice`], [`ConfigError::NoToken`].
    pub fn with_token_file(mut self, path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        for (i, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), i + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<_> = line.split_whitespace().collect();
            let [name, token] = words[..] else {
                return Err(ConfigError::TokenLine {
                    path: shown,
                    line: number,
                });
            };
            // Others could not be sent in a header.
            if token.len() < TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(ConfigError::TokenLine {
                    path: shown,
                    line: number,
                });
            }
            if self.owner(token).is_some() {
                return Err(ConfigError::TokenTwice {
                    path: shown,
                    line: number,
                });
            }
            self = self.with_token(name, token);
        }
        if self.tokens.is_empty() {
            return Err(ConfigError::NoToken { path: shown });
        }
        Ok(self)
    }

    /// Accepts this token as `name`.
    pub fn with_token(mut self, name: &str, token: &str) -> Self {
        self.tokens.insert(digest(token), name.to_owned());
        self
    }

    /// Reads certificate and key, and the clients' CA if there is one.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], [`ConfigError::Certificate`], [`ConfigError::ClientCa`].
    pub fn with_tls(
        mut self,
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut tls = Tls {
            certificate: read(certificate)?,
            key: read(key)?,
            client_ca: None,
        };
        tls.check().map_err(|source| ConfigError::Certificate {
            certificate: certificate.display().to_string(),
            key: key.display().to_string(),
            source,
        })?;
        if let Some(path) = client_ca {
            tls.client_ca = Some(read(path)?);
            tls.check().map_err(|source| ConfigError::ClientCa {
                path: path.display().to_string(),
                source,
            })?;
        }
        self.tls = Some(tls);
        Ok(self)
    }

    /// Whether callers have to say who they are.
    pub fn authenticates(&self) -> bool {
        self.asks_for_tokens() || self.tls.as_ref().is_some_and(|t| t.client_ca.is_some())
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

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    pub(super) fn owner(&self, token: &str) -> Option<&str> {
        self.tokens.get(&digest(token)).map(String::as_str)
    }

    pub(super) fn asks_for_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }
}

/// What is compared in place of tokens: how long a look-up takes tells nothing about one.
fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Unreadable {
        path: path.display().to_string(),
        source,
    })
}

impl fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.tokens.values().collect();
        names.sort();
        f.debug_struct("ListenerConfig")
            .field("tls", &self.tls)
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

    fn tokens(text: &str) -> Result<ListenerConfig, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        ListenerConfig::default().with_token_file(file.path())
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
        let config = tokens("# who\nci 0123456789abcdef\n\nops fedcba9876543210\n").unwrap();
        assert_eq!(config.owner("fedcba9876543210"), Some("ops"));
        assert_eq!(config.owner("wrong"), None);
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn a_faulty_token_file_is_refused_by_its_line_and_without_its_token() {
        for (text, says) in [
            ("ci short\n", ":1 "),
            ("\nci 0123456789abcdef more\n", ":2 "),
            ("0123456789abcdef\n", ":1 "),
            ("ci 0123456789abcdefä\n", ":1 "),
            ("ci 0123456789abcdef\nops 0123456789abcdef\n", ":2 "),
        ] {
            let said = tokens(text).unwrap_err().to_string();
            assert!(said.contains(says) && !said.contains("0123456789"), "{said}");
        }
        for nobody in ["", "# ci 0123456789abcdef\n"] {
            assert!(matches!(tokens(nobody), Err(ConfigError::NoToken { .. })));
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused_before_anything_listens() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no PEM\n").unwrap();
        let refused = ListenerConfig::default().with_tls(file.path(), file.path(), None);
        assert!(matches!(refused, Err(ConfigError::Certificate { .. })));
    }
}
