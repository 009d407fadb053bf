//! What cells are in words: the same in a terminal and on a page.

use crate::reach::{
    flow::Family,
    matrix::{Allowed, Cell, Kind, Matrix},
};

/// What a cell comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everything, in every family.
    Everything,
    /// Nothing, in any family.
    Nothing,
    /// A part.
    Some,
    /// A pod and itself.
    Itself,
    /// Neither end is a pod.
    NoPolicy,
    /// No address family in common.
    NoFamily,
}

impl Reach {
    /// As a word.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Nothing => "nothing",
            Self::Some => "some",
            Self::Itself => "itself",
            Self::NoPolicy => "no_policy",
            Self::NoFamily => "no_common_family",
        }
    }

    /// As a sign beside the words.
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Everything => "●",
            Self::Nothing => "✕",
            Self::Some => "◐",
            Self::Itself => "=",
            Self::NoPolicy => "·",
            Self::NoFamily => "∅",
        }
    }
}

/// What a cell comes to.
pub(super) fn reach(cell: &Cell) -> Reach {
    match cell {
        Cell::Itself => Reach::Itself,
        Cell::NoPolicy => Reach::NoPolicy,
        Cell::NoFamily => Reach::NoFamily,
        Cell::OwnNode(_) => Reach::Some,
        Cell::Families(families) => {
            if families.iter().all(|(_, allowed)| allowed.is_everything()) {
                Reach::Everything
            } else if families.iter().all(|(_, allowed)| allowed.is_nothing()) {
                Reach::Nothing
            } else {
                Reach::Some
            }
        }
    }
}

/// `TCP 3306`, or `IPv4: TCP 3306; IPv6: nothing` where the families differ.
pub(super) fn text(cell: &Cell) -> String {
    match cell {
        Cell::Itself => "itself".to_owned(),
        Cell::NoPolicy => "no policy".to_owned(),
        Cell::NoFamily => "no common family".to_owned(),
        Cell::Families(families) => of_families(cell, families),
        Cell::OwnNode(families) => {
            format!("{}; all on its own node", of_families(cell, families))
        }
    }
}

fn of_families(cell: &Cell, families: &[(Family, Allowed)]) -> String {
    match cell.alike() {
        Some(allowed) => allowed.to_string(),
        None => {
            let one = |(family, allowed): &(Family, Allowed)| format!("{family}: {allowed}");
            families.iter().map(one).collect::<Vec<_>>().join("; ")
        }
    }
}

/// What the cells of a row say, each once, with the destinations that it is for.
pub(super) fn row(matrix: &Matrix, from: usize) -> Vec<(&Cell, Vec<&str>)> {
    let mut told: Vec<(&Cell, Vec<&str>)> = Vec::new();
    for (to, destination) in matrix.ends.iter().enumerate() {
        let cell = matrix.cell(from, to);
        match told.iter_mut().find(|(other, _)| text(other) == text(cell)) {
            Some((_, names)) => names.push(&destination.name),
            None => told.push((cell, vec![&destination.name])),
        }
    }
    told
}

/// What an end is.
pub(super) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Pod => "pod",
        Kind::Node => "node",
        Kind::Outside => "outside",
        Kind::Block => "block",
        Kind::Address => "address",
    }
}

/// Who stands behind the names, and what was left out; empty if the names say all.
pub(super) fn notes(matrix: &Matrix) -> Vec<String> {
    let mut notes = Vec::new();
    for end in &matrix.ends {
        let names: Vec<&str> = end.members.iter().map(|member| &*member.name).collect();
        let addresses = || {
            let all = end.members.iter().flat_map(|member| &member.addresses);
            all.map(ToString::to_string).collect::<Vec<_>>().join(" and ")
        };
        match end.kind {
            Kind::Outside => notes.push(format!(
                "{}: every address that is nobody's and in no block of a policy, such as {}",
                end.name,
                addresses()
            )),
            Kind::Block if names.len() == 1 => notes.push(format!(
                "{}: its addresses that are nobody's, such as {}",
                end.name,
                addresses()
            )),
            Kind::Pod | Kind::Node | Kind::Block | Kind::Address => {
                if names.len() > 1 {
                    notes.push(format!("{}: {}", end.name, names.join(", ")));
                }
            }
        }
    }
    for left_out in &matrix.left_out {
        notes.push(format!("not shown: {}; {}", left_out.name, left_out.why));
    }
    notes
}
