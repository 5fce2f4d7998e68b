//! TLS, client certificates and tokens on real processes: who is let in, who is not and what they are told, and that no token is
//! seen anywhere.

mod agents;
mod files;
mod users;
mod web;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::certs::{Authority, Identity};
use gantry_tests::{Guide, WorkDir, env, run};

const TEST: Duration = Duration::from_secs(180);
const CALL: Duration = Duration::from_secs(30);
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];
/// Everything that may print what goes over a connection.
const CHATTY: &str = "info,gantry=trace,h2=trace,hyper=trace,tonic=trace,tower=trace,rustls=trace";

/// An authority, a server's certificate of it, and tokens.
struct Secrets {
    authority: Authority,
    server: Identity,
    dir: std::path::PathBuf,
}

const ALICE: &str = "alice-0123456789abcdef-token";
const EDGE: &str = "edge-fedcba9876543210-token";
const WRONG: &str = "wrong-0011223344556677-token";

impl Secrets {
    fn make(work: &WorkDir) -> Result<Self> {
        let dir = work.dir("secrets")?;
        let authority = Authority::new(&dir, "ca")?;
        let server = authority.server("server", &HOSTS)?;
        std::fs::write(dir.join("tokens"), format!("# users\nalice {ALICE}\n"))?;
        std::fs::write(dir.join("agent-tokens"), format!("edge {EDGE}\n"))?;
        for (name, token) in [("alice", ALICE), ("edge", EDGE), ("wrong", WRONG)] {
            std::fs::write(dir.join(name), format!("{token}\n"))?;
        }
        Ok(Self {
            authority,
            server,
            dir,
        })
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// `--tls-cert CERT --tls-key KEY`.
    fn tls(&self) -> [String; 4] {
        tls(&self.server)
    }
}

fn tls(identity: &Identity) -> [String; 4] {
    [
        "--tls-cert".into(),
        shown(&identity.cert),
        "--tls-key".into(),
        shown(&identity.key),
    ]
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// All of it as `&str`.
fn flags(parts: &[String]) -> Vec<&str> {
    parts.iter().map(String::as_str).collect()
}

/// Runs grpcurl to its end, and gives whether it succeeded and all that it printed.
async fn grpcurl(args: &[&str]) -> Result<(bool, String)> {
    let mut command = tokio::process::Command::new(env::tool(env::GRPCURL_BIN)?);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(CALL, command.output())
        .await
        .with_context(|| format!("grpcurl did not end within {CALL:?}: {args:?}"))??;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(printed)?))
}

/// No file below `dir` holds any of `secrets`; `apart` are the files that they were written to.
fn nowhere(dir: &Path, secrets: &[&str], apart: &Path) -> Result<usize> {
    let mut seen = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path == apart {
            continue;
        }
        if path.is_dir() {
            seen += nowhere(&path, secrets, apart)?;
            continue;
        }
        let text = std::fs::read(&path)?;
        let holds = |secret: &&&str| text.windows(secret.len()).any(|w| w == secret.as_bytes());
        let found = secrets.iter().find(holds);
        ensure!(found.is_none(), "{} holds a token", path.display());
        seen += 1;
    }
    Ok(seen)
}

#[test]
fn the_page_about_security() {
    run(TEST, async |work| {
        let etcd = gantry_tests::Etcd::start(work, "etcd").await?;
        let ports = gantry_tests::Ports::reserve(3)?;
        let endpoints = etcd.endpoints().join(",");
        let (users, agents) = (ports.get(0).to_string(), ports.get(1).to_string());
        let other = [
            ("http://127.0.0.1:2379", endpoints.as_str()),
            ("7420", &users),
            ("7421", &agents),
        ];
        let mut guide = Guide::open(work, "security.md", &other)?;
        guide.set("GANTRY_LOCK_DIR", &work.dir("locks")?.display().to_string());
        guide.follow().await?;
        let listed = guide.answer("gantry agents list")?;
        ensure!(listed.contains("edge-1") && listed.contains("READY"), "{listed}");
        let called = guide.answer("ListAgents")?;
        ensure!(called.contains("agents/edge-1"), "{called}");
        let refused = guide.answer("-H \"authorization: Bearer nobody")?;
        ensure!(refused.contains("Unauthenticated"), "{refused}");
        let web = guide.answer("grpc-web+proto")?;
        ensure!(web.contains("grpc-status:0"), "{web}");
        let token = std::fs::read_to_string(guide.dir().join("alice.token"))?;
        ensure!(token.trim().len() == 64, "{}", token.len());
        let dir = guide.dir().to_owned();
        drop(guide);
        nowhere(work.path(), &[token.trim()], &dir)?;
        Ok(())
    });
}
