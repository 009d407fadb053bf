//! All that the ends of a cluster may send each other.
//!
//! Ports are not probed: what two pods' policies compile to is intersected, so each cell is exact.
//! Ends are pods, nodes, and addresses that are nobody's, one for each piece of the address space
//! that policies tell apart. Services are none: they are a way to pods. Invariant: no end is left
//! out without being named.

mod allowed;
mod ends;
mod group;
mod outside;
mod view;

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use anyhow::{Result, bail};
use bulkhead_common::verdict::Direction;

pub use self::allowed::{Allowed, PROTOCOLS};
use self::{
    ends::{Party, Who},
    view::Views,
};
use super::{cluster::Cluster, flow::Family};

/// More ends than this are refused: their cells would not fit anywhere.
pub const MOST_ENDS: usize = 1_000;
/// More rows than this are refused: nobody could read them.
pub const MOST_ROWS: usize = 250;

/// What is asked of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The namespaces whose pods are ends; empty: all.
    pub namespaces: BTreeSet<String>,
    /// Addresses that are nobody's and get ends of their own.
    pub external: BTreeSet<IpAddr>,
    /// What alone is of interest; `None`: all traffic.
    pub only: Option<Allowed>,
    /// Ends that nothing tells apart stay ends of their own.
    pub ungrouped: bool,
}

/// Who reaches whom on what.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The ends: rows, and columns in the same order; those of one namespace together.
    pub ends: Vec<End>,
    /// What is no end, and why.
    pub left_out: Vec<LeftOut>,
    cells: Interned<Cell>,
    places: Vec<usize>,
}

/// A row and a column: one or more that nothing tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its name, which no other end has.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The namespace, of pods.
    pub namespace: Option<Arc<str>>,
    /// Who it stands for.
    pub members: Vec<Member>,
}

/// One of those that an end stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its addresses; of a block, one that stands for all.
    pub addresses: BTreeSet<IpAddr>,
}

/// What an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A pod.
    Pod,
    /// A node, and the pods on its network.
    Node,
    /// Every address that is nobody's and in no block of a policy.
    Outside,
    /// Addresses that are nobody's, in a block that a policy names.
    Block,
    /// An address that was asked for.
    Address,
}

/// What is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// What one end may send another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// A pod and itself: always everything.
    Itself,
    /// Neither is a pod, so no policy is asked.
    NoPolicy,
    /// They have no address family in common.
    NoFamily,
    /// This, in each family that both have.
    Families(Vec<(Family, Allowed)>),
    /// One stands for nodes, the other for pods some of which run on them: between these all that is
    /// asked about, between the others this.
    OwnNode(Vec<(Family, Allowed)>),
}

impl Matrix {
    /// Works out every cell.
    ///
    /// # Errors
    ///
    /// There are too many ends, or what is asked for is not there.
    pub fn new(cluster: &mut Cluster, request: &Request) -> Result<Self> {
        let (parties, left_out) = ends::parties(cluster, request)?;
        if parties.len() > MOST_ENDS {
            bail!("{}", too_many(parties.len(), MOST_ENDS, "ends", cluster));
        }
        let nodes = parties.iter().filter_map(Party::home).cloned().collect();
        let views = Views::new(cluster, nodes);
        let denies_node = cluster.objects().denies_egress_to_node();
        let mut cells = Interned::default();
        let mut places = Vec::with_capacity(parties.len() * parties.len());
        for from in &parties {
            for to in &parties {
                places.push(cells.place(cell(&views, from, to, request.only.as_ref())?));
            }
        }
        let whole = group::Square { side: parties.len(), places };
        let groups = if request.ungrouped {
            (0..parties.len()).map(|number| vec![number]).collect()
        } else {
            group::groups(&parties, &whole)
        };
        if groups.len() > MOST_ROWS {
            bail!("{}", too_many(groups.len(), MOST_ROWS, "rows", cluster));
        }
        let mut places = group::places(&groups, &whole);
        let pairs = groups.iter().flat_map(|from| groups.iter().map(move |to| (from, to)));
        for ((from, to), place) in pairs.zip(&mut places) {
            let own = own_node(from, to, &parties, denies_node);
            *place = cells.place(with_own_node(&cells.values[*place], own, request.only.as_ref()));
        }
        Ok(Self { ends: group::ends(&groups, &parties), left_out, cells, places })
    }

