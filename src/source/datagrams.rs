//! Several datagrams a system call, through `recvmmsg`.
//!
//! They are received into slots and copied from there to the end of the batch. Received straight into the batch each would
//! take the room of the longest datagram, a hundred times that of a common one, in every batch that waits in the queue; the
//! copy costs 5 ns for 68 bytes and 30 ns for 1,432.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};

use super::udp::{BATCH_BYTES, BATCH_DATAGRAMS};
use crate::pipeline::Batch;

/// Datagrams a system call at most. Twice as many save 3 ns a datagram and cost twice the memory.
const MOST_SLOTS: usize = 32;
/// All slots together: what a batch may grow beyond [`BATCH_BYTES`].
const SLOT_BYTES: usize = 256 * 1024;
/// Slots that begin at the same place of a page would share a few lines of the processor's cache.
const APART: usize = 192;

/// The buffers that datagrams are received into.
#[derive(Debug)]
pub(super) struct Slots {
    bytes: Vec<u8>,
    each: usize,
    max_datagram: usize,
}

/// What one filling of a batch brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) datagrams: usize,
    /// Nothing was left, or an error stands before it.
    pub(super) emptied: bool,
}

impl Slots {
    pub(super) fn new(max_datagram: usize) -> Slots {
        let each = max_datagram + APART;
        let slots = (SLOT_BYTES / max_datagram).clamp(1, MOST_SLOTS);
        Slots { bytes: vec![0; slots * each], each, max_datagram }
    }

    /// Takes what waits at the socket, until the batch is full.
    ///
    /// # Errors
    /// Any but "nothing there". What was received before it is in the batch.
    pub(super) fn fill(&mut self, socket: &impl AsRawFd, batch: &mut Batch) -> io::Result<Read> {
        let before = batch.datagrams.len();
        let mut emptied = false;
        while !emptied && batch.bytes.len() < BATCH_BYTES && batch.datagrams.len() < BATCH_DATAGRAMS {
            match self.receive(socket, batch) {
                Ok(short) => emptied = short,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => emptied = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Read { datagrams: batch.datagrams.len() - before, emptied })
    }

    /// Whether it filled less than all slots.
    fn receive(&mut self, socket: &impl AsRawFd, batch: &mut Batch) -> Result<bool, Errno> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .bytes
            .chunks_exact_mut(self.each)
            .map(|slot| [IoSliceMut::new(&mut slot[..self.max_datagram])])
            .collect();
        // Raw pointers stand in it, so it cannot wait for the next call in a task that moves between threads.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(slices.len(), None);
        let (slots, before) = (slices.len(), batch.datagrams.len());
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        for message in received {
            let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
            let port = message.address.as_ref().map_or(0, port);
            batch.push(message.iovs().next().unwrap_or_default(), truncated, port);
        }
        Ok(batch.datagrams.len() - before < slots)
    }
}

fn port(address: &SockaddrStorage) -> u16 {
    let v4 = address.as_sockaddr_in().map(|address| address.port());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.port())).unwrap_or(0)
}
