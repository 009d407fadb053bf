//! Recorded cases of who reaches whom, and an engine held against them.
//!
//! `tests/data/conformance/README.md` gives the format. Objects are as a user writes them, and go
//! through [`bulkhead::convert`] like those of any other source. Owns the reading and the
//! comparison; knows nothing of what policies mean.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    io::Read as _,
    path::Path,
};

use bulkhead::{
    policy::model::ObjectKey,
    reach::{
        cluster::Cluster,
        engine::Engine,
        flow::{End, Family, FlowProtocol, FlowSpec, Outcome},
        judgement::judge,
    },
};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;

use world::World;

pub mod wired;
mod world;

/// The files with cases.
const FILES: [&str; 5] = ["cyclonus", "e2e", "extra", "random", "churn"];

/// Every case, and the clusters that they start from.
pub struct Suite {
    clusters: HashMap<String, Model>,
    /// In the order of the files.
    pub cases: Vec<Case>,
}

/// A cluster before any case.
#[derive(Deserialize)]
struct Model {
    name: String,
    probes: Vec<String>,
    namespaces: Vec<NamespaceModel>,
    #[serde(rename = "podDefaults")]
    pod_defaults: PodDefaults,
    pods: Vec<PodModel>,
    nodes: Vec<NodeModel>,
    externals: Vec<External>,
}

#[derive(Clone, Deserialize)]
struct NamespaceModel {
    name: String,
    labels: Value,
}

#[derive(Clone, Deserialize)]
struct PodDefaults {
    ports: Value,
}

#[derive(Clone, Deserialize)]
struct PodModel {
    namespace: String,
    name: String,
    labels: Value,
    ips: Vec<String>,
    node: String,
    ports: Option<Value>,
    #[serde(rename = "hostNetwork", default)]
    host_network: bool,
}

#[derive(Clone, Deserialize)]
struct NodeModel {
    name: String,
    labels: Value,
    ips: Vec<String>,
}

#[derive(Clone, Deserialize)]
struct External {
    name: String,
    ips: Vec<std::net::IpAddr>,
}

/// One case: steps from the bare cluster on.
#[derive(Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// The cluster that it starts from.
    pub cluster: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(rename = "do")]
    actions: Vec<Action>,
    probes: Option<Vec<String>>,
    endpoints: Vec<String>,
    expect: Vec<Table>,
    focus: Vec<Focus>,
}

/// A flow to be tried out: family, probe, source, destination, and the cell of the table.
#[derive(Deserialize)]
struct Focus(u8, String, String, String, String);

/// Who reaches whom, by some probes: rows are sources, columns destinations.
#[derive(Deserialize)]
struct Table {
    family: u8,
    probes: Vec<String>,
    rows: Vec<String>,
}

/// What happens to the cluster.
#[derive(Clone, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum Action {
    Apply { object: Value },
    Delete { kind: String, namespace: String, name: String },
    CreateNamespace { namespace: String, labels: Value },
    SetNamespaceLabels { namespace: String, labels: Value },
    DeleteNamespace { namespace: String },
    CreatePod { pod: PodModel },
    SetPodLabels { namespace: String, pod: String, labels: Value },
    DeletePod { namespace: String, pod: String },
}

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Cases that were compared.
    pub cases: usize,
    /// Cells of TCP, UDP and SCTP that were compared.
    pub probes: usize,
    /// Cells of ICMP that were compared.
    pub pings: usize,
    /// What is otherwise than it should be.
    pub failures: Vec<Failure>,
}

/// A cell that is otherwise than it should be, or something that stood in the way of asking.
#[derive(Debug)]
pub struct Failure(String);

impl Suite {
    /// Reads the files.
    ///
    /// # Panics
    ///
    /// A file is not there or not in the format.
    pub fn read() -> Self {
        #[derive(Deserialize)]
        struct Clusters {
            clusters: Vec<Model>,
        }
        let Clusters { clusters } =
            serde_json::from_str(&unpacked("clusters.json.gz")).expect("clusters");
        let clusters = clusters.into_iter().map(|model| (model.name.clone(), model)).collect();
        let cases = FILES.iter().flat_map(|name| {
            let text = unpacked(&format!("{name}.jsonl.gz"));
            let case = |line| serde_json::from_str(line).expect("a case");
            text.lines().map(case).collect::<Vec<Case>>()
        });
        Self { clusters, cases: cases.collect() }
    }

    /// Holds an engine against a case.
    pub fn run(&self, case: &Case, engine: &mut dyn Engine) -> Outcomes {
        let mut outcomes = Outcomes { cases: 1, ..Outcomes::default() };
        let model = &self.clusters[&case.cluster];
        engine.forget().expect("the maps can be emptied");
        let mut world = World::new(model);
        let mut cluster = Cluster::new();
        for (step, number) in case.steps.iter().zip(1..) {
            let place = format!("{} step {number}", case.id);
            for action in &step.actions {
                world.act(action.clone());
            }
            let problems = world.problems.drain(..);
            outcomes
                .failures
                .extend(problems.map(|problem| Failure(format!("{place}: {problem}"))));
            cluster.extend(world.take_changes());
            let cells = cells(model, step);
            outcomes.compare(&place, &cells, &mut cluster, engine);
        }
        outcomes
    }
}

