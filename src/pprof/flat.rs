//! Values by function, as `go tool pprof -top` counts them.
//!
//! Flat is what the innermost frame of a stack holds, inlined frames counting as frames of their own; cum is what a function
//! holds anywhere in a stack, once per stack. A row stays when either is not zero, so a function whose own growth is zero is
//! listed when its callees grew. Rows come by the size of their flat value, shrinking ones among growing ones.
//!
//! Names are written as pprof writes them, which cuts what it takes for the parameters of C++ out of the names of some generic Go
//! functions: `hmac.New[go.shape.interface { Size() int }]` becomes `hmac.New[go.shape.interface { Size int }]`.
//!
//! Missing: `drop_frames` and `keep_frames`, by whose patterns pprof takes an allocator's own frames out (neither Go nor the profilers of
//! Rust and Node write them); and names that pprof takes from a program on this machine, where a profile has none or says nothing of
//! having them. Functions are counted as the profile has them.

use std::borrow::Cow;
use std::collections::HashMap;

use super::read::Profile;

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The full name.
    pub function: Cow<'a, str>,
    pub flat: i64,
    pub cum: i64,
}

/// The table and what its shares are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat<'a> {
    pub sample_type: &'a str,
    pub unit: &'a str,
    /// Of a difference, the base's total, of a base of nothing and of a single profile the profile's.
    pub total: i64,
    pub rows: Vec<Row<'a>>,
}

/// Values by function of the type a viewer shows first: of `now`, or of `now` minus `base`.
pub fn flat<'a>(base: Option<&'a Profile>, now: &'a Profile) -> Flat<'a> {
    let kind = now.sample_types.get(now.default_type);
    let (sample_type, unit) = kind.map(|it| (&*it.name, &*it.unit)).unwrap_or_default();
    let in_base = base.map_or(usize::MAX, |base| place(base, sample_type, now.default_type));
    let mut table = Table::default();
    let whole = table.add(now, now.default_type, 1);
    let total = base.map_or(0, |base| table.add(base, in_base, -1));
    Flat { sample_type, unit, total: if total > 0 { total } else { whole }, rows: table.rows() }
}

/// Where a sample type stands: at the same place if it can, for a damaged profile may have two of one name.
pub(super) fn place(profile: &Profile, name: &str, likely: usize) -> usize {
    let is_there = profile.sample_types.get(likely).is_some_and(|it| it.name == name);
    if is_there { likely } else { profile.type_index(name).unwrap_or(usize::MAX) }
}

#[derive(Default)]
struct Table<'a> {
    numbers: HashMap<Cow<'a, str>, u32>,
    sums: Vec<Sums>,
    /// Samples so far.
    samples: u32,
}

/// Wide, so that a profile minus itself is nothing whatever it holds.
#[derive(Clone, Copy, Default)]
struct Sums {
    flat: i128,
    cum: i128,
    /// The sample that was added last, so that recursion counts once.
    latest: u32,
}

impl<'a> Table<'a> {
    /// Adds all samples and returns the sum of their sizes.
    fn add(&mut self, profile: &'a Profile, column: usize, sign: i128) -> i64 {
        let (numbers, mut total) = (self.numbers(profile), 0_i64);
        profile.each_sample(|stack, values| {
            let value = values.get(column).copied().unwrap_or(0);
            if value == 0 {
                return;
            }
            total = total.saturating_add(value.saturating_abs());
            self.samples += 1;
            for (depth, frame) in profile.stack(stack).enumerate() {
                let sums = &mut self.sums[numbers[frame as usize] as usize];
                if depth == 0 {
                    sums.flat += sign * i128::from(value);
                }
                if sums.latest != self.samples {
                    sums.cum += sign * i128::from(value);
                    sums.latest = self.samples;
                }
            }
        });
        total
    }

    /// The row of each frame.
    fn numbers(&mut self, profile: &'a Profile) -> Vec<u32> {
        let mut number = |name: Cow<'a, str>| {
            let next = u32::try_from(self.sums.len()).expect("a profile has fewer than 2^31 frames");
            *self.numbers.entry(name).or_insert_with(|| {
                self.sums.push(Sums::default());
                next
            })
        };
        let written = |name: &'a str| if profile.readable.contains(name) { name.into() } else { as_pprof_writes(name) };
        profile.frames.iter().map(|frame| number(written(&frame.function))).collect()
    }

    fn rows(self) -> Vec<Row<'a>> {
        let kept = self.numbers.into_iter().map(|(name, at)| (name, self.sums[at as usize]));
        let kept = kept.filter(|(_, sums)| sums.flat != 0 || sums.cum != 0);
        let fit = |sum: i128| sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        let row = |(function, sums): (Cow<'a, str>, Sums)| Row { function, flat: fit(sums.flat), cum: fit(sums.cum) };
        let mut rows: Vec<Row> = kept.map(row).collect();
        let order = |a: &Row, b: &Row| b.flat.unsigned_abs().cmp(&a.flat.unsigned_abs());
        rows.sort_unstable_by(|a, b| order(a, b).then_with(|| a.function.cmp(&b.function)));
        rows
    }
}

