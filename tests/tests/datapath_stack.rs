//! How much of the stack chains of calls take, as older kernels count it. Needs no kernel.
//!
//! A kernel that counts less admits programs that an older one refuses, and says nothing of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use aya_obj::{Object, generated::bpf_insn};
use bulkhead::dataplane::kernel::OBJECT;
use bulkhead_common::abi::name;

/// The most that frames of functions that call each other may have together (MAX_BPF_STACK,
/// linux/filter.h), in bytes.
const STACK: usize = 512;
/// Each frame counts as a multiple of this, and as one at least (check_max_stack_depth,
/// kernel/bpf/verifier.c of Linux 5.10 and 6.1).
const BLOCK: usize = 32;

// Of an instruction's code (linux/bpf_common.h, linux/bpf.h).
const CLASS: u8 = 0x07;
const CLASS_LOAD: u8 = 0x01;
const CLASSES_STORE: [u8; 2] = [0x02, 0x03];
const ADD: u8 = 0x07;
const MOVE: u8 = 0xbf;
const CALL: u8 = 0x85;
/// In the place of a call's source register: a function of the program, not of the kernel.
const OF_THE_PROGRAM: u8 = 1;
const FRAME_POINTER: u8 = 10;

#[test]
fn chains_of_calls_fit_into_the_stack_of_older_kernels() {
    let mut object = Object::parse(OBJECT).expect("an object");
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    // Puts every function that a program calls behind it, as the kernel gets them.
    object.relocate_calls(&sections).expect("functions to call");
    for program in [name::TO_POD, name::FROM_POD, name::UPLINK] {
        let key = object.programs.get(program).expect("a program").function_key();
        let chain = deepest(&functions(&object.functions[&key].instructions), 0);
        let total: usize = chain.iter().map(|frame| counted(*frame)).sum();
        println!("{program}: {total} bytes of stack, in frames of {chain:?}");
        assert!(total <= STACK, "{program}: {total} bytes of stack, in frames of {chain:?}");
    }
}

struct Function {
    /// Bytes of its frame.
    frame: usize,
    /// First instructions of what it calls.
    calls: BTreeSet<usize>,
}

/// The functions of a program, by the first instruction of each.
fn functions(instructions: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let starts = BTreeSet::from_iter([0].into_iter().chain(calls(instructions, 0)));
    let ends = starts.iter().copied().skip(1).chain([instructions.len()]);
    let ranges = starts.iter().copied().zip(ends);
    ranges.map(|(start, end)| (start, function(instructions, start..end))).collect()
}

fn function(instructions: &[bpf_insn], range: Range<usize>) -> Function {
    let body = &instructions[range.clone()];
    Function { frame: frame(body), calls: calls(body, range.start).collect() }
}

/// Targets of a body's calls; `start` is its first instruction's number.
fn calls(body: &[bpf_insn], start: usize) -> impl Iterator<Item = usize> {
    body.iter().enumerate().filter_map(move |(index, instruction)| {
        let inside = instruction.code == CALL && instruction.src_reg() == OF_THE_PROGRAM;
        inside.then(|| (start + index + 1).wrapping_add_signed(instruction.imm as isize))
    })
}

/// The lowest place below the frame pointer that a body reads, writes or takes the address of.
fn frame(body: &[bpf_insn]) -> usize {
    let places = body.iter().enumerate().map(|(index, instruction)| {
        let class = instruction.code & CLASS;
        let loads = class == CLASS_LOAD && instruction.src_reg() == FRAME_POINTER;
        let stores = CLASSES_STORE.contains(&class) && instruction.dst_reg() == FRAME_POINTER;
        // The compiler takes an address by two instructions: r1 = r10, r1 += -8.
        let takes = instruction.code == ADD
            && index.checked_sub(1).and_then(|before| body.get(before)).is_some_and(|before| {
                before.code == MOVE
                    && before.src_reg() == FRAME_POINTER
                    && before.dst_reg() == instruction.dst_reg()
            });
        match (loads || stores, takes) {
            (true, _) => i32::from(instruction.off),
            (false, true) => instruction.imm,
            (false, false) => 0,
        }
    });
    places.min().unwrap_or(0).unsigned_abs() as usize
}

/// The frames of the chain of calls that takes the most.
fn deepest(functions: &BTreeMap<usize, Function>, start: usize) -> Vec<usize> {
    let function = &functions[&start];
    let chains = function.calls.iter().map(|called| deepest(functions, *called));
    let below = chains.max_by_key(|chain| chain.iter().copied().map(counted).sum::<usize>());
    [function.frame].into_iter().chain(below.unwrap_or_default()).collect()
}

fn counted(frame: usize) -> usize {
    frame.max(1).next_multiple_of(BLOCK)
}
