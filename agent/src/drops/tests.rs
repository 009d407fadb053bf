//! Records as text, as JSON and as log lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Mutex,
    time::Duration,
};

use bulkhead_common::{
    key::Port,
    verdict::{DenyAction, Direction},
};

use super::{
    limit::{NODE, Rate},
    *,
};
use crate::{
    dataplane::flows::FlowCount,
    metrics::{CounterSource, PacketCount},
    policy::{
        compiled::{Closed, EndpointPolicy, PortSet, SidePolicy},
        model::ObjectKey,
    },
};

/// `wordpress-mysql/mysql` at interface 7 with two policies for ingress, and a pod that talks to it.
struct Node {
    mysql: (ObjectKey, EndpointPolicy),
    pods: BTreeMap<IpAddr, ObjectKey>,
}

impl Node {
    fn new() -> Self {
        let key = |name| ObjectKey::new("wordpress-mysql", name);
        let ingress = SidePolicy {
            policy_set: 1,
            any_peer: PortSet::NOTHING.into(),
            names_blocks: false,
            policies: BTreeSet::from([key("default-deny"), key("allow-wordpress")]),
            closed: None,
        };
        let mysql = EndpointPolicy {
            uid: "1".into(),
            addresses: BTreeSet::from(["10.0.0.10".parse().unwrap()]),
            ingress: Some(ingress),
            egress: None,
            deny_action: DenyAction::Drop,
        };
        let pods = [("10.0.0.10", "mysql"), ("10.0.0.12", "intruder"), ("fd00::12", "intruder")];
        Self {
            mysql: (key("mysql"), mysql),
            pods: pods.map(|(address, pod)| (address.parse().unwrap(), key(pod))).into(),
        }
    }
}

impl Names for Node {
    fn endpoint(&self, ifindex: u32) -> Option<(&ObjectKey, &EndpointPolicy)> {
        (ifindex == 7).then_some((&self.mysql.0, &self.mysql.1))
    }

    fn pods(&self, address: IpAddr) -> Vec<&ObjectKey> {
        self.pods.get(&address).into_iter().collect()
    }
}

/// A TCP packet from the intruder to the database.
fn event() -> Event {
    Event {
        source: v4([10, 0, 0, 12]),
        destination: v4([10, 0, 0, 10]),
        ifindex: 7,
        length: 74,
        source_port: Port::new(40_000),
        destination_port: Port::new(3306),
        direction: Direction::Ingress as u8,
        reason: DropReason::NotAllowed as u8,
        family: 4,
        protocol: 6,
    }
}

fn v4(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address);
    bytes
}

fn text(event: &Event) -> String {
    describe(event, &Node::new()).to_string()
}

#[test]
fn a_drop_names_both_pods_the_reason_and_the_policies() {
    assert_eq!(
        text(&event()),
        "ingress of wordpress-mysql/mysql denied (not_allowed): \
         TCP 10.0.0.12:40000 (wordpress-mysql/intruder) -> 10.0.0.10:3306 (wordpress-mysql/mysql), \
         74 bytes; isolated by wordpress-mysql/allow-wordpress, wordpress-mysql/default-deny"
    );
}

#[test]
fn json_has_the_same_in_fields() {
    let json = serde_json::to_value(describe(&event(), &Node::new())).unwrap();
    let expected = serde_json::json!({
        "pod": "wordpress-mysql/mysql",
        "ifindex": 7,
        "direction": "ingress",
        "reason": "not_allowed",
        "protocol": "TCP",
        "source": {
            "address": "10.0.0.12", "port": 40000, "pods": ["wordpress-mysql/intruder"],
        },
        "destination": {
            "address": "10.0.0.10", "port": 3306, "pods": ["wordpress-mysql/mysql"],
        },
        "echo_id": null,
        "unknown_family": null,
        "length": 74,
        "policies": ["wordpress-mysql/allow-wordpress", "wordpress-mysql/default-deny"],
        "closed": null,
    });
    assert_eq!(json, expected);
}

#[test]
fn a_ping_has_an_identifier_and_no_ports() {
    let ping = Event {
        protocol: 1,
        source_port: Port::new(77),
        destination_port: Port::new(0),
        length: 98,
        ..event()
    };
    let described = describe(&ping, &Node::new());
    assert_eq!((described.echo_id, described.source.unwrap().port), (Some(77), None));
    assert!(
        text(&ping).contains(": ICMP id 77 10.0.0.12 (wordpress-mysql/intruder) -> 10.0.0.10 ")
    );
}

#[test]
fn ipv6_addresses_stand_in_brackets_before_a_port() {
    let source = "fd00::12".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let destination = "fd00::10".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let udp = Event { family: 6, protocol: 17, source, destination, ..event() };
    let expected = "UDP [fd00::12]:40000 (wordpress-mysql/intruder) -> [fd00::10]:3306, 74 bytes";
    assert!(text(&udp).contains(expected), "{}", text(&udp));
}

