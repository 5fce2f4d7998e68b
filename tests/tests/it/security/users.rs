//! Users: TLS and tokens, from the command and from grpcurl.

use anyhow::ensure;
use gantry_tests::certs::Authority;
use gantry_tests::{Cli, Parts, run};
use serde_json::json;

use super::{ALICE, CHATTY, EDGE, Secrets, TEST, WRONG, flags, grpcurl, nowhere, shown};

#[test]
fn only_who_has_a_token_is_let_in_and_nobody_sees_it() {
    run(TEST, async |work| {
        let (parts, secrets) = (Parts::start(work).await?, Secrets::make(work)?);
        let (tokens, agent_tokens) = (secrets.file("tokens"), secrets.file("agent-tokens"));
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
        ensure!(server.endpoint().starts_with("https://"), "{}", server.endpoint());
        let mut printed = Vec::new();

        // The command.
        let ca = shown(secrets.authority.ca());
        let cli = Cli::new(server.endpoint(), work);
        let (alice, wrong, edge) = (secrets.file("alice"), secrets.file("wrong"), secrets.file("edge"));
        let list = ["plugins", "list"];
        let right = [("GANTRY_CA", ca.as_str()), ("GANTRY_TOKEN_FILE", &alice)];
        cli.call_with(&list, &right).await?.succeeded()?;
        let none = cli.call_with(&list, &right[..1]).await?;
        none.refused(1, &["bearer token", "--token-file"])?;
        for file in [&wrong, &edge] {
            let with = [right[0], ("GANTRY_TOKEN_FILE", file.as_str())];
            let answer = cli.call_with(&list, &with).await?;
            answer.refused(1, &["the bearer token is not known", "--token-file"])?;
            printed.push(answer.shown());
        }
        let answer = cli
            .call_with(&["connectors", "list", "--watch"], &right[..1])
            .await?;
        answer.refused(1, &["bearer token"])?;
        let answer = cli
            .call_with(&list, &[right[0], ("GANTRY_TOKEN_FILE", "/does/not/exist")])
            .await?;
        answer.refused(1, &["cannot read the token", "/does/not/exist"])?;

        // grpcurl.
        let address = parts.users();
        let bearer = |token: &str| format!("authorization: Bearer {token}");
        let (ok, said) = grpcurl(&["-cacert", &ca, "-H", &bearer(ALICE), &address, "list"]).await?;
        ensure!(ok && said.contains("gantry.v1.ConnectorService"), "{said}");
        let create = json!({ "connector": { "name": "connectors/a", "plugin": "nothing" } }).to_string();
        for header in [
            "x: y".to_owned(),
            bearer(WRONG),
            bearer(EDGE),
            format!("authorization: Basic {ALICE}"),
        ] {
            let method = "gantry.v1.ConnectorService/CreateConnector";
            // Without reflection, which is refused as well, grpcurl needs the protos.
            let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
            let third = format!("{protos}/third_party");
            let (ok, said) = grpcurl(&[
                "-cacert",
                &ca,
                "-H",
                &header,
                "-import-path",
                protos,
                "-import-path",
                &third,
                "-proto",
                "gantry/v1/connector.proto",
                "-proto",
                "google/rpc/error_details.proto",
                "-d",
                &create,
                &address,
                method,
            ])
            .await?;
            ensure!(
                !ok && said.contains("Unauthenticated") && said.contains("UNAUTHENTICATED"),
                "{said}"
            );
            printed.push(said);
            let (ok, said) = grpcurl(&["-cacert", &ca, "-H", &header, &address, "list"]).await?;
            ensure!(!ok && said.contains("Unauthenticated"), "{said}");
            printed.push(said);
        }
        let health = ["-cacert", &ca, &address, "grpc.health.v1.Health/Check"];
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/security");
        let protos = ["-import-path", here, "-proto", "health.proto"];
        let (ok, said) = grpcurl(&[&protos[..], &health[..]].concat()).await?;
        ensure!(
            ok && said.contains("SERVING"),
            "who checks health has no token: {said}"
        );

        // A user's token is none of an agent's, and agents' calls are not served to users.
        let (ok, said) = grpcurl(&["-cacert", &ca, "-H", &bearer(ALICE), &parts.agents(), "list"]).await?;
        ensure!(!ok && said.contains("Unauthenticated"), "{said}");

        server.process().terminate(TEST).await?;
        for text in &printed {
            for token in [ALICE, EDGE, WRONG] {
                ensure!(!text.contains(token), "a token was printed: {text}");
            }
        }
        let seen = nowhere(work.path(), &[ALICE, EDGE, WRONG], &secrets.dir)?;
        ensure!(seen > 2, "only {seen} files were looked at");
        Ok(())
    });
}

