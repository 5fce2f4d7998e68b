//! Everything that the harness takes from the environment.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the one module that reads the environment"
)]

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// Directory with the jars of Apache RocketMQ's name server, broker and tools.
pub const ROCKETMQ_LIB: &str = "GANTRY_ROCKETMQ_LIB";
/// The program `etcd`.
pub const ETCD_BIN: &str = "GANTRY_ETCD_BIN";
/// The program `etcdctl`.
pub const ETCDCTL_BIN: &str = "GANTRY_ETCDCTL_BIN";
/// The program `grpcurl`.
pub const GRPCURL_BIN: &str = "GANTRY_GRPCURL_BIN";
/// The program `buf`.
pub const BUF_BIN: &str = "GANTRY_BUF_BIN";

const LONG: &str = "GANTRY_TESTS_LONG";
const FAULTS_SEED: &str = "GANTRY_FAULTS_SEED";
const FAULTS_ROUNDS: &str = "GANTRY_FAULTS_ROUNDS";
const LOGS: &str = "GANTRY_TEST_LOGS";
const PIDS: &str = "GANTRY_TEST_PIDS";

/// Where `tests/run` has installed the tool that the variable `name` stands for.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os(name).map(PathBuf::from).with_context(|| {
        format!(
            "{name} is not set: run the tests with `tests/run`, \
             or call `eval \"$(tests/run --env)\"` before `cargo test`"
        )
    })?;
    ensure!(
        path.exists(),
        "{name} names {}, which is not there: `tests/run` installs it",
        path.display()
    );
    Ok(path)
}

/// Whether tests take as much as they can bear, rather than what fits into every run.
pub fn long() -> bool {
    std::env::var_os(LONG).is_some_and(|value| !value.is_empty() && value != "0")
}

/// The seed of the fault drills, if one was asked for.
pub fn faults_seed() -> Option<u64> {
    number(FAULTS_SEED)
}

/// How many rounds each fault drill has, if that was asked for.
pub fn faults_rounds() -> Option<u64> {
    number(FAULTS_ROUNDS)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} is '{text}', which is no number"),
    }
}

/// Below which every test makes its directory.
pub(crate) fn logs() -> PathBuf {
    std::env::var_os(LOGS)
        .map(PathBuf::from)
        .unwrap_or_else(|| cache().join("logs/by-hand"))
}

/// Where `tests/run` looks for processes that a killed test program has left behind.
pub(crate) fn pids() -> Option<PathBuf> {
    std::env::var_os(PIDS).map(PathBuf::from)
}

/// The cache directory that all runs on this machine share.
pub(crate) fn cache() -> PathBuf {
    let home = || {
        std::env::home_dir()
            .unwrap_or_else(std::env::temp_dir)
            .join(".cache")
    };
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(home)
        .join("gantry")
}

/// The command `gantry`, from the build that this test program is part of.
pub(crate) fn gantry() -> Result<PathBuf> {
    built("gantry")
}

/// A program of the workspace, from the build that this test program is part of.
pub fn built(program: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this test program is")?;
    // TARGET/release/deps/it-0123456789abcdef, or TARGET/release/gantry-bench
    let dir = this
        .ancestors()
        .skip(1)
        .find(|dir| !dir.ends_with("deps"))
        .context("a test program lies below the target directory")?;
    let path = dir.join(program);
    ensure!(
        path.exists(),
        "{} is not built: run the tests with `tests/run`, which builds it first",
        path.display()
    );
    Ok(path)
}

/// The search path for programs, with `first` before all others.
pub(crate) fn search_path(first: &std::path::Path) -> Result<String> {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_owned()).chain(std::env::split_paths(&others));
    let path = std::env::join_paths(all).context("a directory of PATH has a colon in its name")?;
    path.into_string().ok().context("PATH is not UTF-8")
}

/// Names of the variables that would configure `gantry` itself, if a process inherited them.
pub(crate) fn gantry_settings() -> Vec<std::ffi::OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(b"GANTRY_"))
        .collect()
}
