//! One payload in the making: items go into the compressor as they come, and every limit is checked before each of them.
//!
//! What is still inside the compressor counts at its worst case. Where that would pass the limit the compressor is flushed,
//! which tells the true size: so a payload is closed only when it is full, it is never cut afterwards, and nobody holds its
//! megabytes uncompressed.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::compress_bound;

use super::encode::Encoded;
use super::payload::{Endpoint, LEVEL, Limits, Payload};
use super::rules::Refused;

/// Seconds between the oldest and the newest point of a payload.
const SPAN: i64 = 60;

/// 128 KiB, a block of zstd: level 3 would keep a window of 2 MiB in memory, for bodies that are rarely as long.
const WINDOW_LOG: u32 = 17;

/// More than the frame's header, the last block and the block that a flush cuts short add to the bound of their content.
const FRAME: usize = 64;

/// The compressor, kept from one payload to the next because a fresh one costs about a megabyte.
pub(super) struct Stream {
    context: Encoder<'static>,
    out: Vec<u8>,
    /// Bytes put in since the start.
    raw: usize,
    /// Of these, what may not have come out yet.
    held: usize,
}

impl Stream {
    pub fn new() -> std::io::Result<Stream> {
        let mut context = Encoder::new(LEVEL)?;
        context.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        Ok(Stream { context, out: Vec::new(), raw: 0, held: 0 })
    }

    /// The size at most, were it to end after `more` bytes.
    fn at_most(&self, more: usize) -> usize {
        self.out.len() + compress_bound(self.held + more) + FRAME
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.raw += bytes.len();
        self.held += bytes.len();
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.step(|context, out| context.run(&mut input, out))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while self.step(|context, out| context.flush(out))? > 0 {}
        self.held = 0;
        Ok(())
    }

    /// What was written, compressed; the stream is as new.
    fn finish(&mut self) -> std::io::Result<Vec<u8>> {
        while self.step(|context, out| context.finish(out, true))? > 0 {}
        let mut body = std::mem::take(&mut self.out);
        body.shrink_to_fit();
        self.reset()?;
        Ok(body)
    }

    fn reset(&mut self) -> std::io::Result<()> {
        (self.raw, self.held) = (0, 0);
        self.out.clear();
        self.context.reinit()
    }

    /// One call into zstd with room for what it may give.
    fn step(
        &mut self,
        call: impl FnOnce(&mut Encoder<'static>, &mut OutBuffer<'_, Vec<u8>>) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        self.out.reserve(4_096);
        let end = self.out.len();
        call(&mut self.context, &mut OutBuffer::around_pos(&mut self.out, end))
    }
}

/// Items of one payload, one point each, in order of time.
pub(super) struct Pile<'a> {
    endpoint: Endpoint,
    limits: Limits,
    stream: &'a mut Stream,
    /// The item that comes next, with its key and length.
    item: Vec<u8>,
    items: usize,
    /// Items whose tags were cut.
    cut: u64,
    /// Unix seconds of the first item.
    oldest: i64,
    out: &'a mut Encoded,
}

impl<'a> Pile<'a> {
    pub fn new(endpoint: Endpoint, limits: Limits, stream: &'a mut Stream, out: &'a mut Encoded) -> Pile<'a> {
        Pile { endpoint, limits, stream, item: Vec::new(), items: 0, cut: 0, oldest: 0, out }
    }

    /// Adds an item, after closing the payload that has no room for it.
    pub fn add<M: Message>(&mut self, item: &M, timestamp: i64, cut: bool) {
        self.item.clear();
        encode_key(1, WireType::LengthDelimited, &mut self.item);
        encode_varint(item.encoded_len() as u64, &mut self.item);
        item.encode_raw(&mut self.item);
        if self.item.len() > self.limits.uncompressed {
            return self.out.refuse(Refused::TooLarge, 1);
        }
        if self.items > 0 && !self.has_room(timestamp) {
            self.close();
        }
        if self.items == 0 {
            self.oldest = timestamp;
        }
        self.items += 1;
        self.cut += u64::from(cut);
        if self.stream.write(&self.item).is_err() {
            self.give_up();
        }
    }

    /// Counts a point that is not sent.
    pub fn refuse(&mut self, reason: Refused) {
        self.out.refuse(reason, 1);
    }

    fn has_room(&mut self, timestamp: i64) -> bool {
        let more = self.item.len();
        timestamp.saturating_sub(self.oldest) <= SPAN
            && self.items < self.limits.points
            && self.stream.raw + more <= self.limits.uncompressed
            && (self.fits(more) || (self.stream.flush().is_ok() && self.fits(more)))
    }

    fn fits(&self, more: usize) -> bool {
        self.stream.at_most(more) <= self.limits.compressed
    }

    /// Ends the payload, if there is one. Only an item that stands alone can be found too large here.
    pub fn close(&mut self) {
        if self.items == 0 {
            return;
        }
        match self.stream.finish() {
            Ok(body) if body.len() <= self.limits.compressed => self.put(body),
            _ => self.give_up(),
        }
    }

    fn put(&mut self, body: Vec<u8>) {
        let (points, created_at) = (std::mem::take(&mut self.items) as u64, self.oldest);
        self.out.tags_cut += std::mem::take(&mut self.cut);
        self.out.payloads.push(Payload {
            endpoint: self.endpoint,
            body: body.into(),
            points,
            created_at,
            urgent: false,
        });
    }

    /// The items cannot be made into a payload: counted, and the next ones begin afresh.
    fn give_up(&mut self) {
        self.out.refuse(Refused::TooLarge, std::mem::take(&mut self.items) as u64);
        self.cut = 0;
        // A compressor that cannot be reset gives its error at the next item, which is counted in turn.
        let _ = self.stream.reset();
    }
}