    /// What the end of a row may send that of a column, by their places in [`Matrix::ends`].
    ///
    /// # Panics
    ///
    /// There are no such ends.
    pub fn cell(&self, from: usize, to: usize) -> &Cell {
        &self.cells.values[self.places[from * self.ends.len() + to]]
    }
}

impl Cell {
    /// What is allowed, if it is the same in every family.
    pub fn alike(&self) -> Option<&Allowed> {
        match self {
            Self::Itself | Self::NoPolicy | Self::NoFamily => None,
            Self::Families(families) | Self::OwnNode(families) => {
                let (_, first) = families.first()?;
                families.iter().all(|(_, allowed)| allowed == first).then_some(first)
            }
        }
    }
}

fn too_many(count: usize, most: usize, what: &str, cluster: &Cluster) -> String {
    let namespaces: BTreeSet<&str> =
        cluster.objects().pods().keys().map(|key| &*key.namespace).collect();
    let names: Vec<&str> = namespaces.into_iter().take(12).collect();
    format!(
        "{count} {what} are more than the {most} that a matrix has room for; ask for a part with \
         --namespace, which can be repeated: {}",
        names.join(", ")
    )
}

fn cell(views: &Views, from: &Party, to: &Party, only: Option<&Allowed>) -> Result<Cell> {
    if from.pod().is_none() && to.pod().is_none() {
        return Ok(Cell::NoPolicy);
    }
    if from.is_same_pod(to) {
        return Ok(Cell::Itself);
    }
    let mut families = Vec::new();
    for family in Family::ALL {
        if let Some(allowed) = allowed(views, from, to, family)? {
            families.push((family, only.map_or_else(|| allowed.clone(), |o| allowed.meet(o))));
        }
    }
    Ok(if families.is_empty() { Cell::NoFamily } else { Cell::Families(families) })
}

/// What policies let out of the source and into the destination, between all their addresses of a family; `None`:
/// one of them has none.
fn allowed(views: &Views, from: &Party, to: &Party, family: Family) -> Result<Option<Allowed>> {
    if from.of_family(family).next().is_none() || to.of_family(family).next().is_none() {
        return Ok(None);
    }
    let mut sum = Allowed::everything();
    if let Who::Pod(home, pod) = &from.who {
        // Its own node has a cell of its own kind; but others may claim an address of it.
        let is_other = !from.is_own_node_of(to);
        let is_own = |address: &IpAddr| is_other && views.is_free_to(home, *address);
        for address in to.of_family(family).filter(|address| !is_own(address)) {
            sum = sum.meet(&views.allowed(home, pod, Direction::Egress, address)?);
        }
    }
    if let Who::Pod(home, pod) = &to.who {
        for address in from.of_family(family) {
            sum = sum.meet(&views.allowed(home, pod, Direction::Ingress, address)?);
        }
    }
    Ok(Some(sum))
}

/// How many pairs of a pod and its own node there are between two groups, of which no policy is asked.
enum OwnNode {
    None,
    Some,
    All,
}

fn own_node(from: &[usize], to: &[usize], parties: &[Party], denies_node: bool) -> OwnNode {
    let pairs = || from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
    let is_own = |(from, to): (&usize, &usize)| {
        let (from, to) = (&parties[*from], &parties[*to]);
        from.is_own_node_of(to) && !(denies_node && from.pod().is_some())
    };
    if !pairs().any(is_own) {
        OwnNode::None
    } else if pairs().all(is_own) {
        OwnNode::All
    } else {
        OwnNode::Some
    }
}

fn with_own_node(cell: &Cell, own: OwnNode, only: Option<&Allowed>) -> Cell {
    let Cell::Families(families) = cell else { return cell.clone() };
    let all = || only.cloned().unwrap_or_else(Allowed::everything);
    match own {
        OwnNode::None => cell.clone(),
        OwnNode::All => Cell::Families(families.iter().map(|(of, _)| (*of, all())).collect()),
        // Where the others may do it all as well there is no difference.
        OwnNode::Some if families.iter().all(|(_, allowed)| *allowed == all()) => cell.clone(),
        OwnNode::Some => Cell::OwnNode(families.clone()),
    }
}

/// Values, each stored once.
#[derive(Clone, Debug)]
struct Interned<T> {
    values: Vec<T>,
    places: HashMap<T, usize>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { values: Vec::new(), places: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn place(&mut self, value: T) -> usize {
        if let Some(place) = self.places.get(&value) {
            return *place;
        }
        let place = self.values.len();
        self.values.push(value.clone());
        self.places.insert(value, place);
        place
    }
}

#[cfg(test)]
mod tests;
