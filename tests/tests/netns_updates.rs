//! Ten thousand policy updates, a thousand a second, under flows that all of them allow: nothing is
//! lost, and nothing is sent again. Needs root.
//!
//! The updates are states of a cluster, read from manifest files and replayed one after the other by
//! the agent's own enforcer and kernel ([`Driven`]): the watch of the directory waits for 50 ms of
//! silence, so through it no thousand states a second come about. Each is an update of its own,
//! compiled, planned and executed, with one operation on the maps at least; the run says how many
//! plans and operations it were.
//!
//! Two losses are known and told apart, since both are counted (docs/limits.md, "Kernel memory"): a
//! packet of which the endpoint is replaced twice while it is being judged is `internal`, and one that
//! has read its endpoint, but not its rule, when an update removes the old rules is `not_allowed` (a
//! reply: `flow_revoked`). It takes a CPU that stands still for as long as an update lasts: a virtual
//! machine's. In some forty runs, on a machine that was busy, each of both came once.

use std::{
    collections::BTreeMap,
    io::{Write as _, stderr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bulkhead::policy::model::Change;
use bulkhead_tests::{
    cluster::{Cluster, Member, pod, policy},
    driven::Driven,
    probe::{Connection, listen, send, udp},
    stream::{Passed, Stream, Tcp, without_tail_probes},
};

const SERVER: Member = Member::bridged("server", 10);
/// Isolated, too, and behind a route.
const CLIENT: Member = Member::routed("client", 11);
const BYSTANDER: Member = Member::bridged("bystander", 12);
const MEMBERS: [Member; 3] = [SERVER, CLIENT, BYSTANDER];

const TCP: u16 = 3306;
const UDP: u16 = 5353;
/// Where the client sends datagrams from.
const OWN: u16 = 40000;

/// Ten thousand and ten: the state is that of the beginning again.
const UPDATES: usize = 143 * RING;
const UPDATE_EVERY: Duration = Duration::from_millis(1);
/// The most packets that updates may overtake; a gap of a microsecond in each would cost hundreds.
const OVERTAKEN_AT_MOST: u64 = 3;
/// As what they are denied.
const OVERTAKEN: [&str; 3] = ["internal", "not_allowed", "flow_revoked"];
/// How long a datagram that is lost for good is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Things that change, one in each step; each has so many values.
const THINGS: usize = 7;
const VALUES: usize = 10;
/// After so many steps, everything is as it was.
const RING: usize = THINGS * VALUES;

/// The cluster after so many steps. Each of them allows the flows of the test.
fn state(step: usize) -> String {
    // So often did each of them change.
    let [visitor, visitors_port, from, again, to, block, bystander] =
        std::array::from_fn::<_, THINGS, _>(|thing| (step + THINGS - 1 - thing) / THINGS % VALUES);
    let visitor = pod("visitor", &[[192, 0, 2, visitor as u8 + 1].into()]);
    let visitors_port = policy(
        "visitors-port",
        &format!(
            "{{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: [{{podSelector: \
             {{matchLabels: {{app: visitor}}}}}}], ports: [{{port: {}}}]}}]}}",
            8000 + visitors_port
        ),
    );
    // The client, by its labels or by its addresses, and its ports, in ranges of different length.
    let [ipv4, ipv6] = CLIENT.addresses();
    let from_client = if from % 2 == 0 {
        "{podSelector: {matchLabels: {app: client}}}".to_owned()
    } else {
        format!("{{ipBlock: {{cidr: {ipv4}/32}}}}, {{ipBlock: {{cidr: \"{ipv6}/128\"}}}}")
    };
    let flow_ports = |more: usize| {
        format!(
            "[{{port: {TCP}, endPort: {}}}, {{protocol: UDP, port: {UDP}, endPort: {}}}]",
            usize::from(TCP) + more,
            usize::from(UDP) + more
        )
    };
    let into_server = policy(
        "into-server",
        &format!(
            "{{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Ingress, Egress], \
             ingress: [{{from: [{from_client}], ports: {}}}]}}",
            flow_ports(from)
        ),
    );
    // A second policy that allows the same, or does not.
    let again = if again % 2 == 0 {
        String::new()
    } else {
        policy(
            "again",
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}",
        )
    };
    let out_of_client = policy(
        "out-of-client",
        &format!(
            "{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Ingress, Egress], \
             egress: [{{to: [{{podSelector: {{matchLabels: {{app: server}}}}}}], ports: {}}}]}}",
            flow_ports(to)
        ),
    );
    let block = policy(
        "block",
        &format!(
            "{{podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: [{{ipBlock: \
             {{cidr: 198.51.100.0/24, except: [198.51.100.{}/28]}}}}]}}]}}",
            16 * block
        ),
    );
    // Changes the selectors that match the client, or the visitor: identities of addresses.
    let bystander = policy(
        "bystander",
        &format!(
            "{{podSelector: {{matchLabels: {{app: bystander}}}}, ingress: [{{from: \
             [{{podSelector: {{matchLabels: {{app: {}}}}}}}]}}]}}",
            if bystander % 2 == 0 { "client" } else { "visitor" }
        ),
    );
    let members: String = MEMBERS.iter().map(|member| member.manifest()).collect();
    [members, visitor, visitors_port, into_server, again, out_of_client, block, bystander].concat()
}

/// Everything between the client and the server is denied.
fn revoked() -> String {
    let members: String = MEMBERS.iter().map(|member| member.manifest()).collect();
    members + &policy("closed", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
}

/// Replays the updates, at most one in [`UPDATE_EVERY`]; how many operations that took.
fn replay(driven: &mut Driven, ring: &[Vec<Change>]) -> u64 {
    let started = Instant::now();
    let mut operations = 0;
    for (done, changes) in (1..).zip(ring.iter().cycle().take(UPDATES)) {
        let executed = driven.enforce(changes.iter().cloned());
        assert!(executed > 0, "update {done} changed nothing: {changes:?}");
        operations += executed;
        thread::sleep((UPDATE_EVERY * done).saturating_sub(started.elapsed()));
    }
    operations
}

#[test]
fn nothing_is_lost_under_ten_thousand_updates_that_allow_the_flow() {
    let cluster = Cluster::without_agent(&MEMBERS, &[]);
    let mut driven = Driven::start(&cluster);
    driven.apply(&cluster, &state(0));
    let ring: Vec<_> = (1..=RING).map(|step| driven.read(&cluster, &state(step))).collect();
    assert_eq!(state(RING), state(0), "it is a ring");

    let (server, client) = (cluster.inside("server"), cluster.inside("client"));
    [server, client].into_iter().for_each(without_tail_probes);
    let listener = listen(server, TCP);
    let mut streams: Vec<_> = SERVER
        .addresses()
        .into_iter()
        .zip(CLIENT.addresses())
        .map(|(server_at, client_at)| {
            let connection = Connection::open(client, &listener, server_at);
            Stream::new(connection, udp(client, client_at, OWN), udp(server, server_at, UDP))
        })
        .collect();
    let executed_before = driven.executed().clone();
    assert_eq!(driven.judged().denied, BTreeMap::new());
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let (operations, passed, seconds) = thread::scope(|scope| {
        let running: Vec<_> =
            streams.iter_mut().map(|stream| scope.spawn(|| stream.run(&stop, PATIENCE))).collect();
        let replayed = cluster.node().enter(|| {
            // Whatever becomes of it, the streams end.
            let stop = StopAtEnd(&stop);
            let operations = replay(&mut driven, &ring);
            drop(stop);
            operations
        });
        let seconds = started.elapsed().as_secs_f32();
        let passed: Vec<_> =
            running.into_iter().map(|stream| stream.join().expect("nothing is lost")).collect();
        (replayed.expect("the node's namespace"), passed, seconds)
    });
    let denied = driven.judged().denied;
    let executed: Vec<_> = driven
        .executed()
        .iter()
        .map(|(kind, times)| (kind, times - executed_before.get(kind).unwrap_or(&0)))
        .collect();
    // Past the capture of the test harness: what was done is worth a line of a run that is good.
    writeln!(
        stderr(),
        "{UPDATES} updates in {seconds:.1} s, {operations} operations: {executed:?}; over IPv4 \
         and IPv6: {passed:?}; denied: {denied:?}"
    )
    .expect("standard error");

    for Passed { datagrams, bytes, .. } in &passed {
        assert!(*datagrams > UPDATES / 2 && *bytes > 1_000_000, "{passed:?}");
    }
    let overtaken = denied.values().sum::<u64>();
    assert!(denied.keys().all(|reason| OVERTAKEN.contains(reason)), "{denied:?}");
    assert!(overtaken <= OVERTAKEN_AT_MOST, "{denied:?}");
    assert!(passed.iter().map(|stream| stream.lost).sum::<u64>() <= overtaken, "{passed:?}");
    if overtaken == 0 {
        assert_eq!([server, client].map(Tcp::of), [Tcp::default(); 2]);
    }

    // It was enforced all along: what the rules don't allow is denied.
    streams.into_iter().for_each(Stream::abort);
    driven.apply(&cluster, &revoked());
    let (from, to) = (CLIENT.addresses()[0], SERVER.addresses()[0]);
    send(&udp(client, from, OWN + 1), &udp(server, to, UDP + 1), b"denied");
    let closed = driven.judged().denied;
    assert_eq!(closed.values().sum::<u64>(), overtaken + 1, "{closed:?}");
}

/// Says that it is over, when it is dropped.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
