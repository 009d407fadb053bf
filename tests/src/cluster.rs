//! A node with pods, a directory of manifests, and the agent: the whole of it, with real packets.
//!
//! The agent is the real one ([`bulkhead::agent::run`]) on a thread that has entered the node's
//! network namespace, so that no test can meet an older build of it. Invariant: what
//! [`Cluster::apply`] was given is enforced when it returns, and dropping a cluster removes all
//! that it made, the agent first.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bulkhead::{
    agent::{self, Config, Uplink},
    dataplane::attach::Hooks,
    enforcer::Options,
    lab::{Lab, Namespace, Pod, Wiring},
};
use bulkhead_common::verdict::DenyAction;
use tempfile::TempDir;
use tokio::{runtime, sync::oneshot};

use crate::scrape::{self, Answer, Page};

/// How long anything that will happen may take, on a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at something that will happen.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The namespace of pods and policies.
pub const NAMESPACE: &str = "test";

/// The file that [`Cluster::apply`] writes.
const MANIFEST: &str = "cluster.yaml";

/// A pod to be: its name, also the value of its label `app`, and how it is wired.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// At most ten characters.
    pub name: &'static str,
    /// The last byte of its addresses.
    pub host: u8,
    /// Its network.
    pub wiring: Wiring,
}

impl Member {
    /// A pod on the node's bridge.
    pub const fn bridged(name: &'static str, host: u8) -> Self {
        Self { name, host, wiring: Wiring::Bridge }
    }

    /// A pod behind a host route.
    pub const fn routed(name: &'static str, host: u8) -> Self {
        Self { name, host, wiring: Wiring::Routed }
    }

    /// Its addresses: IPv4, then IPv6.
    pub fn addresses(self) -> [IpAddr; 2] {
        let network = match self.wiring {
            Wiring::Bridge => 0,
            Wiring::Routed => 1,
        };
        let ipv6 = [0xfd00, 0x10 + u16::from(network), 0, 0, 0, 0, 0, u16::from(self.host)];
        [[10, 0, network, self.host].into(), ipv6.into()]
    }

    /// Its manifest.
    pub fn manifest(self) -> String {
        pod(self.name, &self.addresses())
    }
}

/// The manifest of a pod in [`NAMESPACE`].
pub fn pod(name: &str, addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(|ip| format!("{{ip: \"{ip}\"}}")).collect();
    format!(
        "---\napiVersion: v1\nkind: Pod\n\
         metadata: {{name: {name}, namespace: {NAMESPACE}, uid: uid-of-{name}, labels: {{app: \
         {name}}}}}\nstatus: {{phase: Running, podIPs: [{}]}}\n",
        addresses.join(", ")
    )
}

/// The manifest of a policy in [`NAMESPACE`]; its `spec` as YAML in one line.
pub fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec: {spec}\n"
    )
}

/// The manifest of [`NAMESPACE`], which asks for an answer to what is denied.
pub fn rejecting_namespace() -> String {
    format!(
        "---\napiVersion: v1\nkind: Namespace\n\
         metadata: {{name: {NAMESPACE}, annotations: {{bulkhead.io/deny-action: reject}}}}\n"
    )
}

/// A running cluster of one node. Fields are dropped from the top.
pub struct Cluster {
    /// `None`: the test starts one by itself.
    agent: Option<Agent>,
    pods: BTreeMap<&'static str, Pod>,
    lab: Arc<Lab>,
    members: Vec<Member>,
    /// How often [`Cluster::apply`] was called.
    generation: u8,
    directory: TempDir,
}

impl Cluster {
    /// Makes node and pods, and starts the agent. No policy is there yet.
    ///
    /// # Panics
    /// Without root, or when the agent does not come up.
    pub fn start(members: &[Member]) -> Self {
        let mut cluster = Self::start_with(members, &[]);
        cluster.apply("");
        cluster
    }

    /// Makes node and pods, and starts the agent on a directory with these files only (name and
    /// text). Waits for nothing.
    ///
    /// # Panics
    /// Without root.
    pub fn start_with(members: &[Member], files: &[(&str, &str)]) -> Self {
        Self::without_agent(members, files).with_agent(options(), None, None)
    }

    /// As [`Cluster::start`], but pods may send from any address, or from none: what they send gets
    /// as far as the other pod.
    ///
    /// # Panics
    /// Without root.
    pub fn start_unchecked(members: &[Member]) -> Self {
        let mut cluster = Self::without_agent(members, &[]).with_agent(
            Options { check_source: false, ..options() },
            None,
            None,
        );
        cluster.apply("");
        cluster
    }

