//! Filters of an interface's clsact qdisc: how kernels without TCX have programs at its hooks.
//!
//! A filter belongs to the interface, not to whoever made it. So each of ours stands at a place of
//! its own ([`PRIORITY`], [`HANDLE`]) under its program's name. Invariants: what stands there under
//! another name is left alone, and so is a qdisc that was there before or that others use.

use std::{
    io::{self, ErrorKind},
    mem,
};

use anyhow::bail;
use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{self, TcAttribute, TcFilterBpfOption, TcMessage, TcOption},
};
use nix::libc;

use super::refusal;
use crate::links::request::Requests;

/// Filters run in the order of their priorities, and this is the first: no other program is to wave
/// through what ours would deny.
const PRIORITY: u16 = 1;
/// Tells our filters from others of that priority.
const HANDLE: TcHandle = TcHandle::new(0, 0xb41c);

const QDISC: &str = "clsact";

/// A clsact qdisc that we made. Dropping it removes it, if no filter is left there.
pub(super) struct Qdisc {
    ifindex: u32,
}

impl Qdisc {
    /// Makes one, if there is none yet.
    ///
    /// # Errors
    ///
    /// What the kernel refuses, and why; or an older sort of qdisc stands at its place, which would
    /// run both programs at one hook.
    pub(super) fn ensure(ifindex: u32) -> anyhow::Result<Option<Self>> {
        let mut requests = Requests::open()?;
        let add = RouteNetlinkMessage::NewQueueDiscipline(Self::message(ifindex)?);
        match requests.exchange(&add, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => return Ok(Some(Self { ifindex })),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refusal::of_qdisc(error)),
        }
        // Of a name that is not the present qdisc's, the kernel says that it is invalid.
        let get = RouteNetlinkMessage::GetQueueDiscipline(Self::message(ifindex)?);
        match requests.exchange(&get, 0) {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidInput => bail!(
                "somebody's ingress qdisc stands where this kernel, which lacks TCX (Linux 6.6), \
                 needs a clsact qdisc: have it replaced by one, which does the same and more"
            ),
            Err(error) => Err(refusal::of_qdisc(error)),
        }
    }

    /// Leaves it where it is: it may be another one by now, under an index that was given anew.
    pub(super) fn forget(self) {
        mem::forget(self);
    }

    fn message(ifindex: u32) -> io::Result<TcMessage> {
        let mut message = TcMessage::with_index(index(ifindex)?);
        message.header.handle = tc::TcHandle { major: u16::MAX, minor: 0 };
        message.header.parent = tc::TcHandle::CLSACT;
        message.attributes.push(TcAttribute::Kind(QDISC.to_owned()));
        Ok(message)
    }

    fn remove_if_empty(&self) -> io::Result<()> {
        let mut requests = Requests::open()?;
        for hook in [TcAttachType::Egress, TcAttachType::Ingress] {
            let mut question = TcMessage::with_index(index(self.ifindex)?);
            question.header.parent = parent(hook);
            let filters = requests.dump(&RouteNetlinkMessage::GetTrafficFilter(question))?;
            if !filters.is_empty() {
                return Ok(());
            }
        }
        let remove = RouteNetlinkMessage::DelQueueDiscipline(Self::message(self.ifindex)?);
        requests.exchange(&remove, 0).map(drop)
    }
}

impl Drop for Qdisc {
    fn drop(&mut self) {
        // What it hung on may be gone by now, and an empty one does nothing.
        if let Err(error) = self.remove_if_empty() {
            tracing::debug!("the clsact qdisc of interface {} stays: {error}", self.ifindex);
        }
    }
}

/// A program of ours at a hook. Dropping it takes the program off, if it still stands there.
pub(super) struct Filter {
    /// `None` when there is nothing to take off any more.
    link: Option<SchedClassifierLink>,
    ifindex: u32,
    hook: TcAttachType,
    program: u32,
}

impl Filter {
    /// Of a filter that is gone: what stands at its place by now is not its own.
    pub(super) fn forget(mut self) {
        mem::forget(self.link.take());
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if self.link.is_none() {
            return;
        }
        let still = find(self.ifindex, self.hook);
        if still.is_ok_and(|found| found.is_some_and(|found| found.program == self.program)) {
            drop(self.link.take());
        } else {
            // By its place alone, it would take off what another agent put there.
            mem::forget(self.link.take());
        }
    }
}

/// Attaches a program, unless it is.
///
/// An agent that was killed leaves its filters behind, with its maps: they enforce until they are
/// replaced here, without a gap.
///
/// # Errors
///
/// What the kernel refuses, and why; or something of another name stands at our place.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    ifindex: u32,
    hook: TcAttachType,
) -> anyhow::Result<Option<Filter>> {
    let info = program.info()?;
    let link = match find(ifindex, hook)? {
        Some(found) if found.program == info.id() => return Ok(None),
        Some(found) if info.name_as_str() == Some(&found.name) => {
            let old = SchedClassifierLink::attached(interface, hook, PRIORITY, HANDLE, None)?;
            program.attach_to_link(old)
        }
        Some(found) => bail!(
            "a filter named {:?} has priority {PRIORITY} and handle {:#x}, which are ours: remove it",
            found.name,
            u32::from(HANDLE)
        ),
        None => {
            let place = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            program.attach_with_options(interface, hook, TcAttachOptions::Netlink(place))
        }
    };
    let link = link.and_then(|link| program.take_link(link)).map_err(refusal::of_filter)?;
    Ok(Some(Filter { link: Some(link), ifindex, hook, program: info.id() }))
}

/// What stands at our place.
struct Found {
    program: u32,
    name: String,
}

/// The filter at our place of a hook.
fn find(ifindex: u32, hook: TcAttachType) -> io::Result<Option<Found>> {
    let mut question = TcMessage::with_index(index(ifindex)?);
    question.header.parent = parent(hook);
    question.header.handle = tc::TcHandle::from(u32::from(HANDLE));
    // The protocol stands in network order.
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    question.header.info = u32::from(PRIORITY) << 16 | u32::from(every_protocol);
    let question = RouteNetlinkMessage::GetTrafficFilter(question);
    let answer = match Requests::open()?.exchange(&question, 0) {
        Ok(answer) => answer,
        // No such filter; no qdisc to have one.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut found = Found { program: 0, name: String::new() };
    for message in answer {
        let RouteNetlinkMessage::NewTrafficFilter(filter) = message else { continue };
        for attribute in filter.attributes {
            let TcAttribute::Options(options) = attribute else { continue };
            for option in options {
                if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
                    found.program = id;
                } else if let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option {
                    found.name = name;
                }
            }
        }
    }
    Ok(Some(found))
}

/// Where tc has the filters of a hook.
const fn parent(hook: TcAttachType) -> tc::TcHandle {
    let minor = match hook {
        TcAttachType::Ingress => tc::TcHandle::MIN_INGRESS,
        TcAttachType::Egress => tc::TcHandle::MIN_EGRESS,
        TcAttachType::Custom(parent) => {
            return tc::TcHandle { major: (parent >> 16) as u16, minor: parent as u16 };
        }
    };
    tc::TcHandle { major: u16::MAX, minor }
}

fn index(ifindex: u32) -> io::Result<i32> {
    i32::try_from(ifindex).map_err(|_| io::Error::from(ErrorKind::InvalidInput))
}
