//! What the kernel programs and the agent share.
//!
//! The same source compiles into the eBPF object and runs under `cargo test`:
//!
//! - [`packet`] reads headers out of a frame,
//! - [`decide`] says what becomes of it, by the maps' contents,
//! - [`verdict`] names every outcome,
//! - [`key`] and [`value`] are the maps' contents, byte for byte,
//! - [`answer`] makes the reply to a rejected packet,
//! - [`event`] is the record of one dropped packet,
//! - [`abi`] names the maps and fixes their capacities,
//! - `frames` builds frames, to ask the programs without sending any; it is not in them.
//!
//! Nothing in here allocates, does I/O, reads a clock or can panic: packets and maps are reached
//! through two small traits, [`packet::Bytes`] and [`decide::Maps`].
#![no_std]

#[cfg(any(test, feature = "frames"))]
extern crate std;

pub mod abi;
pub mod answer;
pub mod decide;
pub mod event;
pub mod flow;
#[cfg(any(test, feature = "frames"))]
pub mod frames;
pub mod key;
pub mod packet;
pub mod value;
pub mod verdict;