/// A cell of a table: a flow, and what is expected of it.
struct Cell<'a> {
    flow: FlowSpec,
    probe: &'a str,
    source: &'a str,
    destination: &'a str,
}

/// The cells of a step that are to be compared.
fn cells<'a>(model: &'a Model, step: &'a Step) -> Vec<Cell<'a>> {
    let probes = step.probes.as_ref().unwrap_or(&model.probes);
    let mut cells = Vec::new();
    for table in &step.expect {
        let family = family(table.family);
        let ends: Vec<Option<End>> =
            step.endpoints.iter().map(|name| end(model, name, family)).collect();
        for probe in &table.probes {
            assert!(probes.contains(probe), "{probe} is no probe of the cluster");
            let (protocol, port) = protocol_and_port(probe);
            for ((row, from), source) in table.rows.iter().zip(&ends).zip(&step.endpoints) {
                let columns = row.chars().zip(&ends).zip(&step.endpoints);
                for ((cell, to), destination) in columns {
                    let expect = match cell {
                        '1' => Outcome::Allow,
                        '0' => Outcome::Deny,
                        's' | '?' | '-' => continue,
                        other => panic!("a cell {other}"),
                    };
                    let (Some(from), Some(to)) = (from.clone(), to.clone()) else {
                        panic!("{source} to {destination}: no address of {family}")
                    };
                    let flow = FlowSpec {
                        from,
                        to,
                        protocol,
                        port,
                        family: Some(family),
                        expect: Some(expect),
                    };
                    cells.push(Cell { flow, probe, source, destination });
                }
            }
        }
    }
    cells
}

/// An end by its name in a table; `None`: it has no address of the family.
fn end(model: &Model, name: &str, family: Family) -> Option<End> {
    match name.split_once('/').expect("namespace/name") {
        ("ext", name) => {
            let external = model.externals.iter().find(|external| external.name == name);
            let mut ips = external.expect("an external").ips.iter().copied();
            ips.find(|ip| Family::of(*ip) == family).map(End::Ip)
        }
        ("node", name) => Some(End::Node(name.to_owned())),
        (namespace, name) => Some(End::Pod(ObjectKey::new(namespace, name))),
    }
}

fn family(number: u8) -> Family {
    match number {
        4 => Family::Ipv4,
        6 => Family::Ipv6,
        other => panic!("a family {other}"),
    }
}

fn protocol_and_port(probe: &str) -> (FlowProtocol, Option<u16>) {
    let (protocol, port) = match probe.split_once('/') {
        Some((protocol, port)) => (protocol, Some(port.parse().expect("a port"))),
        None => (probe, None),
    };
    let protocol = match protocol {
        "TCP" => FlowProtocol::Tcp,
        "UDP" => FlowProtocol::Udp,
        "SCTP" => FlowProtocol::Sctp,
        "ICMP" => FlowProtocol::Icmp,
        other => panic!("a protocol {other}"),
    };
    (protocol, port)
}

impl Outcomes {
    fn compare(
        &mut self,
        place: &str,
        cells: &[Cell<'_>],
        cluster: &mut Cluster,
        engine: &mut dyn Engine,
    ) {
        let judged = match judge(cluster, engine, cells.iter().map(|cell| &cell.flow)) {
            Ok(judged) => judged,
            Err(error) => return self.failures.push(Failure(format!("{place}: {error:#}"))),
        };
        for (cell, judged) in cells.iter().zip(judged) {
            match cell.flow.protocol {
                FlowProtocol::Icmp => self.pings += 1,
                FlowProtocol::Tcp | FlowProtocol::Udp | FlowProtocol::Sctp => self.probes += 1,
            }
            let got = judged.map(|judged| judged.iter().map(|j| j.outcome).collect::<Vec<_>>());
            if got.as_ref().is_ok_and(|got| got.as_slice() == cell.flow.expect.as_slice()) {
                continue;
            }
            let (source, destination, probe) = (cell.source, cell.destination, cell.probe);
            let family = cell.flow.family.expect("it is asked for");
            let expected = cell.flow.expect.expect("it is compared");
            self.failures.push(Failure(format!(
                "{place}: {family} {probe} {source} -> {destination}: expected {expected}, got {got:?}"
            )));
        }
    }
}

impl std::ops::AddAssign for Outcomes {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.probes += other.probes;
        self.pings += other.pings;
        self.failures.extend(other.failures);
    }
}

/// The first failures, and how many there are.
impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        for Failure(failure) in self.failures.iter().take(SHOWN) {
            writeln!(f, "{failure}")?;
        }
        let mut by_case = BTreeMap::<&str, usize>::new();
        for Failure(failure) in &self.failures {
            *by_case.entry(failure.split(' ').next().unwrap_or("")).or_default() += 1;
        }
        write!(f, "{} failures in {} of {} cases", self.failures.len(), by_case.len(), self.cases)
    }
}

/// A packed file of the directory.
fn unpacked(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/conformance").join(name);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("it is packed by gzip");
    text
}
