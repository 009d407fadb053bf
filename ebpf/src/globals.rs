//! What the agent says before it loads the programs. The verifier takes it for constant, and removes
//! what it leaves out.
#![expect(unsafe_code, reason = "the agent finds them by their names, and sets them")]

/// Have every packet judged, and logged, at length.
#[unsafe(no_mangle)]
// SAFETY: nothing else in the object has this name.
static JUDGE_ALL: u8 = 0;

/// The kernel has `bpf_ktime_get_coarse_ns` (Linux 5.11).
#[unsafe(no_mangle)]
// SAFETY: nothing else in the object has this name.
static COARSE_CLOCK: u8 = 0;

/// Whether every packet is to be judged, and logged, at length.
#[inline(always)]
pub(crate) fn judge_all() -> bool {
    is_set(&JUDGE_ALL)
}

/// Whether the kernel has a clock that costs less and is some milliseconds behind.
#[inline(always)]
pub(crate) fn coarse_clock() -> bool {
    is_set(&COARSE_CLOCK)
}

/// The value that the agent has set: the compiler must not take it for what stands in the source.
#[inline(always)]
fn is_set(global: &u8) -> bool {
    // SAFETY: reads through a reference.
    unsafe { core::ptr::read_volatile(&raw const *global) != 0 }
}