    /// As [`Cluster::start`], with the programs attached as on a kernel without TCX.
    ///
    /// # Panics
    /// Without root.
    pub fn start_on_filters(members: &[Member]) -> Self {
        let without_agent = Self::without_agent(members, &[]);
        let mut cluster = without_agent.with_agent(options(), Some(Hooks::Clsact), None);
        cluster.apply("");
        cluster
    }

    /// As [`Cluster::start`], but egress policies decide whether a pod reaches the node.
    ///
    /// # Panics
    /// Without root.
    pub fn start_denying_egress_to_node(members: &[Member]) -> Self {
        let options = Options { deny_egress_to_node: true, ..options() };
        let mut cluster = Self::without_agent(members, &[]).with_agent(options, None, None);
        cluster.apply("");
        cluster
    }

    /// Starts the agent, which drops at this uplink, too. No policy is there yet.
    ///
    /// # Panics
    /// When the agent does not come up.
    pub fn with_uplink(self, uplink: Option<Uplink>) -> Self {
        let mut cluster = self.with_agent(options(), None, uplink);
        cluster.apply("");
        cluster
    }

    fn with_agent(self, options: Options, hooks: Option<Hooks>, uplink: Option<Uplink>) -> Self {
        let config = Config {
            manifests: self.manifests(),
            metrics_address: scrape::ADDRESS,
            options,
            debug_packets: false,
            hooks,
            uplink,
        };
        Self { agent: Some(Agent::start(Arc::clone(&self.lab), config)), ..self }
    }

    /// Makes node, pods, and a directory with these files (name and text).
    ///
    /// # Panics
    /// Without root.
    pub fn without_agent(members: &[Member], files: &[(&str, &str)]) -> Self {
        let lab = Arc::new(Lab::new().expect("a lab"));
        let make = |member: &Member| {
            let pod = lab.pod(member.name, &member.addresses(), member.wiring);
            (member.name, pod.unwrap_or_else(|error| panic!("{member:?}: {error:#}")))
        };
        let pods = members.iter().map(make).collect();
        let directory = tempfile::Builder::new().prefix("bulkhead-test-").tempdir();
        let directory = directory.expect("a temporary directory");
        let manifests = directory.path().join("manifests");
        fs::create_dir(&manifests).expect("a directory");
        for (name, text) in files {
            fs::write(manifests.join(name), text).expect("a file");
        }
        Self { agent: None, pods, lab, members: members.to_vec(), generation: 0, directory }
    }

    /// Somebody outside of the cluster, behind a device of the node (`veth-NAME`): no manifest says that
    /// it is a pod. It is routed both ways.
    ///
    /// # Panics
    /// Without root.
    pub fn outsider(&self, name: &str, addresses: &[IpAddr]) -> Pod {
        self.lab.pod(name, addresses, Wiring::Routed).expect("somebody outside")
    }

    /// Replaces everything but the pods by these manifests, and waits until that is enforced.
    ///
    /// How it knows: with every generation of manifests comes one more pod that has no interface.
    /// The agent counts those when a reconcile is done. All stand in one file, which is renamed
    /// into place, so they are met together or not at all.
    ///
    /// # Panics
    /// When it is not enforced in time.
    pub fn apply(&mut self, manifests: &str) {
        self.generation += 1;
        let pods: String = self.members.iter().map(|member| member.manifest()).collect();
        let generations: String = (1..=self.generation)
            .map(|number| pod(&format!("generation-{number}"), &[[192, 0, 2, number].into()]))
            .collect();
        self.write(MANIFEST, &format!("{pods}{generations}{manifests}"));
        let (attached, pending) = (self.members.len() as f64, f64::from(self.generation));
        self.wait_for(&format!("generation {pending} of the manifests is enforced"), |page| {
            endpoints(page, "attached") == Some(attached)
                && endpoints(page, "pending") == Some(pending)
        });
    }

    /// Ends the agent, and waits for that.
    pub fn stop(&mut self) {
        drop(self.agent.take());
    }

