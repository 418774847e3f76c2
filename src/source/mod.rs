//! I/O: source.
