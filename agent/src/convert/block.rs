//! Blocks of addresses, read as the API server reads them.
//!
//! Old servers stored what newer ones refuse, and new ones keep it. So a block is read as the
//! server does (`ParseCIDRSloppy` of `k8s.io/utils/net`): bits beyond the prefix don't count, and a
//! block of IPv4-mapped addresses is the IPv4 block.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{api, policy::model::IpBlock};

use super::{Defect, FieldPath, address};

/// Bits in front of the IPv4 address in an IPv4-mapped one (RFC 4291, section 2.5.5.2).
const MAPPED_PREFIX_LEN: u8 = 96;

/// The block that lies at `at`.
pub(super) fn ip_block(written: &api::IpBlock, at: &FieldPath) -> Result<IpBlock, Defect> {
    let field = at.field("cidr");
    let cidr = network(&written.cidr).map_err(|problem| Defect::new(field, problem))?;
    let mut except = BTreeSet::new();
    for (index, text) in written.except.iter().flatten().enumerate() {
        let defect = |problem| Defect::new(at.field("except").element(index), problem);
        let net = network(text).map_err(defect)?;
        if !cidr.contains(&net) || net == cidr {
            let problem = format!(
                "{net} is not a smaller block inside of {cidr}; correct or remove it (an except \
                 takes away from its own block only)"
            );
            return Err(defect(problem));
        }
        except.insert(net);
    }
    Ok(IpBlock { cidr, except })
}

/// A block without its host bits.
fn network(text: &str) -> Result<IpNet, String> {
    let unreadable = || {
        format!("`{text}` is not a block of addresses; write one such as 10.0.0.0/8 or fd00::/8")
    };
    let (address, len) = text.split_once('/').ok_or_else(unreadable)?;
    let address = address::parse(address).ok_or_else(unreadable)?;
    let len: u8 = address::decimal(len).ok_or_else(unreadable)?;
    let canonical = address.to_canonical();
    let is_mapped = canonical != address;
    let len = if is_mapped {
        len.checked_sub(MAPPED_PREFIX_LEN).ok_or_else(|| {
            format!(
                "`{text}` holds IPv4 addresses written as IPv6, and others; write one block for \
                 each family"
            )
        })?
    } else {
        len
    };
    IpNet::new(canonical, len).map(|net| net.trunc()).map_err(|_| unreadable())
}