/// A name without what pprof takes for parameters and template arguments (google/pprof, `demangleSingleFunction`).
fn as_pprof_writes(name: &str) -> Cow<'_, str> {
    let is_of_go_or_java = name.contains(".<") || name.contains("]).");
    if is_of_go_or_java || !(name.contains(['<', '>', '[', ']']) || name.contains("::")) {
        return name.into();
    }
    without(&without(name, '(', ')'), '<', '>').into_owned().into()
}

/// Cuts out what stands within brackets that match; from the first that does not, the rest stays.
fn without(name: &str, open: char, close: char) -> Cow<'_, str> {
    let (mut kept, mut begin, mut depth) = (String::new(), 0, 0_u32);
    for (at, bracket) in name.match_indices([open, close]) {
        if bracket.starts_with(open) {
            if depth == 0 {
                kept.push_str(&name[begin..at]);
                begin = at;
            }
            depth += 1;
        } else if depth == 0 {
            break;
        } else {
            depth -= 1;
            begin = if depth == 0 { at + 1 } else { begin };
        }
    }
    kept.push_str(&name[begin..]);
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::super::testing::heap;
    use super::*;

    fn check(base: &[(&[&str], i64)], now: &[(&[&str], i64)], expected: &[(&str, i64, i64)]) {
        let (base, now) = (heap(base), heap(now));
        let flat = flat(Some(&base), &now);
        let rows: Vec<_> = flat.rows.iter().map(|row| (&*row.function, row.flat, row.cum)).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn the_leaf_holds_flat_and_every_caller_holds_cum_once() {
        let stack: &[&str] = &["main.leaf a.go 1", "main.walk a.go 2", "main.walk a.go 3", "main.main a.go 4"];
        check(&[], &[(stack, 100)], &[("main.leaf", 100, 100), ("main.main", 0, 100), ("main.walk", 0, 100)]);
    }

    #[test]
    fn shrinking_rows_stand_among_growing_ones_by_size() {
        let (a, b, c): (&[&str], &[&str], &[&str]) = (&["a.a f 1"], &["b.b f 1"], &["c.c f 1"]);
        check(&[(a, 500), (b, 10)], &[(b, 110), (c, 50)], &[("a.a", -500, -500), ("b.b", 100, 100), ("c.c", 50, 50)]);
    }

    #[test]
    fn a_row_whose_flat_and_cum_cancel_is_left_out() {
        let (old, new): (&[&str], &[&str]) =
            (&["main.f a.go 1", "main.main a.go 9"], &["main.f a.go 2", "main.main a.go 9"]);
        check(&[(old, 100)], &[(new, 100)], &[]);
    }

    #[test]
    fn names_are_written_as_pprof_writes_them() {
        let cases = [
            (
                "hmac.New[go.shape.interface { Size() int; Write([]uint8) (int, error) }]",
                "hmac.New[go.shape.interface { Size int; Write  }]",
            ),
            ("main.(*cache).fill", "main.(*cache).fill"),
            ("main.(*cache[...]).fill", "main.(*cache[...]).fill"),
            ("main.(*cache).fill.each[...].func1", "main..fill.each[...].func1"),
            ("a::b<c<d>>::e(f(g), h)::i", "a::b::e::i"),
            ("java.util.List.<init>", "java.util.List.<init>"),
            ("a::b(c)) d(e)", "a::b) d(e)"),
            ("a::b(c", "a::b(c"),
        ];
        for (name, written) in cases {
            assert_eq!(as_pprof_writes(name), written);
        }
    }

    #[test]
    fn shares_are_of_the_base_when_there_is_one() {
        let stack: &[&str] = &["a.a f 1"];
        let (one, two) = (heap(&[(stack, 40)]), heap(&[(stack, 100)]));
        assert_eq!(flat(Some(&one), &two).total, 40);
        let nothing = heap(&[]);
        assert_eq!(flat(Some(&nothing), &two).total, 100);
        assert_eq!(flat(None, &two).total, 100);
    }
}
