//! Values by function, as `go tool pprof -top` counts them.
//!
//! Flat is what the innermost frame of a stack holds, inlined frames counting as frames of their own; cum is what a function
//! holds anywhere in a stack, once per stack. A row stays when either is not zero, so a function whose own growth is zero is
//! listed when its callees grew. Rows come by the size of their flat value, shrinking ones among growing ones.
//!
//! Names are written as pprof writes them, which cuts what it takes for the parameters of C++ out of the names of some generic Go
//! functions: `hmac.New[go.shape.interface { Size() int }]` becomes `hmac.New[go.shape.interface { Size int }]`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::delta::Delta;
use super::read::Profile;

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The full name, as pprof writes it.
    pub function: String,
    pub flat: i64,
    pub cum: i64,
}

/// The table and what its shares are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    pub sample_type: String,
    pub unit: String,
    /// Of a difference, the base's total, of a base of nothing and of a single profile the profile's.
    pub total: i64,
    pub rows: Vec<Row>,
}

/// Values by function of the type a viewer shows first: of `now`, or of `now` minus `base`.
pub fn flat(base: Option<&Profile>, now: &Profile) -> Flat {
    let kind = now.sample_types.get(now.default_type);
    let (sample_type, unit) = kind.map(|it| (it.name.clone(), it.unit.clone())).unwrap_or_default();
    let in_base = base.and_then(|base| base.type_index(&sample_type)).unwrap_or(usize::MAX);
    let delta = Delta::between(base, now, &[(in_base, now.default_type)]);
    let total = base.map_or(0, |base| absolute(base, in_base));
    let total = if total > 0 { total } else { absolute(now, now.default_type) };
    let is_readable = |name: &str| [base, Some(now)].into_iter().flatten().any(|it| it.readable.contains(name));
    let written = |name| if is_readable(name) { Cow::Borrowed(name) } else { as_pprof_writes(name) };
    Flat { sample_type, unit, total, rows: rows(&delta, written) }
}

fn absolute(profile: &Profile, column: usize) -> i64 {
    let values = profile.samples.iter().filter_map(|sample| sample.values.get(column));
    values.fold(0, |sum, value| sum.saturating_add(value.saturating_abs()))
}

fn rows<'a>(delta: &Delta<'a>, written: impl Fn(&'a str) -> Cow<'a, str>) -> Vec<Row> {
    let names: Vec<Cow<str>> = delta.frames.iter().map(|frame| written(&frame.function)).collect();
    let mut by_name: HashMap<&str, (i64, i64)> = HashMap::new();
    let mut seen = Vec::new();
    for change in &delta.changes {
        let value = change.values[0];
        seen.clear();
        seen.extend(change.stack.iter().map(|index| &*names[*index as usize]));
        if let Some(leaf) = seen.first() {
            let sums = by_name.entry(leaf).or_default();
            sums.0 = sums.0.saturating_add(value);
        }
        seen.sort_unstable();
        seen.dedup();
        for function in &seen {
            let sums = by_name.entry(function).or_default();
            sums.1 = sums.1.saturating_add(value);
        }
    }
    let kept = by_name.into_iter().filter(|(_, (flat, cum))| *flat != 0 || *cum != 0);
    let mut rows: Vec<Row> = kept.map(|(name, (flat, cum))| Row { function: name.to_owned(), flat, cum }).collect();
    rows.sort_by(|a, b| b.flat.unsigned_abs().cmp(&a.flat.unsigned_abs()).then_with(|| a.function.cmp(&b.function)));
    rows
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
        let rows: Vec<_> = flat.rows.iter().map(|row| (row.function.as_str(), row.flat, row.cum)).collect();
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
        assert_eq!(flat(Some(&heap(&[])), &two).total, 100);
        assert_eq!(flat(None, &two).total, 100);
    }
}
