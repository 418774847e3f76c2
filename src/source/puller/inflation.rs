//! How far a gzip body inflates, seen while it comes: ten gigabytes of zeros are ten megabytes on the wire, and nobody should
//! wait for them, or keep them, to learn that they are no profile.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;

use super::MAX_INFLATED;
use crate::pipeline::PullFailed;
use crate::source::fetch::{Watch, failed};

/// Counts what a body inflates to; keeps none of it.
#[derive(Debug, Default)]
pub(super) struct Inflation {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing has come yet.
    #[default]
    Start,
    Gzip(Box<MultiGzDecoder<Count>>),
    /// No gzip, or damaged: the check at the end tells which.
    Other,
}

/// A writer that only counts.
#[derive(Debug, Default)]
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        if self.0 > MAX_INFLATED { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Watch for Inflation {
    /// Inflates on a thread made for such work: a few kilobytes may become megabytes.
    async fn look(self, piece: Bytes) -> Result<Inflation, PullFailed> {
        match self.state {
            State::Other => Ok(self),
            _ => tokio::task::spawn_blocking(move || self.inflate(&piece))
                .await
                .unwrap_or_else(|_| Err(failed("not_a_profile", "the answer broke its reader".to_owned()))),
        }
    }
}

impl Inflation {
    fn inflate(self, piece: &[u8]) -> Result<Inflation, PullFailed> {
        let mut decoder = match self.state {
            State::Start if piece.is_empty() => return Ok(Inflation::default()),
            State::Start if piece[0] == 0x1f => Box::new(MultiGzDecoder::new(Count(0))),
            State::Gzip(decoder) => decoder,
            State::Start | State::Other => return Ok(Inflation { state: State::Other }),
        };
        match decoder.write_all(piece) {
            Ok(()) => Ok(Inflation { state: State::Gzip(decoder) }),
            Err(_) if decoder.get_ref().0 > MAX_INFLATED => Err(failed(
                "too_large",
                format!("the answer inflates to more than {} MiB: is it the app's pprof?", MAX_INFLATED >> 20),
            )),
            Err(_) => Ok(Inflation { state: State::Other }),
        }
    }
}
