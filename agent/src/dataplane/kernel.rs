//! The real kernel: loads the programs, writes the maps, attaches to interfaces.
//!
//! The only place that does any of these, by way of `attach` and `uplink` for the last. Invariant: an
//! operation that returns an error has left the interface or the map as it was.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key},
    programs::{SchedClassifier, Xdp},
    util::KernelVersion,
};
use bulkhead_common::{
    abi::{self, name},
    event::Event,
    key::{Ipv4, Ipv6, RuleKey},
    value::{Counter, Endpoint, Peer, PortRange, PortSet},
};
use nix::{
    net::if_::if_indextoname,
    sys::{
        resource::{RLIM_INFINITY, Resource, setrlimit},
        signal::{SigSet, SigmaskHow},
    },
};

use super::{
    attach::{Attached, Hooks, classifier},
    counters::Counters,
    flows::{self, Flows},
    op::{Execute, MapAddress, Op},
    refusal,
    uplink::{self, Mode, Uplink},
};

/// The compiled eBPF programs.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bulkhead-ebpf"));

/// The programs' global that has every packet judged, and logged, at length.
const JUDGE_ALL: &str = "JUDGE_ALL";
/// The programs' global that has them read a clock of Linux 5.11 that costs less.
const COARSE_CLOCK: &str = "COARSE_CLOCK";

/// How the programs are loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The programs log every packet through aya-log. Costs a lot; without it, nothing: the
    /// verifier removes the code.
    pub debug_log: bool,
    /// How they are attached; `None`: the best that this kernel has.
    pub hooks: Option<Hooks>,
    /// The program of the node's uplink is loaded, too.
    pub uplink: bool,
}

/// Programs and maps in the kernel. Dropping it takes the programs off every interface.
pub struct Kernel {
    ebpf: Ebpf,
    interfaces: Array<MapData, u32>,
    interfaces_above: HashMap<MapData, u32, u32>,
    endpoints: Array<MapData, Endpoint>,
    /// Of each interface, the place of its endpoint.
    places: BTreeMap<u32, u32>,
    peers_v4: HashMap<MapData, Ipv4, Peer>,
    peers_v6: HashMap<MapData, Ipv6, Peer>,
    cidrs_v4: LpmTrie<MapData, Ipv4, Peer>,
    cidrs_v6: LpmTrie<MapData, Ipv6, Peer>,
    rules: HashMap<MapData, RuleKey, PortSet>,
    port_ranges: Array<MapData, PortRange>,
    counters: Arc<Counters>,
    hooks: Hooks,
    attached: BTreeMap<u32, Attached>,
    /// If it was asked for.
    uplink: Option<Uplink>,
}

fn has_coarse_clock() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 11, 0))
}

impl Kernel {
    /// Loads programs and maps; attaches nothing.
    ///
    /// # Errors
    ///
    /// Lacking privileges, or a kernel that lacks something: what, and what to do about it.
    pub fn load(options: Options) -> anyhow::Result<Self> {
        raise_memory_limit();
        let log_level: u8 = if options.debug_log { aya_log::Level::Debug as u8 } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .override_global(aya_log::LEVEL, &log_level, options.debug_log)
            .override_global(JUDGE_ALL, &u8::from(options.debug_log), true)
            .override_global(COARSE_CLOCK, &u8::from(has_coarse_clock()), true)
            .load(OBJECT)
            .map_err(refusal::of_maps)?;
        let uplink = without_signals(|| {
            for program in [name::TO_POD, name::FROM_POD] {
                classifier(&mut ebpf, program)?
                    .load()
                    .map_err(|error| refusal::of_program(program, error))?;
            }
            let uplink = options.uplink.then(|| Uplink::load(&mut ebpf));
            uplink.transpose()
        })?;
        let counters = Counters::new(
            per_cpu(&mut ebpf, name::COUNTERS)?,
            per_cpu(&mut ebpf, name::EVENT_BUDGETS)?,
            per_cpu(&mut ebpf, name::EVENTS_SUPPRESSED)?,
        );
        Ok(Self {
            interfaces: take(&mut ebpf, name::INTERFACES)?,
            interfaces_above: take(&mut ebpf, name::INTERFACES_ABOVE)?,
            endpoints: take(&mut ebpf, name::ENDPOINTS)?,
            places: BTreeMap::new(),
            peers_v4: take(&mut ebpf, name::PEERS_V4)?,
            peers_v6: take(&mut ebpf, name::PEERS_V6)?,
            cidrs_v4: take(&mut ebpf, name::CIDRS_V4)?,
            cidrs_v6: take(&mut ebpf, name::CIDRS_V6)?,
            rules: take(&mut ebpf, name::RULES)?,
            port_ranges: take(&mut ebpf, name::PORT_RANGES)?,
            counters: Arc::new(counters),
            hooks: options.hooks.unwrap_or_else(Hooks::of_this_kernel),
            attached: BTreeMap::new(),
            uplink,
            ebpf,
        })
    }

