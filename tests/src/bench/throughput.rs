//! File to topic and topic to file, in turns with the raw client on the same broker.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use gantry_raw_client::{data, usage};
use gantry_tests::lines;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::aims::{Aim, Limit};
use crate::meter::{Growth, follow};
use crate::report::{Report, Table, mb, median, spread};
use crate::site::{QUEUES, Site};

/// Records of the first run, which only warms up the broker and shows what Gantry's messages carry.
const FEW: u64 = 20_000;
/// A broker is replaced, with its data, before that is so many bytes: it removes none by itself for days.
const DISK: u64 = 4_000_000_000;
/// What the broker stores beside a body, in bytes.
const BESIDE: u64 = 300;
/// Files for several tasks: each gets some of them, by a hash of their names.
const FILES: u64 = 16;
const TASKS: u32 = 4;
/// What clients and brokers add by themselves.
const NOT_GANTRYS: [&str; 5] = ["UNIQ_KEY", "WAIT", "CLUSTER", "MSG_REGION", "TRACE_ON"];

/// What is measured.
#[derive(Debug)]
pub(crate) struct Load {
    /// Length of a record.
    pub(crate) bytes: usize,
    /// Records of each run.
    pub(crate) records: u64,
    /// How often they take turns.
    pub(crate) rounds: u32,
    /// File to topic.
    pub(crate) send: bool,
    /// Topic to file.
    pub(crate) pull: bool,
}

/// Who moves the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mover {
    /// The raw client. In each round it is the first and the last.
    Raw,
    /// The raw client with bodies alone.
    Bare,
    /// One task of Gantry.
    Task,
    /// Several tasks of Gantry, in the same agent.
    Tasks,
    /// The raw client again: how far it is from the first is how little the other figures mean.
    Again,
}

const SENDERS: [Mover; 5] = [Mover::Raw, Mover::Bare, Mover::Task, Mover::Tasks, Mover::Again];
const PULLERS: [Mover; 4] = [Mover::Raw, Mover::Task, Mover::Tasks, Mover::Again];

/// One run.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Records a second, from the first to the last.
    rate: f64,
    /// Of Gantry: records a second, from the call that creates the connector.
    from_create: Option<f64>,
    /// CPU seconds of the process for a million records.
    cpu: f64,
    /// CPU seconds of the broker for a million records.
    broker: f64,
    /// Part of the machine's CPU that others than these two used.
    others: f64,
    /// Of Gantry: resident bytes before it had a task.
    idle: Option<f64>,
    /// Most resident bytes.
    peak: f64,
}

/// What all runs of one mover were.
struct Row {
    mover: Mover,
    samples: Vec<Sample>,
}

/// Measures and reports.
pub(crate) async fn measure(site: &mut Site<'_>, load: &Load, report: &mut Report) -> Result<()> {
    let dir = site.new_dir(&format!("in-{}", load.bytes))?;
    let mut bench = Bench {
        broker: 0,
        site,
        load,
        few: data::write(&dir.join("few"), 1, FEW, load.bytes)?,
        file: data::write(&dir.join("one"), 1, load.records, load.bytes)?,
        files: data::write(&dir.join("many"), FILES, load.records, load.bytes)?,
        properties: Vec::new(),
        number: 0,
    };
    let (mut sends, mut pulls) = (rows(&SENDERS), rows(&PULLERS));
    let mut filled = None;
    for round in 0..load.rounds {
        if round.is_multiple_of(load.rounds_per_broker()) {
            bench.fresh_broker().await?;
            filled = match load.send {
                true => None,
                false => Some(bench.send(Mover::Task).await?.0),
            };
        }
        if load.send {
            for row in turns(&mut sends, round) {
                let (topic, sample) = bench.send(row.mover).await?;
                eprintln!(
                    "file -> topic, {} B, round {}, {}: {:.0}/s",
                    load.bytes,
                    round + 1,
                    row.mover.sends(),
                    sample.rate
                );
                row.samples.push(sample);
                if row.mover == Mover::Task {
                    filled = Some(topic);
                }
            }
        }
        if load.pull {
            let topic = filled.as_deref().context("no topic was filled")?;
            for row in turns(&mut pulls, round) {
                let sample = bench.pull(row.mover, topic).await?;
                eprintln!(
                    "topic -> file, {} B, round {}, {}: {:.0}/s",
                    load.bytes,
                    round + 1,
                    row.mover.pulls(),
                    sample.rate
                );
                row.samples.push(sample);
            }
        }
    }
    std::fs::remove_dir_all(&dir)?;
    if load.send {
        present("file -> topic", load, &sends, Mover::sends, 0.85, report);
    }
    if load.pull {
        present("topic -> file", load, &pulls, Mover::pulls, 0.80, report);
    }
    Ok(())
}

