//! I/O: sink.
