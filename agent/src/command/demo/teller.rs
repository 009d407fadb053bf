//! The words on the screen.
//!
//! Owns standard output and its looks. Invariant: colour only on a terminal, and never where
//! NO_COLOR is set; without it nothing is lost.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use anstyle::{AnsiColor, Style};

use super::{
    expectation::{Judgement, Outcome},
    script::Step,
};

const HEADING: Style = AnsiColor::Cyan.on_default().bold();
const COMMAND: Style = Style::new().bold();
const MET: Style = AnsiColor::Green.on_default();
const FAILED: Style = AnsiColor::Red.on_default().bold();
const LOG: Style = Style::new().dimmed();

/// How wide prose may get.
const WIDTH: usize = 96;

/// Tells the story on standard output.
pub(super) struct Teller {
    out: anstream::AutoStream<io::Stdout>,
}

impl Teller {
    pub(super) fn new() -> Self {
        Self { out: anstream::stdout() }
    }

    /// Anything.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// The beginning of a chapter.
    pub(super) fn heading(&mut self, number: usize, title: &str) -> io::Result<()> {
        writeln!(self.out, "\n{HEADING}{number}. {title}{HEADING:#}")
    }

    /// Prose.
    pub(super) fn paragraph(&mut self, text: &str) -> io::Result<()> {
        for line in wrap(text) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// A command line, as it would be typed.
    pub(super) fn command(&mut self, place: impl Display, command: &str) -> io::Result<()> {
        writeln!(self.out, "  {place} $ {COMMAND}{command}{COMMAND:#}")
    }

    /// What a command printed.
    pub(super) fn output(&mut self, text: &str) -> io::Result<()> {
        self.indented(text.lines(), Style::new())
    }

    /// A command, its output, and what to think of it.
    pub(super) fn step(
        &mut self,
        step: &Step,
        outcome: &Outcome,
        judgement: &Judgement,
    ) -> io::Result<()> {
        writeln!(self.out)?;
        self.paragraph(step.tells)?;
        self.command(step.place, step.command)?;
        self.output(&outcome.output)?;
        match judgement {
            Judgement::Met => {
                writeln!(self.out, "  {MET}✓ as expected: {}{MET:#}", step.expect)
            }
            Judgement::Failed(instead) => {
                writeln!(
                    self.out,
                    "  {FAILED}✗ expected: {}; instead: {instead}{FAILED:#}",
                    step.expect
                )
            }
        }
    }

    /// What the agent logged.
    pub(super) fn log(&mut self, text: &str) -> io::Result<()> {
        self.indented(text.lines(), LOG)
    }

    /// What it all came to.
    pub(super) fn summary(
        &mut self,
        count: usize,
        failed: &[String],
        took: Duration,
    ) -> io::Result<()> {
        let took = took.as_secs_f32();
        if failed.is_empty() {
            return writeln!(
                self.out,
                "\n{MET}{count} expectations, all met{MET:#}, in {took:.0} s. \
                 Everything is removed again."
            );
        }
        let number = failed.len();
        writeln!(
            self.out,
            "\n{FAILED}{number} of {count} expectations failed{FAILED:#}, in {took:.0} s:"
        )?;
        self.indented(failed.iter().map(String::as_str), Style::new())?;
        writeln!(self.out, "Everything is removed again.")
    }

    fn indented<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a str>,
        style: Style,
    ) -> io::Result<()> {
        for line in lines {
            match line {
                "" => writeln!(self.out)?,
                line => writeln!(self.out, "    {style}{line}{style:#}")?,
            }
        }
        Ok(())
    }
}

/// Breaks prose at spaces.
fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_at_spaces_and_keeps_its_words() {
        let text = "a word or two ".repeat(30);
        let lines = wrap(&text);
        assert!(lines.len() > 1);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert_eq!(lines.join(" "), text.trim_end());
        assert_eq!(wrap(""), [""; 0]);
    }
}