impl Load {
    fn rounds_per_broker(&self) -> u32 {
        let senders = if self.send { SENDERS.len() } else { 0 };
        let round = senders as u64 * self.records * (self.bytes as u64 + BESIDE);
        (DISK / round.max(1)).clamp(1, self.rounds.into()) as u32
    }
}

fn rows(movers: &[Mover]) -> Vec<Row> {
    let row = |mover: &Mover| Row {
        mover: *mover,
        samples: Vec::new(),
    };
    movers.iter().map(row).collect()
}

/// Forwards, then backwards, and so on: whoever is late in one round is early in the next.
fn turns(rows: &mut [Row], round: u32) -> Box<dyn Iterator<Item = &mut Row> + '_> {
    if round.is_multiple_of(2) {
        Box::new(rows.iter_mut())
    } else {
        Box::new(rows.iter_mut().rev())
    }
}

struct Bench<'b, 'w> {
    site: &'b mut Site<'w>,
    broker: u32,
    load: &'b Load,
    few: Vec<PathBuf>,
    file: Vec<PathBuf>,
    files: Vec<PathBuf>,
    /// Names and lengths of what Gantry's messages carry.
    properties: Vec<(String, usize)>,
    /// Of the last topic, connector and directory.
    number: u32,
}

impl Bench<'_, '_> {
    fn name(&mut self, what: &str) -> String {
        self.number += 1;
        format!("{what}-{}-{}", self.load.bytes, self.number)
    }

    async fn topic(&mut self) -> Result<String> {
        let topic = self.name("bench");
        self.site.rocketmq()?.create_topic(&topic, QUEUES).await?;
        Ok(topic)
    }

    /// Starts a broker and warms it up: Java compiles what it runs often, and is slow until it has.
    async fn fresh_broker(&mut self) -> Result<()> {
        self.site.fresh_broker().await?;
        self.broker = self.site.broker()?;
        let topic = self.topic().await?;
        self.gantry_send(&topic, self.few.clone(), 1, FEW).await?;
        let mut messages = Vec::new();
        for queue in 0..QUEUES {
            messages.extend(self.site.rocketmq()?.read(&topic, queue).await?);
        }
        let message = messages.get(messages.len() / 2).context("the topic is empty")?;
        let mine = |name: &str| !NOT_GANTRYS.contains(&name) && !name.starts_with("INNER_");
        self.properties = message
            .properties
            .iter()
            .filter(|(name, _)| mine(name))
            .map(|(name, value)| (name.clone(), value.len()))
            .collect();
        eprintln!("Gantry's messages carry, in bytes: {:?}", self.properties);
        let topic = self.topic().await?;
        self.raw_send(&topic, true).await?;
        self.raw_pull(&topic, false).await?;
        Ok(())
    }

