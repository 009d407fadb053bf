//! Whole frames, sent and captured at a pod's own interface: what only root in a pod can do.
//!
//! Owns a packet socket (packet(7)) on `eth0`. Invariant: a capture holds every frame that came in
//! or went out since it was opened, in order.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Instant,
};

use bulkhead::lab::Pod;
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
        setsockopt, socket, sockopt::RcvBufForce,
    },
};

use crate::cluster::{DEADLINE, LOOK_EVERY};

pub mod checksum;
pub mod headers;

/// Where the ethertype stands in a frame.
pub const ETHERTYPE: usize = 12;
/// Length of a VLAN tag.
const TAG_LEN: usize = 4;

/// A packet socket on a pod's `eth0`.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    mac: [u8; 6],
}

impl Wire {
    /// Opens it.
    ///
    /// # Panics
    /// Without root, or when the pod has no `eth0`.
    pub fn open(pod: &Pod) -> Self {
        let opened = pod.namespace().enter(|| {
            let link = link_of("eth0")?;
            let mac = link.addr().ok_or(Errno::ENODEV)?;
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_NONBLOCK);
            let all = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, kind, flags, all)?;
            // Bound by the link alone: the protocol stays the socket's.
            bind(socket.as_raw_fd(), &link)?;
            Ok::<_, Errno>(Self { socket, mac })
        });
        opened.expect("its namespace").expect("a packet socket")
    }

    /// The address of the interface.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The frame, from this interface to another one.
    pub fn address_to(&self, to: &Self, frame: &[u8]) -> Vec<u8> {
        let rest = frame.get(ETHERTYPE..).unwrap_or_default();
        [&to.mac[..], &self.mac, rest].concat()
    }

    /// Sends a frame as it is.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn send(&self, frame: &[u8]) {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).expect("it is sent");
        assert_eq!(sent, frame.len());
    }

    /// Holds some thousand frames from now on, not some hundred.
    ///
    /// # Panics
    /// Without root.
    pub fn make_room(&self) {
        setsockopt(&self.socket, RcvBufForce, &(8 << 20)).expect("a socket option");
    }

    /// The next frame that is there already.
    ///
    /// # Panics
    /// When the capture breaks.
    pub fn next_frame(&self) -> Option<Vec<u8>> {
        match self.next() {
            Ok(frame) => Some(frame),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("capture: {error}"),
        }
    }

    /// Waits for a frame, and returns those that came before it.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn until(&self, awaited: &[u8]) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + DEADLINE;
        let mut others = Vec::new();
        while Instant::now() < deadline {
            match self.next() {
                Ok(frame) if frame == awaited => return others,
                Ok(frame) => others.push(frame),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(LOOK_EVERY);
                }
                Err(error) => panic!("capture: {error}"),
            }
        }
        panic!("{awaited:02x?} did not arrive, but {others:02x?}");
    }

    fn next(&self) -> io::Result<Vec<u8>> {
        // First only how long it is: few are long.
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
        let mut bytes = vec![0; recv(self.socket.as_raw_fd(), &mut [], peek)?];
        recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        Ok(bytes)
    }
}

/// The frame as a capture shows it: the kernel takes the outermost VLAN tag off before.
pub fn captured(frame: &[u8]) -> Vec<u8> {
    match frame.get(ETHERTYPE..ETHERTYPE + 2) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => {
            [&frame[..ETHERTYPE], &frame[ETHERTYPE + TAG_LEN..]].concat()
        }
        _ => frame.to_vec(),
    }
}

/// Its index and address; in the calling thread's namespace.
fn link_of(name: &str) -> nix::Result<LinkAddr> {
    getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or(Errno::ENODEV)
}
