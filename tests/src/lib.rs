//! What the suites over the whole of Causeway share.
//!
//! [`lab`] runs real programs: the product's own, and the peers it must work with (Asterisk above all), each as a
//! child process that cannot outlive the test that started it, on loopback addresses no other test uses.
//! [`audio`] measures what was heard: correlation with what was said, tones, digits.
//!
//! The scripts that fetch and start foreign software are in `tests/lab`; they work without this crate too.

#![forbid(unsafe_code)]

pub mod audio;
pub mod lab;
