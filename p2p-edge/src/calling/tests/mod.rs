#![allow(clippy::unwrap_used)]

mod frames;
mod hunt;
mod model;
mod pair;
mod session;

use super::*;
use call_model::{Address, Caller};

/// A small seeded generator (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

pub(super) fn invite() -> Invite {
    Invite {
        call: CallId::new(1_700_000_000_000, 42),
        certificate: vec![7; 200],
        from: Caller {
            address: Some(Address::Handle("alice".parse().unwrap())),
            display_name: Some("Alice".into()),
            private: false,
        },
        to: "+442079460018".parse().unwrap(),
        media: "v=0 offer".into(),
        nonce: [9; 16],
        expires_unix: 1_700_000_060,
        signature: vec![3; 64],
    }
}

pub(super) fn token(byte: u8) -> ResumeToken {
    ResumeToken::new([byte; 16])
}

#[test]
fn of_two_crossing_calls_both_ends_keep_the_same_one() {
    let (low, high) = (CallId::new(1, 5), CallId::new(1, 6));
    assert_eq!(glare(low, high), Glare::KeepOwn);
    assert_eq!(glare(high, low), Glare::YieldOwn);
}
