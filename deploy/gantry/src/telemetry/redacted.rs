//! What the process writes to stderr, without the secrets that its agents have resolved.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Write as _,
    io::{self, Write},
    panic,
};

use gantry_agent::Redactor;
use tracing_subscriber::fmt::MakeWriter;

/// Where log lines go. Each is written at once, as a whole.
#[derive(Clone)]
pub(super) struct Stderr(pub(super) Redactor);

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        // Whoever reads the log may be gone: what is said of that would go there, too, and panic.
        let _ = io::stderr().write_all(self.0.redact(&text).as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has panics told as the standard library tells them, without secrets.
pub(super) fn tell_panics(redactor: Redactor) {
    panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let mut text = format!("thread '{}' {info}\n", thread.name().unwrap_or("<unnamed>"));
        let stack = Backtrace::capture();
        if stack.status() == BacktraceStatus::Captured {
            let _ = writeln!(text, "stack backtrace:\n{stack}");
        }
        // Whoever cannot be told is not told.
        let _ = Stderr(redactor.clone()).write_all(text.as_bytes());
    }));
}
