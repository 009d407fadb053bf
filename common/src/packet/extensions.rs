//! The chain of IPv6 extension headers.

use super::{
    Bytes, EXTENSION_HEADERS, EXTENSIONS, ExtensionHeader, Fragment, HEADERS_LEN, protocol,
};
use crate::verdict::DropReason;

/// Where the last extension header can start that is followed.
const LAST_EXTENSION_HEADER: usize = HEADERS_LEN - size_of::<ExtensionHeader>();

/// The end of a chain of extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// Number of the header that is there.
    pub protocol: u8,
    /// Where it starts, in bytes from the start of the frame.
    pub offset: usize,
    /// Where a fragment header was among those before it; zero: nowhere.
    pub fragment_at: usize,
    /// Why it is not the transport header.
    pub problem: Option<DropReason>,
}

impl Last {
    /// As one number, which a function of the programs can return.
    #[inline(always)]
    pub const fn pack(&self) -> u64 {
        let problem = match self.problem {
            None => 0,
            Some(reason) => reason as u64 + 1,
        };
        (self.offset as u64 & Self::OFFSET)
            | (self.fragment_at as u64 & Self::OFFSET) << 16
            | problem << 40
            | (self.protocol as u64) << 32
    }

    /// Offsets have twelve bits: behind one above 256, no header is followed, and none is longer
    /// than 2,048 bytes. The verifier takes the mask for a bound.
    const OFFSET: u64 = 0xfff;

    /// From such a number.
    #[inline(always)]
    pub const fn unpack(packed: u64) -> Self {
        let problem = (packed >> 40) as u8;
        Self {
            protocol: (packed >> 32) as u8,
            offset: (packed & Self::OFFSET) as usize,
            fragment_at: (packed >> 16 & Self::OFFSET) as usize,
            problem: match problem {
                0 => None,
                number => match DropReason::from_number(number - 1) {
                    None => Some(DropReason::Internal),
                    reason => reason,
                },
            },
        }
    }
}

/// What the fragment header at `offset` says.
#[inline(always)]
pub(super) fn fragment_at<B: Bytes + ?Sized>(frame: &B, offset: usize) -> Fragment {
    let Some(header) = frame.read::<ExtensionHeader>(offset) else {
        return Fragment::NONE;
    };
    let offset_flags = u16::from_be_bytes(header.third_fourth);
    Fragment::new(
        offset_flags & 0xfff8,
        offset_flags & 1 != 0,
        u32::from_be_bytes(header.rest),
        offset + size_of::<ExtensionHeader>(),
    )
}

/// [`Bytes::last_header`], header by header.
#[inline(always)]
pub fn follow<B: Bytes + ?Sized>(frame: &B, first: u8, end: usize) -> Last {
    let mut last = Last { protocol: first, offset: EXTENSIONS, fragment_at: 0, problem: None };
    for position in 0..=EXTENSION_HEADERS {
        if !is_extension_header(last.protocol) {
            return last;
        }
        if last.protocol == protocol::HOP_BY_HOP && position > 0 {
            last.problem = Some(DropReason::Malformed);
            return last;
        }
        if position == EXTENSION_HEADERS || last.offset > LAST_EXTENSION_HEADER {
            last.problem = Some(DropReason::TooManyExtensionHeaders);
            return last;
        }
        let header = match frame.read::<ExtensionHeader>(last.offset) {
            Some(header) if last.offset + size_of::<ExtensionHeader>() <= end => header,
            Some(_) | None => {
                last.problem = Some(DropReason::Truncated);
                return last;
            }
        };
        let [length] = header.length;
        let length = usize::from(length);
        let header_len = match last.protocol {
            protocol::FRAGMENT => size_of::<ExtensionHeader>(),
            // RFC 4302, section 2.2: in words of four bytes, minus two.
            protocol::AH => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        let [third, _] = header.third_fourth;
        match last.protocol {
            protocol::ROUTING if third == 0 => last.problem = Some(DropReason::RoutingHeader),
            // Hosts would put it together twice.
            protocol::FRAGMENT if last.fragment_at != 0 => {
                last.problem = Some(DropReason::Malformed)
            }
            protocol::FRAGMENT => {
                last.fragment_at = last.offset;
                if u16::from_be_bytes(header.third_fourth) & 0xfff8 != 0 {
                    last.problem = Some(DropReason::FragmentWithoutFirst);
                }
            }
            _ if last.offset + header_len > end => last.problem = Some(DropReason::Truncated),
            _ => {}
        }
        [last.protocol] = header.next_header;
        if last.problem.is_some() {
            return last;
        }
        last.offset += header_len;
    }
    last
}

#[inline(always)]
pub(super) const fn is_extension_header(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION_OPTIONS
            | protocol::FRAGMENT
            | protocol::AH
    )
}