    /// The counters, to be read at any time from any thread.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The ring buffer of [`Event`]s. There is one reader: a second call is an error.
    ///
    /// # Errors
    ///
    /// It was taken before.
    pub fn take_events(&mut self) -> anyhow::Result<RingBuf<MapData>> {
        take(&mut self.ebpf, name::EVENTS)
    }

    /// The maps of flows. There is one owner: a second call is an error.
    ///
    /// # Errors
    ///
    /// They were taken before.
    pub fn take_flows(&mut self) -> anyhow::Result<Flows> {
        Ok(Flows::new(flows::Maps {
            v4: take(&mut self.ebpf, name::FLOWS_V4)?,
            v6: take(&mut self.ebpf, name::FLOWS_V6)?,
            made: per_cpu(&mut self.ebpf, name::FLOWS_MADE)?,
        }))
    }

    /// A loaded program, to be run on single packets by tests and benchmarks.
    ///
    /// # Errors
    ///
    /// There is no classifier of that name.
    pub fn program(&mut self, name: &str) -> anyhow::Result<&mut SchedClassifier> {
        classifier(&mut self.ebpf, name)
    }

    /// Attaches the program of the uplink to a device, in the first of these modes that it takes. It
    /// leaves the device with the kernel's other programs.
    ///
    /// # Errors
    ///
    /// There is no such device, or it refuses: why, and what to do about it.
    pub fn attach_uplink(&mut self, device: &str, modes: &[Mode]) -> anyhow::Result<Mode> {
        uplink::attach(&mut self.ebpf, device, modes)
    }

    /// The program of the uplink, to be run on single packets by tests and benchmarks.
    ///
    /// # Errors
    ///
    /// It is not in the object.
    pub fn uplink(&mut self) -> anyhow::Result<&mut Xdp> {
        uplink::program(&mut self.ebpf)
    }

    /// Everything that aya knows of the object, for aya-log.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Fills the place of the endpoint that no packet is led to, then leads its packets there.
    fn set_endpoint(&mut self, ifindex: u32, endpoint: Endpoint) -> anyhow::Result<()> {
        let [first, second] =
            [false, true].map(|second| abi::endpoint_place(endpoint.counters, second));
        let place = if self.places.get(&ifindex) == Some(&first) { second } else { first };
        // The kernel copies a value in any order. Nobody takes one of no epoch for whole.
        let old = self.endpoints.get(&place, 0).context("cannot read ENDPOINTS")?;
        for value in [Endpoint { epoch: 0, ..old }, Endpoint { epoch: 0, ..endpoint }, endpoint] {
            named(name::ENDPOINTS, abi::ENDPOINT_PLACES, self.endpoints.set(place, value, 0))?;
        }
        self.set_interface(ifindex, place)?;
        self.places.insert(ifindex, place);
        if let Some(uplink) = &mut self.uplink {
            uplink.set(ifindex, &endpoint);
        }
        Ok(())
    }

    /// Leads an interface's packets to a place; zero leads nowhere.
    fn set_interface(&mut self, ifindex: u32, place: u32) -> anyhow::Result<()> {
        if ifindex < abi::INTERFACES {
            let written = self.interfaces.set(ifindex, place, 0);
            return named(name::INTERFACES, abi::INTERFACES, written);
        }
        let written = if place == 0 {
            absent_is_fine(self.interfaces_above.remove(&ifindex))
        } else {
            self.interfaces_above.insert(ifindex, place, 0)
        };
        named(name::INTERFACES_ABOVE, abi::ENDPOINTS, written)
    }
}

impl Execute for Kernel {
    fn exists(&self, ifindex: u32) -> bool {
        if_indextoname(ifindex).is_ok()
    }

