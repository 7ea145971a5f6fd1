//! The Causeway daemon and its command line.
