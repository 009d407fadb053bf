//! Peers that are blocks of addresses, and ports by number, range and name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::policy::model::IpBlock;

/// The block of a policy's only peer, as `cidr except except`; or what is wrong with it.
fn block(block: Value) -> Result<String, String> {
    let spec = json!({"ingress": [{"from": [{"ipBlock": block}]}]});
    let Converted { object, defects } = policy(&policy_of(spec)).unwrap();
    if let [defect] = &*defects {
        let problem = defect.to_string();
        return Err(problem.strip_prefix("spec.ingress[0].from[0].ipBlock").unwrap().to_owned());
    }
    let rules = object.ingress.unwrap();
    let [Peer::Block(IpBlock { cidr, except })] = &**rules[0].peers.as_ref().unwrap() else {
        panic!("{rules:?}")
    };
    let except = except.iter().map(|net| format!(" {net}"));
    Ok(cidr.to_string() + &except.collect::<String>())
}

#[test]
fn a_block_is_read_as_the_server_that_stored_it_read_it() {
    for (written, expected) in [
        (json!({"cidr": "10.0.0.0/8"}), "10.0.0.0/8"),
        (json!({"cidr": "0.0.0.0/0", "except": null}), "0.0.0.0/0"),
        (json!({"cidr": "10.1.2.3/32", "except": []}), "10.1.2.3/32"),
        (json!({"cidr": "FD00:0:0:1::/64"}), "fd00:0:0:1::/64"),
        (json!({"cidr": "::/0"}), "::/0"),
        // Host bits, leading zeros, IPv4 written as IPv6.
        (json!({"cidr": "10.1.2.3/8"}), "10.0.0.0/8"),
        (json!({"cidr": "fd00::1/8"}), "fd00::/8"),
        (json!({"cidr": "010.000.01.0/024"}), "10.0.1.0/24"),
        (json!({"cidr": "::ffff:10.0.0.0/104"}), "10.0.0.0/8"),
        (json!({"cidr": "::FFFF:010.1.2.3/112"}), "10.1.0.0/16"),
        (json!({"cidr": "::ffff:a00:0/128"}), "10.0.0.0/32"),
        (json!({"cidr": "::ffff:0:0/96"}), "0.0.0.0/0"),
        (
            json!({"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16", "10.1.2.3/16", "10.1.0.0/16"]}),
            "10.0.0.0/8 10.1.0.0/16 10.9.0.0/16",
        ),
        (json!({"cidr": "::/0", "except": ["fd00::/8"]}), "::/0 fd00::/8"),
        (
            json!({"cidr": "10.0.0.0/8", "except": ["::ffff:10.0.0.1/128"]}),
            "10.0.0.0/8 10.0.0.1/32",
        ),
    ] {
        assert_eq!(block(written.clone()), Ok(expected.to_owned()), "{written}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The block holds what shares its prefix, bit for bit, and nothing else.
    #[test]
    fn however_a_block_is_written_it_holds_what_shares_its_prefix(
        bits: u32, other: u32, len in 0..=32_u32, form in 0..4,
    ) {
        let [a, b, c, d] = bits.to_be_bytes();
        let text = match form {
            0 => format!("{a}.{b}.{c}.{d}/{len}"),
            1 => format!("{a:03}.{b:04}.{c:02}.{d:03}/{len:03}"),
            2 => format!("::ffff:{a}.{b}.{c:03}.{d}/{}", len + 96),
            _ => format!("0:0:0:0:0:FFFF:{a:X}{b:02X}:{c:X}{d:02X}/{}", len + 96),
        };
        let spec = json!({"ingress": [{"from": [{"ipBlock": {"cidr": text}}]}]});
        let rules = sound(spec).ingress.unwrap();
        let [Peer::Block(block)] = &**rules[0].peers.as_ref().unwrap() else { panic!("{text}") };
        let differ = bits ^ other;
        let near = bits ^ differ.checked_shr(len).unwrap_or(0);
        for (address, expected) in
            [(bits, true), (near, true), (other, differ.leading_zeros() >= len)]
        {
            prop_assert_eq!(block.contains(IpAddr::V4(Ipv4Addr::from(address))), expected);
        }
        prop_assert!(!block.contains(IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped())));
    }

    #[test]
    fn a_block_of_ipv6_holds_what_shares_its_prefix(bits: u128, other: u128, len in 0..=128_u32) {
        let address = Ipv6Addr::from(bits);
        prop_assume!(address.to_ipv4_mapped().is_none());
        let text = format!("{address}/{len}").to_uppercase();
        let spec = json!({"ingress": [{"from": [{"ipBlock": {"cidr": text}}]}]});
        let rules = sound(spec).ingress.unwrap();
        let [Peer::Block(block)] = &**rules[0].peers.as_ref().unwrap() else { panic!("{text}") };
        let near = bits ^ (bits ^ other).checked_shr(len).unwrap_or(0);
        let shares = (bits ^ other).leading_zeros() >= len;
        for (address, expected) in [(bits, true), (near, true), (other, shares)] {
            prop_assert_eq!(block.contains(IpAddr::V6(Ipv6Addr::from(address))), expected);
        }
    }
}

