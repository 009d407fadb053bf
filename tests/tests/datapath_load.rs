//! What loading the programs costs. Needs root.

use bulkhead::dataplane::kernel::{Kernel, Options};
use bulkhead_common::abi::name;

/// What the verifier looks at before it gives up (BPF_COMPLEXITY_LIMIT_INSNS, linux/bpf_verifier.h).
const VERIFIER_LIMIT: u32 = 1_000_000;

/// Kernels differ in how soon they see that two paths are one: what one of them just admits,
/// another refuses.
#[test]
fn the_verifier_admits_the_programs_with_room_to_spare() {
    let mut kernel =
        Kernel::load(Options { uplink: true, ..Options::default() }).unwrap_or_else(|error| {
            panic!("this test loads eBPF programs, so it needs root: {error:#}")
        });
    for program in [name::TO_POD, name::FROM_POD, name::UPLINK] {
        let info = match program {
            name::UPLINK => kernel.uplink().and_then(|loaded| Ok(loaded.info()?)),
            _ => kernel.program(program).and_then(|loaded| Ok(loaded.info()?)),
        };
        let info = info.unwrap_or_else(|error| panic!("{program}: {error:#}"));
        // Linux 5.16 and later tells.
        let Some(verified) = info.verified_instruction_count() else {
            println!("{program}: loaded; this kernel does not tell what the verifier looked at");
            continue;
        };
        println!("{program}: the verifier looked at {verified} instructions");
        assert!(verified < VERIFIER_LIMIT / 4, "{program}: {verified} instructions");
    }
}