    /// Fills a new topic, and gives its name.
    async fn send(&mut self, mover: Mover) -> Result<(String, Sample)> {
        let topic = self.topic().await?;
        let records = self.load.records;
        let sample = match mover {
            Mover::Raw | Mover::Again => self.raw_send(&topic, true).await?,
            Mover::Bare => self.raw_send(&topic, false).await?,
            Mover::Task => self.gantry_send(&topic, self.file.clone(), 1, records).await?,
            Mover::Tasks => {
                self.gantry_send(&topic, self.files.clone(), TASKS, records)
                    .await?
            }
        };
        if matches!(mover, Mover::Task | Mover::Tasks) {
            // Every record once, and whole.
            self.raw_pull(&topic, true).await?;
        }
        Ok((topic, sample))
    }

    /// Reads a topic that Gantry has filled.
    async fn pull(&mut self, mover: Mover, topic: &str) -> Result<Sample> {
        match mover {
            Mover::Raw | Mover::Bare | Mover::Again => self.raw_pull(topic, false).await,
            Mover::Task => self.gantry_pull(topic, 1).await,
            Mover::Tasks => self.gantry_pull(topic, TASKS).await,
        }
    }

    async fn raw_send(&mut self, topic: &str, properties: bool) -> Result<Sample> {
        let records = self.load.records;
        let mut args = self.raw_args(topic);
        for (name, length) in self.properties.iter().filter(|_| properties) {
            args.extend(["--property".to_owned(), format!("{name}={length}")]);
        }
        let window = Window::open(self.broker)?;
        let start = Instant::now();
        let count = async || self.site.messages(topic, QUEUES).await;
        let sent = self.site.raw("send", &args, async || {
            let growth = follow(start, records, count).await?;
            Ok((growth, window.close()?))
        });
        let ((growth, used), took) = sent.await?;
        self.raw_sample(growth.rate(), &used, &took)
    }

    async fn raw_pull(&mut self, topic: &str, check: bool) -> Result<Sample> {
        let mut args = self.raw_args(topic);
        args.extend(check.then(|| "--check".to_owned()));
        let window = Window::open(self.broker)?;
        let ((), took) = self.site.raw("pull", &args, async || Ok(())).await?;
        let used = window.close()?;
        let rate = self.load.records as f64 / number(&took, "seconds")?;
        self.raw_sample(rate, &used, &took)
    }

    fn raw_args(&self, topic: &str) -> Vec<String> {
        let (records, bytes) = (self.load.records.to_string(), self.load.bytes.to_string());
        ["--topic", topic, "--records", &records, "--bytes", &bytes]
            .map(str::to_owned)
            .into()
    }

    fn raw_sample(&self, rate: f64, used: &Used, took: &Value) -> Result<Sample> {
        let (millions, cpu) = (self.load.records as f64 / 1e6, number(took, "cpu")?);
        Ok(Sample {
            rate,
            from_create: None,
            cpu: cpu / millions,
            broker: used.broker / millions,
            others: used.others(cpu),
            idle: None,
            peak: number(took, "peak")?,
        })
    }

    async fn gantry_send(
        &mut self,
        topic: &str,
        files: Vec<PathBuf>,
        tasks: u32,
        records: u64,
    ) -> Result<Sample> {
        let name = self.name("in");
        let config = json!({ "paths": files });
        let count = async || self.site.messages(topic, QUEUES).await;
        let sample = self
            .gantry(
                &name,
                "file-source",
                topic,
                tasks,
                &config,
                (records, records),
                count,
            )
            .await?;
        let messages = self.site.messages(topic, QUEUES).await?;
        ensure!(
            messages == records,
            "{messages} messages are there, and {records} were sent"
        );
        Ok(sample)
    }

    async fn gantry_pull(&mut self, topic: &str, tasks: u32) -> Result<Sample> {
        let name = self.name("out");
        let dir = self.site.new_dir(&name)?;
        let config = json!({ "path": dir.join("{queue}.txt") });
        let (records, bytes) = (self.load.records, self.load.bytes);
        let total = records * (bytes as u64 + 1);
        let count = async || lines::size(&dir);
        let sample = self
            .gantry(&name, "file-sink", topic, tasks, &config, (records, total), count)
            .await?;
        data::check(&dir, records, bytes)?;
        std::fs::remove_dir_all(&dir)?;
        Ok(sample)
    }

