//! gRPC-Web: for those who have only HTTP/1.1.

use anyhow::{Context, Result, ensure};
use gantry_tests::scrape::{HttpAnswer, http};
use gantry_tests::{Parts, run};

use super::{ALICE, Secrets, TEST, flags};

const LIST: &str = "/gantry.v1.PluginService/ListPlugins";
/// A message of no bytes, in gRPC's frame.
const EMPTY: [u8; 5] = [0; 5];

async fn post(address: &str, path: &str, kind: &str, more: &[&str], body: &[u8]) -> Result<HttpAnswer> {
    let (sent, wanted) = (
        format!("content-type: application/{kind}"),
        format!("accept: application/{kind}"),
    );
    let headers = [&[sent.as_str(), &wanted, "x-grpc-web: 1"], more].concat();
    http(address, "POST", path, &headers, body).await
}

/// The messages of an answer, and its trailer.
fn frames(mut body: &[u8]) -> Result<(usize, String)> {
    let mut messages = 0;
    while !body.is_empty() {
        let (head, rest) = body.split_at_checked(5).context("a frame is cut short")?;
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (frame, rest) = rest.split_at_checked(size).context("a frame is cut short")?;
        body = rest;
        match head[0] {
            0 => messages += 1,
            _ => return Ok((messages, String::from_utf8(frame.to_vec())?.to_lowercase())),
        }
    }
    Ok((messages, String::new()))
}

/// The code of an answer: in the header if nothing comes before it, else in the trailer.
fn code(answer: &HttpAnswer) -> Result<String> {
    let all = format!("{}\r\n{}", answer.head, frames(&answer.body)?.1);
    let line = all.lines().find_map(|line| line.strip_prefix("grpc-status:"));
    Ok(line
        .with_context(|| format!("no grpc-status in {all}"))?
        .trim()
        .to_owned())
}

#[test]
fn users_may_speak_grpc_web_over_http_1() {
    run(TEST, async |work| {
        let (parts, secrets) = (Parts::start(work).await?, Secrets::make(work)?);
        let (tokens, agent_tokens) = (secrets.file("tokens"), secrets.file("agent-tokens"));
        let more = ["--tokens", &tokens, "--agent-tokens", &agent_tokens].map(str::to_owned);
        let _server = parts.server(&flags(&more)).await?;
        let users = parts.users();
        let bearer = format!("authorization: Bearer {ALICE}");

        let answer = post(&users, LIST, "grpc-web+proto", &[&bearer], &EMPTY).await?;
        ensure!(
            answer.status == 200 && answer.head.contains("application/grpc-web+proto"),
            "{}",
            answer.head
        );
        let (messages, trailer) = frames(&answer.body)?;
        ensure!(
            messages == 1 && trailer.contains("grpc-status:0"),
            "{messages} {trailer}"
        );
        let text = post(&users, LIST, "grpc-web-text+proto", &[&bearer], b"AAAAAAA=").await?;
        ensure!(
            text.status == 200 && text.head.contains("grpc-web-text"),
            "{}",
            text.head
        );

        // Refusals are as by gRPC.
        let answer = post(&users, LIST, "grpc-web+proto", &[], &EMPTY).await?;
        ensure!(code(&answer)? == "16", "{}", answer.head);
        let method = "/gantry.v1.PluginService/None";
        let answer = post(&users, method, "grpc-web+proto", &[&bearer], &EMPTY).await?;
        ensure!(code(&answer)? == "12", "{}", answer.head);
        let method = "/gantry.v1.PluginService/GetPlugin";
        let answer = post(&users, method, "grpc-web+proto", &[&bearer], &EMPTY).await?;
        ensure!(code(&answer)? == "3", "{}", answer.head);

        // What is neither gRPC nor gRPC-Web is refused.
        let answer = http(&users, "GET", "/", &[&bearer], b"").await?;
        ensure!((400..500).contains(&answer.status), "{}", answer.head);
        // Agents have no use for it: their listener speaks HTTP/2 alone.
        let agents = post(&parts.agents(), LIST, "grpc-web+proto", &[], &EMPTY).await;
        ensure!(agents.is_err(), "{agents:?}");
        Ok(())
    });
}
