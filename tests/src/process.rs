//! A program that a test has started.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::env;
use crate::wait::eventually;

/// How much of a log is shown with a failure.
const TAIL: u64 = 4_000;

/// What can be sent to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Be suspended.
    Stop,
    /// Go on.
    Continue,
    /// End in order.
    Terminate,
    /// End in order, as by a person at the keyboard.
    Interrupt,
    /// Be gone.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
            Signal::Terminate => "TERM",
            Signal::Interrupt => "INT",
            Signal::Kill => "KILL",
        }
    }
}

/// A running program, with a process group of its own. It is killed, with what it started, when this is dropped.
///
/// What it prints goes to the files `NAME.out` and `NAME.err`, which later starts of the same name continue.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    reaped: Option<ExitStatus>,
    outputs: [Output; 2],
    record: Option<PathBuf>,
}

/// A file that a process prints to, and where in it this start of the process began.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    begin: u64,
}

impl Process {
    /// Starts `command`. `name` is what the logs in the directory `logs`, and failures, call it.
    pub fn start(name: &str, logs: &Path, mut command: Command) -> Result<Self> {
        let (out, out_file) = Output::open(logs.join(format!("{name}.out")))?;
        let (err, err_file) = Output::open(logs.join(format!("{name}.err")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out_file)
            .stderr(err_file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}: {}", command.get_program().display()))?;
        let record = record(child.id());
        Ok(Self {
            name: name.to_owned(),
            child,
            reaped: None,
            outputs: [out, err],
            record,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet. A suspended process still runs.
    pub fn is_running(&self) -> bool {
        // Read from /proc rather than with `try_wait`, which would set the id free for another process while members of
        // the group still run.
        self.reaped.is_none()
            && matches!(stat(self.id(), 1).as_deref(), Some(state) if !matches!(state, "Z" | "X"))
    }

    /// Sends `signal` to the process and all that it started in its group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        ensure!(
            self.reaped.is_none(),
            "{} has ended; it gets no {signal:?}",
            self.name
        );
        // The shell's own `kill`: calling the system here would take unsafe code.
        let target = format!("kill -s {} -- -{}", signal.name(), self.id());
        let output = Command::new("sh")
            .args(["-c", &target])
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "sending {signal:?} to {}: {}",
            self.name,
            said.trim()
        );
        Ok(())
    }

    /// Ends it in order, at most within `limit`, and says how it ended.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::Terminate)?;
        self.ended(limit).await
    }

