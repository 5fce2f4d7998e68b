//! Where and of what the figures are.

use std::fs;
use std::process::Command;

use gantry_tests::env;
use serde_json::{Value, json};

/// One fact for each line.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    facts: Vec<(&'static str, String)>,
}

/// Looks around.
pub(crate) fn describe() -> Machine {
    let cpu = file("/proc/cpuinfo");
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&cpu, "model name").unwrap_or_else(|| "cores of an unknown kind".into());
    let memory = field(&file("/proc/meminfo"), "MemTotal")
        .and_then(|total| total.strip_suffix(" kB")?.parse::<u64>().ok())
        .map_or_else(
            || "unknown".into(),
            |kb| format!("{:.1} GiB", kb as f64 / (1 << 20) as f64),
        );
    let facts = vec![
        ("commit", commit()),
        (
            "machine",
            format!("{cores} x {model}, {memory}, Linux {}", kernel()),
        ),
        ("rustc", output("rustc", &["--version"])),
        ("broker", broker()),
        ("etcd", etcd()),
        ("load", load()),
    ];
    Machine { facts }
}

impl Machine {
    /// Lines of text.
    pub(crate) fn text(&self) -> String {
        let line = |(name, value): &(&str, String)| format!("{name:<8} {value}\n");
        self.facts.iter().map(line).collect()
    }

    pub(crate) fn json(&self) -> Value {
        let fact = |(name, value): &(&'static str, String)| ((*name).to_owned(), json!(value));
        Value::Object(self.facts.iter().map(fact).collect())
    }
}

/// How busy it has been in the last minutes: with more than nothing, the figures are worth less.
pub(crate) fn load() -> String {
    let load = file("/proc/loadavg");
    let averages: Vec<&str> = load.split_whitespace().take(3).collect();
    averages.join(" ")
}

fn kernel() -> String {
    file("/proc/sys/kernel/osrelease").trim().to_owned()
}

fn commit() -> String {
    let here = ["-C", env!("CARGO_MANIFEST_DIR")];
    let commit = output("git", &[&here[..], &["rev-parse", "--short", "HEAD"]].concat());
    let changed = output("git", &[&here[..], &["status", "--porcelain", "-uno"]].concat());
    if changed.is_empty() {
        commit
    } else {
        format!("{commit}, with changes")
    }
}

fn broker() -> String {
    let jars = env::tool(env::ROCKETMQ_LIB).and_then(|dir| Ok(fs::read_dir(dir)?));
    let version = jars.into_iter().flatten().flatten().find_map(|jar| {
        let name = jar.file_name().into_string().ok()?;
        Some(
            name.strip_prefix("rocketmq-broker-")?
                .strip_suffix(".jar")?
                .to_owned(),
        )
    });
    let java = Command::new("java").arg("-version").output();
    let java = java.map_or_else(
        |_| String::new(),
        |printed| String::from_utf8_lossy(&printed.stderr).into_owned(),
    );
    format!(
        "Apache RocketMQ {} on {}",
        version.unwrap_or_else(|| "of an unknown version".into()),
        java.lines().next().unwrap_or("an unknown Java")
    )
}

fn etcd() -> String {
    let program = env::tool(env::ETCD_BIN).map(|path| path.display().to_string());
    let printed = program.map(|program| output(&program, &["--version"]));
    let printed = printed.unwrap_or_default();
    let version = printed
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    version.unwrap_or("of an unknown version").to_owned()
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What a program prints; nothing, if it cannot be started.
fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