#[test]
fn a_server_that_cannot_be_trusted_is_not_spoken_to() {
    run(TEST, async |work| {
        let (parts, secrets) = (Parts::start(work).await?, Secrets::make(work)?);
        let ca = shown(secrets.authority.ca());
        let list = ["plugins", "list"];
        {
            let server = parts.server(&flags(&secrets.tls())).await?;
            let cli = Cli::new(server.endpoint(), work);
            cli.call_with(&list, &[("GANTRY_CA", &ca)]).await?.succeeded()?;
            let named = Cli::new(&server.endpoint().replace("127.0.0.1", "localhost"), work);
            named.call_with(&list, &[("GANTRY_CA", &ca)]).await?.succeeded()?;

            let stranger = shown(Authority::new(&secrets.dir, "stranger")?.ca());
            let answer = cli.call_with(&list, &[("GANTRY_CA", &stranger)]).await?;
            answer.refused(5, &["invalid peer certificate", "--ca"])?;
            let (ok, said) = grpcurl(&["-cacert", &stranger, &parts.users(), "list"]).await?;
            ensure!(
                !ok && said.contains("certificate signed by unknown authority"),
                "{said}"
            );
            cli.refused(2, &list, &["no CA is given", "--ca"]).await?;
            let answer = cli.call_with(&list, &[("GANTRY_CA", "/does/not/exist")]).await?;
            answer.refused(2, &["/does/not/exist"])?;

            let plain = Cli::new(&server.endpoint().replace("https", "http"), work);
            plain.refused(5, &list, &["https://"]).await?;
            let (ok, said) = grpcurl(&["-plaintext", &parts.users(), "list"]).await?;
            ensure!(!ok, "{said}");
        }
        {
            let other = secrets.authority.server("elsewhere", &["elsewhere.example"])?;
            let server = parts.server(&flags(&super::tls(&other))).await?;
            let answer = Cli::new(server.endpoint(), work)
                .call_with(&list, &[("GANTRY_CA", &ca)])
                .await?;
            answer.refused(5, &["not valid for name", "--endpoint"])?;
        }
        {
            let old = secrets.authority.expired_server("old", &super::HOSTS)?;
            let server = parts.server(&flags(&super::tls(&old))).await?;
            let answer = Cli::new(server.endpoint(), work)
                .call_with(&list, &[("GANTRY_CA", &ca)])
                .await?;
            answer.refused(5, &["expired", "replaced"])?;
        }
        let server = parts.server(&[]).await?;
        let cli = Cli::new(&server.endpoint().replace("http", "https"), work);
        let answer = cli.call_with(&list, &[("GANTRY_CA", &ca)]).await?;
        answer.refused(5, &["http://"])?;
        Ok(())
    });
}

#[test]
fn users_may_be_asked_for_certificates() {
    run(TEST, async |work| {
        let (parts, secrets) = (Parts::start(work).await?, Secrets::make(work)?);
        let ca = shown(secrets.authority.ca());
        let mut more = secrets.tls().to_vec();
        more.extend(["--tls-client-ca".to_owned(), ca.clone()]);
        let server = parts.server(&flags(&more)).await?;
        let cli = Cli::new(server.endpoint(), work);
        let list = ["plugins", "list"];
        let alice = secrets.authority.client("alice-cert")?;
        let (cert, key) = (shown(&alice.cert), shown(&alice.key));
        let with = [
            ("GANTRY_CA", ca.as_str()),
            ("GANTRY_CERT", &cert),
            ("GANTRY_KEY", &key),
        ];
        cli.call_with(&list, &with).await?.succeeded()?;
        let (ok, said) = grpcurl(&[
            "-cacert",
            &ca,
            "-cert",
            &cert,
            "-key",
            &key,
            &parts.users(),
            "list",
        ])
        .await?;
        ensure!(ok && said.contains("gantry.v1.ConnectorService"), "{said}");

        let answer = cli.call_with(&list, &with[..1]).await?;
        answer.refused(5, &["--cert"])?;
        let (ok, said) = grpcurl(&["-cacert", &ca, &parts.users(), "list"]).await?;
        ensure!(!ok && said.contains("certificate required"), "{said}");
        let stranger = Authority::new(&secrets.dir, "stranger")?.client("mallory")?;
        let (cert, key) = (shown(&stranger.cert), shown(&stranger.key));
        let with = [with[0], ("GANTRY_CERT", &cert), ("GANTRY_KEY", &key)];
        let answer = cli.call_with(&list, &with).await?;
        answer.refused(5, &["--cert"])?;
        let answer = cli.call_with(&list, &[with[0], with[1]]).await?;
        ensure!(
            answer.code == 2 && answer.stderr.contains("--key"),
            "{}",
            answer.shown()
        );
        Ok(())
    });
}
