//! The blocks of the policies of this node, cut into cells: prefixes at which what is said about
//! addresses changes.
//!
//! A block and each of its `except`s begin a cell. A cell knows the blocks that hold for every
//! address in it which lies in no smaller cell, so an `except` takes away from its own block and
//! from no other, and nothing is ever denied by an entry of its own.

use std::{collections::BTreeSet, iter, net::IpAddr};

use ipnet::IpNet;

use crate::policy::{model::IpBlock, prefix_map::PrefixMap};

/// A set of blocks, by their numbers.
type Blocks = BTreeSet<u32>;

/// The cells.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells {
    cells: PrefixMap<Cell>,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    /// How many blocks have an edge here: their own, or an `except`.
    edges: usize,
    blocks: Blocks,
}

impl Cells {
    /// Takes in a block; the cells that may be different now are added to `changed`.
    pub(super) fn add(&mut self, number: u32, block: &IpBlock, changed: &mut BTreeSet<IpNet>) {
        for edge in edges(block) {
            if let Some(cell) = self.cells.get_mut(edge) {
                cell.edges += 1;
                continue;
            }
            // Nothing began here before, so all that holds around it holds here.
            let blocks = self.cells.around(edge).map(|(_, cell)| cell.blocks.clone());
            self.cells.insert(*edge, Cell { edges: 1, blocks: blocks.unwrap_or_default() });
            changed.insert(*edge);
        }
        for net in self.covered(block) {
            if let Some(cell) = self.cells.get_mut(&net) {
                cell.blocks.insert(number);
                changed.insert(net);
            }
        }
    }

    /// Takes a block away, which was taken in under this number.
    pub(super) fn remove(&mut self, number: u32, block: &IpBlock, changed: &mut BTreeSet<IpNet>) {
        for net in self.covered(block) {
            if let Some(cell) = self.cells.get_mut(&net) {
                cell.blocks.remove(&number);
                changed.insert(net);
            }
        }
        for edge in edges(block) {
            let Some(cell) = self.cells.get_mut(edge) else { continue };
            cell.edges -= 1;
            if cell.edges == 0 {
                self.cells.remove(edge);
                changed.insert(*edge);
            }
        }
    }

    /// The blocks of exactly this cell; `None` if there is none.
    pub(super) fn blocks_of(&self, net: &IpNet) -> Option<&Blocks> {
        self.cells.get(net).map(|cell| &cell.blocks)
    }

    /// The blocks that an address lies in.
    pub(super) fn blocks_at(&self, address: IpAddr) -> Option<&Blocks> {
        self.cells.longest(address).map(|(_, cell)| &cell.blocks)
    }

    /// Cells inside of a block, but for those inside of its `except`s: each `except` and what is
    /// inside of it is one run of cells.
    fn covered(&self, block: &IpBlock) -> Vec<IpNet> {
        let mut covered = Vec::new();
        let mut excepted: Option<IpNet> = None;
        for (net, _) in self.cells.inside(&block.cidr) {
            if excepted.is_some_and(|except| except.contains(net)) {
                continue;
            }
            excepted = block.except.get(net).copied();
            if excepted.is_none() {
                covered.push(*net);
            }
        }
        covered
    }
}

fn edges(block: &IpBlock) -> impl Iterator<Item = &IpNet> {
    iter::once(&block.cidr).chain(&block.except)
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    fn net() -> impl Strategy<Value = IpNet> {
        // Few bits, so that blocks nest and meet.
        (0_u8..8, 24_u8..=27).prop_map(|(low, length)| {
            IpNet::new(IpAddr::from([10, 0, 0, low << 5]), length).unwrap().trunc()
        })
    }

    fn block() -> impl Strategy<Value = IpBlock> {
        (net(), collection::btree_set(net(), 0..4)).prop_map(|(cidr, except)| IpBlock {
            cidr,
            except: except.into_iter().filter(|e| cidr.contains(e) && *e != cidr).collect(),
        })
    }

    proptest! {
        #[test]
        fn an_address_lies_in_the_blocks_that_contain_it_after_any_additions_and_removals(
            blocks in collection::vec((block(), any::<bool>()), 1..8),
        ) {
            let mut cells = Cells::default();
            let mut changed = BTreeSet::new();
            for (number, (block, _)) in (0..).zip(&blocks) {
                cells.add(number, block, &mut changed);
            }
            for (number, (block, stays)) in (0..).zip(&blocks) {
                if !stays {
                    cells.remove(number, block, &mut changed);
                }
            }
            for last in (0..=u8::MAX).step_by(8) {
                let address = IpAddr::from([10, 0, 0, last]);
                let expected: Blocks = (0..)
                    .zip(&blocks)
                    .filter(|(_, (block, stays))| *stays && block.contains(address))
                    .map(|(number, _)| number)
                    .collect();
                prop_assert_eq!(cells.blocks_at(address).cloned().unwrap_or_default(), expected);
            }
            for (number, (block, stays)) in (0..).zip(&blocks) {
                if *stays {
                    cells.remove(number, block, &mut changed);
                }
            }
            prop_assert_eq!(cells.cells.iter().count(), 0);
        }
    }
}
