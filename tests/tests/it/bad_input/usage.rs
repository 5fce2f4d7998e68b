//! The command used in the wrong way, and its exit codes.

use std::net::TcpListener;

use anyhow::ensure;
use gantry_client::Client;
use gantry_client::v1::View;
use gantry_tests::cli::call;
use gantry_tests::{Cli, Gantry, Ports, run};

use super::{SOON, TEST, dev, nothing_is_stored};

#[test]
fn exit_codes_without_a_server() {
    run(TEST, async |work| {
        let wrong: [&[&str]; 9] = [
            &["connectors", "lst"],
            &["connectors", "list", "--fliter", "x"],
            &["nonsense"],
            &["connectors", "get"],
            &["connectors", "create", "a"],
            &["connectors", "list", "-o", "xml"],
            &["connectors", "pause", "a", "--wait", "--timeout", "60"],
            &["agent"],
            &["server", "--etcd", "http://127.0.0.1:1", "--listen", "nowhere"],
        ];
        for args in wrong {
            let answer = call(args, &[], work.path()).await?;
            let said = answer.stderr.starts_with("error: ") && answer.stdout.is_empty();
            ensure!(answer.code == 2 && said, "{}", answer.shown());
        }
        let answer = call(&["connectors", "lst"], &[], work.path()).await?;
        ensure!(
            answer.stderr.contains("list"),
            "the nearest name is not given: {}",
            answer.shown()
        );

        let nobody = Ports::reserve(1)?;
        let endpoint = format!("http://{}", nobody.address(0));
        for args in [["connectors", "list"], ["plugins", "list"], ["agents", "list"]] {
            let cli = Cli::new(&endpoint, work);
            cli.refused(5, &args, &[&endpoint, "gantry dev"]).await?;
        }
        // Something answers there that is not Gantry.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let other = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    .await;
            }
        });
        Cli::new(&other, work)
            .refused(5, &["connectors", "list"], &[&other])
            .await?;
        for endpoint in ["127.0.0.1:7420", "http://", "ftp://x"] {
            Cli::new(endpoint, work)
                .refused(2, &["connectors", "list"], &[endpoint])
                .await?;
        }
        let config = work.path().join("gantry.toml");
        std::fs::write(&config, "listne = \"127.0.0.1:0\"\n")?;
        let args = ["dev", "--config", &config.display().to_string()];
        call(&args, &[], work.path())
            .await?
            .refused(2, &["listne", "gantry.toml"])?;
        // A variable is as good as a flag, and as wrong.
        let answer = call(&["dev"], &[("GANTRY_LISTEN", "nowhere")], work.path()).await?;
        ensure!(
            answer.code == 2 && answer.stderr.contains("nowhere"),
            "{}",
            answer.shown()
        );
        Ok(())
    });
}

#[test]
fn exit_codes_of_answers() {
    run(TEST, async |work| {
        let (dev, cli) = dev(work).await?;
        for verb in [
            "get", "describe", "pause", "resume", "stop", "restart", "delete", "tasks", "events",
        ] {
            cli.refused(3, &["connectors", verb, "nobody"], &["nobody"])
                .await?;
        }
        cli.refused(3, &["connectors", "offsets", "get", "nobody"], &["nobody"])
            .await?;
        cli.refused(3, &["agents", "describe", "nobody"], &["nobody"])
            .await?;
        cli.refused(3, &["plugins", "describe", "nobody"], &["nobody"])
            .await?;
        cli.refused(1, &["connectors", "list", "--filter", "state="], &["filter"])
            .await?;
        cli.refused(2, &["connectors", "pause", "a", "--request-id", "7"], &["7"])
            .await?;
        nothing_is_stored(&cli).await?;

        // It cannot run, for no agent fits: what was asked for is stored, and waiting for it ends.
        let file = work.path().join("a.yaml");
        let text = "name: a\nplugin: file-source\ntopic: t\nagent_selector: {site: nowhere}\nconfig: {paths: [/tmp/x]}\n";
        std::fs::write(&file, text)?;
        let args = [
            "connectors",
            "create",
            "-f",
            &file.display().to_string(),
            "--wait",
            "--timeout",
            "2s",
        ];
        cli.refused(4, &args, &["--timeout"]).await?;
        let said = cli.ok(&["connectors", "describe", "a"]).await?;
        ensure!(
            said.contains("PENDING") && said.contains("site=nowhere"),
            "the reason is not in\n{said}"
        );
        cli.refused(1, &["connectors", "delete", "a"], &["stop"]).await?;

        // The same id is the same request.
        let id = "9a0c6a0e-52f5-4d0e-9d3c-3f2b1d6c8e11";
        let stop = ["connectors", "stop", "a", "--request-id", id];
        cli.ok(&stop).await?;
        cli.ok(&stop).await?;
        cli.refused(
            1,
            &["connectors", "stop", "b", "--request-id", id],
            &["request_id"],
        )
        .await?;
        Client::connect(dev.endpoint())
            .await?
            .list("", View::Full)
            .await?;
        Ok(())
    });
}

#[test]
fn a_port_that_is_taken() {
    run(TEST, async |work| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let taken = listener.local_addr()?.to_string();
        let data = work.path().join("data");
        let args = [
            "dev",
            "--listen",
            &taken,
            "--data-dir",
            &data.display().to_string(),
        ];
        call(&args, &[], work.path())
            .await?
            .refused(1, &[&taken, "--listen"])?;
        let left: Vec<_> = std::fs::read_dir(&data)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect();
        ensure!(left.is_empty(), "it has left {left:?}");
        for (flag, other) in [("--listen", "--agent-listen"), ("--agent-listen", "--listen")] {
            let args = [
                "server",
                "--etcd",
                "http://127.0.0.1:1",
                flag,
                &taken,
                other,
                "127.0.0.1:0",
            ];
            call(&args, &[], work.path()).await?.refused(1, &[&taken, flag])?;
        }
        // An address that others reach is not served in the clear by accident.
        let args = [
            "server",
            "--etcd",
            "http://127.0.0.1:1",
            "--listen",
            "0.0.0.0:0",
            "--agent-listen",
            "127.0.0.1:0",
        ];
        call(&args, &[], work.path())
            .await?
            .refused(2, &["--insecure", "--tls-cert"])?;
        // The cause goes away, and so does the error.
        drop(listener);
        let args = [
            "dev",
            "--listen",
            &taken,
            "--data-dir",
            &data.display().to_string(),
        ];
        let mut dev = Gantry::start(work, "dev", &args).await?;
        ensure!(dev.endpoint() == format!("http://{taken}"), "{}", dev.endpoint());
        dev.process().terminate(SOON).await?;
        Ok(())
    });
}
