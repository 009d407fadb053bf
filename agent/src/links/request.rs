//! Asks rtnetlink for a list and receives it whole, or for one thing to be done.
//!
//! Invariant: an answer is the complete answer to the question asked last. One that the kernel
//! calls inconsistent is asked for again; what an earlier, broken exchange left in the socket is
//! thrown away.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    libc,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::TimeVal,
    },
};

/// The kernel fills at most 32 KiB at a time (netlink_recvmsg, net/netlink/af_netlink.c).
const BUFFER_BYTES: usize = 64 * 1024;

/// How often a list that changed while it was read is asked for again.
const TRIES: u32 = 10;

/// The kernel answers while it is asked; this only bounds a fault.
const TIMEOUT_SECS: i64 = 10;

/// A socket for questions.
#[derive(Debug)]
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What one datagram means for the answer.
enum Progress {
    More,
    Complete,
}

impl Requests {
    /// A socket in the calling thread's network namespace, with strict checking: the kernel obeys
    /// the filters of a question or refuses it, where it would otherwise ignore them.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_netlink_get_strict_chk(true)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(TIMEOUT_SECS, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Asks for a list.
    ///
    /// # Errors
    /// The kernel's own error code, where it refuses.
    pub(crate) fn dump(
        &mut self,
        question: &RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..TRIES {
            self.ask(question, NLM_F_DUMP)?;
            let mut answer = Answer::default();
            loop {
                self.receive(0)?;
                match answer.take(&self.buffer, self.sequence)? {
                    Progress::More => {}
                    Progress::Complete if answer.interrupted => break,
                    Progress::Complete => return Ok(answer.items),
                }
            }
        }
        Err(io::Error::other(format!("changed while it was read, {TRIES} times in a row")))
    }

    /// Asks for one thing, or for something to be done, and waits until the kernel says that it is.
    ///
    /// # Errors
    /// The kernel's own error code, where it refuses.
    pub(crate) fn exchange(
        &mut self,
        question: &RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(question, NLM_F_ACK | flags)?;
        let mut answer = Answer::default();
        loop {
            self.receive(0)?;
            match answer.take(&self.buffer, self.sequence)? {
                Progress::More => {}
                Progress::Complete => return Ok(answer.items),
            }
        }
    }

    fn ask(&mut self, question: &RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        // A list that was left half read would go on now, and keep the kernel from starting another.
        while self.receive(libc::MSG_DONTWAIT).is_ok() {}

        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message =
            NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question.clone()));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Receives one datagram into the buffer.
    fn receive(&mut self, flags: i32) -> io::Result<()> {
        let length = loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, flags | libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        if length > self.buffer.len() {
            return Err(invalid(format!("datagram of {length} bytes does not fit")));
        }
        Ok(())
    }
}

/// An answer, as far as it was received.
#[derive(Default)]
struct Answer {
    items: Vec<RouteNetlinkMessage>,
    /// Something changed meanwhile: items may be missing or stand twice.
    interrupted: bool,
}

impl Answer {
    /// Takes the messages of one datagram. Those of another sequence number are an earlier
    /// question's.
    fn take(&mut self, datagram: &[u8], sequence: u32) -> io::Result<Progress> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let message = NetlinkMessage::deserialize(rest).map_err(invalid)?;
            // Messages are padded to 4 bytes, the last one not always.
            let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
            if length == 0 {
                return Err(invalid("message of no length"));
            }
            rest = &rest[length..];
            if message.header.sequence_number != sequence {
                continue;
            }
            self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(item) => self.items.push(item),
                NetlinkPayload::Done(done) if done.code == 0 => return Ok(Progress::Complete),
                NetlinkPayload::Done(done) => return Err(kernel_error(done.code)),
                // An acknowledgement is an error of number zero.
                NetlinkPayload::Error(error) if error.code.is_none() => {
                    return Ok(Progress::Complete);
                }
                NetlinkPayload::Error(error) => return Err(kernel_error(error.raw_code())),
                NetlinkPayload::Noop => {}
                NetlinkPayload::Overrun(_) | _ => return Err(invalid("unexpected message")),
            }
        }
        Ok(Progress::More)
    }
}

/// Netlink's codes are negative numbers of errno(3).
fn kernel_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_neg())
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("netlink: {}", what.to_string()))
}

#[cfg(test)]
mod tests;
