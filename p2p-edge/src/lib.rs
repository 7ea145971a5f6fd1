//! Causeway's node in the overlay.
