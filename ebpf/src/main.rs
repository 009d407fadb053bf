//! The kernel programs: one at each hook of a pod's host-side veth, and one for the node's uplink.
//!
//! Thin: packets and maps are made accessible here, the verdict is `bulkhead_common::decide`'s.
//! Invariant: every way through a program ends in one exhaustive match from verdict to action.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod context;
mod events;
mod floor;
mod globals;
mod maps;
mod programs;
mod reject;
mod steps;
mod uplink;

/// Nothing in the programs panics: the verifier would refuse this loop if it could be reached.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets the kernel's verifier admit helpers that are for GPL-compatible programs only.
#[expect(unsafe_code, reason = "the section name is the loader's contract")]
// SAFETY: the loader reads this section as a NUL-terminated string, and nothing else is in it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// On other targets, the modules are there to be checked by the compiler and clippy.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