#[test]
fn what_is_no_block_is_told_by_field_and_remedy() {
    for text in [
        "",
        "x",
        "10.0.0.1",
        "10.0.0.0/33",
        "fd00::/129",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/8/8",
        "10.0.0/8",
        "10.0.0.0.0/8",
        "256.0.0.0/8",
        "+1.0.0.0/8",
        " 10.0.0.0/8",
        "10.0.0.0/8 ",
        "fd00::1::/64",
        "/8",
        "10..0.0/8",
        "0x10.0.0.0/8",
        "fe80::%eth0/64",
    ] {
        let problem = format!(
            ".cidr: `{text}` is not a block of addresses; write one such as 10.0.0.0/8 or fd00::/8"
        );
        assert_eq!(block(json!({"cidr": text})), Err(problem));
        let problem = format!(
            ".except[1]: `{text}` is not a block of addresses; write one such as 10.0.0.0/8 or \
             fd00::/8"
        );
        let written = json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", text]});
        assert_eq!(block(written), Err(problem));
    }
    assert_eq!(
        block(json!({"cidr": "::ffff:10.0.0.0/95"})),
        Err(".cidr: `::ffff:10.0.0.0/95` holds IPv4 addresses written as IPv6, and others; write \
             one block for each family"
            .to_owned())
    );
}

#[test]
fn an_except_that_is_not_inside_of_its_block_is_told() {
    for (cidr, except, inside) in [
        ("10.0.0.0/8", "192.168.0.0/16", "192.168.0.0/16"),
        ("10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "fd00::/8", "fd00::/8"),
        ("::/0", "10.0.0.0/8", "10.0.0.0/8"),
    ] {
        let block = block(json!({"cidr": cidr, "except": [except]}));
        let cidr: ipnet::IpNet = cidr.parse().unwrap();
        let problem = format!(
            ".except[0]: {inside} is not a smaller block inside of {cidr}; correct or remove it \
             (an except takes away from its own block only)"
        );
        assert_eq!(block, Err(problem));
    }
}

#[test]
fn a_block_and_a_selector_in_one_peer_are_told() {
    for selector in ["podSelector", "namespaceSelector"] {
        let peer = json!({"ipBlock": {"cidr": "10.0.0.0/8"}, selector: {}});
        assert_eq!(
            problem(json!({"egress": [{"to": [peer]}]})),
            "spec.egress[0].to[0]: the peer has both an ipBlock and a selector; write two peers, or \
             remove one of them"
        );
    }
}

#[test]
fn a_policy_may_have_as_many_excepts_as_the_server_stores() {
    let except = |n: u32| Ipv4Addr::from(0x0a00_0000 + n).to_string() + "/32";
    let except: Vec<_> = (0..120_000).map(except).collect();
    let spec =
        json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": except}}]}]});
    let rules = sound(spec).ingress.unwrap();
    let [Peer::Block(block)] = &**rules[0].peers.as_ref().unwrap() else { panic!("no block") };
    assert_eq!(block.except.len(), 120_000);
}

/// The ports of a policy's only entry; or what is wrong with it.
fn ports(port: Value) -> Result<Ports, String> {
    let spec = json!({"ingress": [{"ports": [port]}]});
    let Converted { object, defects } = policy(&policy_of(spec)).unwrap();
    if let [defect] = &*defects {
        let problem = defect.to_string();
        return Err(problem.strip_prefix("spec.ingress[0].ports[0]").unwrap().to_owned());
    }
    let rules = object.ingress.unwrap();
    Ok(rules[0].ports.as_ref().unwrap()[0].ports.clone())
}

#[test]
fn a_range_includes_both_of_its_ends() {
    for (port, expected) in [
        (json!({"port": 80, "endPort": 90}), 80..=90),
        (json!({"port": 90, "endPort": 90}), 90..=90),
        (json!({"port": 90, "endPort": null}), 90..=90),
        (json!({"port": 1, "endPort": 65535}), 1..=65535),
    ] {
        assert_eq!(ports(port), Ok(Ports::Range(expected)));
    }
}

#[test]
fn a_port_has_the_name_that_it_is_given() {
    for name in ["http", "a", "8a", "a8", "a-b-c", "abcdefghijklmno", "0-x"] {
        assert_eq!(ports(json!({"port": name})), Ok(Ports::Named(name.into())));
    }
}

#[test]
fn what_is_no_name_of_a_port_is_told() {
    let names = [
        "",
        "80",
        "1-2",
        "-a",
        "a-",
        "a--b",
        "HTTP",
        "a_b",
        "a.b",
        "a b",
        "\u{e9}",
        "abcdefghijklmnop",
    ];
    for name in names {
        let problem = format!(
            ".port: `{name}` is not the name of a port; write at most 15 lower case letters, digits \
             and single `-` between them, one letter at least, or a number without quotes"
        );
        assert_eq!(ports(json!({"port": name})), Err(problem));
    }
}

#[test]
fn what_is_no_range_is_told() {
    let range = "is not a port; write a number from 1 to 65535";
    for (port, expected) in [
        (
            json!({"endPort": 90}),
            ".endPort: a range without its first port; write that as `port`".to_owned(),
        ),
        (
            json!({"port": "http", "endPort": 90}),
            ".endPort: a range can't start at a name; write `port` as a number, or remove endPort"
                .to_owned(),
        ),
        (
            json!({"port": 90, "endPort": 80}),
            ".endPort: the range ends at 80, before its first port 90; write the larger number as \
             endPort"
                .to_owned(),
        ),
        (json!({"port": 90, "endPort": 65536}), format!(".endPort: 65536 {range}")),
        (json!({"port": 90, "endPort": 0}), format!(".endPort: 0 {range}")),
        (json!({"port": 0, "endPort": 9}), format!(".port: 0 {range}")),
        (
            json!({"port": 90, "endPort": "http"}),
            ".endPort: invalid type: string \"http\", expected i64; correct it as the Kubernetes API \
             describes this field"
                .to_owned(),
        ),
    ] {
        assert_eq!(ports(port), Err(expected));
    }
}
