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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    async fn pair() -> (WriteLimit, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind loopback");
        let address = listener.local_addr().expect("a bound address");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1 << 16).expect("a small buffer");
        let client = socket.connect(address).await.expect("connect to loopback");
        (WriteLimit::new(listener.accept().await.expect("accept").0), client)
    }

    /// Writes without end; gives how long it took to be refused.
    async fn write_on(mut server: WriteLimit) -> Duration {
        let begun = Instant::now();
        let chunk = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = server.write_all(&chunk).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up_after_the_stall() {
        let (server, client) = pair().await;
        tokio::time::pause();
        let took = write_on(server).await;
        assert!(took >= STALL && took < STALL + Duration::from_secs(1), "{took:?}");
        drop(client);
    }

    #[tokio::test]
    async fn a_client_that_reads_a_little_now_and_then_is_given_up_after_the_whole_time() {
        let (server, mut client) = pair().await;
        tokio::time::pause();
        let trickle = async {
            // More than the kernel holds for both ends, so that each turn makes the writer write.
            let mut buffer = vec![0; 16 << 20];
            loop {
                tokio::time::sleep(Duration::from_secs(3)).await;
                client.read_exact(&mut buffer).await.expect("bytes to read");
            }
        };
        let took = tokio::select! {
            took = write_on(server) => took,
            () = trickle => unreachable!("it reads for ever"),
        };
        assert!(took >= WHOLE && took < WHOLE + STALL, "{took:?}");
    }

    #[tokio::test]
    async fn a_client_that_reads_is_served_and_a_flush_begins_anew() {
        let (mut server, mut client) = pair().await;
        let chunk = vec![7; 8 << 20];
        let mut got = vec![0; 8 << 20];
        let (wrote, read) = tokio::join!(server.write_all(&chunk), client.read_exact(&mut got));
        wrote.expect("written");
        read.expect("read");
        assert!(server.began.is_some(), "eight MiB do not fit into the kernel's buffers at once");
        server.flush().await.expect("flushed");
        assert!(server.began.is_none());
    }
}
