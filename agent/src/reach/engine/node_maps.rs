//! What the agent of one node would write into its maps.
//!
//! The one place in here that compiles and plans.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use bulkhead_common::{
    abi,
    value::{Endpoint, flags},
    verdict::DenyAction,
};

use crate::{
    dataplane::{
        op::{Execute, Op},
        plan::{Desired, DesiredEndpoint, Programmed},
    },
    policy::{compile::Compiler, compiled::Compiled, index::Index, model::ObjectKey},
    reach::course::Question,
};

/// How many pods the maps hold at once.
pub(super) const PODS: usize = abi::ENDPOINTS as usize - 1;
/// The interface of the first pod; those before it are free for other ends.
const FIRST_IFINDEX: u32 = 2;

/// The maps of one node, by the operations that were executed.
pub(super) struct NodeMaps {
    compiler: Compiler,
    /// The compiler was not told of any state yet.
    is_new: bool,
    programmed: Programmed,
    interfaces: BTreeMap<ObjectKey, u32>,
}

fn empty(deny_egress_to_node: bool) -> Programmed {
    let check_source = true;
    Programmed::new(check_source).deny_egress_to_node(deny_egress_to_node)
}

impl NodeMaps {
    /// Of empty maps.
    pub(super) fn new() -> Self {
        Self {
            compiler: Compiler::new(DenyAction::Drop),
            is_new: true,
            programmed: empty(false),
            interfaces: BTreeMap::new(),
        }
    }

    /// The operations that make the maps hold a state and, of it, the pods that are asked: at most
    /// [`PODS`].
    pub(super) fn plan(&mut self, index: &mut Index, questions: &[&Question]) -> Result<Vec<Op>> {
        if self.is_new {
            drop(index.take_dirty());
            self.programmed = empty(index.denies_egress_to_node());
            self.compiler.compile(index);
        } else {
            self.compiler.update(index);
        }
        self.is_new = false;
        let touched = self.compiler.take_touched();
        let compiled = self.compiler.compiled();
        let pods: BTreeSet<&ObjectKey> = questions.iter().map(|question| &question.pod).collect();
        self.interfaces = pods.into_iter().cloned().zip(FIRST_IFINDEX..).collect();
        let endpoint = |(pod, ifindex): (&ObjectKey, &u32)| {
            let policy = compiled
                .endpoints
                .get(pod)
                .with_context(|| format!("the pod {pod} has no policy"))?;
            Ok((*ifindex, DesiredEndpoint::Pod(policy)))
        };
        let endpoints = self.interfaces.iter().map(endpoint).collect::<Result<_>>()?;
        self.programmed.plan(&Desired { endpoints, compiled, touched: Some(&touched) })
    }

    /// The operations that empty the maps.
    pub(super) fn plan_empty(&mut self) -> Result<Vec<Op>> {
        self.interfaces.clear();
        let compiled = &Compiled::default();
        self.programmed.plan(&Desired { endpoints: BTreeMap::new(), compiled, touched: None })
    }

    /// Executes a plan, but for what has to do with interfaces: there are none.
    ///
    /// # Errors
    ///
    /// What the maps said.
    pub(super) fn execute(&mut self, ops: &[Op], kernel: &mut impl Execute) -> Result<()> {
        for op in ops {
            if !matches!(op, Op::Attach { .. } | Op::Detach { .. }) {
                kernel.execute(op)?;
            }
            self.programmed.executed(op);
        }
        Ok(())
    }

    /// What the maps say of a pod that was planned, but that frames are dropped without an answer.
    ///
    /// # Errors
    ///
    /// The pod is not in the maps.
    pub(super) fn endpoint(&self, pod: &ObjectKey) -> Result<Endpoint> {
        let endpoint = self
            .interfaces
            .get(pod)
            .and_then(|ifindex| self.programmed.endpoints().get(ifindex))
            .with_context(|| format!("the pod {pod} is not in the maps"))?;
        Ok(Endpoint { flags: endpoint.flags & !flags::REJECT, ..*endpoint })
    }
}
