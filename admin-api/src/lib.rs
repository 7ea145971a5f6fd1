//! REST, console and metrics endpoint.
