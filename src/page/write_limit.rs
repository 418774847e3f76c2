//! A stream whose writes have a time limit: a client that stops reading, or reads a byte a second, loses its connection.
//!
//! hyper limits the time for a request's headers and nothing of the answer. The clock runs only while bytes wait that the
//! kernel will not take, so a quiet stream of events costs nothing.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Without any byte taken.
const STALL: Duration = Duration::from_secs(5);
/// From the first wait to the last byte handed over; the largest profile is a few MiB.
const WHOLE: Duration = Duration::from_secs(30);

pub(super) struct WriteLimit<S> {
    stream: S,
    /// When the bytes that wait began to wait; `None` once all were handed over.
    began: Option<Instant>,
    /// The write before had to wait as well, so the alarm is set.
    stalled: bool,
    alarm: Pin<Box<Sleep>>,
}

impl<S> WriteLimit<S> {
    pub(super) fn new(stream: S) -> Self {
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

impl<S: AsyncRead + Unpin> AsyncRead for WriteLimit<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteLimit<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// What the "kernel" holds for the reader.
    const HELD: usize = 1024;

    /// Writes without end; gives how long it took to be refused.
    async fn write_on(stream: DuplexStream) -> Duration {
        let begun = Instant::now();
        let mut stream = WriteLimit::new(stream);
        let error = loop {
            if let Err(error) = stream.write_all(&[0; HELD]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        begun.elapsed()
    }

    /// The timer counts in whole milliseconds.
    fn check(took: Duration, expected: Duration) {
        assert!(took >= expected && took <= expected + Duration::from_millis(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_given_up_after_the_stall() {
        let (server, _client) = duplex(HELD);
        check(write_on(server).await, STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_little_now_and_then_is_given_up_after_the_whole_time() {
        let (server, mut client) = duplex(HELD);
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_secs(4)).await;
                client.read_u8().await.expect("a byte to read");
            }
        };
        tokio::select! {
            took = write_on(server) => check(took, WHOLE),
            () = trickle => unreachable!("it reads for ever"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_flush_both_limits_begin_anew() {
        let (server, mut client) = duplex(HELD);
        let mut stream = WriteLimit::new(server);
        for _ in 0..20 {
            let mut got = [0; 2 * HELD];
            let late = async {
                tokio::time::sleep(Duration::from_secs(4)).await;
                client.read_exact(&mut got).await
            };
            tokio::try_join!(stream.write_all(&[7; 2 * HELD]), late).expect("written within the stall");
            stream.flush().await.expect("flushed");
        }
    }
}
