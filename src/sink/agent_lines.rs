//! What leaves for an Agent as lines, and lines packed into datagrams. Pure; the lines are written by `aggregate` and `statsd`.
//!
//! Values go out as they came in: counts as counts, samples of distributions unaggregated, so that the Agent aggregates once.

use crate::aggregate::{write_point, write_raw};
use crate::pipeline::Outgoing;
use crate::statsd::format;

/// Calls `each` for every line of it. Lines of samples are made to fit `pack` bytes, an event's text to fit `max`.
pub(super) fn write(outgoing: &Outgoing, pack: usize, max: usize, each: &mut impl FnMut(&str)) {
    let mut line = String::new();
    match outgoing {
        Outgoing::Window(window) => {
            for point in &window.points {
                line.clear();
                write_point(&mut line, point);
                each(&line);
            }
            window.raw.iter().for_each(|raw| write_raw(raw, pack, each));
            return;
        }
        Outgoing::Event(event) | Outgoing::Urgent(event) => format::event(&mut line, event, max),
        Outgoing::Check(check) => format::check(&mut line, check),
    }
    each(&line);
}

/// Packs lines into datagrams of at most `pack` bytes; a longer line of at most `max` goes alone.
#[derive(Debug)]
pub(super) struct Packer {
    pack: usize,
    max: usize,
    open: String,
    full: Vec<String>,
    too_long: u64,
}

impl Packer {
    pub fn new(pack: usize, max: usize) -> Packer {
        Packer { pack, max, open: String::new(), full: Vec::new(), too_long: 0 }
    }

    pub fn push(&mut self, line: &str) {
        if line.len() > self.max {
            self.too_long += 1;
            return;
        }
        if !self.open.is_empty() && self.open.len() + 1 + line.len() > self.pack {
            self.full.push(std::mem::take(&mut self.open));
        }
        if !self.open.is_empty() {
            self.open.push('\n');
        }
        self.open += line;
    }

    /// The datagrams, and how many lines were longer than any datagram.
    pub fn finish(mut self) -> (Vec<String>, u64) {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        (self.full, self.too_long)
    }
}

/// Lines in a datagram.
pub(super) fn count(datagram: &str) -> u64 {
    datagram.bytes().filter(|byte| *byte == b'\n').count() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_filled_and_a_line_too_long_for_any_is_counted() {
        let mut packer = Packer::new(10, 12);
        for line in ["aaaa", "bbbbb", "c", "dddddddddddd", "eeeeeeeeeeeee"] {
            packer.push(line);
        }
        let (datagrams, too_long) = packer.finish();
        assert_eq!(datagrams, ["aaaa\nbbbbb", "c", "dddddddddddd"]);
        assert_eq!((count(&datagrams[0]), too_long), (2, 1));
    }
}
