//! Agents: certificates and tokens on a listener of their own.

use std::fs;

use anyhow::{Context, Result, ensure};
use gantry_client::{Client, Options};
use gantry_tests::certs::Authority;
use gantry_tests::connectors::{definition, records_out};
use gantry_tests::parts::ready;
use gantry_tests::wait::eventually;
use gantry_tests::{Cli, Parts, Process, run};
use serde_json::json;

use super::{ALICE, CHATTY, EDGE, Secrets, TEST, WRONG, flags, grpcurl, nowhere, shown};

const SOON: std::time::Duration = std::time::Duration::from_secs(60);

fn user(parts: &Parts<'_>, secrets: &Secrets) -> Result<Client> {
    let options = Options {
        ca: Some(secrets.authority.ca().to_owned()),
        token: Some(ALICE.to_owned()),
        retries: 60,
        ..Options::default()
    };
    Ok(Client::connect_lazy(
        &format!("https://{}", parts.users()),
        options,
    )?)
}

/// Waits until an agent says why it has no session.
async fn says(agent: &Process, parts: &[&str]) -> Result<()> {
    let what = format!("{parts:?}");
    let all = |line: &str| parts.iter().all(|part| line.contains(part));
    agent.wait_for_line(SOON, &what, all).await.map(drop)
}

#[test]
fn agents_show_certificates_and_users_tokens() {
    run(TEST, async |work| {
        let (parts, secrets) = (Parts::with_broker(work).await?, Secrets::make(work)?);
        let (ca, tokens) = (shown(secrets.authority.ca()), secrets.file("tokens"));
        let mut more = secrets.tls().to_vec();
        more.extend(["--tokens", &tokens, "--agent-tls-client-ca", &ca].map(str::to_owned));
        let mut server = parts.server(&flags(&more)).await?;
        let client = user(&parts, &secrets)?;

        // Those who are not let in say why, and go on trying.
        let none = parts.agent("none", "https", &["--ca", &ca])?;
        let stranger = Authority::new(&secrets.dir, "stranger")?;
        let mallory = stranger.client("mallory")?;
        let (cert, key) = (shown(&mallory.cert), shown(&mallory.key));
        let foreign = parts.agent("foreign", "https", &["--ca", &ca, "--cert", &cert, "--key", &key])?;
        let one = secrets.authority.client("one-cert")?;
        let (cert, key) = (shown(&one.cert), shown(&one.key));
        let own = ["--ca", &ca, "--cert", &cert, "--key", &key];
        let strange_ca = shown(stranger.ca());
        let distrust = parts.agent(
            "distrust",
            "https",
            &["--ca", &strange_ca, "--cert", &cert, "--key", &key],
        )?;
        let plain = parts.agent("plain", "http", &[])?;
        // Whether they read why before the connection is closed is a matter of luck.
        says(&none, &["no session", "--cert and --key"]).await?;
        says(&foreign, &["no session", "--cert and --key"]).await?;
        says(&distrust, &["no session", "UnknownIssuer", "--ca"]).await?;
        says(&plain, &["no session", "https://"]).await?;

        // The right one runs tasks, over the same two streams as without TLS.
        let agent = parts.agent("one", "https", &own)?;
        let instance = ready(&client, "one", &agent, "").await?;
        let (agents, _) = client.agents().await?;
        ensure!(agents.len() == 1, "only one was let in: {agents:?}");
        let made = definition(
            "made",
            "generator-source",
            "made",
            &json!({ "count": 500 }),
            &json!({}),
        )?;
        client.create(made, false).await?;
        moved(&client, 500).await?;

        // Who has a certificate but no token is no user, and the other way round.
        let grpc = ["-cacert", &ca, "-cert", &cert, "-key", &key];
        let (ok, said) = grpcurl(&[&grpc[..], &[&parts.users(), "list"]].concat()).await?;
        ensure!(!ok && said.contains("Unauthenticated"), "{said}");
        let bearer = format!("authorization: Bearer {ALICE}");
        let (ok, said) = grpcurl(&["-cacert", &ca, "-H", &bearer, &parts.agents(), "list"]).await?;
        ensure!(!ok && said.contains("certificate required"), "{said}");

        // A certificate that was replaced on the disk is served from the next start on. The agent stays.
        let before = fs::read(&secrets.server.cert)?;
        secrets.authority.server("server", &super::HOSTS)?;
        ensure!(fs::read(&secrets.server.cert)? != before);
        ensure!(
            served(&parts, &ca).await? == serial(&before)?,
            "it is read at the start"
        );
        server.process().terminate(TEST).await?;
        let _server = parts.server(&flags(&more)).await?;
        ensure!(served(&parts, &ca).await? == serial(&fs::read(&secrets.server.cert)?)?);
        eventually(SOON, "the agent is back", async || {
            let present = client.agent("one").await?;
            ensure!(
                present.instance_uid == instance && !present.replica.is_empty(),
                "{present:?}"
            );
            let task = client.tasks("made").await?.pop().context("a task")?;
            ensure!(task.restarts == 0 && task.agent == "agents/one", "{task:?}");
            Ok(())
        })
        .await?;
        drop((none, foreign, distrust, plain, agent));
        parts.stop().await;
        Ok(())
    });
}

