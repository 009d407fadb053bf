//! `bulkhead verify`: hold a table of flows against the policies of a directory.
//!
//! Nothing is sent and nothing has to run: the flows are judged. Owns the arguments, what is
//! printed and the exit status; what a flow means is [`crate::reach`]'s.

use std::{
    fs,
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    command::described::described,
    reach::{
        engine::{CompiledMaps, Engine, KernelMaps, Specification},
        flow::{self, FlowSpec, Line, Outcome},
        judgement::{Judgement, judge},
    },
};

mod json;
mod table;

/// Say which flows the policies of a directory allow, and whether that is what is expected
///
/// Reads Namespaces, Pods, NetworkPolicies, Services, EndpointSlices and Nodes as `bulkhead agent`
/// does, and judges each flow of a list without sending a packet: may it leave its source, and may
/// it enter its destination? Each pod is judged as on its own node. Meant for a team's own CI.
///
/// The list is JSON Lines, one flow a line:
///
///   {"from":{"pod":"shop/web"},"to":{"pod":"shop/db"},"protocol":"TCP","port":5432,"expect":"allow"}
///   {"from":{"ip":"203.0.113.9"},"to":{"service":"shop/web"},"protocol":"TCP","port":80,"expect":"deny"}
///   {"from":{"node":"worker-1"},"to":{"pod":"shop/db"},"protocol":"ICMP","expect":"allow"}
///
/// An end is {"pod":"namespace/name"}, {"ip":"address"}, {"node":"name"} or, to go to,
/// {"service":"namespace/name"}. The protocol is TCP, UDP, SCTP or ICMP, which has no port. A flow
/// is judged on every address family that both ends have; "family":"IPv4" or "IPv6" asks for one.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Exit status:
  0  every flow is as expected
  1  some are not: a table says which
  2  it cannot be told: unreadable input, or an end that nobody knows

Examples:
  bulkhead verify --manifests deploy/examples/wordpress-mysql \\
      --expect deploy/examples/wordpress-mysql/flows.jsonl
  kustomize build overlays/prod > all/policies.yaml && bulkhead verify --manifests all --expect flows.jsonl
  bulkhead verify --manifests all --flows flows.jsonl --output json | jq -c 'select(.verdict == \"deny\")'
  echo '{\"from\":{\"pod\":\"shop/web\"},\"to\":{\"ip\":\"1.1.1.1\"},\"protocol\":\"UDP\",\"port\":53}' |
      bulkhead verify --manifests all --flows -"
)]
#[command(group = clap::ArgGroup::new("list").required(true))]
pub struct Verify {
    /// Directory of Kubernetes manifests (*.yaml, *.yml, *.json)
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Flows that say what is expected of them; `-` is standard input
    #[arg(long, value_name = "FILE", group = "list")]
    expect: Option<PathBuf>,
    /// Flows to be judged, whatever is expected of them; `-` is standard input
    #[arg(long, value_name = "FILE", group = "list")]
    flows: Option<PathBuf>,
    /// As agents do that run with this option: a pod reaches its own node by egress rules only
    #[arg(long)]
    deny_egress_to_node: bool,
    /// Who judges. All three come to the same
    #[arg(long, value_enum, default_value = "compiled")]
    engine: EngineName,
    /// How to write the result
    #[arg(long, value_enum, default_value = "human")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineName {
    /// What the agent writes into its maps, and the verdict function of its programs, in memory
    Compiled,
    /// The policies themselves, read slowly
    Specification,
    /// The programs and maps in this machine's kernel, on single packets; needs root
    Kernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table; of flows that are expected, only those that are otherwise
    Human,
    /// Every line again, with "verdict" and "reason"
    Json,
}

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Every flow is as expected.
    Holds = 0,
    /// Some flows are not as expected.
    Differs = 1,
    /// It cannot be told.
    Unclear = 2,
}

/// A line of the list, and what became of its flow.
struct Judged {
    line: Line,
    result: Result<Vec<Judgement>>,
}

