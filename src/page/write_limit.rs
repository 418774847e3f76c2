//! A TCP stream whose writes have a time limit: a client that stops reading, or reads a byte a second, loses its connection.
//!
//! hyper limits the time for a request's headers and nothing of the answer. The clock runs only while bytes wait that the
//! kernel will not take, so a quiet stream of events costs nothing.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Without any byte taken.
const STALL: Duration = Duration::from_secs(5);
/// From the first wait to the last byte handed over; the largest profile is a few MiB.
const WHOLE: Duration = Duration::from_secs(30);

pub(super) struct WriteLimit {
    stream: TcpStream,
    /// When the bytes that wait began to wait; `None` once all were handed over.
    began: Option<Instant>,
    /// The write before had to wait as well, so the alarm is set.
    stalled: bool,
    alarm: Pin<Box<Sleep>>,
}

impl WriteLimit {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, began: None, stalled: false, alarm: Box::pin(sleep_until(Instant::now())) }
    }

    /// Passes a write's outcome on, unless it has waited for too long.
    fn limited(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.stalled = false;
            return outcome;
        }
        if !self.stalled {
            let now = Instant::now();
            let began = *self.began.get_or_insert(now);
            self.alarm.as_mut().reset((now + STALL).min(began + WHOLE));
            self.stalled = true;
        }
        ready!(self.alarm.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for WriteLimit {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for WriteLimit {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limited(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.limited(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when its own buffer is empty: nothing waits any more.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.began = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
