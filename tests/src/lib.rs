//! What the tests share.
//!
//! - [`pod`]: a pod and its policy, as the maps hold them,
//! - [`program`]: the loaded programs, run on single packets.

pub mod pod;
pub mod program;
