//! The hooks of an interface: attaches both programs there, and keeps them.
//!
//! Linux 6.6 and later takes TCX links; what is older takes filters (`clsact`). Invariants: however
//! often it is asked, each program is attached once; of two programs that are new, both or none.

use std::mem;

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use bulkhead_common::abi::name;
use nix::{
    libc,
    net::if_::{if_indextoname, if_nametoindex},
};

use super::clsact;

/// By which of the kernel's means programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// TCX links: Linux 6.6 and later.
    Tcx,
    /// Filters of the interface's clsact qdisc: every kernel that loads the programs.
    Clsact,
}

impl Hooks {
    /// The best that this kernel has. Asked for, not guessed from a version: some kernels have what
    /// their version does not say.
    pub(super) fn of_this_kernel() -> Self {
        // Every network namespace has this interface.
        match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EINVAL) =>
            {
                Self::Clsact
            }
            Ok(_) | Err(_) => Self::Tcx,
        }
    }
}

/// What keeps the programs attached to one interface. Dropping it takes them off.
#[derive(Default)]
pub(super) struct Attached {
    to_pod: Option<Hold>,
    from_pod: Option<Hold>,
    /// After the filters: it goes only if it is empty.
    qdisc: Option<clsact::Qdisc>,
}

/// What keeps one program attached.
enum Hold {
    Tcx {
        /// Detaches when it is dropped.
        _link: SchedClassifierLink,
    },
    Filter(clsact::Filter),
}

impl Hold {
    /// Of a program that was found to be off: nothing is left to be taken off.
    fn forget(self) {
        match self {
            // A link without an interface is nothing but a file.
            Self::Tcx { .. } => {}
            Self::Filter(filter) => filter.forget(),
        }
    }
}

impl Attached {
    /// Attaches both programs, whichever is not attached yet.
    ///
    /// aya attaches by name, and a name may pass to another interface in the meantime: what was
    /// attached to a wrong one is taken off again.
    ///
    /// # Errors
    ///
    /// What the kernel refuses, and why. What was attached before stays so.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        hooks: Hooks,
        ifindex: u32,
    ) -> anyhow::Result<()> {
        let name = if_indextoname(ifindex)
            .with_context(|| format!("no interface has the index {ifindex} any more"))?;
        let name = name.to_str().context("an interface name that is not UTF-8")?;
        let new = Self::new(ebpf, hooks, ifindex, name)
            .map_err(|error| error.context(format!("cannot attach to {name}")))?;
        if if_nametoindex(name).ok() != Some(ifindex) {
            bail!("the interface {name} was renamed or replaced while programs were attached");
        }
        self.take_over(new);
        Ok(())
    }

    /// What was not attached yet, and is now.
    fn new(ebpf: &mut Ebpf, hooks: Hooks, ifindex: u32, name: &str) -> anyhow::Result<Self> {
        let mut new = Self::default();
        match hooks {
            Hooks::Tcx => {
                let mut link = |program, hook| tcx(classifier(ebpf, program)?, name, hook);
                new.to_pod = link(name::TO_POD, TcAttachType::Egress)?;
                new.from_pod = link(name::FROM_POD, TcAttachType::Ingress)?;
            }
            Hooks::Clsact => {
                new.qdisc = clsact::Qdisc::ensure(ifindex)?;
                let mut filter = |program, hook| {
                    let filter = clsact::attach(classifier(ebpf, program)?, name, ifindex, hook)?;
                    anyhow::Ok(filter.map(Hold::Filter))
                };
                new.to_pod = filter(name::TO_POD, TcAttachType::Egress)?;
                new.from_pod = filter(name::FROM_POD, TcAttachType::Ingress)?;
            }
        }
        Ok(new)
    }

    /// Where something had to be attached anew, what kept it before keeps nothing any more.
    fn take_over(&mut self, new: Self) {
        let Self { to_pod, from_pod, qdisc } = new;
        let anew = to_pod.is_some() || from_pod.is_some();
        for (held, new) in [(&mut self.to_pod, to_pod), (&mut self.from_pod, from_pod)] {
            if new.is_some()
                && let Some(old) = mem::replace(held, new)
            {
                old.forget();
            }
        }
        if anew && let Some(old) = mem::replace(&mut self.qdisc, qdisc) {
            old.forget();
        }
    }
}

fn tcx(
    program: &mut SchedClassifier,
    name: &str,
    hook: TcAttachType,
) -> anyhow::Result<Option<Hold>> {
    // Before other programs: none of them is to wave through what this one would deny.
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    match program.attach_with_options(name, hook, first) {
        Ok(link) => Ok(Some(Hold::Tcx { _link: program.take_link(link)? })),
        // The kernel takes no program twice at one hook.
        Err(ProgramError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A program of the object.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> anyhow::Result<&'a mut SchedClassifier> {
    let program =
        ebpf.program_mut(name).with_context(|| format!("no program {name} in the object"))?;
    program.try_into().with_context(|| format!("the program {name} is no classifier"))
}
