//! From compiled policy to the kernel's maps and programs.
//!
//! - [`plan`]: what the maps hold and what they should hold, to an ordered list of [`op::Op`]s;
//!   pure,
//! - [`op`]: the operations, and the trait of what executes them,
//! - [`kernel`]: executes them on the real kernel; the only place that writes maps or attaches
//!   programs,
//! - `attach`, `clsact`: the hooks of an interface, by TCX links or by filters,
//! - [`uplink`]: the program that drops early at the node's uplink, if it is asked for,
//! - `refusal`: why a kernel refuses any of that, in words,
//! - [`counters`]: reads packet counters,
//! - [`flows`]: counts flow entries,
//! - [`fake`]: executes them in memory, and lets [`bulkhead_common::decide`] run on the result.

pub mod attach;
mod clsact;
pub mod counters;
pub mod fake;
pub mod flows;
pub mod kernel;
pub mod op;
pub mod plan;
mod port_ranges;
mod refusal;
pub mod uplink;
