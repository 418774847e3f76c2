//! Frames of a stream: four bytes of little-endian length, then as many bytes of lines.
//!
//! Knows bytes only. A frame that lies whole in what was read is copied once, into the batch; of one that does not, just what
//! has come is kept, and given back when it is complete: a connection that says nothing holds no memory.

use crate::pipeline::Batch;

/// Where a stream stands between two reads.
#[derive(Debug)]
pub(super) struct Frames {
    /// The longest frame that is taken.
    max: usize,
    state: State,
    /// What has come of an unfinished frame; shorter than `max`.
    begun: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the length: its bytes so far, and how many.
    Length([u8; 4], usize),
    /// In a frame, of which this much is missing.
    Frame(usize),
    /// In a frame that is too long, of which this much is passed over.
    TooLong(usize),
}

const BETWEEN: State = State::Length([0; 4], 0);

impl Frames {
    pub(super) fn new(max: usize) -> Frames {
        Frames { max, state: BETWEEN, begun: Vec::new() }
    }

    /// Takes what was read: whole frames go into `batch`, those too long are counted there.
    pub(super) fn take(&mut self, mut bytes: &[u8], batch: &mut Batch) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Length(known, have) => self.length(known, have, bytes, batch),
                State::Frame(missing) => self.frame(missing, bytes, batch),
                State::TooLong(missing) => self.pass_over(missing, bytes),
            };
        }
    }

    /// The stream has ended: of a frame that was cut, the whole lines count and the rest is told as truncated.
    pub(super) fn end(&mut self, batch: &mut Batch) {
        match self.state {
            BETWEEN | State::TooLong(_) => {}
            State::Length(..) | State::Frame(_) => batch.push(&self.begun, true, 0),
        }
        (self.state, self.begun) = (BETWEEN, Vec::new());
    }

    fn length<'a>(&mut self, mut known: [u8; 4], have: usize, bytes: &'a [u8], batch: &mut Batch) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(4 - have));
        known[have..have + now.len()].copy_from_slice(now);
        self.state = match have + now.len() {
            4 => self.begin(u32::from_le_bytes(known), batch),
            have => State::Length(known, have),
        };
        rest
    }

    fn begin(&self, length: u32, batch: &mut Batch) -> State {
        match usize::try_from(length).unwrap_or(usize::MAX) {
            // The Agent takes it for the end of the stream; nothing is lost by going on.
            0 => BETWEEN,
            length if length <= self.max => State::Frame(length),
            length => {
                batch.refused.frames_too_long += 1;
                State::TooLong(length)
            }
        }
    }

    fn frame<'a>(&mut self, missing: usize, bytes: &'a [u8], batch: &mut Batch) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(missing));
        if now.len() < missing {
            self.begun.extend_from_slice(now);
            self.state = State::Frame(missing - now.len());
            return rest;
        }
        if self.begun.is_empty() {
            batch.push(now, false, 0);
        } else {
            let mut whole = std::mem::take(&mut self.begun);
            whole.extend_from_slice(now);
            batch.push(&whole, false, 0);
        }
        self.state = BETWEEN;
        rest
    }

    fn pass_over<'a>(&mut self, missing: usize, bytes: &'a [u8]) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(missing));
        self.state = if now.len() == missing { BETWEEN } else { State::TooLong(missing - now.len()) };
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(parts: &[&[u8]]) -> Vec<u8> {
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap().to_le_bytes();
        parts.iter().flat_map(|part| [length(part).to_vec(), part.to_vec()].concat()).collect()
    }

    /// What comes out of a stream that is read in pieces of `step` bytes: frames with their mark, and how many were too long.
    fn read(stream: &[u8], step: usize) -> (Vec<(Vec<u8>, bool)>, u32) {
        let (mut frames, mut batch) = (Frames::new(10), Batch::default());
        stream.chunks(step).for_each(|piece| frames.take(piece, &mut batch));
        frames.end(&mut batch);
        let out = batch.iter().map(|(datagram, bytes)| (bytes.to_vec(), datagram.truncated)).collect();
        (out, batch.refused.frames_too_long)
    }

    fn check(stream: &[u8], expected: &[(&[u8], bool)], too_long: u32) {
        let expected: Vec<_> = expected.iter().map(|(bytes, cut)| (bytes.to_vec(), *cut)).collect();
        for step in 1..=stream.len().max(1) {
            assert_eq!(read(stream, step), (expected.clone(), too_long), "in pieces of {step}");
        }
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        check(
            &framed(&[b"a:1|c", b"b:2|g\nc:3", b"0123456789"]),
            &[(b"a:1|c", false), (b"b:2|g\nc:3", false), (b"0123456789", false)],
            0,
        );
    }

    #[test]
    fn frames_of_no_length_are_passed_over() {
        check(&framed(&[b"", b"a:1|c", b"", b""]), &[(b"a:1|c", false)], 0);
    }

    #[test]
    fn a_frame_too_long_is_counted_and_the_next_is_read() {
        check(&framed(&[b"a:1|c", b"01234567890", b"b:1|c"]), &[(b"a:1|c", false), (b"b:1|c", false)], 1);
        check(&framed(&[&[b'x'; 300]]), &[], 1);
    }

    #[test]
    fn the_end_within_a_frame_gives_what_has_come_as_cut() {
        let whole = framed(&[b"a:1|c", b"b:1|c\nc:2"]);
        check(&whole[..whole.len() - 1], &[(b"a:1|c", false), (b"b:1|c\nc:", true)], 0);
        check(&whole[..11], &[(b"a:1|c", false), (b"", true)], 0);
        check(&whole[..9], &[(b"a:1|c", false)], 0);
        let too_long = framed(&[b"01234567890"]);
        check(&too_long[..8], &[], 1);
    }

    #[test]
    fn a_length_of_four_gigabytes_holds_no_memory() {
        let (mut frames, mut batch) = (Frames::new(10), Batch::default());
        frames.take(b"\xff\xff\xff\xffpage.views:1|c", &mut batch);
        assert_eq!((frames.begun.capacity(), batch.refused.frames_too_long), (0, 1));
    }

    #[test]
    fn a_finished_frame_gives_its_memory_back() {
        let (mut frames, mut batch) = (Frames::new(10), Batch::default());
        frames.take(&framed(&[b"a:1|c"])[..7], &mut batch);
        assert!(frames.begun.capacity() > 0);
        frames.take(b"|c", &mut batch);
        assert_eq!((frames.begun.capacity(), batch.datagrams.len()), (0, 1));
    }
}
