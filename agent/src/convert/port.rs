//! Protocols, numbers and names of ports, with the API server's checks.

use crate::policy::model::Protocol;

/// The longest name of a port (RFC 6335, section 5.1).
const MAX_NAME_LEN: usize = 15;

/// A protocol; TCP if none is written.
pub(super) fn protocol(written: Option<&str>) -> Result<Protocol, String> {
    match written {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("unknown protocol `{other}`; write TCP, UDP or SCTP")),
    }
}

/// A port by its number.
pub(super) fn number(written: i64) -> Result<u16, String> {
    match u16::try_from(written) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{written} is not a port; write a number from 1 to 65535")),
    }
}

/// Whether this can be the name of a port.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_name = name.len() <= MAX_NAME_LEN
        && name.bytes().all(|b| is_plain(b) || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if is_name {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not the name of a port; write at most {MAX_NAME_LEN} lower case letters, \
         digits and single `-` between them, one letter at least, or a number without quotes"
    ))
}
