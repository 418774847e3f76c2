//! I/O: page.
