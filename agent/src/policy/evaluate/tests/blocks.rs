use super::*;
use crate::policy::builders::{block, service, slice};

/// What a rule with this peer alone says of addresses, in both directions.
fn assert_names(peer: &Peer, index_of: impl Fn(&[Policy]) -> Index, table: &[(&str, bool)]) {
    let rules = [rule(std::slice::from_ref(peer), &[])];
    let index = index_of(&[Policy { ingress: Some(rules.to_vec()), ..egress(&rules) }]);
    for (address, named) in table {
        let expected = if *named { by_rule(0) } else { denied() };
        for direction in Direction::ALL {
            for traffic in [HTTP, PING] {
                let answer = ask(&index, direction, address, traffic);
                assert_eq!(answer, expected, "{peer:?}, {address}, {direction:?}");
            }
        }
    }
}

#[test]
fn a_block_names_its_first_and_its_last_address_and_nothing_beside() {
    assert_names(
        &block("192.0.2.64/26", &[]),
        cluster,
        &[
            ("192.0.2.63", false),
            ("192.0.2.64", true),
            ("192.0.2.127", true),
            ("192.0.2.128", false),
            ("2001:db8::1", false),
        ],
    );
    assert_names(
        &block("2001:db8::/127", &[]),
        cluster,
        &[("2001:db8::1", true), ("2001:db8::2", false), ("192.0.2.1", false)],
    );
    assert_names(
        &block("192.0.2.1/32", &[]),
        cluster,
        &[("192.0.2.0", false), ("192.0.2.1", true), ("192.0.2.2", false)],
    );
}

#[test]
fn host_bits_of_a_block_do_not_count() {
    assert_names(
        &block("192.0.2.77/26", &["192.0.2.81/29"]),
        cluster,
        &[("192.0.2.64", true), ("192.0.2.80", false), ("192.0.2.87", false), ("192.0.2.88", true)],
    );
}

#[test]
fn a_block_of_everything_names_one_family() {
    let v4 =
        [(OUTSIDE, true), (SAME_NAMESPACE, true), ("255.255.255.255", true), (OTHER_V6, false)];
    assert_names(&block("0.0.0.0/0", &[]), cluster, &v4);
    let v6 = [("2001:db8::1", true), (OTHER_V6, true), (OUTSIDE, false), (OTHER_NAMESPACE, false)];
    assert_names(&block("::/0", &[]), cluster, &v6);
}

#[test]
fn a_block_names_pods_of_every_namespace_by_their_addresses() {
    assert_names(
        &block("10.0.0.0/24", &["10.0.0.3/32"]),
        cluster,
        &[(SAME_NAMESPACE, true), (OTHER_NAMESPACE, false), (OTHER_V6, false), (OUTSIDE, false)],
    );
}

#[test]
fn an_except_takes_away_from_its_own_block_only() {
    let with_hole = block("10.0.0.0/8", &["10.0.0.0/24", "10.9.0.0/16"]);
    assert_names(
        &with_hole,
        cluster,
        &[
            (SAME_NAMESPACE, false),
            ("10.0.1.0", true),
            ("10.9.255.255", false),
            ("10.10.0.0", true),
        ],
    );
    for second in [block("10.0.0.2/32", &[]), pods("app=web"), block("10.0.0.0/16", &[])] {
        let index = cluster(&[ingress(&[rule(&[with_hole.clone(), second.clone()], &[])])]);
        assert_eq!(ask(&index, Ingress, SAME_NAMESPACE, HTTP), by_rule(0), "{second:?}");
        let index = cluster(&[ingress(&[
            rule(std::slice::from_ref(&with_hole), &[]),
            rule(&[second], &[]),
        ])]);
        assert_eq!(ask(&index, Ingress, SAME_NAMESPACE, HTTP), by_rule(1));
    }
}

