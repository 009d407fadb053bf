//! Policy: from the state of a cluster to what each pod's packets may do.
//!
//! Pure and synchronous: nothing in here knows Kubernetes' client, aya, tokio or a clock.
//!
//! - [`model`]: the vocabulary,
//! - [`selector`]: label selectors,
//! - [`prefix_map`]: blocks of addresses, the longest prefix first,
//! - [`index`]: the cluster's state, fed by [`model::Change`]s,
//! - [`compile`]: the index to [`compiled::Compiled`], what the kernel's maps hold,
//! - [`evaluate`]: the specification, read slowly and obviously; the compiler is tested against it.
//! - [`closest`]: of a denied flow, which rule was nearest to allowing it.

#[cfg(any(test, feature = "test-clusters"))]
pub mod arbitrary;
#[cfg(any(test, feature = "test-clusters"))]
pub mod builders;
pub mod closest;
pub mod compile;
pub mod compiled;
pub mod evaluate;
pub mod index;
pub mod model;
pub mod prefix_map;
pub mod selector;
mod shared;

#[cfg(test)]
mod tests;
