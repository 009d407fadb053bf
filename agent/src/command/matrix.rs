//! `bulkhead matrix`: who reaches whom on what, from manifests.
//!
//! Owns the command line and its exit status. Sends nothing and needs no privileges; what the cells
//! hold is [`crate::reach::matrix`]'s.

mod html;
mod json;
mod table;
mod words;

use std::{collections::BTreeSet, io::Write, net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    command::described::described,
    policy::model::Protocol,
    reach::matrix::{Allowed, Matrix, Request},
};

/// Tell who reaches whom on what: every pod, node and outside address, as a table
///
/// Reads manifests (pods, namespaces, policies, nodes; what `kubectl get -o yaml` prints will do)
/// and works out, for each source and destination, what their policies let pass: everything,
/// nothing, or these ports. Nothing is sent and no port is guessed: the ranges are exact.
///
/// Rows are sources, columns destinations. Pods that nothing tells apart share a row. Of the
/// addresses that are nobody's, `outside` stands for all that no policy names a block for; each
/// block of a policy has a row of its own. Services have none: they are a way to pods, and
/// `bulkhead explain` tells it.
///
/// Exits with 0, or with 2 if it can't be told.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct MatrixCommand {
    /// The directory with the manifests
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Only pods of this namespace; can be repeated. Nodes and addresses stay
    #[arg(long = "namespace", value_name = "NS")]
    namespaces: Vec<String>,
    /// Only this traffic: 3306 or 3306/tcp, 53/udp, 5060/sctp, or icmp; can be repeated
    #[arg(long = "port", value_name = "PORT[/PROTOCOL]|icmp", value_parser = port)]
    ports: Vec<Allowed>,
    /// A row and a column for an address outside of the cluster; can be repeated
    #[arg(long, value_name = "IP")]
    external: Vec<IpAddr>,
    /// A row and a column for each pod, also where nothing tells them apart
    #[arg(long)]
    ungrouped: bool,
    /// As agents do that run with this option: a pod reaches its own node by egress rules only
    #[arg(long)]
    deny_egress_to_node: bool,
    /// How to write the matrix
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  Who reaches whom?
    bulkhead matrix --manifests deploy/examples/wordpress-mysql

  Who reaches the MySQL port?
    bulkhead matrix --manifests DIR --port 3306/tcp

  For a report: one page that needs no network
    bulkhead matrix --manifests DIR --output html > matrix.html

  Two namespaces of a large cluster, and a partner's address
    bulkhead matrix --manifests DIR --namespace shop --namespace billing --external 198.51.100.7

  In a script: whatever may reach the outside
    bulkhead matrix --manifests DIR --output json |
      jq -r '.cells[] | select(.to == \"outside\" and .reach != \"nothing\") | .from'";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table; a list of pairs where the table would be wider than the terminal
    Human,
    /// One JSON object
    Json,
    /// One page, complete in itself
    Html,
}

/// What the exit status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The matrix was written.
    Told,
    /// It can't be told.
    Unknown,
}

impl Status {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Told => 0,
            Self::Unknown => 2,
        }
    }
}

impl MatrixCommand {
    /// Writes the matrix to standard output; what is wrong goes to standard error.
    pub fn run(&self) -> ExitCode {
        let status = self.tell(&mut anstream::stdout(), &mut anstream::stderr());
        ExitCode::from(status.code())
    }

    /// Writes the matrix to `out`, tells what is wrong on `err`, and says how it went. Words for
    /// people come with colour; who does not want it strips it, as `anstream` does off a terminal.
    pub fn tell(&self, out: &mut impl Write, err: &mut impl Write) -> Status {
        match self.answer(err).and_then(|matrix| self.write(&matrix, out)) {
            Ok(()) => Status::Told,
            Err(error) => {
                // Nobody is left to be told if standard error is gone, too.
                drop(writeln!(err, "error: {error:#}"));
                Status::Unknown
            }
        }
    }

    fn answer(&self, err: &mut impl Write) -> Result<Matrix> {
        let mut cluster =
            described(&self.manifests, err)?.deny_egress_to_node(self.deny_egress_to_node);
        Matrix::new(
            &mut cluster,
            &Request {
                namespaces: self.namespaces.iter().cloned().collect(),
                external: self.external.iter().copied().collect::<BTreeSet<_>>(),
                only: self.only(),
                ungrouped: self.ungrouped,
            },
        )
    }

    /// All the traffic that is asked for; `None`: there is no such limit.
    fn only(&self) -> Option<Allowed> {
        self.ports.iter().cloned().reduce(|one, other| one.join(&other))
    }

    fn write(&self, matrix: &Matrix, out: &mut impl Write) -> Result<()> {
        let text = match self.output {
            Output::Human => table::text(matrix, self.only().as_ref()),
            Output::Json => json::text(matrix, self.only().as_ref())?,
            Output::Html => html::page(matrix, self.only().as_ref(), &self.namespaces),
        };
        out.write_all(text.as_bytes()).context("cannot write the matrix")?;
        out.flush().context("cannot write the matrix")
    }
}

/// A port to ask for.
fn port(text: &str) -> Result<Allowed> {
    if text.eq_ignore_ascii_case("icmp") {
        return Ok(Allowed::icmp());
    }
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => bail!("no protocol {other:?}; write tcp, udp or sctp behind the port, or icmp"),
    };
    match number.parse() {
        Ok(0) | Err(_) => bail!("no port {number:?}; write 1 to 65535, such as 3306/tcp"),
        Ok(number) => Ok(Allowed::port(protocol, number)),
    }
}

#[cfg(test)]
mod tests;
