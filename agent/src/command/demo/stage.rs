//! What the story is played on: a node with three pods, a directory of manifests, and the agent.
//!
//! Owns all that the demo makes. Invariant: dropping it removes all of that, the agent first.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{Read, Seek},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{
    expectation::Outcome,
    interrupt::Interrupt,
    process::{self, Process},
    script::Place,
    story::FILES,
};
use crate::lab::{Lab, Listener, NODE_IPV4, NODE_IPV6, Namespace, Pod, Wiring};

/// How a person would start the agent. Its metrics are reached from within the node only.
pub(super) const AGENT_COMMAND: &str =
    "bulkhead agent --manifests manifests --metrics-address 127.0.0.1:9180 2> agent.log &";
/// What of it stands between the program and the shell's redirection.
const AGENT_ARGUMENTS: [&str; 5] =
    ["agent", "--manifests", "manifests", "--metrics-address", "127.0.0.1:9180"];

const AGENT_LOG: &str = "agent.log";
/// How much of the log is shown where something failed.
const LAST_LINES: usize = 20;

/// A name and addresses, as in `pods.yaml`.
struct Role {
    name: &'static str,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

const fn role(name: &'static str, ipv4: u8, ipv6: u16) -> Role {
    Role {
        name,
        ipv4: Ipv4Addr::new(10, 0, 0, ipv4),
        ipv6: Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, ipv6),
    }
}

const WORDPRESS: Role = role("wordpress", 20, 0x20);
const MYSQL: Role = role("mysql", 10, 0x10);
const INTRUDER: Role = role("intruder", 66, 0x66);

/// The ports that are listened on in mysql's pod.
const PORTS: [u16; 2] = [80, 3306];

/// Node, pods, manifests and agent. Fields are dropped from the top.
#[derive(Debug)]
pub(super) struct Stage {
    agent: Option<Agent>,
    _listener: Listener,
    wordpress: Pod,
    mysql: Pod,
    intruder: Pod,
    lab: Lab,
    directory: TempDir,
}

/// The agent, a child of this process.
#[derive(Debug)]
struct Agent {
    process: Process,
    /// Open where the log was not read yet.
    log: File,
}

impl Stage {
    /// Makes everything but the agent.
    pub(super) fn build(interrupt: &Interrupt) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-demo-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        fs::create_dir(directory.path().join("manifests"))?;
        for (file, text) in FILES {
            let path = directory.path().join(file);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }

        let lab = Lab::new()?;
        let pod = |role: Role| {
            interrupt.check()?;
            let addresses = [IpAddr::V4(role.ipv4), IpAddr::V6(role.ipv6)];
            lab.pod(role.name, &addresses, Wiring::Bridge)
        };
        let [wordpress, mysql, intruder] = [pod(WORDPRESS)?, pod(MYSQL)?, pod(INTRUDER)?];
        let listener = Listener::start(mysql.namespace(), mysql.name(), &PORTS)?;

        Ok(Self { agent: None, _listener: listener, wordpress, mysql, intruder, lab, directory })
    }

    /// What there is, for the reader.
    pub(super) fn description(&self) -> String {
        let mut text = "\nEach of these is a network namespace of this machine; `NAME $ COMMAND` \
                        stands for\n`ip netns exec NAMESPACE sh -c 'COMMAND'`.\n\n"
            .to_owned();
        let row = |name: &str, ipv4: &dyn ToString, ipv6: &dyn ToString, namespace: &Namespace| {
            let (ipv4, ipv6) = (ipv4.to_string(), ipv6.to_string());
            format!("  {name:<10} {ipv4:<10} {ipv6:<12} {}\n", namespace.name())
        };
        text += &row("node", &NODE_IPV4, &NODE_IPV6, self.lab.node());
        for pod in [&self.wordpress, &self.mysql, &self.intruder] {
            if let [ipv4, ipv6] = pod.addresses() {
                text += &row(pod.name(), ipv4, ipv6, pod.namespace());
            }
        }
        text.trim_end().to_owned()
    }

    /// Starts the agent in the node's namespace.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        let program = env::current_exe().context("cannot find this very program")?;
        let mut command = self.command(Place::Node, program);
        command.args(AGENT_ARGUMENTS);
        let path = self.directory.path().join(AGENT_LOG);
        let output = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let process = Process::start(command, &output)?;
        self.agent = Some(Agent { process, log: File::open(&path)? });
        Ok(())
    }

    /// Fails if the agent ended, with the end of its log.
    pub(super) fn require_agent(&mut self) -> Result<()> {
        let Some(agent) = &mut self.agent else { return Ok(()) };
        let Some(status) = agent.process.ended()? else { return Ok(()) };
        bail!("the agent ended ({status}). {}", self.end_of_log()?);
    }

    /// The last lines that the agent logged.
    pub(super) fn end_of_log(&mut self) -> Result<String> {
        let Some(agent) = &mut self.agent else { return Ok("It did not start.".to_owned()) };
        agent.log.rewind()?;
        let log = self.new_log()?;
        let lines: Vec<_> = log.lines().collect();
        let end = &lines[lines.len().saturating_sub(LAST_LINES)..];
        Ok(format!("The agent's log ends with:\n{}", end.join("\n")))
    }

    /// What the agent logged since this was called last.
    pub(super) fn new_log(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        if let Some(agent) = &mut self.agent {
            agent.log.read_to_end(&mut bytes).context(AGENT_LOG)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Runs a command line in a shell, and waits for it.
    pub(super) fn run(&self, place: Place, line: &str, interrupt: &Interrupt) -> Result<Outcome> {
        let mut command = self.command(place, "sh");
        command.args(["-c", line]);
        process::run(command, interrupt)
    }

    fn command(&self, place: Place, program: impl AsRef<Path>) -> Command {
        let namespace = match place {
            Place::Node => self.lab.node(),
            Place::Wordpress => self.wordpress.namespace(),
            Place::Intruder => self.intruder.namespace(),
        };
        let mut command = namespace.command(program.as_ref());
        command.current_dir(self.directory.path());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_started_as_the_story_says() {
        assert_eq!(
            AGENT_COMMAND,
            format!("bulkhead {} 2> {AGENT_LOG} &", AGENT_ARGUMENTS.join(" "))
        );
    }

    #[test]
    fn pods_have_the_addresses_of_their_manifests() {
        let (_, pods) = FILES[1];
        for Role { name, ipv4, ipv6 } in [WORDPRESS, MYSQL, INTRUDER] {
            let lines = [
                format!("  name: {name}\n"),
                format!("    - ip: {ipv4}\n"),
                format!("    - ip: {ipv6}\n"),
            ];
            let [name_at, ipv4_at, ipv6_at] =
                lines.map(|line| pods.find(&line).unwrap_or_else(|| panic!("no {line:?}")));
            assert!(name_at < ipv4_at && ipv4_at < ipv6_at, "{name}");
        }
    }
}
