//! `bulkhead explain`: why a flow passes or does not, from manifests.
//!
//! Owns the command line and its exit status. Sends nothing and needs no privileges: the answer is
//! the specification's, by [`crate::policy::evaluate`], which the compiler is tested against.

mod question;
mod report;
mod text;
mod words;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

pub use report::{
    BackendReport, ClosestRule, FamilyReport, IsolatingPolicy, Reason, Report, RulePlace, Step,
    report,
};

use crate::{
    command::described::described,
    reach::flow::{Family, FlowProtocol, FlowSpec, Outcome},
};

/// Tell why a flow is allowed or denied, and by which rule of which policy
///
/// Reads manifests (pods, namespaces, policies, services; what `kubectl get -o yaml` prints will
/// do) and says of each direction by itself, egress at the source and ingress at the destination,
/// which policies isolate the pod and which rule allows the flow; of a denial, which rule came
/// closest, and what it lacks. Nothing is sent.
///
/// Exits with 0 if the flow is allowed, 1 if it is denied, 2 if that can't be told.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Explain {
    /// The directory with the manifests
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Who opens the flow: NAMESPACE/POD, an address, or node/NODE
    #[arg(long, value_name = "NS/POD|IP")]
    from: String,
    /// To whom: NAMESPACE/POD, NAMESPACE/SERVICE, an address, or node/NODE. If a pod and a service
    /// have the name: pod/NAMESPACE/POD or svc/NAMESPACE/SERVICE
    #[arg(long, value_name = "NS/POD|SVC|IP")]
    to: String,
    /// The destination port: 443 or 443/tcp, 53/udp, 5060/sctp; or icmp for a ping
    #[arg(long, value_name = "PORT[/PROTOCOL]|icmp", value_parser = question::port)]
    port: (FlowProtocol, Option<u16>),
    /// One address family only; without it, every one that both ends have
    #[arg(long, value_name = "FAMILY")]
    family: Option<OneFamily>,
    /// As agents do that run with this option: a pod reaches its own node by egress rules only
    #[arg(long)]
    deny_egress_to_node: bool,
    /// How to write the answer
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  Why can't this pod reach the database?
    bulkhead explain --manifests deploy/examples/wordpress-mysql \\
      --from wordpress-mysql/intruder --to wordpress-mysql/mysql --port 3306

  May it be pinged?
    bulkhead explain --manifests DIR --from shop/web --to shop/db --port icmp

  Through a service, with each of its backends
    bulkhead explain --manifests DIR --from shop/web --to svc/shop/db --port 5432/tcp

  May a pod ask a resolver outside, by IPv6?
    bulkhead explain --manifests DIR --from shop/web --to 2001:db8::53 --port 53/udp

  In a script: the rules that allow it
    bulkhead explain ... --output json | jq '.families[].steps[].allowed_by'";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OneFamily {
    Ipv4,
    Ipv6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for people
    Human,
    /// One JSON object
    Json,
}

/// What the exit status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The flow is allowed.
    Allowed,
    /// The flow is denied.
    Denied,
    /// It can't be told.
    Unknown,
}

impl Status {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Allowed => 0,
            Self::Denied => 1,
            Self::Unknown => 2,
        }
    }
}

impl Explain {
    /// Explains on standard output; what is wrong goes to standard error.
    pub fn run(&self) -> ExitCode {
        let status = self.tell(&mut anstream::stdout(), &mut anstream::stderr());
        ExitCode::from(status.code())
    }

    /// Explains on `out`, tells what is wrong on `err`, and says how it went. Words for people come
    /// with colour; who does not want it strips it, as `anstream` does off a terminal.
    pub fn tell(&self, out: &mut impl Write, err: &mut impl Write) -> Status {
        match self.answer(err).and_then(|report| {
            self.write(&report, out).context("cannot write the explanation")?;
            Ok(report.verdict)
        }) {
            Ok(Outcome::Allow) => Status::Allowed,
            Ok(Outcome::Deny) => Status::Denied,
            Err(error) => {
                // Nobody is left to be told if standard error is gone, too.
                drop(writeln!(err, "error: {error:#}"));
                Status::Unknown
            }
        }
    }

    fn answer(&self, err: &mut impl Write) -> Result<Report> {
        let mut cluster =
            described(&self.manifests, err)?.deny_egress_to_node(self.deny_egress_to_node);
        let objects = cluster.objects();
        let (protocol, port) = self.port;
        let spec = FlowSpec {
            from: question::source(objects, &self.from).context("--from")?,
            to: question::destination(objects, &self.to).context("--to")?,
            protocol,
            port,
            family: self.family.map(Family::from),
            expect: None,
        };
        report(&mut cluster, &spec)
    }

    fn write(&self, report: &Report, out: &mut impl Write) -> Result<()> {
        match self.output {
            Output::Human => write!(out, "{report}")?,
            Output::Json => {
                serde_json::to_writer_pretty(&mut *out, report)?;
                writeln!(out)?;
            }
        }
        Ok(out.flush()?)
    }
}

impl From<OneFamily> for Family {
    fn from(family: OneFamily) -> Self {
        match family {
            OneFamily::Ipv4 => Self::Ipv4,
            OneFamily::Ipv6 => Self::Ipv6,
        }
    }
}

#[cfg(test)]
mod tests;