    /// The directory of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    /// Writes a manifest file at once. Waits for nothing.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, text).expect("a file");
        fs::rename(&new, self.manifests().join(name)).expect("the file is put in place");
    }

    /// Removes a manifest file. Waits for nothing.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.manifests().join(name)).expect("the file is there");
    }

    /// The network namespace of the node.
    pub fn node(&self) -> &Namespace {
        self.lab.node()
    }

    /// The hardware address of a device of the node.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn mac(&self, device: &str) -> [u8; 6] {
        let mut read = self.node().command("cat");
        let output = read.arg(format!("/sys/class/net/{device}/address")).output();
        let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
        let bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().expect("hexadecimal bytes");
        bytes.try_into().expect("six bytes")
    }

    /// Whether the bridge hands packets to iptables and nftables, where the kernel can do that
    /// (br_netfilter). It looks at IP headers itself then, and what it takes for broken gets no
    /// further. Says whether the kernel can.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn filter_on_bridge(&self, filter: bool) -> bool {
        let value = if filter { "1" } else { "0" };
        let write = || {
            ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"].map(|name| {
                let switch = Path::new("/proc/sys/net/bridge").join(name);
                switch.exists().then(|| fs::write(switch, value).expect("a setting")).is_some()
            })
        };
        self.node().enter(write).expect("the node's namespace") == [true; 2]
    }

    /// A pod.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.get(name).unwrap_or_else(|| panic!("there is no pod {name}"))
    }

    /// A pod's network namespace.
    pub fn inside(&self, name: &str) -> &Namespace {
        self.pod(name).namespace()
    }

    /// A page of the agent.
    ///
    /// # Panics
    /// When the agent does not answer.
    pub fn get(&self, path: &str) -> Answer {
        scrape::get(self.node(), path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What is counted now.
    ///
    /// # Panics
    /// When the agent does not answer.
    pub fn metrics(&self) -> Page {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Page::parse(&answer.body)
    }

    /// Looks at the metrics until they fulfil the condition.
    ///
    /// # Panics
    /// When they don't in time, with what they were last.
    pub fn wait_for(&self, what: &str, mut condition: impl FnMut(&Page) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut last = None;
        while Instant::now() < deadline {
            self.agent.iter().for_each(Agent::require);
            if let Ok(answer) = scrape::get(self.node(), "/metrics") {
                let page = Page::parse(&answer.body);
                if condition(&page) {
                    return;
                }
                last = Some(answer.body);
            }
            thread::sleep(LOOK_EVERY);
        }
        panic!("{what}: not within {DEADLINE:?}; last page: {}", last.unwrap_or_default());
    }

    /// Waits until exactly these packets were denied since `before`: pod, direction, reason, and
    /// how many; and none else.
    ///
    /// # Panics
    /// When it were others, with which.
    pub fn expect_denied(
        &self,
        before: &Page,
        expected: &[(&str, &str, &str, RangeInclusive<u64>)],
    ) {
        let fits = |page: &Page| {
            let denied = page.denied_since(before);
            denied.len() == expected.len()
                && expected.iter().all(|(pod, direction, reason, packets)| {
                    let row = [pod, direction, reason].map(|label| (*label).to_owned()).into();
                    denied.get(&row).is_some_and(|count| packets.contains(count))
                })
        };
        let deadline = Instant::now() + DEADLINE;
        loop {
            let page = self.metrics();
            if fits(&page) {
                return;
            }
            let denied = page.denied_since(before);
            assert!(Instant::now() < deadline, "denied: {denied:?}, expected: {expected:?}");
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Pods in a state of `bulkhead_endpoints`.
pub fn endpoints(page: &Page, state: &str) -> Option<f64> {
    page.value("bulkhead_endpoints", &[("state", state)])
}

/// What an agent enforces beyond policies, if nobody says otherwise.
const fn options() -> Options {
    Options {
        node: None,
        deny_action: DenyAction::Drop,
        check_source: true,
        deny_egress_to_node: false,
    }
}

/// The agent's thread.
struct Agent {
    /// Dropping it asks the agent to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(lab: Arc<Lab>, config: Config) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // Whatever threads it starts are in the node's namespace, too. Its loop has one thread:
            // a page is answered before a reconcile or after it.
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let shutdown = async {
                let _dropped = stopped.await;
            };
            runtime.expect("a runtime").block_on(agent::run(config, shutdown))
        };
        let inside = move || {
            let ended = lab.node().enter(run).expect("the node's namespace");
            ended.unwrap_or_else(|error| panic!("the agent broke off: {error:#}"));
        };
        let thread = thread::Builder::new().name("agent".to_owned()).spawn(inside);
        Self { stop: Some(stop), thread: Some(thread.expect("a thread")) }
    }

    /// It runs. Why it does not stands in the output.
    fn require(&self) {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        assert!(!ended, "the agent ended");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || thread::panicking(), "the agent did not end well");
    }
}
