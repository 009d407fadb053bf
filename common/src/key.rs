//! Keys of the maps, byte for byte as the kernel compares them.
//!
//! Every key is free of padding (asserted below): a padding byte that differs would make a look-up
//! miss. Addresses and ports are byte arrays in network order; numbers that only Bulkhead gives
//! meaning to are integers in host order.

/// An address of `N` bytes in network order: 4 for IPv4, 16 for IPv6.
///
/// Aligned to four bytes, as addresses lie in a packet behind an Ethernet header, so that they are
/// read and compared in words.
#[derive(Clone, Copy, Debug, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct Address<const N: usize>(pub [u8; N]);

/// An IPv4 address.
pub type Ipv4 = Address<4>;
/// An IPv6 address.
pub type Ipv6 = Address<16>;

impl<const N: usize> Address<N> {
    /// All zeros: "no address" in an endpoint, the unspecified address in a packet.
    pub const ZERO: Self = Self([0; N]);

    /// Whether all bytes are zero.
    #[inline(always)]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// Four bytes of it, from `index * 4` on, in the host's order. Zero behind the end.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the compiler would read the array byte by byte")]
    pub const fn word(&self, index: usize) -> u32 {
        if index * 4 + 4 > N {
            return 0;
        }
        // SAFETY: the comparison keeps it inside of the array, `repr(align(4))` aligns it.
        unsafe { (&raw const *self).cast::<u32>().add(index).read() }
    }

    /// Of its words.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the compiler would write the array byte by byte")]
    pub fn from_words(word: impl Fn(usize) -> u32) -> Self {
        let mut address = Self::ZERO;
        for index in 0..N / 4 {
            // SAFETY: the index is inside of the array, `repr(align(4))` aligns it.
            unsafe { (&raw mut address).cast::<u32>().add(index).write(word(index)) };
        }
        address
    }
}

/// Word by word: the programs compare addresses for every packet.
impl<const N: usize> PartialEq for Address<N> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (0..N / 4).all(|index| self.word(index) == other.word(index))
    }
}

impl<const N: usize> core::hash::Hash for Address<N> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A port as it stands in a packet, in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(2))]
pub struct Port(pub [u8; 2]);

impl Port {
    /// From a number.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be_bytes())
    }

    /// As a number.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

/// The key of `rules`: who asks, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct RuleKey {
    /// The policy set of the endpoint in one direction.
    pub policy_set: u32,
    /// The identity of the peer.
    pub identity: u32,
}

/// The key of `flows_v4` and `flows_v6`: one flow of one endpoint.
///
/// The pod's own address is implied by `ifindex`. Which side opened the flow stands in the value,
/// so that both directions find the same entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey<const N: usize> {
    /// The other end's address.
    pub peer: Address<N>,
    /// The host-side interface of the pod.
    pub ifindex: u32,
    /// The pod's port. The identifier of an ICMP echo that the pod asks for; zero for the peer's.
    pub pod_port: Port,
    /// The other end's port. The identifier of an ICMP echo that it asks for; zero for the pod's.
    pub peer_port: Port,
    /// The IP protocol number.
    pub protocol: u32,
}

/// The key of `fragments_v4` and `fragments_v6`: one datagram that comes in fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FragmentKey<const N: usize> {
    /// Source address.
    pub source: Address<N>,
    /// Destination address.
    pub destination: Address<N>,
    /// The host-side interface of the pod, times two, plus the number of the direction.
    pub hook: u32,
    /// The identification of the datagram, as a number.
    pub identification: u32,
    /// IPv4: the protocol, which identifications are unique for. IPv6: zero.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Ipv4>() == 4 && size_of::<Ipv6>() == 16);
const _: () = assert!(size_of::<RuleKey>() == 8);
const _: () = assert!(size_of::<FragmentKey<4>>() == 20 && size_of::<FragmentKey<16>>() == 44);
const _: () = assert!(size_of::<FlowKey<4>>() == 16 && align_of::<FlowKey<4>>() == 4);
const _: () = assert!(size_of::<FlowKey<16>>() == 28 && align_of::<FlowKey<16>>() == 4);