    fn execute(&mut self, op: &Op) -> anyhow::Result<()> {
        match *op {
            Op::SetPortRange { index, range } => {
                named(name::PORT_RANGES, abi::PORT_RANGES, self.port_ranges.set(index, range, 0))
            }
            Op::SetRule { key, ports } => {
                named(name::RULES, abi::RULES, self.rules.insert(key, ports, 0))
            }
            Op::SetPeer { address, peer } => match address.into() {
                MapAddress::V4(address) => {
                    named(name::PEERS_V4, abi::PEERS, self.peers_v4.insert(address, peer, 0))
                }
                MapAddress::V6(address) => {
                    named(name::PEERS_V6, abi::PEERS, self.peers_v6.insert(address, peer, 0))
                }
            },
            Op::SetCidr { net, peer } => {
                let length = u32::from(net.prefix_len());
                match net.network().into() {
                    MapAddress::V4(address) => {
                        let key = Key::new(length, address);
                        named(name::CIDRS_V4, abi::CIDRS, self.cidrs_v4.insert(&key, peer, 0))
                    }
                    MapAddress::V6(address) => {
                        let key = Key::new(length, address);
                        named(name::CIDRS_V6, abi::CIDRS, self.cidrs_v6.insert(&key, peer, 0))
                    }
                }
            }
            Op::ClearCounters { block } => self.counters.clear(block),
            Op::SetEndpoint { ifindex, endpoint } => self.set_endpoint(ifindex, endpoint),
            Op::Attach { ifindex } => {
                let attached = self.attached.entry(ifindex).or_default();
                attached.attach(&mut self.ebpf, self.hooks, ifindex)
            }
            Op::Detach { ifindex } => {
                drop(self.attached.remove(&ifindex));
                Ok(())
            }
            Op::RemoveEndpoint { ifindex } => {
                if let Some(uplink) = &mut self.uplink {
                    uplink.remove(ifindex);
                }
                self.set_interface(ifindex, 0)?;
                self.places.remove(&ifindex);
                Ok(())
            }
            Op::RemoveRule { key } => {
                named(name::RULES, abi::RULES, absent_is_fine(self.rules.remove(&key)))
            }
            Op::RemoveCidr { net } => {
                let length = u32::from(net.prefix_len());
                match net.network().into() {
                    MapAddress::V4(address) => {
                        let removed = self.cidrs_v4.remove(&Key::new(length, address));
                        named(name::CIDRS_V4, abi::CIDRS, absent_is_fine(removed))
                    }
                    MapAddress::V6(address) => {
                        let removed = self.cidrs_v6.remove(&Key::new(length, address));
                        named(name::CIDRS_V6, abi::CIDRS, absent_is_fine(removed))
                    }
                }
            }
            Op::RemovePeer { address } => match address.into() {
                MapAddress::V4(address) => named(
                    name::PEERS_V4,
                    abi::PEERS,
                    absent_is_fine(self.peers_v4.remove(&address)),
                ),
                MapAddress::V6(address) => named(
                    name::PEERS_V6,
                    abi::PEERS,
                    absent_is_fine(self.peers_v6.remove(&address)),
                ),
            },
        }
    }
}

/// Before Linux 5.11, maps count as locked memory, of which a process may have little by default.
///
/// A limit that can't be raised is no error yet: later kernels don't ask for it, and on those that
/// do, the maps are refused.
fn raise_memory_limit() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!("cannot raise the limit of locked memory: {error}");
    }
}

/// Does something during which this thread takes no signal: one breaks the verifier off, and the
/// load would be tried again from the start.
fn without_signals<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .context("cannot block signals for the time of a load")?;
    let done = work();
    mask.thread_set_mask().context("cannot take signals again")?;
    done
}

/// The next event of a ring buffer, if there is one.
///
/// A record of another size is skipped: it can only stem from programs of another version.
pub fn next_event(events: &mut RingBuf<MapData>) -> Option<Event> {
    while let Some(record) = events.next() {
        if let Some(event) = Event::from_bytes(&record) {
            return Some(event);
        }
    }
    None
}

pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> anyhow::Result<M> {
    let map =
        ebpf.take_map(name).with_context(|| format!("no map {name}, or it was taken before"))?;
    M::try_from(map).with_context(|| format!("the map {name} is not what the agent expects"))
}

fn per_cpu<V: Pod>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<PerCpuArray<MapData, V>> {
    take(ebpf, name)
}

fn named(map: &str, capacity: u32, result: Result<(), MapError>) -> anyhow::Result<()> {
    result.with_context(|| format!("cannot write the map {map} (capacity {capacity})"))
}

pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

/// One packet and byte count, for every CPU summed up.
pub(super) fn sum(values: &[Counter]) -> Counter {
    values.iter().fold(Counter::default(), |sum, value| Counter {
        packets: sum.packets.wrapping_add(value.packets),
        bytes: sum.bytes.wrapping_add(value.bytes),
    })
}
