//! The command line: what `bulkhead` can be asked to do. One file for each subcommand.
//!
//! Owns the parsing, where the log goes, and how a failure is told. Invariant: standard output
//! belongs to the subcommand; the log and errors go to standard error.

pub mod agent;
pub mod demo;
mod described;
pub mod explain;
pub mod matrix;
pub mod verify;

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Network segmentation for Kubernetes: what no NetworkPolicy allows is denied, in the kernel, at
/// each pod's interface.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::Agent),
    Demo(demo::Demo),
    Explain(explain::Explain),
    Matrix(matrix::MatrixCommand),
    Verify(verify::Verify),
}

/// What is logged, and how.
#[derive(Debug, Args)]
struct Log {
    /// What to log: a level, or a list of TARGET=LEVEL (`info,bulkhead::drops=off`)
    #[arg(long = "log", global = true, value_name = "FILTER", env = "BULKHEAD_LOG")]
    #[arg(default_value = "info")]
    filter: String,
    /// How to write the log
    #[arg(long = "log-format", global = true, value_name = "FORMAT", env = "BULKHEAD_LOG_FORMAT")]
    #[arg(default_value = "text")]
    format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// One line for people
    Text,
    /// One JSON object a line
    Json,
}

/// Does what the command line says, and tells of a failure.
pub fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(status) => status,
        Err(error) => {
            // Nobody is left to be told if standard error is gone, too.
            drop(io::stderr().write_all(told(&error).as_bytes()));
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn run(self) -> Result<ExitCode> {
        if let Err(error) = self.log.start() {
            // As for any other argument that cannot be understood: 1 has a meaning of its own.
            drop(io::stderr().write_all(told(&error).as_bytes()));
            return Ok(ExitCode::from(2));
        }
        match self.command {
            Command::Agent(agent) => agent.run(),
            Command::Demo(demo) => demo.run(),
            Command::Explain(explain) => Ok(explain.run()),
            Command::Matrix(matrix) => Ok(matrix.run()),
            Command::Verify(verify) => Ok(verify.run()),
        }
    }
}

impl Log {
    fn start(&self) -> Result<()> {
        let filter = EnvFilter::try_new(&self.filter).with_context(|| {
            format!("--log {:?}: a level or a list of TARGET=LEVEL", self.filter)
        })?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        match self.format {
            LogFormat::Text => log.with_ansi(colour_on_stderr()).init(),
            LogFormat::Json => log.json().init(),
        }
        Ok(())
    }
}

/// By <https://no-color.org>: any value but the empty one means no.
fn colour_on_stderr() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An error, with a line for each of its causes.
fn told(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    let mut lines = format!("error: {said}\n");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some libraries repeat the cause in the error.
        if !said.contains(&cause) {
            lines += &format!("  because: {cause}\n");
            said = cause;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = anyhow::anyhow!("no such file").context("pods.yaml").context("manifests");
        let lines = "error: manifests\n  because: pods.yaml\n  because: no such file\n";
        assert_eq!(told(&error), lines);
    }

    #[test]
    fn a_cause_that_an_error_repeats_is_told_once() {
        let error = anyhow::anyhow!("no symbol").context("bad object: no symbol").context("load");
        assert_eq!(told(&error), "error: load\n  because: bad object: no symbol\n");
    }
}
