use std::fmt;

use gantry_client::Error;
use tonic::Code;

/// Exit codes are a contract: scripts use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Refused = 1,
    Usage = 2,
    NotFound = 3,
    TimedOut = 4,
    Unreachable = 5,
}

/// What is wrong, where, and what to do: printed as three lines.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    what: String,
    places: Vec<String>,
    fix: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            places: Vec::new(),
            fix: String::new(),
        }
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.places.push(place.into());
        self
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for place in &self.places {
            write!(f, "\n   at: {place}")?;
        }
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What to do about a connection that does not come about. The texts are those of rustls, which gives no others.
fn unreachable_fix(endpoint: &str, why: &str) -> &'static str {
    let says = |parts: &[&str]| parts.iter().any(|part| why.contains(part));
    if says(&["UnknownIssuer", "BadSignature"]) {
        "give the CA that signed the control plane's certificate with --ca or GANTRY_CA"
    } else if says(&["not valid for name", "NotValidForName"]) {
        "give an --endpoint with a name that the control plane's certificate holds"
    } else if says(&["invalid peer certificate"]) {
        "have the control plane's certificate replaced"
    } else if says(&["CertificateRequired", "HandshakeFailure"]) {
        "give a client certificate with --cert and --key: this control plane asks for one"
    } else if says(&[
        "UnknownCA",
        "BadCertificate",
        "DecryptError",
        "CertificateExpired",
        "AccessDenied",
    ]) {
        "give another client certificate with --cert and --key: the control plane does not accept this one"
    } else if says(&["InvalidContentType", "InvalidMessage"]) {
        "write http:// in --endpoint: this control plane does not speak TLS"
    } else if endpoint.starts_with("https://") && says(&["closed", "reset", "roken pipe"]) {
        // Who asks for certificates may be gone before the client has read why.
        "give a client certificate that the control plane accepts with --cert and --key, if it asks for one"
    } else if endpoint.starts_with("http://") && !says(&["refused", "No route", "timed out", "lookup"]) {
        "write https:// in --endpoint, if the control plane speaks TLS"
    } else {
        "start it (`gantry dev`), or give its address with --endpoint or GANTRY_ENDPOINT"
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Endpoint { endpoint, why } => Self::usage(format!("cannot use the endpoint: {why}"))
                .at(endpoint)
                .fix("give --endpoint http://HOST:PORT or set GANTRY_ENDPOINT"),
            Error::Unreachable { endpoint, why } => {
                let fix = unreachable_fix(&endpoint, &why);
                Self::new(
                    Exit::Unreachable,
                    format!("the control plane cannot be reached: {why}"),
                )
                .at(endpoint)
                .fix(fix)
            }
            Error::Refused {
                code,
                message,
                metadata,
                violations,
                preconditions,
                ..
            } => {
                let exit = if code == Code::NotFound {
                    Exit::NotFound
                } else {
                    Exit::Refused
                };
                let mut failure = Self::new(exit, message);
                let one = violations.len() == 1;
                let advice = violations
                    .first()
                    .and_then(|v| v.description.rsplit_once("; "))
                    .map(|(_, fix)| fix.to_owned());
                for v in violations {
                    failure = failure.at(format!("{}: {}", v.field, v.description));
                }
                if let Some(omitted) = metadata.get("omitted") {
                    failure = failure.at(format!("and {omitted} more"));
                }
                if failure.places.is_empty() {
                    let subject = metadata.get("name").cloned();
                    failure =
                        failure.at(subject.unwrap_or_else(|| format!("the control plane, with {code:?}")));
                }
                let fix = match code {
                    Code::InvalidArgument if one => {
                        advice.unwrap_or_else(|| "change what is named above".into())
                    }
                    Code::InvalidArgument => "change each field that is named above".into(),
                    Code::AlreadyExists => {
                        "choose another name, or look at it: gantry connectors describe NAME".into()
                    }
                    Code::Aborted => "get it anew, make the change again, and write it again".into(),
                    Code::NotFound => {
                        "look at what exists: gantry connectors list, plugins list, agents list".into()
                    }
                    Code::Unavailable => "try again in a moment".into(),
                    Code::Unauthenticated => "give a token with --token-file".into(),
                    Code::ResourceExhausted => "make room, or wait until there is some".into(),
                    _ if preconditions.is_empty() => "look at the control plane's log".into(),
                    _ => preconditions.join("; "),
                };
                failure.fix(fix)
            }
        }
    }
}