    /// Waits until it ends by itself, at most for `limit`, and says how it ended.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        let waited = eventually(limit, &what, async || match self.is_running() {
            true => Err("it runs"),
            false => Ok(()),
        });
        waited.await.with_context(|| self.tail())?;
        self.kill()
    }

    /// Kills it, as `kill -9` does, and says how it ended. Does nothing to one that has ended before.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.reaped {
            return Ok(status);
        }
        // The group first: until the process has been waited for, nothing else can have its id.
        let killed = self.signal(Signal::Kill);
        self.child
            .kill()
            .with_context(|| format!("killing {}", self.name))?;
        let status = self
            .child
            .wait()
            .with_context(|| format!("waiting for {}", self.name))?;
        self.reaped = Some(status);
        if let Some(record) = &self.record {
            let _ = fs::remove_file(record);
        }
        killed.map(|()| status)
    }

    /// Waits for a line that it has printed since its start and that `accept` takes, at most for `limit`.
    pub async fn wait_for_line(
        &self,
        limit: Duration,
        what: &str,
        accept: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let what = format!("{} prints {what}", self.name);
        let found = eventually(limit, &what, async || {
            // Looked at before the output is: what it printed last is not missed.
            let running = self.is_running();
            for output in &self.outputs {
                let text = output.since_start()?;
                // A line without an end is still being written.
                let complete = text
                    .split_inclusive('\n')
                    .filter_map(|line| line.strip_suffix('\n'));
                if let Some(line) = complete.into_iter().find(|line| accept(line)) {
                    return anyhow::Ok(Some(line.to_owned()));
                }
            }
            if !running {
                return Ok(None);
            }
            bail!("it runs and has not printed it");
        });
        match found.await.with_context(|| self.tail())? {
            Some(line) => Ok(line),
            None => bail!("{} ended before: {what}\n{}", self.name, self.tail()),
        }
    }

    /// What it has printed to standard output since its start.
    pub fn stdout(&self) -> Result<String> {
        self.outputs[0].since_start()
    }

    /// What it has printed to standard error since its start.
    pub fn stderr(&self) -> Result<String> {
        self.outputs[1].since_start()
    }

    /// The end of both outputs, for failures.
    pub fn tail(&self) -> String {
        let mut tail = String::new();
        for output in &self.outputs {
            let text = output.since_start().unwrap_or_default();
            let text = text.trim_end();
            if !text.is_empty() {
                let from = text.floor_char_boundary(text.len().saturating_sub(TAIL as usize));
                tail += &format!("--- the end of {}\n{}\n", output.path.display(), &text[from..]);
            }
        }
        if tail.is_empty() {
            format!("{} has printed nothing", self.name)
        } else {
            tail
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

impl Output {
    fn open(path: PathBuf) -> Result<(Self, File)> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        let begin = file.metadata()?.len();
        Ok((Self { path, begin }, file))
    }

    fn since_start(&self) -> Result<String> {
        let mut file = File::open(&self.path).with_context(|| format!("reading {}", self.path.display()))?;
        file.seek(SeekFrom::Start(self.begin))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A field of `/proc/PID/stat`, counted from 1 after the program's name. `None` if there is no such process.
fn stat(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(field - 1).map(str::to_owned)
}

/// Notes that this process is ours, for `tests/run` to end it should the test program itself be killed.
fn record(pid: u32) -> Option<PathBuf> {
    const STARTED: usize = 20;
    let path = env::pids()?.join(pid.to_string());
    fs::write(&path, stat(pid, STARTED)?).ok()?;
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(dir: &Path, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("shell", dir, command).unwrap()
    }

    #[tokio::test]
    async fn a_line_is_found_in_either_output_and_only_of_this_start() {
        let dir = tempfile::tempdir().unwrap();
        let one = shell(dir.path(), "echo one; echo two >&2; exec sleep 60");
        assert_eq!(
            one.wait_for_line(LIMIT, "two", |line| line == "two")
                .await
                .unwrap(),
            "two"
        );
        drop(one);
        let mut other = shell(dir.path(), "echo three");
        let error = other
            .wait_for_line(LIMIT, "`one`", |line| line == "one")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("shell ended before") && error.contains("three"),
            "{error}"
        );
        assert!(other.ended(LIMIT).await.unwrap().success());
        assert_eq!(other.stdout().unwrap(), "three\n");
    }

    #[tokio::test]
    async fn what_a_process_started_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell(dir.path(), "sleep 60 & echo $!; wait");
        let line = process
            .wait_for_line(LIMIT, "an id", |line| !line.is_empty())
            .await
            .unwrap();
        let grandchild: u32 = line.parse().unwrap();
        assert!(stat(grandchild, 1).is_some());
        drop(process);
        eventually(LIMIT, "it is gone", async || {
            match stat(grandchild, 1).as_deref() {
                None | Some("Z") => Ok(()),
                Some(state) => Err(state.to_owned()),
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn signals_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(
            dir.path(),
            "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done",
        );
        process
            .wait_for_line(LIMIT, "ready", |line| line == "ready")
            .await
            .unwrap();
        process.signal(Signal::Stop).unwrap();
        let state = async || match stat(process.id(), 1).as_deref() {
            Some("T") => Ok(()),
            state => Err(format!("{state:?}")),
        };
        eventually(LIMIT, "it is suspended", state).await.unwrap();
        assert!(process.is_running());
        process.signal(Signal::Continue).unwrap();
        assert_eq!(process.terminate(LIMIT).await.unwrap().code(), Some(7));
        assert!(!process.is_running());
        assert!(process.signal(Signal::Stop).is_err());
        assert_eq!(process.kill().unwrap().code(), Some(7));
    }
}
