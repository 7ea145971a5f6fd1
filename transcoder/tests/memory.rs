//! How much memory the media of a call holds.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

#[path = "common/mod.rs"]
mod common;
use common::call::{Call, Options};
use common::signal::tone;

thread_local! {
    /// Octets that this thread has taken and not given back.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Weighing;

fn weigh(octets: isize) {
    // The cell is gone while the thread ends; nothing is weighed then.
    let _ = HELD.try_with(|cell| cell.set(cell.get() + octets));
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Weighing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        weigh(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        weigh(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Weighing = Weighing;

/// What libopus takes from the C library for an encoder and a decoder at 8 kHz (docs/decisions/0001).
const OPUS: usize = 50_000;
/// What the gateway may hold for the media of a call.
const MOST: usize = 200_000;

#[test]
fn the_media_of_a_call_take_less_than_200_kilobytes() {
    let mut call = Call::with_trunk(&Options { redundancy: [true; 2], ..Options::default() });
    call.net.weather.loss_per_mille = 30;
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(Duration::from_secs(30));
    let Call { bridge, .. } = call;
    let before = HELD.get();
    let itself = size_of_val(&bridge);
    drop(bridge);
    let held = usize::try_from(before - HELD.get()).unwrap();
    println!("{held} octets on the heap, {itself} in the bridge itself");
    assert!(held + itself + OPUS < MOST, "{held} octets on the heap, {itself} in the bridge itself");
}
