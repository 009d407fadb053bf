//! `bulkhead demo`: what Bulkhead does, on a node of network namespaces, with real ping and curl.
//!
//! Owns the order of things: checks, the stage, the story, the summary. Invariant: whatever ends
//! it, a failure, Ctrl-C or SIGTERM, all that it made goes away with it.

mod expectation;
mod interrupt;
mod needs;
mod process;
mod script;
mod stage;
mod story;
mod teller;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use expectation::{Expectation, Judgement};
use interrupt::Interrupt;
use script::{Act, Chapter, Place, Step};
use stage::Stage;
use teller::Teller;

/// What shells say of a program that Ctrl-C ended: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;
/// How long a change of the manifests may take to show.
const LIVE_WITHIN: Duration = Duration::from_secs(5);
/// How long the agent may take to start: the kernel verifies the programs, on a busy machine too.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether it shows.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Show what Bulkhead does, with real pings and curls on a small node of network namespaces
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
                    // Without the agent nothing that follows would say anything.
                    ensure!(step.expect != Expectation::Ready, stage.end_of_log()?);
                    failed.push(format!("{}. {}: {}", number + 1, step.place, step.command));
                }
                if self.verbose {
                    teller.log(&stage.new_log()?)?;
                }
            }
        }
        if !failed.is_empty() && !self.verbose {
            teller.line(&format!("\n{}", stage.end_of_log()?))?;
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
    let within = match chapter.act {
        Act::None => return Ok(()),
        Act::StartAgent => {
            teller.command(Place::Node, stage::AGENT_COMMAND)?;
            stage.start_agent()?;
            START_WITHIN
        }
        Act::Run(commands) => {
            for command in commands {
                let outcome = stage.run(Place::Node, command, interrupt)?;
                teller.command(Place::Node, command)?;
                teller.output(&outcome.output)?;
                ensure!(outcome.status == Some(0), "that command failed");
            }
            LIVE_WITHIN
        }
    };
    let Some(first) = chapter.steps.first() else { return Ok(()) };
    settle(first, within, stage, interrupt)
}

/// Takes a step again and again until it turns out as expected. If it never does, whoever takes it
/// next sees that.
fn settle(step: &Step, within: Duration, stage: &mut Stage, interrupt: &Interrupt) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        stage.require_agent()?;
        let outcome = stage.run(step.place, step.command, interrupt)?;
        match step.expect.judge(&outcome) {
            Judgement::Met => return Ok(()),
            Judgement::Failed(_) if Instant::now() > deadline => return Ok(()),
            Judgement::Failed(_) => interrupt.pause(LOOK_EVERY)?,
        }
    }
}
