//! The matrix as one JSON object.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use serde::Serialize;

use super::words;
use crate::reach::{
    flow::Family,
    matrix::{Allowed, Cell, End, LeftOut, Matrix, PROTOCOLS},
};

#[derive(Serialize)]
struct Document<'a> {
    /// What alone was asked about; null: all traffic.
    only: Option<OfAllowed>,
    ends: Vec<OfEnd<'a>>,
    cells: Vec<OfCell<'a>>,
    left_out: Vec<OfLeftOut<'a>>,
}

#[derive(Serialize)]
struct OfEnd<'a> {
    name: &'a str,
    kind: &'static str,
    namespace: Option<&'a str>,
    members: Vec<OfMember<'a>>,
}

#[derive(Serialize)]
struct OfMember<'a> {
    name: &'a str,
    addresses: Vec<IpAddr>,
}

#[derive(Serialize)]
struct OfCell<'a> {
    from: &'a str,
    to: &'a str,
    reach: &'static str,
    text: String,
    families: BTreeMap<String, OfAllowed>,
    /// Between a pod and its own node more is allowed than that: all.
    own_node: bool,
}

#[derive(Serialize)]
struct OfAllowed {
    /// First and last port of each range, for each protocol that has some.
    ports: BTreeMap<String, Vec<[u16; 2]>>,
    icmp: bool,
    other_protocols: bool,
}

#[derive(Serialize)]
struct OfLeftOut<'a> {
    name: &'a str,
    why: &'a str,
}

/// The matrix, row by row.
pub(super) fn text(matrix: &Matrix, only: Option<&Allowed>) -> Result<String> {
    let ends = matrix.ends.iter().enumerate();
    let cell = |from: usize, to: usize| cell(matrix, from, to);
    let document = Document {
        only: only.map(allowed),
        ends: matrix.ends.iter().map(end).collect(),
        cells: ends
            .flat_map(|(from, _)| (0..matrix.ends.len()).map(move |to| cell(from, to)))
            .collect(),
        left_out: matrix.left_out.iter().map(left_out).collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn end(end: &End) -> OfEnd<'_> {
    let member =
        |member: &'_ crate::reach::matrix::Member| member.addresses.iter().copied().collect();
    OfEnd {
        name: &end.name,
        kind: words::kind(end.kind),
        namespace: end.namespace.as_deref(),
        members: end
            .members
            .iter()
            .map(|of| OfMember { name: &of.name, addresses: member(of) })
            .collect(),
    }
}

fn cell(matrix: &Matrix, from: usize, to: usize) -> OfCell<'_> {
    let cell = matrix.cell(from, to);
    let of_family = |(family, of): &(Family, Allowed)| (family.to_string(), allowed(of));
    OfCell {
        from: &matrix.ends[from].name,
        to: &matrix.ends[to].name,
        reach: words::reach(cell).as_str(),
        text: words::text(cell),
        families: match cell {
            Cell::Itself | Cell::NoPolicy | Cell::NoFamily => BTreeMap::new(),
            Cell::Families(families) | Cell::OwnNode(families) => {
                families.iter().map(of_family).collect()
            }
        },
        own_node: matches!(cell, Cell::OwnNode(_)),
    }
}

fn allowed(allowed: &Allowed) -> OfAllowed {
    let ports = PROTOCOLS.into_iter().filter_map(|protocol| {
        let ranges: Vec<_> = allowed.ranges(protocol).map(|(first, last)| [first, last]).collect();
        (!ranges.is_empty()).then(|| (protocol.to_string(), ranges))
    });
    OfAllowed {
        ports: ports.collect(),
        icmp: allowed.allows_icmp(),
        other_protocols: allowed.allows_other_protocols(),
    }
}

fn left_out(left_out: &LeftOut) -> OfLeftOut<'_> {
    OfLeftOut { name: &left_out.name, why: &left_out.why }
}
