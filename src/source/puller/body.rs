//! The body of an answer while it comes. A profile is kept gzipped, whether it came so or not: what a round holds of an app that
//! sends plain bytes would be several times as much. It ends when it inflates too far: ten gigabytes of zeros are ten megabytes
//! on the wire, and nobody should wait for them, or keep them, to learn that they are no profile.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};

use super::MAX_INFLATED;
use crate::pipeline::PullFailed;
use crate::source::fetch::{Keep, failed};

/// What is kept of one profile. Of a large app it has 2 MiB; four times that is more than the reader could hold of it.
const MAX_KEPT: usize = 8 << 20;

/// A profile as it is kept.
#[derive(Debug, Default)]
pub(super) enum Body {
    /// Nothing has come yet.
    #[default]
    Start,
    Gzip {
        bytes: Vec<u8>,
        /// `None` once it is damaged: the check at the end tells how.
        inflated: Option<Box<MultiGzDecoder<Count>>>,
    },
    /// It comes uncompressed, and is no profile perhaps.
    Plain(Box<GzEncoder<Vec<u8>>>),
}

/// A text as it came.
#[derive(Debug, Default)]
pub(super) struct Text(pub Vec<u8>);

/// A writer that only counts.
#[derive(Debug, Default)]
pub(super) struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        if self.0 > MAX_INFLATED { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Keep for Text {
    async fn take(mut self, piece: Bytes) -> Result<Text, PullFailed> {
        self.0.extend_from_slice(&piece);
        Ok(self)
    }
}

impl Keep for Body {
    /// On a thread made for such work: a few kilobytes may inflate to megabytes.
    async fn take(self, piece: Bytes) -> Result<Body, PullFailed> {
        let taken = tokio::task::spawn_blocking(move || self.add(&piece)).await;
        taken.unwrap_or_else(|_| Err(failed("not_a_profile", "the answer broke its reader".to_owned())))
    }
}

impl Body {
    pub fn add(mut self, piece: &[u8]) -> Result<Body, PullFailed> {
        if matches!(self, Body::Start) && !piece.is_empty() {
            self = Body::begun(piece[0] == 0x1f);
        }
        match &mut self {
            Body::Start => {}
            Body::Gzip { bytes, inflated } => {
                bytes.extend_from_slice(piece);
                inflate(inflated, piece)?;
            }
            Body::Plain(encoder) => encoder.write_all(piece).map_err(|error| broken(&error))?,
        }
        if self.kept() > MAX_KEPT {
            let words = format!("the profile has more than {} MiB gzipped: is it the app's pprof?", MAX_KEPT >> 20);
            return Err(failed("too_large", words));
        }
        Ok(self)
    }

    fn begun(gzipped: bool) -> Body {
        if gzipped {
            return Body::Gzip { bytes: Vec::new(), inflated: Some(Box::new(MultiGzDecoder::new(Count(0)))) };
        }
        Body::Plain(Box::new(GzEncoder::new(Vec::new(), Compression::fast())))
    }

    fn kept(&self) -> usize {
        match self {
            Body::Start => 0,
            Body::Gzip { bytes, .. } => bytes.len(),
            Body::Plain(encoder) => encoder.get_ref().len(),
        }
    }

    /// The profile, and whether it came plain.
    pub fn finish(self) -> Result<(Bytes, bool), PullFailed> {
        match self {
            Body::Start => Ok((Bytes::new(), false)),
            Body::Gzip { bytes, .. } => Ok((bytes.into(), false)),
            Body::Plain(encoder) => encoder.finish().map(|bytes| (bytes.into(), true)).map_err(|error| broken(&error)),
        }
    }
}

fn inflate(inflated: &mut Option<Box<MultiGzDecoder<Count>>>, piece: &[u8]) -> Result<(), PullFailed> {
    let Some(decoder) = inflated else { return Ok(()) };
    if decoder.write_all(piece).is_ok() {
        return Ok(());
    }
    if decoder.get_ref().0 > MAX_INFLATED {
        let words = format!("the answer inflates to more than {} MiB: is it the app's pprof?", MAX_INFLATED >> 20);
        return Err(failed("too_large", words));
    }
    *inflated = None;
    Ok(())
}

fn broken(error: &io::Error) -> PullFailed {
    failed("not_a_profile", format!("gzip the answer: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::source::puller::{Fault, check};

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..bytes).map(&mut next).collect()
    }

    #[test]
    fn a_plain_profile_is_kept_gzipped() {
        // A field of half a MiB that nobody knows, of a length in three bytes.
        let plain = [&[0x7a, 0x80, 0x80, 0x20][..], &[7; 512 << 10]].concat();
        let kept = |plain: &[u8]| plain.chunks(9_000).try_fold(Body::default(), Body::add).unwrap().finish().unwrap();
        let (bytes, came_plain) = kept(&plain);
        assert!(came_plain && bytes.len() < 8 << 10, "{} bytes are kept", bytes.len());
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut inflated).unwrap();
        assert!(inflated == plain && check(&bytes, true) == Ok(()));
        assert_eq!(check(&kept(&plain[..500_000]).0, true), Err(Fault::Truncated));
        assert_eq!(check(&kept(b"<html>").0, true), Err(Fault::Foreign));
    }

    #[test]
    fn what_is_large_even_gzipped_is_refused_while_it_comes() {
        for start in [0x0a, 0x1f] {
            let mut piece = noise(64 << 10);
            let (mut body, mut pieces) = (Ok(Body::default()), 0);
            while let Ok(before) = body {
                piece[0] = start;
                body = before.add(&piece);
                pieces += 1;
            }
            let failed = body.unwrap_err();
            assert!(failed.reason == "too_large" && failed.words.contains("more than 8 MiB gzipped"), "{failed:?}");
            assert!((128..=131).contains(&pieces), "{pieces} pieces of 64 KiB");
        }
    }
}
