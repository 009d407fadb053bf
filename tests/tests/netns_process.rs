//! The agent as a process: its command line, its log, how it ends. Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::{
    fs::{self, File},
    net::IpAddr,
    path::PathBuf,
    process::{Child, ExitStatus},
    thread,
    time::Instant,
};

use bulkhead_tests::{
    cluster::{Cluster, DEADLINE, LOOK_EVERY, Member, policy},
    probe::{connect, expect_nothing_received, expect_received, send, udp},
    scrape,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SERVER: Member = Member::bridged("server", 10);
const CLIENT: Member = Member::bridged("client", 11);
const PORT: u16 = 5353;
const CLIENT_PORT: u16 = 40000;

/// A process that is ended when it is dropped.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let log = cluster.manifests().with_extension("log");
        // Whatever is run by `ip netns exec` takes its place: the child is the agent.
        let mut command = cluster.node().command(env!("CARGO_BIN_EXE_bulkhead-under-test"));
        command.arg("agent").arg("--manifests").arg(cluster.manifests()).args(arguments);
        for variable in ["BULKHEAD_LOG", "BULKHEAD_LOG_FORMAT", "BULKHEAD_NODE"] {
            command.env_remove(variable);
        }
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, log }
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Looks at it until the condition is fulfilled.
    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(seen) = look(self) {
                return seen;
            }
            thread::sleep(LOOK_EVERY);
        }
        panic!("{what}: not within {DEADLINE:?}; log:\n{}", self.logged());
    }

    fn ended(&mut self) -> ExitStatus {
        self.until("its end", |process| process.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of one that has ended there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn cluster() -> Cluster {
    let manifests = [SERVER.manifest(), CLIENT.manifest()].concat()
        + &policy("closed", "{podSelector: {matchLabels: {app: server}}}");
    Cluster::without_agent(&[SERVER, CLIENT], &[("cluster.yaml", &manifests)])
}

#[test]
fn it_enforces_logs_each_denial_with_names_and_ends_when_asked_to() {
    let cluster = cluster();
    let mut agent = Process::start(&cluster, &["--deny-action", "reject"]);
    agent.until("it is ready", |_| {
        scrape::get(cluster.node(), "/readyz")
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });

    let [to, _]: [IpAddr; 2] = SERVER.addresses();
    let [from, _] = CLIENT.addresses();
    let server = udp(cluster.inside("server"), to, PORT);
    let client = udp(cluster.inside("client"), from, CLIENT_PORT);
    let before = cluster.metrics();
    send(&client, &server, b"denied");
    cluster.expect_denied(&before, &[("server", "ingress", "not_allowed", 1..=1)]);
    expect_nothing_received(&server);
    let line = agent.until("the drop is logged", |agent| {
        agent.logged().lines().find(|line| line.contains("packet denied")).map(str::to_owned)
    });
    for words in [
        "pod=\"test/server\"",
        "direction=ingress",
        "reason=not_allowed",
        "protocol=\"UDP\"",
        "source=\"10.0.0.11:40000\"",
        "destination=\"10.0.0.10:5353\"",
        "peer=\"test/client\"",
        "policies=\"test/closed\"",
    ] {
        assert!(line.contains(words), "no {words} in {line}");
    }
    // The flag is heard: nobody listens, but it is the agent that refuses.
    let refused = connect(cluster.inside("client"), to, 80, DEADLINE).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    cluster.expect_denied(&before, &[("server", "ingress", "not_allowed", 2..=2)]);

    let pid = Pid::from_raw(i32::try_from(agent.child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(agent.ended().success(), "{}", agent.logged());
    // So far, the programs leave with it.
    let client = udp(cluster.inside("client"), from, CLIENT_PORT + 1);
    send(&client, &server, b"open");
    expect_received(&server, b"open");
}

#[test]
fn without_a_port_to_listen_on_it_says_so_and_enforces_nothing() {
    let cluster = cluster();
    let bind = || std::net::TcpListener::bind(scrape::ADDRESS);
    let _taken = cluster.node().enter(bind).unwrap().unwrap();
    let mut agent = Process::start(&cluster, &[]);
    assert_eq!(agent.ended().code(), Some(1));
    let log = agent.logged();
    assert!(log.contains("cannot listen on 127.0.0.1:9180: give --metrics-address"), "{log}");
}
