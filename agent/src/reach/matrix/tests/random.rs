//! Every cell against the specification, over random clusters.

use proptest::prelude::*;

use super::*;
use crate::{
    policy::arbitrary::{NODE, cluster, every_port, node_addresses},
    reach::{
        engine::Specification,
        flow::{self, FlowProtocol, FlowSpec, Outcome},
        judgement::judge,
    },
};

/// The name by which flows know an end.
fn end(end: &End, family: Family) -> Option<flow::End> {
    let member = &end.members[0];
    Some(match end.kind {
        Kind::Pod => flow::End::Pod(key(&member.name)),
        Kind::Node => flow::End::Node(member.name.strip_prefix("node ")?.to_owned()),
        Kind::Outside | Kind::Block | Kind::Address => {
            let mut addresses = member.addresses.iter();
            flow::End::Ip(*addresses.find(|address| Family::of(**address) == family)?)
        }
    })
}

fn traffic() -> Vec<(FlowProtocol, Option<u16>)> {
    let protocols = [FlowProtocol::Tcp, FlowProtocol::Udp, FlowProtocol::Sctp];
    let ports = every_port().into_iter().filter(|port| *port != 0);
    let of = |port| protocols.map(|protocol| (protocol, Some(port)));
    ports.flat_map(of).chain([(FlowProtocol::Icmp, None)]).collect()
}

fn contains(allowed: &Allowed, protocol: FlowProtocol, port: Option<u16>) -> bool {
    match (protocol.transport(), port) {
        (Some(protocol), Some(port)) => {
            allowed.ranges(protocol).any(|(first, last)| (first..=last).contains(&port))
        }
        (_, _) => allowed.allows_icmp(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_cell_allows_what_the_specification_allows(
        changes in cluster(),
        addresses in node_addresses(),
        deny_egress_to_node in any::<bool>(),
    ) {
        let node = Change::NodeApplied(Node { name: NODE.to_owned(), addresses });
        let cluster: Cluster = changes.into_iter().chain([node]).collect();
        let mut cluster = cluster.deny_egress_to_node(deny_egress_to_node);
        let request = Request { ungrouped: true, ..Request::default() };
        let matrix = Matrix::new(&mut cluster, &request).unwrap();
        for (from, to) in (0..matrix.ends.len()).flat_map(|from| (0..matrix.ends.len()).map(move |to| (from, to))) {
            let Cell::Families(families) = matrix.cell(from, to) else { continue };
            for (family, allowed) in families {
                let ends = (end(&matrix.ends[from], *family), end(&matrix.ends[to], *family));
                let (Some(from), Some(to)) = ends else { continue };
                let flow = |(protocol, port)| FlowSpec {
                    from: from.clone(), to: to.clone(), protocol, port, family: Some(*family), expect: None,
                };
                let flows: Vec<FlowSpec> = traffic().into_iter().map(flow).collect();
                let judged = judge(&mut cluster, &mut Specification, &flows).unwrap();
                for (flow, judged) in flows.iter().zip(judged) {
                    // A node of the manifests may lack what the pods on its network add.
                    let Ok(judged) = judged else { continue };
                    let expected = judged.iter().all(|j| j.outcome == Outcome::Allow);
                    prop_assert_eq!(contains(allowed, flow.protocol, flow.port), expected, "{:?}", flow);
                }
            }
        }
    }
}
