//! What a story is made of: chapters, what each changes, and the commands that show it.
//!
//! Vocabulary only: [`super::story`] tells the story, [`super::stage`] plays it.

use std::fmt;

use super::expectation::Expectation;

/// A part of the story.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chapter {
    pub(super) title: &'static str,
    /// What is going to happen, and why.
    pub(super) tells: &'static str,
    pub(super) act: Act,
    /// What shows it. The first tells whether the act has taken effect.
    pub(super) steps: &'static [Step],
}

/// What a chapter changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Nothing.
    None,
    /// Starts the agent on the node.
    StartAgent,
    /// Runs command lines on the node.
    Run(&'static [&'static str]),
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// What it is for.
    pub(super) tells: &'static str,
    pub(super) place: Place,
    pub(super) command: &'static str,
    pub(super) expect: Expectation,
}

/// Where a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Node,
    Wordpress,
    Intruder,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Wordpress => "wordpress",
            Self::Intruder => "intruder",
        })
    }
}
