//! Ends that nothing tells apart, put together.
//!
//! Two ends are alike if they are of a kind, a namespace and a workload, send each other the same,
//! and send the same to every other end and receive the same from it: what is true of one is true
//! of all. But for one thing, which the caller adds: a pod and its own node always reach each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{End, Kind, ends::Party};

/// Labels that tell pods of one workload apart.
const LABELS_OF_ONE: [&str; 5] = [
    "apps.kubernetes.io/pod-index",
    "controller-revision-hash",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// For each row and column the place of its cell among the distinct ones.
pub(super) struct Square {
    pub(super) side: usize,
    pub(super) places: Vec<usize>,
}

impl Square {
    fn at(&self, from: usize, to: usize) -> usize {
        self.places[from * self.side + to]
    }

    fn are_alike(&self, one: usize, other: usize) -> bool {
        self.at(one, other) == self.at(other, one)
            && (0..self.side).filter(|third| *third != one && *third != other).all(|third| {
                self.at(one, third) == self.at(other, third)
                    && self.at(third, one) == self.at(third, other)
            })
    }
}

/// The ends by number, those that are alike together; in the order of the first of each.
pub(super) fn groups(parties: &[Party], whole: &Square) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    // Only what was asked for by itself, and the rest of the world, always stands by itself.
    let joins = |number: usize, group: &[usize]| {
        group.iter().all(|member| {
            let (one, other) = (&parties[number], &parties[*member]);
            let is_grouped = matches!(one.kind, Kind::Pod | Kind::Node | Kind::Block);
            is_grouped
                && one.kind == other.kind
                && namespace(one) == namespace(other)
                && workload(one).eq(workload(other))
                && whole.are_alike(number, *member)
        })
    };
    for number in 0..parties.len() {
        match groups.iter_mut().find(|group| joins(number, group)) {
            Some(group) => group.push(number),
            None => groups.push(vec![number]),
        }
    }
    groups
}

/// The cells between groups, row by row; of a group with itself, those between two of its members.
pub(super) fn places(groups: &[Vec<usize>], whole: &Square) -> Vec<usize> {
    let pairs = groups.iter().flat_map(|from| groups.iter().map(move |to| (from, to)));
    let place = |(from, to): (&Vec<usize>, &Vec<usize>)| {
        let to = if from == to { to.last() } else { to.first() };
        whole.at(from[0], *to.unwrap_or(&from[0]))
    };
    pairs.map(place).collect()
}

/// What the groups are called.
pub(super) fn ends(groups: &[Vec<usize>], parties: &[Party]) -> Vec<End> {
    let mut patterns: BTreeMap<String, usize> = BTreeMap::new();
    for pattern in groups.iter().filter_map(|group| pattern(group, parties)) {
        *patterns.entry(pattern).or_default() += 1;
    }
    let singles: BTreeSet<&str> = parties.iter().map(|party| &*party.member.name).collect();
    let end = |group: &Vec<usize>| {
        let members: Vec<_> = group.iter().map(|number| parties[*number].member.clone()).collect();
        let first = &parties[group[0]];
        let pattern = pattern(group, parties)
            .filter(|name| patterns.get(name) == Some(&1) && !singles.contains(&**name));
        let name = match (members.len(), pattern) {
            (1, _) => first.member.name.clone(),
            (count, Some(pattern)) => format!("{pattern} (×{count})"),
            (count, None) => format!("{} and {} more", first.member.name, count - 1),
        };
        End { name, kind: first.kind, namespace: namespace(first).cloned(), members }
    };
    groups.iter().map(end).collect()
}

/// The labels that pods of one workload share.
fn workload(party: &Party) -> impl Iterator<Item = (&String, &String)> {
    let labels = party.pod().into_iter().flat_map(|pod| pod.labels.iter());
    labels.filter(|(key, _)| !LABELS_OF_ONE.contains(&key.as_str()))
}

fn namespace(party: &Party) -> Option<&std::sync::Arc<str>> {
    party.pod().map(|pod| &pod.key.namespace)
}

/// `shop/web-*`: what the names of a group begin with, up to a hyphen.
fn pattern(group: &[usize], parties: &[Party]) -> Option<String> {
    let first = &parties[*group.first()?];
    if group.len() < 2 || first.kind == Kind::Block {
        return None;
    }
    let mut common = first.member.name.as_str();
    for number in group {
        let name = &parties[*number].member.name;
        let same = common.char_indices().zip(name.chars()).find(|((_, a), b)| a != b);
        let end = same.map_or(common.len().min(name.len()), |((at, _), _)| at);
        common = common.get(..end)?;
    }
    let stem = common.get(..common.rfind('-')? + 1)?;
    let is_of_name = first.pod().is_none_or(|pod| stem.len() > pod.key.namespace.len() + 1);
    is_of_name.then(|| format!("{stem}*"))
}
