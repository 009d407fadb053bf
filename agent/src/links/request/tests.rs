//! How an answer is put together from datagrams.

use netlink_packet_core::{DoneMessage, NLM_F_MULTIPART};
use netlink_packet_route::link::LinkMessage;

use super::*;

const SEQUENCE: u32 = 7;

fn message(sequence: u32, flags: u16, payload: NetlinkPayload<RouteNetlinkMessage>) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_MULTIPART | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn item() -> NetlinkPayload<RouteNetlinkMessage> {
    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(LinkMessage::default()))
}

fn done(code: i32) -> NetlinkPayload<RouteNetlinkMessage> {
    let mut done = DoneMessage::default();
    done.code = code;
    NetlinkPayload::Done(done)
}

#[test]
fn an_answer_goes_over_datagrams_until_it_is_done() {
    let mut answer = Answer::default();
    let first = [message(SEQUENCE, 0, item()), message(SEQUENCE, 0, item())].concat();
    assert!(matches!(answer.take(&first, SEQUENCE), Ok(Progress::More)));
    let last = [message(SEQUENCE, 0, item()), message(SEQUENCE, 0, done(0))].concat();
    assert!(matches!(answer.take(&last, SEQUENCE), Ok(Progress::Complete)));
    assert_eq!(answer.items.len(), 3);
    assert!(!answer.interrupted);
}

#[test]
fn an_earlier_questions_answer_is_ignored() {
    let mut answer = Answer::default();
    let stale = [message(SEQUENCE - 1, 0, item()), message(SEQUENCE - 1, 0, done(0))].concat();
    assert!(matches!(answer.take(&stale, SEQUENCE), Ok(Progress::More)));
    assert!(answer.items.is_empty());
}

#[test]
fn an_inconsistent_answer_is_told() {
    let mut answer = Answer::default();
    let datagram = message(SEQUENCE, NLM_F_DUMP_INTR, item());
    assert!(answer.take(&datagram, SEQUENCE).is_ok());
    assert!(answer.interrupted);
}

#[test]
fn the_kernels_error_code_is_kept() {
    let failed = message(SEQUENCE, 0, done(-libc::ENODEV));
    let error = Answer::default().take(&failed, SEQUENCE).err().unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
}

#[test]
fn a_datagram_cut_short_is_an_error() {
    let whole = message(SEQUENCE, 0, item());
    for length in 1..whole.len() {
        let error = Answer::default().take(&whole[..length], SEQUENCE).err();
        assert!(error.is_some(), "{length} bytes of {}", whole.len());
    }
}
