//! Why the kernel refuses maps, programs or hooks, in words: what it lacks, and which kernel has it.
//!
//! Invariant: no message is a bare error number, or the whole of a verifier's log.

use std::{fs, io};

use anyhow::anyhow;
use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, tc::TcError},
};
use bulkhead_common::abi::name;
use nix::libc;

/// The verifier says why at the end, behind all that it looked at.
const LAST_LINES: usize = 8;

/// Linux before 5.11 counts maps and programs as locked memory.
const PRIVILEGES: &str = "this needs root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; before Linux \
     5.11 also CAP_SYS_RESOURCE, or no limit of locked memory (ulimit -l unlimited)";

/// Maps, which are made with the object.
pub(super) fn of_maps(error: EbpfError) -> anyhow::Error {
    let lack = if let EbpfError::MapError(MapError::CreateError { name, io_error }) = &error {
        lacking_map(name, io_error)
    } else {
        None
    };
    let release = release();
    let error = anyhow::Error::new(error);
    match lack {
        Some(lack) => error.context(format!("cannot create the eBPF maps on {release}: {lack}")),
        None => error.context(format!("cannot create the eBPF maps on {release}; {PRIVILEGES}")),
    }
}

fn lacking_map(map: &str, error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Some(PRIVILEGES),
        Some(libc::EINVAL) if map == name::EVENTS => {
            Some("it lacks ring buffers (BPF_MAP_TYPE_RINGBUF), which Linux 5.8 and later have")
        }
        Some(libc::ENOMEM) => Some("not enough memory for them"),
        Some(libc::ENOSYS) => Some("it was built without CONFIG_BPF_SYSCALL"),
        _ => None,
    }
}

/// A program that does not load.
pub(super) fn of_program(program: &str, error: ProgramError) -> anyhow::Error {
    if let ProgramError::LoadError { io_error, verifier_log } = &error {
        let log = verifier_log.to_string();
        return anyhow!(
            "{} refuses to load the program {program}: {}{}",
            release(),
            lacking_in_program(&log, io_error),
            last_words(&log)
        );
    }
    anyhow::Error::new(error).context(format!("cannot load the program {program}"))
}

fn lacking_in_program(log: &str, error: &io::Error) -> String {
    if let Some(at) = log.rfind("invalid func ") {
        let function = log[at..].lines().next().unwrap_or_default();
        return format!("it lacks a helper that the program calls ({function})");
    }
    if log.contains("BPF program is too large") || error.raw_os_error() == Some(libc::E2BIG) {
        return "its verifier gives up before it has seen all paths; that of a newer kernel sees \
                sooner that two paths are one"
            .to_owned();
    }
    if error.raw_os_error() == Some(libc::EPERM) {
        return PRIVILEGES.to_owned();
    }
    // The number alone would mislead: most of what the verifier finds is "permission denied".
    if log.is_empty() { error.to_string() } else { format!("its verifier objects ({error})") }
}

fn last_words(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    if last.is_empty() {
        return String::new();
    }
    format!(". The verifier's last words:\n    {}", last.join("\n    "))
}

/// A clsact qdisc that cannot be made.
pub(super) fn of_qdisc(error: io::Error) -> anyhow::Error {
    let lack = lacking_module(error.raw_os_error(), "clsact qdiscs", "sch_ingress", "SCH_INGRESS");
    with(error.into(), lack)
}

/// A filter that cannot be attached.
pub(super) fn of_filter(error: ProgramError) -> anyhow::Error {
    let number = if let ProgramError::NetlinkError(error)
    | ProgramError::TcError(TcError::NetlinkError(error)) = &error
    {
        error.raw_os_error()
    } else {
        None
    };
    with(error.into(), lacking_module(number, "BPF filters", "cls_bpf", "CLS_BPF"))
}

fn with(error: anyhow::Error, lack: Option<String>) -> anyhow::Error {
    match lack {
        Some(lack) => error.context(format!("{} {lack}", release())),
        None => error,
    }
}

/// tc calls a kind of qdisc or filter that it does not know "not found".
fn lacking_module(error: Option<i32>, what: &str, module: &str, option: &str) -> Option<String> {
    (error == Some(libc::ENOENT)).then(|| {
        format!(
            "lacks TCX, which Linux 6.6 and later have, and {what} as well: load the module \
             {module} (CONFIG_NET_{option})"
        )
    })
}

/// This kernel's name for messages.
fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "this kernel".to_owned(), |release| format!("Linux {}", release.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn a_kernel_without_ring_buffers_is_told_which_has_them() {
        let lack = lacking_map(name::EVENTS, &number(libc::EINVAL)).unwrap();
        assert!(lack.contains("ring buffers") && lack.contains("5.8"), "{lack}");
        assert_eq!(lacking_map(name::RULES, &number(libc::EINVAL)), None);
        assert_eq!(lacking_map(name::RULES, &number(libc::EPERM)), Some(PRIVILEGES));
    }

    #[test]
    fn a_helper_that_is_missing_is_named() {
        // Linux 5.10 of bpf_ktime_get_coarse_ns.
        let log = "0: (85) call unknown#160\ninvalid func unknown#160\nprocessed 1 insns\n";
        let lack = lacking_in_program(log, &number(libc::EINVAL));
        assert_eq!(lack, "it lacks a helper that the program calls (invalid func unknown#160)");
    }

    #[test]
    fn what_the_verifier_objects_to_is_no_lack_of_privileges() {
        // Linux 6.1, which counts a chain of calls' stack in blocks of 32 bytes.
        let log = "combined stack size of 5 calls is 544. Too large\n";
        let lack = lacking_in_program(log, &number(libc::EACCES));
        assert!(lack.starts_with("its verifier objects"), "{lack}");
        assert_eq!(lacking_in_program("", &number(libc::EPERM)), PRIVILEGES);
    }

    #[test]
    fn of_a_verifier_that_gives_up_the_last_words_are_told_and_no_more() {
        let log =
            format!("{}BPF program is too large. Processed 1000001 insn\n", "1: x\n".repeat(50));
        let lack = lacking_in_program(&log, &number(libc::E2BIG));
        assert!(lack.starts_with("its verifier gives up"), "{lack}");
        let words = last_words(&log);
        assert!(
            words.ends_with("\n    BPF program is too large. Processed 1000001 insn"),
            "{words}"
        );
        assert_eq!(words.lines().count(), 1 + LAST_LINES);
        assert_eq!(last_words(""), "");
    }

    #[test]
    fn a_module_that_is_missing_is_named() {
        let lack = lacking_module(Some(libc::ENOENT), "BPF filters", "cls_bpf", "CLS_BPF").unwrap();
        assert!(lack.contains("cls_bpf") && lack.contains("CONFIG_NET_CLS_BPF"), "{lack}");
        assert_eq!(lacking_module(Some(libc::EPERM), "", "", ""), None);
    }
}
