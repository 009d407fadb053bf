//! Answers by the maps in memory.

use std::collections::BTreeMap;

use anyhow::Result;
use bulkhead_common::{
    decide::{Hook, decide},
    frames::Linear,
};

use super::{Answer, Engine, frame, in_batches, node_maps::NodeMaps};
use crate::{
    dataplane::fake::FakeKernel,
    policy::index::Index,
    reach::{
        cluster::{Cluster, NodeName},
        course::Question,
    },
};

/// Maps in memory for each node that was asked, written as its agent would write them.
#[derive(Default)]
pub struct CompiledMaps {
    nodes: BTreeMap<NodeName, Node>,
}

struct Node {
    maps: NodeMaps,
    memory: FakeKernel,
}

impl Engine for CompiledMaps {
    fn answers(&mut self, cluster: &mut Cluster, questions: &[Question]) -> Result<Vec<Answer>> {
        in_batches(cluster, questions, |node, index, questions| {
            let node = self.nodes.entry(node.clone()).or_insert_with(Node::new);
            let ops = node.maps.plan(index, questions)?;
            node.maps.execute(&ops, &mut node.memory)?;
            questions.iter().map(|question| node.answer(index, question)).collect()
        })
    }

    fn forget(&mut self) -> Result<()> {
        self.nodes.clear();
        Ok(())
    }
}

impl Node {
    fn new() -> Self {
        Self { maps: NodeMaps::new(), memory: FakeKernel::default() }
    }

    fn answer(&self, index: &Index, question: &Question) -> Result<Answer> {
        self.memory.flows_v4.borrow_mut().clear();
        self.memory.flows_v6.borrow_mut().clear();
        let endpoint = self.maps.endpoint(&question.pod)?;
        let frame = frame::opening(index, question)?;
        let hook = Hook {
            direction: question.flow.direction,
            ifindex: frame::IFINDEX,
            from_own_node: question.flow.from_own_node,
            from_itself: false,
            vlan_tagged: false,
        };
        Ok(Answer::of(decide(&hook, &endpoint, &Linear(&frame), &self.memory)))
    }
}
