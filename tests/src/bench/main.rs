//! Gantry beside RocketMQ's own client, on a real Apache RocketMQ: how fast, for how much CPU and memory.
//!
//! `tests/bench` builds and runs it. It asserts no time: it prints the aims beside what was measured. It fails if a
//! record is missing or there twice. `docs/benchmarks.md` says what each row means.

mod aims;
mod dev;
mod idle;
mod latency;
mod machine;
mod meter;
mod report;
mod site;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use gantry_tests::{WorkDir, run};
use tokio::signal::unix::{SignalKind, signal};

use crate::report::Report;
use crate::site::Site;

/// Nothing that is measured takes so long.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

#[derive(Debug, Parser)]
#[command(name = "tests/bench", about)]
struct Args {
    /// What to measure; everything by default
    #[arg(value_enum)]
    what: Vec<What>,
    /// How often raw client and Gantry take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Records of 100 bytes in each run; of 1 KB it is three tenths of that
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=90_000_000))]
    records: u64,
    /// Idle tasks
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    tasks: u32,
    /// How often the first record is waited for
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    creates: u32,
    /// Also write everything that was measured to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// A file into a topic, beside the raw client's batch send
    FileToTopic,
    /// A topic into files, beside the raw client's pull
    TopicToFile,
    /// What tasks cost that have nothing to do
    Idle,
    /// From the creation of source and sink to the first record in the file
    Latency,
    /// `gantry dev`: its start, and file to file over its own broker
    Dev,
}

fn main() -> ExitCode {
    match bench(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// The harness names the directory of all that is written after the thread, and panics to keep it.
fn bench(args: Args) -> Result<()> {
    let thread = std::thread::Builder::new().name("bench".into());
    let measured = thread.spawn(move || {
        run(LIMIT, async |work| {
            let (mut interrupt, mut terminate) =
                (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            // What was started ends with the values that stand for it, so not without them.
            tokio::select! {
                done = Box::pin(measure(work, &args)) => done,
                _ = interrupt.recv() => bail!("interrupted"),
                _ = terminate.recv() => bail!("terminated"),
            }
        });
    })?;
    measured.join().ok().context("nothing was measured to the end")
}

async fn measure(work: &WorkDir, args: &Args) -> Result<()> {
    let wants = |what| args.what.is_empty() || args.what.contains(&what);
    let mut report = Report::new(machine::describe());
    print!("{}", report.head());

    if wants(What::FileToTopic) || wants(What::TopicToFile) || wants(What::Idle) || wants(What::Latency) {
        let mut site = Site::start(work).await?;
        for (bytes, records) in [(100, args.records), (1024, args.records * 3 / 10)] {
            let load = throughput::Load {
                bytes,
                records,
                rounds: args.rounds,
                send: wants(What::FileToTopic),
                pull: wants(What::TopicToFile),
            };
            if load.send || load.pull {
                throughput::measure(&mut site, &load, &mut report).await?;
            }
        }
        if wants(What::Idle) || wants(What::Latency) {
            site.fresh_broker().await?;
        }
        if wants(What::Latency) {
            Box::pin(latency::measure(&mut site, args.creates, &mut report)).await?;
        }
        if wants(What::Idle) {
            idle::measure(&mut site, args.tasks, &mut report).await?;
        }
    }
    if wants(What::Dev) {
        Box::pin(dev::measure(work, args.records, &mut report)).await?;
    }
    print!("{}", report.tail());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