#[test]
fn a_block_inside_an_except_gives_back_what_it_names() {
    let peers = [
        block("10.0.0.0/8", &["10.0.0.0/16"]),
        block("10.0.0.0/24", &["10.0.0.3/32"]),
        block("10.0.0.3/32", &["10.0.0.3/32"]),
    ];
    let index = cluster(&[ingress(&[rule(&peers, &[])])]);
    let answers = ["10.1.0.0", "10.0.1.0", "10.0.0.2", "10.0.0.3"]
        .map(|address| ask(&index, Ingress, address, HTTP).is_allowed());
    assert_eq!(answers, [true, false, true, false]);
}

#[test]
fn the_ports_of_a_blocks_rule_hold_for_it() {
    let index = cluster(&[egress(&[rule(&[block("192.0.2.0/24", &[])], &[tcp(80)])])]);
    assert_eq!(ask(&index, Egress, OUTSIDE, HTTP), by_rule(0));
    assert_eq!(ask(&index, Egress, OUTSIDE, Traffic::Port(Protocol::Tcp, 81)), denied());
    assert_eq!(ask(&index, Egress, OUTSIDE, PING), denied());
}

#[test]
fn a_block_names_contested_addresses_and_those_of_ended_pods() {
    let index = |policies: &[Policy]| {
        let mut index = cluster(policies);
        index.apply(Change::PodApplied(pod("a/twin", "app=web", &[SAME_NAMESPACE])));
        let ended = Pod { ended: true, ..pod("a/ended", "app=web", &["10.0.0.9"]) };
        index.apply(Change::PodApplied(ended));
        index
    };
    let table = [(SAME_NAMESPACE, true), ("10.0.0.9", true)];
    assert_names(&block("10.0.0.0/24", &[]), index, &table);
    assert_names(&pods("app=web"), index, &table.map(|(address, _)| (address, false)));
}

#[test]
fn a_block_names_nodes_but_the_own_node_comes_first() {
    let rules = [rule(&[block("10.1.0.0/24", &[])], &[])];
    let index = cluster(&[Policy { ingress: Some(rules.to_vec()), ..egress(&rules) }]);
    assert_eq!(ask(&index, Ingress, NODE, HTTP), by_rule(0));
    assert_eq!(ask(&index, Egress, NODE, HTTP), Evaluation::OwnNode);
    for direction in Direction::ALL {
        assert_eq!(ask(&index, direction, "10.1.0.2", HTTP), by_rule(0));
    }
    let except = [rule(&[block("10.0.0.0/8", &["10.1.0.1/32"])], &[])];
    let index = cluster(&[Policy { ingress: Some(except.to_vec()), ..egress(&except) }]);
    assert_eq!(ask(&index, Ingress, NODE, HTTP), denied());
    assert_eq!(ask(&index, Egress, NODE, HTTP), Evaluation::OwnNode);
    let probe = Flow { from_own_node: true, ..flow(Ingress, NODE, HTTP) };
    assert_eq!(evaluate(&index, &key(SUBJECT), &probe), Some(Evaluation::OwnNode));
}

#[test]
fn a_block_names_the_address_of_a_service_as_a_source() {
    let service_cluster = |policies: &[Policy]| {
        let mut index = cluster(policies);
        let http = [("http", Protocol::Tcp, 80)];
        index.apply(Change::ServiceApplied(service("b/web", &["10.96.0.1"], &http)));
        index.apply(Change::EndpointSliceApplied(slice("b/web-1", "web", &["10.0.0.3"], &http)));
        index
    };
    let index = service_cluster(&[ingress(&[rule(&[namespaces("")], &[])])]);
    assert_eq!(ask(&index, Ingress, "10.96.0.1", HTTP), denied());
    let index = service_cluster(&[ingress(&[rule(&[block("10.96.0.0/12", &[])], &[])])]);
    assert_eq!(ask(&index, Ingress, "10.96.0.1", HTTP), by_rule(0));
}
