//! Wiring: binds the sockets, builds every task, owns the JoinSet, drains. The only file that knows everybody.
