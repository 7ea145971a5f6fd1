//! Everything that happens to a voice packet between two sockets, sans-IO.