impl Verify {
    /// Judges the flows, and says on standard output what they come to.
    pub fn run(&self) -> ExitCode {
        let status = self.tell(&mut io::stdout().lock(), &mut io::stderr().lock());
        ExitCode::from(status as u8)
    }

    /// Says what the flows come to on `out` and what is wrong on `err`.
    fn tell(&self, out: &mut impl Write, err: &mut impl Write) -> Status {
        self.verify(out, err).unwrap_or_else(|error| {
            // Nobody is left to be told if standard error is gone, too.
            drop(err.write_all(super::told(&error).as_bytes()));
            Status::Unclear
        })
    }

    fn verify(&self, out: &mut impl Write, err: &mut impl Write) -> Result<Status> {
        let (file, is_expected) = match (&self.expect, &self.flows) {
            (Some(file), _) => (file, true),
            (None, Some(file)) => (file, false),
            (None, None) => bail!("neither --expect nor --flows"),
        };
        let (name, text) = read(file)?;
        let lines = flow::read(&name, &text)?;
        if lines.is_empty() {
            bail!("{name}: it holds no flow, so nothing would be checked; write one a line");
        }
        if is_expected {
            require_expectations(&name, &lines)?;
        }
        let mut cluster =
            described(&self.manifests, err)?.deny_egress_to_node(self.deny_egress_to_node);
        let mut engine: Box<dyn Engine> = match self.engine {
            EngineName::Compiled => Box::<CompiledMaps>::default(),
            EngineName::Specification => Box::new(Specification),
            EngineName::Kernel => Box::new(KernelMaps::load()?),
        };
        let results = judge(&mut cluster, &mut *engine, lines.iter().map(|line| &line.flow))?;
        let judged = lines.into_iter().zip(results);
        let judged: Vec<Judged> = judged.map(|(line, result)| Judged { line, result }).collect();
        let text = match self.output {
            Output::Human if is_expected => table::differences(&judged),
            Output::Human => table::verdicts(&judged),
            Output::Json => json::lines(&judged)?,
        };
        out.write_all(text.as_bytes()).context("cannot write the result")?;
        out.flush().context("cannot write the result")?;
        for Judged { line, result } in &judged {
            if let Err(error) = result {
                writeln!(err, "error: {name}:{}: {error:#}", line.number)
                    .context("cannot write to standard error")?;
            }
        }
        Ok(status(&judged, is_expected))
    }
}

fn read(file: &Path) -> Result<(String, String)> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(("standard input".to_owned(), text));
    }
    let name = file.display().to_string();
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read {name}; `-` is standard input"))?;
    Ok((name, text))
}

fn require_expectations(name: &str, lines: &[Line]) -> Result<()> {
    if let Some(line) = lines.iter().find(|line| line.flow.expect.is_none()) {
        bail!(
            "{name}:{}: expect: nothing is expected of the flow; add \"expect\":\"allow\" or \
             \"deny\", or ask with --flows",
            line.number
        );
    }
    Ok(())
}

/// The worst of all lines.
fn status(judged: &[Judged], is_expected: bool) -> Status {
    if judged.iter().any(|judged| judged.result.is_err()) {
        return Status::Unclear;
    }
    let differs = |judged: &Judged| {
        judged.result.iter().flatten().any(|j| is_otherwise(&judged.line.flow, j))
    };
    if is_expected && judged.iter().any(differs) { Status::Differs } else { Status::Holds }
}

/// Whether a flow is expected to end otherwise.
fn is_otherwise(flow: &FlowSpec, judgement: &Judgement) -> bool {
    flow.expect.is_some_and(|expected| expected != judgement.outcome)
}

/// What becomes of a flow on all its families together: it passes if it passes on each.
fn total(judgements: &[Judgement]) -> Option<&Judgement> {
    judgements.iter().find(|j| j.outcome == Outcome::Deny).or_else(|| judgements.first())
}

#[cfg(test)]
mod tests;
