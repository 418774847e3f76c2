//! Protobuf's outermost layer, read as a stream: one field in memory at a time, whatever the message weighs.
//!
//! What the fields mean is left to [`super::read`]. A whole-message decoder would hold the inflated bytes and build millions
//! of empty samples from them before anyone could say stop; here the reader charges each field as it comes by.

use std::io::{BufRead, ErrorKind};

use super::read::ReadError;

/// The longest field that is taken into memory. A Go stack has at most 128 frames and a name a few hundred bytes.
const MAX_FIELD: u64 = 256 << 10;

/// One field of the outermost message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
    /// A field that nobody asked for; its bytes were passed over.
    Passed,
}

/// Reads fields from `input` until it has given `cap` bytes.
#[derive(Debug)]
pub(super) struct Wire<R> {
    input: R,
    taken: usize,
    cap: usize,
    field: Vec<u8>,
}

impl<R: BufRead> Wire<R> {
    pub(super) fn new(input: R, cap: usize) -> Self {
        Self { input, taken: 0, cap, field: Vec::new() }
    }

    /// Up to 256 bytes from the start, to tell a web page from a damaged profile. To be asked before the first field.
    pub(super) fn start(&mut self) -> Result<Vec<u8>, ReadError> {
        let chunk = self.input.fill_buf().map_err(|error| failed(&error))?;
        Ok(chunk[..chunk.len().min(256)].to_vec())
    }

    /// The next field, or `None` at the end. Fields with bytes are read when `wanted` says so and passed over otherwise.
    pub(super) fn next(&mut self, wanted: fn(u64) -> bool) -> Result<Option<Field<'_>>, ReadError> {
        let Some(first) = self.byte()? else { return Ok(None) };
        let key = self.varint_after(first)?;
        let tag = key >> 3;
        match key & 7 {
            _ if tag == 0 => Err(ReadError::Malformed("it is not pprof's protobuf")),
            0 => Ok(Some(Field::Number(tag, self.varint()?))),
            1 => self.pass(8),
            5 => self.pass(4),
            2 => {
                let length = self.varint()?;
                if !wanted(tag) {
                    return self.pass(length);
                }
                self.fill(length)?;
                Ok(Some(Field::Bytes(tag, &self.field)))
            }
            _ => Err(ReadError::Malformed("it is not pprof's protobuf")),
        }
    }

    fn fill(&mut self, length: u64) -> Result<(), ReadError> {
        if length > MAX_FIELD {
            return Err(ReadError::Malformed("a field is longer than 256 KiB"));
        }
        self.field.clear();
        self.each_chunk(length, |field, chunk| field.extend_from_slice(chunk))
    }

    fn pass(&mut self, length: u64) -> Result<Option<Field<'_>>, ReadError> {
        self.each_chunk(length, |_, _| ())?;
        Ok(Some(Field::Passed))
    }

    fn each_chunk(&mut self, mut left: u64, take: fn(&mut Vec<u8>, &[u8])) -> Result<(), ReadError> {
        while left > 0 {
            let chunk = self.input.fill_buf().map_err(|error| failed(&error))?;
            if chunk.is_empty() {
                return Err(ReadError::Malformed("it ends within a field"));
            }
            let n = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            take(&mut self.field, &chunk[..n]);
            self.consume(n)?;
            left -= n as u64;
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, ReadError> {
        let first = self.byte()?.ok_or(ReadError::Malformed("it ends within a field"))?;
        self.varint_after(first)
    }

    fn varint_after(&mut self, first: u8) -> Result<u64, ReadError> {
        let (mut byte, mut value, mut shift) = (first, 0_u64, 0);
        loop {
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return Err(ReadError::Malformed("a number has more than 64 bits"));
            }
            byte = self.byte()?.ok_or(ReadError::Malformed("it ends within a field"))?;
        }
    }

    fn byte(&mut self) -> Result<Option<u8>, ReadError> {
        let chunk = self.input.fill_buf().map_err(|error| failed(&error))?;
        let Some(byte) = chunk.first().copied() else { return Ok(None) };
        self.consume(1)?;
        Ok(Some(byte))
    }

    fn consume(&mut self, n: usize) -> Result<(), ReadError> {
        self.input.consume(n);
        self.taken += n;
        if self.taken > self.cap { Err(ReadError::TooLarge(self.cap)) } else { Ok(()) }
    }
}

fn failed(error: &std::io::Error) -> ReadError {
    match error.kind() {
        ErrorKind::UnexpectedEof => ReadError::Truncated,
        _ => ReadError::Malformed("the gzip stream is broken"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], cap: usize) -> Result<Vec<String>, ReadError> {
        let mut wire = Wire::new(bytes, cap);
        let mut seen = Vec::new();
        while let Some(field) = wire.next(|tag| tag == 6)? {
            seen.push(format!("{field:?}"));
        }
        Ok(seen)
    }

    #[test]
    fn fields_come_one_at_a_time_and_unwanted_ones_are_passed_over() {
        let bytes = [0x60, 0x96, 0x01, 0x32, 2, b'h', b'i', 0x1a, 3, 1, 2, 3, 0x09, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            all(&bytes, 100).expect("four fields"),
            ["Number(12, 150)", "Bytes(6, [104, 105])", "Passed", "Passed"]
        );
    }

    #[test]
    fn the_cap_counts_every_byte() {
        let bytes = [0x32, 2, b'h', b'i'];
        assert!(all(&bytes, 4).is_ok());
        assert_eq!(all(&bytes, 3), Err(ReadError::TooLarge(3)));
    }

    #[test]
    fn nonsense_is_told_in_words() {
        let cases: [(&[u8], &str); 5] = [
            (&[0], "it is not pprof's protobuf"),
            (&[0x33], "it is not pprof's protobuf"),
            (&[0x32, 5, 1], "it ends within a field"),
            (&[0x60, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], "a number has more than 64 bits"),
            (&[0x32, 0xff, 0xff, 0x7f], "a field is longer than 256 KiB"),
        ];
        for (bytes, why) in cases {
            assert_eq!(all(bytes, 1000), Err(ReadError::Malformed(why)), "{bytes:?}");
        }
    }
}