    /// Runs one connector on an agent of its own until `count` has reached the end: so many records, in its own unit.
    #[expect(clippy::too_many_arguments, reason = "a definition has as many")]
    async fn gantry(
        &self,
        name: &str,
        plugin: &str,
        topic: &str,
        tasks: u32,
        config: &Value,
        (records, total): (u64, u64),
        count: impl AsyncFnMut() -> Result<u64>,
    ) -> Result<Sample> {
        let definition = self.site.definition(name, plugin, topic, tasks, config)?;
        let agent = self.site.agent().await?;
        let before = usage::cpu(agent.id())?;
        let window = Window::open(self.broker)?;
        let start = Instant::now();
        self.site.client.create(definition, false).await?;
        let growth: Growth = match follow(start, total, count).await {
            Ok(growth) => growth,
            Err(error) => {
                agent.runs()?;
                return Err(error.context(self.site.state(name).await));
            }
        };
        let (used, so_far) = (window.close()?, usage::cpu(agent.id())? - before);
        self.site.committed(name, records).await?;
        let cpu = usage::cpu(agent.id())? - before;
        let peak = usage::memory(agent.id())?.peak as f64;
        let idle = agent.idle.peak as f64;
        self.site.delete(name).await?;
        agent.stop().await?;
        let millions = records as f64 / 1e6;
        Ok(Sample {
            rate: growth.rate() * records as f64 / total as f64,
            from_create: Some(records as f64 / growth.whole().as_secs_f64()),
            cpu: cpu / millions,
            broker: used.broker / millions,
            others: used.others(so_far),
            idle: Some(idle),
            peak,
        })
    }
}

/// What the broker and the whole machine use for a while.
struct Window {
    broker: u32,
    broker_before: f64,
    machine_before: f64,
    start: Instant,
}

/// CPU seconds.
struct Used {
    broker: f64,
    machine: f64,
    seconds: f64,
}

impl Window {
    fn open(broker: u32) -> Result<Self> {
        Ok(Self {
            broker,
            broker_before: usage::cpu(broker)?,
            machine_before: usage::machine()?,
            start: Instant::now(),
        })
    }

    fn close(self) -> Result<Used> {
        Ok(Used {
            broker: usage::cpu(self.broker)? - self.broker_before,
            machine: usage::machine()? - self.machine_before,
            seconds: self.start.elapsed().as_secs_f64(),
        })
    }
}

impl Used {
    /// Part of the machine that neither the broker nor this process, which used so much, had.
    fn others(&self, process: f64) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ((self.machine - self.broker - process) / (self.seconds * cores as f64)).max(0.0)
    }
}

fn number(took: &Value, name: &str) -> Result<f64> {
    took[name]
        .as_f64()
        .with_context(|| format!("no number `{name}` in {took}"))
}

impl Mover {
    fn sends(self) -> &'static str {
        match self {
            Mover::Raw => "raw client, the same messages",
            Mover::Bare => "raw client, bodies alone",
            Mover::Task => "gantry, 1 file, 1 task",
            Mover::Tasks => "gantry, 16 files, 4 tasks",
            Mover::Again => "raw client again (A/A)",
        }
    }

    fn pulls(self) -> &'static str {
        match self {
            Mover::Raw => "raw client",
            Mover::Bare => "raw client, bodies alone",
            Mover::Task => "gantry, 1 task",
            Mover::Tasks => "gantry, 4 tasks",
            Mover::Again => "raw client again (A/A)",
        }
    }
}

