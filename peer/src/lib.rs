//! The reference overlay user: library and scriptable softphone.
