//! `bulkhead demo`: what Bulkhead does, on a node of network namespaces, with real ping and curl.
//!
//! Owns the order of things: checks, the stage, the story, the summary. Invariant: whatever ends
//! it, a failure, Ctrl-C or SIGTERM, all that it made goes away with it.

mod expectation;
mod interrupt;
mod needs;
mod process;
mod stage;
mod story;
mod teller;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;

use expectation::{Judgement, Outcome};
use interrupt::Interrupt;
use stage::Stage;
use story::{Act, Chapter, Step};
use teller::Teller;

/// What shells say of a program that Ctrl-C ended: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;
/// How long a change of the manifests may take to show.
const LIVE_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether it shows.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Shows what Bulkhead does, with real pings and curls on a small node of network namespaces
///
/// Takes about twenty seconds, needs root, touches nothing outside its own namespaces, and leaves
/// nothing behind. Exits with 1 if something did not turn out as expected.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Show the agent's log as it goes
    #[arg(long, short)]
    verbose: bool,
}

impl Demo {
    /// Tells the whole story.
    ///
    /// # Errors
    /// If it cannot be told: without root, without a tool that it needs, or if the agent does not
    /// start. An expectation that is not met is no error, but shows in the exit status.
    pub fn run(&self) -> Result<ExitCode> {
        needs::check()?;
        let interrupt = Interrupt::listen().context("cannot listen for signals")?;
        let mut teller = Teller::new();
        // What the story stands on is gone when it returns.
        let told = self.tell(&mut teller, &interrupt);
        if interrupt.check().is_err() {
            // An error that came with it is its consequence.
            teller.line("\nInterrupted. Everything is removed.")?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
        told
    }

    fn tell(&self, teller: &mut Teller, interrupt: &Interrupt) -> Result<ExitCode> {
        let started = Instant::now();
        teller.line(story::INTRODUCTION)?;
        let mut stage = Stage::build(interrupt)?;
        teller.line(&stage.description())?;

        let mut count = 0;
        let mut failed = Vec::new();
        for (number, chapter) in story::STORY.iter().enumerate() {
            teller.heading(number + 1, chapter.title)?;
            perform(chapter, &mut stage, teller, interrupt)?;
            for step in chapter.steps {
                let outcome = stage.run(step.place, step.command, interrupt)?;
                let judgement = step.expect.judge(&outcome);
                teller.step(step, &outcome, &judgement)?;
                count += 1;
                if let Judgement::Failed(_) = judgement {
                    failed.push(format!("{}. {}: {}", number + 1, step.place, step.command));
                }
                if self.verbose {
                    teller.log(&stage.new_log()?)?;
                }
            }
        }
        drop(stage);
        teller.summary(count, &failed, started.elapsed())?;
        Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Changes what the chapter changes, and waits until the change shows.
fn perform(
    chapter: &Chapter,
    stage: &mut Stage,
    teller: &mut Teller,
    interrupt: &Interrupt,
) -> Result<()> {
    teller.paragraph(chapter.tells)?;
    match chapter.act {
        Act::None => return Ok(()),
        Act::StartAgent => {
            teller.command("node", stage::AGENT_COMMAND)?;
            stage.start_agent()?;
        }
        Act::Write { file, text } => {
            teller.file(file, text)?;
            stage.write_manifest(file, text)?;
        }
        Act::Remove { file } => {
            teller.command("node", &format!("rm manifests/{file}"))?;
            stage.remove_manifest(file)?;
        }
    }
    let Some(first) = chapter.steps.first() else { return Ok(()) };
    let last = settle(first, stage, interrupt)?;
    match (chapter.act, last) {
        // Nothing that follows would say anything.
        (Act::StartAgent, Some(answer)) => {
            anyhow::bail!(
                "the agent is not ready after {} s: {}\nIts log:\n{}",
                LIVE_WITHIN.as_secs(),
                answer.output.trim(),
                stage.new_log()?.trim_end()
            )
        }
        // The step itself will show it.
        (Act::StartAgent | Act::None | Act::Write { .. } | Act::Remove { .. }, _) => Ok(()),
    }
}

/// Takes a step again and again until it turns out as expected; what came last, if it never does.
fn settle(step: &Step, stage: &mut Stage, interrupt: &Interrupt) -> Result<Option<Outcome>> {
    let deadline = Instant::now() + LIVE_WITHIN;
    loop {
        stage.require_agent()?;
        let outcome = stage.run(step.place, step.command, interrupt)?;
        match step.expect.judge(&outcome) {
            Judgement::Met => return Ok(None),
            Judgement::Failed(_) if Instant::now() > deadline => return Ok(Some(outcome)),
            Judgement::Failed(_) => interrupt.pause(LOOK_EVERY)?,
        }
    }
}