#[test]
fn policies_are_those_of_the_direction_and_the_peer_is_the_other_end() {
    let egress = Event { direction: Direction::Egress as u8, ..event() };
    let described = describe(&egress, &Node::new());
    assert_eq!(described.policies, Vec::<String>::new());
    assert_eq!(described.peer(), described.destination.as_ref());
    let ingress = describe(&event(), &Node::new());
    assert_eq!(ingress.peer(), ingress.source.as_ref());
}

#[test]
fn a_pod_that_no_policy_closed_says_what_did() {
    let mut node = Node::new();
    let side = node.mysql.1.ingress.as_mut().unwrap();
    side.policies.clear();
    side.closed = Some(Closed::AddressConflict);
    let line = describe(&event(), &node).to_string();
    assert!(
        line.ends_with(
            "74 bytes; closed because another pod, or the node, has one of its addresses"
        ),
        "{line}"
    );
}

#[test]
fn an_unknown_interface_is_shown_by_its_number() {
    let line = text(&Event { ifindex: 99, ..event() });
    assert!(line.starts_with("ingress of an unknown pod at interface 99 denied "), "{line}");
    assert!(!line.contains("isolated by"), "{line}");
}

#[test]
fn ports_that_were_not_read_are_left_out() {
    let truncated = Event {
        reason: DropReason::Truncated as u8,
        source_port: Port::new(0),
        destination_port: Port::new(0),
        ..event()
    };
    assert!(text(&truncated).contains("(truncated): TCP 10.0.0.12 ("), "{}", text(&truncated));
}

#[test]
fn numbers_without_a_meaning_are_shown_as_they_are() {
    let strange = Event { direction: 9, reason: 200, family: 5, protocol: 47, ..event() };
    let described = describe(&strange, &Node::new());
    assert_eq!(described.peer(), None);
    assert_eq!(
        described.to_string(),
        "unknown(9) of wordpress-mysql/mysql denied (unknown(200)): \
         protocol 47 addresses of unknown family 5, 74 bytes"
    );
    assert_eq!(
        text(&Event { reason: DropReason::UnknownEthertype as u8, length: 60, ..Event::EMPTY }),
        "ingress of an unknown pod at interface 0 denied (unknown_ethertype): \
         no IP addresses read, 60 bytes"
    );
}

#[test]
fn every_number_in_every_field_is_described_without_a_panic() {
    for number in 0..=u8::MAX {
        let strange = Event {
            direction: number,
            reason: number,
            family: number,
            protocol: number,
            ..event()
        };
        assert!(text(&strange).contains(" denied ("));
    }
}

/// No packet at all.
struct NoCounters;

impl CounterSource for NoCounters {
    fn read(&self) -> anyhow::Result<Vec<PacketCount>> {
        Ok(vec![])
    }

    fn flows(&self) -> anyhow::Result<[FlowCount; 2]> {
        Ok(Default::default())
    }
}

/// What `work` logs, as lines without time and colour.
fn logged(work: impl FnOnce()) -> Vec<String> {
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let written = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&written);
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || Sink(Arc::clone(&sink)))
        .without_time()
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let written = written.lock().unwrap().clone();
    String::from_utf8(written).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_log_has_a_line_for_each_drop_within_the_rate_and_counts_the_others() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let metrics = Arc::new(Metrics::new(NoCounters));
    let limiter = Limiter::new(Rate { burst: 1, interval: second }, NODE, start);
    let mut log = DropLog::new(limiter, Arc::clone(&metrics));
    let node = Node::new();
    let spoofed = Event { ifindex: 99, reason: DropReason::SpoofedSource as u8, ..event() };

    let lines = logged(|| {
        log.record(&event(), &node, start);
        log.record(&event(), &node, start);
        log.record(&event(), &node, start);
        log.record(&spoofed, &node, start);
        log.record(&event(), &node, start + second);
    });

    let fields = "pod=\"wordpress-mysql/mysql\" ifindex=7 direction=ingress reason=not_allowed \
                  protocol=\"TCP\" source=\"10.0.0.12:40000\" destination=\"10.0.0.10:3306\" \
                  length=74 peer=\"wordpress-mysql/intruder\" \
                  policies=\"wordpress-mysql/allow-wordpress,wordpress-mysql/default-deny\"";
    assert_eq!(
        lines,
        [
            format!(" INFO bulkhead::drops: packet denied {fields}"),
            " WARN bulkhead::drops: packet denied ifindex=99 direction=ingress \
             reason=spoofed_source protocol=\"TCP\" source=\"10.0.0.12:40000\" \
             destination=\"10.0.0.10:3306\" length=74 peer=\"wordpress-mysql/intruder\""
                .to_owned(),
            format!(
                " INFO bulkhead::drops: packet denied \
                 (2 drops not logged since the last line of this pod) {fields}"
            ),
        ]
    );
    let page = metrics.page().unwrap();
    assert!(page.contains("bulkhead_drop_events_total{outcome=\"logged\"} 3\n"), "{page}");
    assert!(page.contains("bulkhead_drop_events_total{outcome=\"suppressed_log\"} 2\n"), "{page}");
}