fn present(
    what: &str,
    load: &Load,
    rows: &[Row],
    label: fn(Mover) -> &'static str,
    aim: f64,
    report: &mut Report,
) {
    let of = |mover, value: fn(&Sample) -> f64| -> Vec<f64> {
        let row = rows.iter().find(|row| row.mover == mover);
        row.map(|row| row.samples.iter().map(value).collect())
            .unwrap_or_default()
    };
    // Beside the mean of the raw client before and after.
    let raw = |value| -> Vec<f64> {
        let pairs = of(Mover::Raw, value).into_iter().zip(of(Mover::Again, value));
        pairs.map(|(first, again)| (first + again) / 2.0).collect()
    };
    let with = |mover, value, by: fn(f64, f64) -> f64| -> Vec<f64> {
        let base = match mover {
            Mover::Again => of(Mover::Raw, value),
            _ => raw(value),
        };
        let pairs = of(mover, value).into_iter().zip(base);
        pairs.map(|(mine, raw)| by(mine, raw)).collect()
    };
    let ratio = |mover, value| with(mover, value, |mine, raw| mine / raw);

    let mut table = Table {
        title: format!(
            "{what}, {} B, {} records, {QUEUES} queues, {} rounds: median (least-most)",
            load.bytes, load.records, load.rounds
        ),
        head: vec![
            "",
            "1000 records/s",
            "MB/s",
            "of raw",
            "from create",
            "CPU s/M",
            "broker",
            "peak MB",
            "idle MB",
            "others %",
        ],
        rows: Vec::new(),
    };
    let mut details = Vec::new();
    for row in rows {
        let mover = row.mover;
        let all = |value: fn(&Sample) -> f64| row.samples.iter().map(value).collect::<Vec<f64>>();
        let some =
            |value: fn(&Sample) -> Option<f64>| row.samples.iter().filter_map(value).collect::<Vec<_>>();
        let if_any = |values: Vec<f64>, shown: fn(f64) -> String| {
            if values.is_empty() {
                String::new()
            } else {
                shown(median(&values))
            }
        };
        table.rows.push(vec![
            label(mover).to_owned(),
            spread(&all(|sample| sample.rate / 1e3), 0),
            format!(
                "{:.0}",
                median(&all(|sample| sample.rate)) * load.bytes as f64 / 1e6
            ),
            match mover {
                Mover::Raw => String::new(),
                _ => spread(&ratio(mover, |sample| sample.rate), 2),
            },
            if_any(some(|sample| sample.from_create), |rate| {
                format!("{:.0}", rate / 1e3)
            }),
            spread(&all(|sample| sample.cpu), 2),
            format!("{:.2}", median(&all(|sample| sample.broker))),
            mb(median(&all(|sample| sample.peak))),
            if_any(some(|sample| sample.idle), mb),
            format!("{:.0}", median(&all(|sample| sample.others)) * 100.0),
        ]);
        let sample = |sample: &Sample| {
            json!({
                "records_per_s": sample.rate,
                "records_per_s_from_create": sample.from_create,
                "cpu_s_per_million": sample.cpu,
                "broker_cpu_s_per_million": sample.broker,
                "cpu_of_others": sample.others,
                "idle_bytes": sample.idle,
                "peak_bytes": sample.peak,
            })
        };
        let samples: Vec<Value> = row.samples.iter().map(sample).collect();
        details.push(json!({ "row": label(mover), "rounds": samples }));
    }
    let what = format!("{what}, {} B", load.bytes);
    let mut aims = vec![Aim::new(
        format!("{what}: rate"),
        Limit::PartOfRaw(aim),
        ratio(Mover::Task, |sample| sample.rate),
    )];
    if load.bytes == 100 {
        aims.push(Aim::new(
            format!("{what}: CPU per record"),
            Limit::TimesRaw(2.0),
            ratio(Mover::Task, |sample| sample.cpu),
        ));
    }
    aims.push(Aim::new(
        format!("{what}: peak memory above raw"),
        Limit::Bytes(24e6),
        with(Mover::Task, |sample| sample.peak, |mine, raw| mine - raw),
    ));
    let details = json!({
        "what": what,
        "records": load.records,
        "bytes": load.bytes,
        "rows": details,
    });
    report.add(&table, details, aims);
}
