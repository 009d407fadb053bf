//! Who reaches whom: whole flows between two ends of a cluster, judged without sending them.
//!
//! - [`cluster`]: the state, as each node of the cluster sees it,
//! - [`flow`]: the flows that are asked about, and the file that lists them,
//! - [`course`]: which questions to which pods' policies make up a flow,
//! - [`engine`]: who answers them: the specification, or the maps, in memory or in the kernel,
//! - [`judgement`]: what the answers add up to,
//! - [`matrix`]: all that the ends of a cluster may send each other.
//!
//! Owns what a flow between two names means. Does not own what policy says: that is asked of an
//! engine, one pod and direction at a time.

pub mod cluster;
pub mod course;
pub mod engine;
pub mod flow;
pub mod judgement;
pub mod matrix;
