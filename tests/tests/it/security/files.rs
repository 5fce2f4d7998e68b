//! What refuses to start: addresses that others can reach unprotected, and files that cannot be used.

use std::fs;

use anyhow::{Result, ensure};
use gantry_tests::{Cli, Gantry, run};

use super::{Secrets, TEST, flags, shown};

#[test]
fn what_others_can_reach_is_protected_or_does_not_start() {
    run(TEST, async |work| {
        let secrets = Secrets::make(work)?;
        let cli = Cli::new("http://127.0.0.1:9", work);
        let etcd = ["server", "--etcd", "http://127.0.0.1:9"];
        let (open, closed) = ("0.0.0.0:0", "127.0.0.1:0");
        let (tokens, agent_tokens, ca) = (
            secrets.file("tokens"),
            secrets.file("agent-tokens"),
            shown(secrets.authority.ca()),
        );
        let tls = secrets.tls();
        let tls = flags(&tls);

        let users_open = ["--listen", open, "--agent-listen", closed];
        let agents_open = ["--listen", closed, "--agent-listen", open];
        let cases: [(&[&str], Vec<&str>, &[&str]); 6] = [
            (
                &users_open,
                vec![],
                &[
                    "neither TLS nor authentication",
                    "--listen",
                    "--tokens",
                    "--insecure",
                ],
            ),
            (&users_open, tls.clone(), &["no authentication", "--tokens"]),
            (&users_open, vec!["--tokens", &tokens], &["no TLS", "--tls-cert"]),
            (
                &agents_open,
                vec![],
                &[
                    "neither TLS nor authentication",
                    "--agent-tls-client-ca",
                    "--insecure",
                ],
            ),
            // What users show does not protect agents.
            (
                &agents_open,
                [&tls[..], &["--tokens", &tokens, "--tls-client-ca", &ca]].concat(),
                &["no authentication", "--agent-listen"],
            ),
            (&agents_open, vec!["--agent-tokens", &agent_tokens], &["no TLS"]),
        ];
        for (listen, more, mentions) in cases {
            let args = [&etcd[..], listen, &more].concat();
            let answer = cli.refused(2, &args, mentions).await?;
            ensure!(answer.stderr.contains("0.0.0.0:0"), "{}", answer.shown());
        }

        // These start, and wait for etcd.
        let waits = async |name: &str, more: &[&str]| -> Result<()> {
            let args = [&etcd[..], &["--listen", open, "--agent-listen", open], more].concat();
            let process = Gantry::spawn(work, name, &args)?;
            let waits = |line: &str| line.contains("etcd cannot be reached");
            process
                .wait_for_line(TEST, "that it waits for etcd", waits)
                .await
                .map(drop)
        };
        waits("insecure", &["--insecure"]).await?;
        let both = ["--tokens", &tokens, "--agent-tls-client-ca", &ca];
        waits("protected", &[&tls[..], &both].concat()).await?;

        // The one process for one machine.
        let data = work.dir("data")?.display().to_string();
        let dev = ["dev", "--data-dir", &data];
        cli.refused(
            2,
            &[&dev[..], &["--listen", open]].concat(),
            &["neither TLS", "gantry server", "--insecure"],
        )
        .await?;
        let store = ["--listen", closed, "--embedded-etcd-listen", open];
        cli.refused(
            2,
            &[&dev[..], &store].concat(),
            &["--embedded-etcd-listen", "127.0.0.1"],
        )
        .await?;
        ensure!(
            fs::read_dir(&data)?.next().is_none(),
            "nothing is written before it is refused"
        );
        Ok(())
    });
}

#[test]
fn faulty_files_are_refused_before_anything_is_served() {
    run(TEST, async |work| {
        let secrets = Secrets::make(work)?;
        let cli = Cli::new("http://127.0.0.1:9", work);
        let write = |name: &str, text: &str| -> Result<String> {
            fs::write(secrets.dir.join(name), text)?;
            Ok(secrets.file(name))
        };
        let (cert, key) = (shown(&secrets.server.cert), shown(&secrets.server.key));
        let other_key = shown(&secrets.authority.server("other", &["x"])?.key);
        let garbage = write("garbage", "this is no PEM\n")?;
        let short = write("short", "alice secret\n")?;
        let bare = write("bare", "0123456789abcdef0123456789abcdef\n")?;
        let empty = write("empty", "# alice 0123456789abcdef\n")?;
        let twice = write("twice", "a 0123456789abcdef\nb 0123456789abcdef\n")?;
        let missing = "/does/not/exist";
        let pem = ["--tls-cert", cert.as_str(), "--tls-key", key.as_str()];
        let cases: [(Vec<&str>, &[&str]); 11] = [
            (
                vec!["--tls-cert", &garbage, "--tls-key", &key],
                &["garbage", "PEM"],
            ),
            (
                vec!["--tls-cert", &cert, "--tls-key", &garbage],
                &["garbage", "PEM"],
            ),
            (
                vec!["--tls-cert", &cert, "--tls-key", &other_key],
                &["other.key", "server.pem"],
            ),
            (
                vec!["--tls-cert", missing, "--tls-key", &key],
                &["cannot read /does/not/exist"],
            ),
            (
                [&pem[..], &["--agent-tls-client-ca", &garbage]].concat(),
                &["garbage", "CA"],
            ),
            (
                [&pem[..], &["--tls-client-ca", missing]].concat(),
                &["cannot read /does/not/exist"],
            ),
            (vec!["--tokens", missing], &["cannot read /does/not/exist"]),
            (vec!["--tokens", &short], &["short:1", "NAME TOKEN"]),
            (vec!["--agent-tokens", &bare], &["bare:1", "NAME TOKEN"]),
            // An empty file must not let everybody in.
            (vec!["--tokens", &empty], &["empty holds no token"]),
            (vec!["--tokens", &twice], &["twice:2"]),
        ];
        for (more, mentions) in cases {
            let listen = [
                "server",
                "--etcd",
                "http://127.0.0.1:9",
                "--listen",
                "127.0.0.1:0",
            ];
            let answer = cli.refused(2, &[&listen[..], &more].concat(), mentions).await?;
            for secret in ["0123456789abcdef", "alice secret", "this is no PEM"] {
                ensure!(!answer.stderr.contains(secret), "{}", answer.shown());
            }
        }
        let half = ["server", "--etcd", "http://127.0.0.1:9", "--tls-cert", &cert];
        let answer = cli.call(&half).await?;
        ensure!(
            answer.code == 2 && answer.stderr.contains("--tls-key"),
            "{}",
            answer.shown()
        );
        Ok(())
    });
}
