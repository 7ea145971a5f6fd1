//! What a network and the other side's programs do to a call: packet times, disorder, clocks, silence, strangers,
//! reports, and how it is measured. Whole calls in virtual time.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use transcoder::rtp::RtpPacket;

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod comfort_noise;
mod figures;
mod nat;
mod packet_time;
mod reports;
mod sources;
mod streams;

const SECOND: Duration = Duration::from_secs(1);

fn last(samples: &[i16], count: usize) -> &[i16] {
    &samples[samples.len() - count..]
}

/// An RTP packet with the numbers given.
fn rtp(payload_type: u8, sequence: u16, timestamp: u32, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, payload_type];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The same packet with other numbers.
fn renumbered(packet: &[u8], sequence: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let read = RtpPacket::parse(packet).unwrap();
    rtp(packet[1], sequence, timestamp, ssrc, read.payload())
}