/// Waits until the source has committed exactly so many records.
async fn moved(client: &Client, records: u64) -> Result<()> {
    eventually(SOON, &format!("{records} records are committed"), async || {
        let committed = records_out(client, "made").await?;
        ensure!(committed == records, "{committed} are");
        Ok(())
    })
    .await
}

/// The serial number of the certificate that users are shown.
async fn served(parts: &Parts<'_>, ca: &str) -> Result<String> {
    let script = format!(
        "openssl s_client -connect {} -CAfile {ca} -alpn h2 </dev/null 2>/dev/null | openssl x509 -noout -serial",
        parts.users()
    );
    openssl(&script, b"")
}

fn serial(certificate: &[u8]) -> Result<String> {
    openssl("openssl x509 -noout -serial", certificate)
}

fn openssl(script: &str, input: &[u8]) -> Result<String> {
    use std::io::Write as _;
    let mut child = std::process::Command::new("sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    child.stdin.take().context("its input")?.write_all(input)?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success() && said.starts_with("serial="),
        "{script}: {said}"
    );
    Ok(said)
}

#[test]
fn agents_show_tokens() {
    run(TEST, async |work| {
        let (parts, secrets) = (Parts::start(work).await?, Secrets::make(work)?);
        let (ca, tokens, agent_tokens) = (
            shown(secrets.authority.ca()),
            secrets.file("tokens"),
            secrets.file("agent-tokens"),
        );
        let mut more = secrets.tls().to_vec();
        more.extend(
            [
                "--tokens",
                &tokens,
                "--agent-tokens",
                &agent_tokens,
                "--log",
                CHATTY,
            ]
            .map(str::to_owned),
        );
        let mut server = parts.server(&flags(&more)).await?;
        let client = user(&parts, &secrets)?;
        let files = ["wrong", "alice", "edge"].map(|name| secrets.file(name));
        let with = |file| ["--ca", ca.as_str(), "--log", CHATTY, "--token-file", file];
        let wrong = parts.agent("wrong", "https", &with(&files[0]))?;
        let user_token = parts.agent("user", "https", &with(&files[1]))?;
        let none = parts.agent("none", "https", &["--ca", &ca])?;
        says(&wrong, &["Unauthenticated", "the bearer token is not known"]).await?;
        says(&user_token, &["Unauthenticated", "the bearer token is not known"]).await?;
        says(
            &none,
            &["Unauthenticated", "asks for a bearer token", "--token-file"],
        )
        .await?;
        let mut right = parts.agent("right", "https", &with(&files[2]))?;
        ready(&client, "right", &right, "").await?;
        let (agents, _) = client.agents().await?;
        ensure!(agents.len() == 1, "only one was let in: {agents:?}");
        ensure!(right.terminate(SOON).await?.success());
        server.process().terminate(SOON).await?;
        drop((wrong, user_token, none));
        let seen = nowhere(work.path(), &[ALICE, EDGE, WRONG], &secrets.dir)?;
        ensure!(seen > 5, "only {seen} files were looked at");
        Ok(())
    });
}

#[test]
fn an_agent_needs_the_ca_of_an_https_address() {
    run(TEST, async |work| {
        let cli = Cli::new("http://127.0.0.1:9", work);
        let agent = ["agent", "--server", "https://127.0.0.1:9", "--name", "a"];
        cli.refused(2, &agent, &["no CA is given", "https://127.0.0.1:9", "--ca"])
            .await?;
        let unreadable = [&agent[..], &["--ca", "/does/not/exist"]].concat();
        cli.refused(2, &unreadable, &["/does/not/exist"]).await?;
        Ok(())
    });
}
