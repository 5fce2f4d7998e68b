//! `gantry demo`, the first thing that anybody runs. What it says is checked against the files themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::cli::call;
use gantry_tests::{WorkDir, lines, run};

const TEST: Duration = Duration::from_secs(150);

#[test]
fn it_moves_files_of_this_machine() {
    run(TEST, async |work| {
        let said = call(&["demo"], &[], work.path()).await?.succeeded()?;
        ensure!(said.contains("identical: "), "{said}");
        ensure!(said.contains("0 missing, 0 extra"), "{said}");
        // What to try next, and how fast it was.
        ensure!(
            said.contains("lines/s") && said.contains("grpcurl") && said.contains("gantry dev"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn it_moves_text_of_every_kind() {
    run(TEST, async |work| {
        let texts: [(&str, &[u8]); 6] = [
            // The largest is the one that is compared byte by byte: it has some of everything.
            (
                "everything",
                "Grüße\r\n\r\n\n\n  日本語\t\n🦀\n\u{0}\u{1}\u{2}\nthe same\nthe same\n\nno newline at the end".as_bytes(),
            ),
            ("unicode", "Ωμέγα\nzażółć\n\u{feff}mark\n".as_bytes()),
            ("no-utf8", b"\xff\xfe\n\xc3\x28\n"),
            ("dos", b"one\r\ntwo\r\n"),
            ("empty-lines", b"\n\n\n"),
            ("no-newline", b"one\ntwo"),
        ];
        let mut from = Vec::new();
        for (name, text) in texts {
            let path = work.path().join(format!("{name}.txt"));
            fs::write(&path, text)?;
            from.push(path);
        }
        demo(work, &from).await
    });
}

#[test]
fn it_moves_a_large_file_and_small_ones() {
    run(TEST, async |work| {
        let large = work.path().join("large.txt");
        let mut count = 0;
        while lines::append(&large, count..count + 10_000, lines::unicode)? < 5 << 20 {
            count += 10_000;
        }
        let small: Vec<PathBuf> = (0..6)
            .map(|n| work.path().join(format!("small-{n}.txt")))
            .collect();
        for (n, path) in small.iter().enumerate() {
            lines::append(path, 0..n as u64 * 100, lines::ascii)?;
        }
        demo(work, &[vec![large], small].concat()).await
    });
}

/// Moves files, the largest first, into a directory that is kept, and compares what is there.
async fn demo(work: &WorkDir, from: &[PathBuf]) -> Result<()> {
    let to = work.path().join("results");
    let mut args = vec!["demo".to_owned(), "--to".to_owned(), to.display().to_string()];
    for path in from {
        args.extend(["--from".to_owned(), path.display().to_string()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = call(&args, &[], work.path()).await?.succeeded()?;
    ensure!(said.contains("identical: "), "{said}");
    ensure!(said.contains("0 missing, 0 extra"), "{said}");

    ensure!(
        fs::read(to.join("one.txt"))? == fs::read(&from[0])?,
        "the result differs from {}",
        from[0].display()
    );
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    for path in from {
        expected.extend(lines::split(&fs::read(path)?));
    }
    for (_, lines) in lines::read_dir(&to.join("many"))? {
        found.extend(lines);
    }
    expected.sort();
    found.sort();
    ensure!(
        expected == found,
        "of {} lines {} arrived",
        expected.len(),
        found.len()
    );

    // What was there before is not mixed with what comes.
    let again = call(&args, &[], work.path()).await?;
    again.refused(1, &["not empty", &shown(&to)?])
}

#[test]
fn it_refuses_files_that_are_not_there() {
    run(TEST, async |work| {
        let missing = work.path().join("missing.txt");
        let answer = call(
            &["demo", "--from", &missing.display().to_string()],
            &[],
            work.path(),
        )
        .await?;
        answer.refused(1, &[&missing.display().to_string()])?;
        let empty = work.path().join("empty.txt");
        fs::write(&empty, "")?;
        let answer = call(
            &["demo", "--from", &empty.display().to_string()],
            &[],
            work.path(),
        )
        .await?;
        answer.refused(1, &["empty"])
    });
}

fn shown(path: &Path) -> Result<String> {
    Ok(path.canonicalize()?.display().to_string())
}
