use Protocol::{Sctp, Tcp, Udp};

use super::*;
use crate::policy::{builders::port_set, model::Protocol};

type Ranges = &'static [(Protocol, u16, u16)];

fn normalised(ranges: Ranges) -> PortSet {
    match port_set(ranges) {
        PortSet::Everything => PortSet::Everything,
        PortSet::Ranges(ranges) => PortSet::from_ranges(ranges),
    }
}

#[test]
fn ranges_are_sorted_and_merged_where_they_overlap_or_touch() {
    let table: [(Ranges, Ranges); 8] = [
        (&[], &[]),
        (&[(Udp, 53, 53), (Tcp, 80, 80)], &[(Tcp, 80, 80), (Udp, 53, 53)]),
        (&[(Tcp, 80, 90), (Tcp, 85, 95), (Tcp, 80, 80)], &[(Tcp, 80, 95)]),
        (&[(Tcp, 81, 81), (Tcp, 80, 80)], &[(Tcp, 80, 81)]),
        (&[(Tcp, 80, 80), (Tcp, 82, 82)], &[(Tcp, 80, 80), (Tcp, 82, 82)]),
        (&[(Tcp, 1, 1000), (Tcp, 5, 6), (Tcp, 900, 901)], &[(Tcp, 1, 1000)]),
        (&[(Udp, 0, 65535), (Sctp, 65535, 65535)], &[(Udp, 0, 65535), (Sctp, 65535, 65535)]),
        (&[(Tcp, 9, 8), (Tcp, 65535, 65535), (Tcp, 7, 65535)], &[(Tcp, 7, 65535)]),
    ];
    for (given, expected) in table {
        assert_eq!(normalised(given), port_set(expected), "{given:?}");
    }
}

#[test]
fn everything_absorbs_and_nothing_adds_nothing() {
    let some = port_set(&[(Tcp, 80, 80)]);
    assert_eq!(some.union(&PortSet::Everything), PortSet::Everything);
    assert_eq!(PortSet::Everything.union(&some), PortSet::Everything);
    assert_eq!(some.union(&PortSet::NOTHING), some);
    assert_eq!(some.union(&port_set(&[(Tcp, 81, 90)])), port_set(&[(Tcp, 80, 90)]));
}

#[test]
fn a_subset_lies_in_the_other_as_a_whole() {
    let outer = port_set(&[(Tcp, 80, 90), (Tcp, 100, 110), (Udp, 53, 53)]);
    for inner in [&[][..], &[(Tcp, 80, 90)], &[(Tcp, 85, 85), (Tcp, 110, 110), (Udp, 53, 53)]] {
        assert!(port_set(inner).is_subset(&outer), "{inner:?}");
        assert!(port_set(inner).is_subset(&PortSet::Everything));
    }
    for inner in [&[(Tcp, 79, 80)][..], &[(Tcp, 90, 100)], &[(Sctp, 85, 85)], &[(Tcp, 53, 53)]] {
        assert!(!port_set(inner).is_subset(&outer), "{inner:?}");
    }
    assert!(!PortSet::Everything.is_subset(&outer));
    assert!(PortSet::Everything.is_subset(&PortSet::Everything));
}

#[test]
fn only_everything_contains_protocols_without_ports() {
    let all_tcp = port_set(&[(Tcp, 0, 65535)]);
    assert!(PortSet::Everything.contains(1, None));
    assert!(PortSet::Everything.contains(6, Some(0)));
    assert!(all_tcp.contains(6, Some(0)) && all_tcp.contains(6, Some(65535)));
    assert!(!all_tcp.contains(17, Some(80)));
    assert!(!all_tcp.contains(1, None));
    assert!(!all_tcp.contains(6, None));
    assert!(!PortSet::NOTHING.contains(6, Some(80)));
}
