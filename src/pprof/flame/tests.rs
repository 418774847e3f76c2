//! Exact trees of small profiles, and the bounds of what a large or hostile one becomes.

use std::collections::HashMap;

use prost::Message;

use super::super::testing::{goroutines, heap};
use super::super::{proto, read};
use super::*;

/// `depth name value growth`, a line each.
fn drawn(flame: &Flame) -> Vec<String> {
    let mut depths: Vec<usize> = Vec::new();
    let mut lines = Vec::new();
    for cell in &flame.cells {
        let depth = cell.parent.map_or(0, |parent| depths[parent] + 1);
        depths.push(depth);
        let folded = if cell.is_folded { " folded" } else { "" };
        lines.push(format!("{depth} {} {} {:+}{folded}", cell.name, cell.value, cell.grew));
    }
    lines
}

fn check(base: Option<&Profile>, now: &Profile, value: Option<&str>, expected: &[&str]) {
    let flame = Flame::of(base, now, value).expect("the value is there");
    assert_eq!(drawn(&flame), expected);
    assert_eq!(flame.compared, base.is_some());
}

const KIB: i64 = 1024;

#[test]
fn stacks_become_a_tree_from_the_outermost_function_inwards() {
    let now = heap(&[
        (&["example.org/shop/cart.(*Cart).Add cart.go 7", "main.handle main.go 3", "main.main main.go 1"], 6 * KIB),
        (&["main.grow main.go 9", "main.handle main.go 4", "main.main main.go 1"], 2 * KIB),
        (&["main.handle main.go 5", "main.main main.go 1"], KIB),
        (&["main.grow main.go 9"], 3 * KIB),
    ]);
    check(
        None,
        &now,
        None,
        &[
            "0 all 12288 +0",
            "1 main.main 9216 +0",
            "2 main.handle 9216 +0",
            "3 cart.(*Cart).Add 6144 +0",
            "3 main.grow 2048 +0",
            "1 main.grow 3072 +0",
        ],
    );
    let flame = Flame::of(None, &now, Some("inuse_objects")).expect("a heap has it");
    assert_eq!((flame.value.name.as_str(), flame.value.unit.as_str()), ("inuse_objects", "count"));
    assert_eq!((flame.cells[0].value, flame.cells[3].value), (12, 6));
    assert_eq!(flame.cells[3].function, "example.org/shop/cart.(*Cart).Add");
    let names: Vec<_> = flame.values.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]);
}

#[test]
fn growth_is_now_minus_base_with_its_sign() {
    let base = heap(&[(&["main.a", "main.main"], 8 * KIB), (&["main.gone", "main.main"], 4 * KIB)]);
    let now = heap(&[(&["main.a", "main.main"], 5 * KIB), (&["main.new", "main.main"], 9 * KIB)]);
    check(
        Some(&base),
        &now,
        None,
        &[
            "0 all 14336 +2048",
            "1 main.main 14336 +2048",
            "2 main.new 9216 +9216",
            "2 main.a 5120 -3072",
            "2 main.gone 0 -4096",
        ],
    );
    check(
        Some(&now),
        &now,
        None,
        &["0 all 14336 +0", "1 main.main 14336 +0", "2 main.new 9216 +0", "2 main.a 5120 +0"],
    );
}

#[test]
fn what_is_small_is_folded_below_its_caller() {
    let mut samples: Vec<(Vec<String>, i64)> = vec![(vec!["main.big".into(), "main.main".into()], 990 * KIB)];
    samples.extend((0..8).map(|at| (vec![format!("main.small{at}"), "main.main".into()], KIB)));
    let samples: Vec<(Vec<&str>, i64)> =
        samples.iter().map(|(stack, value)| (stack.iter().map(String::as_str).collect(), *value)).collect();
    let samples: Vec<(&[&str], i64)> = samples.iter().map(|(stack, value)| (stack.as_slice(), *value)).collect();
    let now = heap(&samples);
    let whole = ["0 all 1021952 +0", "1 main.main 1021952 +0", "2 main.big 1013760 +0", "2 (other) 8192 +0 folded"];
    check(None, &now, None, &whole);
}

/// Early in a leak its stack is a small part of a large heap, and all that grew.
#[test]
fn all_that_grew_is_drawn_however_small_it_is() {
    let large = |leak: i64| {
        let cache: (&[&str], i64) = (&["main.fill", "main.main"], 4_000 * KIB);
        heap(&[cache, (&["main.leak", "main.main"], leak), (&["main.still", "main.main"], 4 * KIB)])
    };
    let (base, now) = (large(KIB), large(9 * KIB));
    let expected = [
        "0 all 4109312 +8192",
        "1 main.main 4109312 +8192",
        "2 main.fill 4096000 +0",
        "2 main.leak 9216 +8192",
        "2 (other) 4096 +0 folded",
    ];
    check(Some(&base), &now, None, &expected);
}

#[test]
fn recursion_is_as_deep_as_it_is_and_a_very_deep_stack_is_folded() {
    let mut stack = vec!["main.leaf"];
    stack.extend(["main.walk"; 300]);
    let flame = Flame::of(None, &goroutines(&[(&stack, 7)]), None).expect("a tree");
    let lines = drawn(&flame);
    assert_eq!(lines.len(), 128);
    assert_eq!(lines[126..], ["126 main.walk 7 +0", "127 (other) 7 +0 folded"]);
}

#[test]
fn another_value_is_refused_with_those_that_are_there() {
    let (heap, goroutines) = (heap(&[(&["main.a"], KIB)]), goroutines(&[(&["main.a"], 1)]));
    let words = |base, now, value| Flame::of(base, now, value).expect_err("no tree").to_string();
    let expected = "value: expected one of alloc_objects, alloc_space, inuse_objects, inuse_space";
    assert_eq!(words(None, &heap, Some("cpu")), expected);
    assert_eq!(words(Some(&goroutines), &heap, None), "base: it has no inuse_space, but goroutine");
    assert_eq!(words(None, &Profile::default(), None), "value: expected one of ");
}

#[test]
fn an_empty_profile_is_one_empty_cell() {
    check(None, &heap(&[]), None, &["0 all 0 +0"]);
}

#[test]
fn names_are_fit_to_be_shown() {
    let hostile = "evil.</script><img/src=x/onerror=alert(1)>\u{1b}[2J\u{202e}\"`\\";
    let flame = Flame::of(None, &goroutines(&[(&[hostile, ""], 1)]), None).expect("a tree");
    assert_eq!((flame.cells[1].name.as_str(), flame.cells[1].function.as_str()), ("(no name)", "(no name)"));
    for text in [&flame.cells[2].name, &flame.cells[2].function] {
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}' || c == '`'), "{text:?}");
    }
}

#[test]
fn sums_of_a_damaged_profile_do_not_overflow() {
    let most = i64::MAX / 1024 * 1024;
    let now = heap(&[(&["main.a"], most), (&["main.b"], most), (&["main.c"], -most), (&["main.d"], i64::MIN)]);
    let flame = Flame::of(Some(&now), &now, Some("inuse_space")).expect("a tree");
    assert!(flame.cells.iter().all(|cell| cell.grew == 0));
    Flame::of(None, &now, None).expect("a tree");
}

/// So many stacks of so many functions each, whose names begin with `name`. Of each function `radix` are called.
fn many(stacks: u64, depth: u64, radix: u64, functions: u64, name: &str) -> Profile {
    let mut wire =
        proto::Profile { string_table: vec!["".into(), "space".into(), "bytes".into()], ..Default::default() };
    wire.sample_type.push(proto::ValueType { r#type: 1, unit: 2 });
    for id in 1..=functions {
        wire.string_table.push(format!("{name}{id}"));
        let name = wire.string_table.len() as i64 - 1;
        wire.function.push(proto::Function { id, name, system_name: name, filename: 0 });
        let line = vec![proto::Line { function_id: id, line: 1 }];
        wire.location.push(proto::Location { id, address: id, line });
    }
    for stack in 0..stacks {
        let function = |level: u64| (stack / radix.pow(level as u32) + level) % functions + 1;
        let location_id = (0..depth).map(function).collect();
        wire.sample.push(proto::Sample { location_id, value: vec![512 + (stack % 97) as i64] });
    }
    read::read(&wire.encode_to_vec(), read::MAX_INFLATED).expect("a profile that fits")
}

/// What the page would send; `page::flame` writes the same keys.
fn text(flame: &Flame) -> usize {
    let json = |text: &str| serde_json::to_string(text).expect("a text").len();
    let cell = |cell: &Cell| 90 + json(&cell.name) + json(&cell.function);
    flame.cells.iter().map(cell).sum()
}

#[test]
fn a_hundred_thousand_stacks_become_a_graph_of_bounded_size() {
    let (quotes, hieroglyphs) = ("\"".repeat(280), "𓂀".repeat(280));
    for (stacks, depth, radix, functions, name) in [
        (100_000, 6, 7, 2_000, "main.f"),
        (100_000, 17, 2, 40, "example.org/a/long/path/to/a/package.(*Type).f"),
        (100_000, 1, 1, 9_000, "main.g"),
        (150, 8, 1, 900, quotes.as_str()),
        (150, 8, 1, 900, hieroglyphs.as_str()),
        (150, 30, 1, 900, "main.h"),
    ] {
        let now = many(stacks, depth, radix, functions, name);
        let flame = Flame::of(None, &now, None).expect("a tree");
        assert_eq!(flame.cells[0].value, now.total(0));
        assert!(flame.cells.len() <= 2_001 && text(&flame) < 290 << 10, "{} {}", flame.cells.len(), text(&flame));
        let mut sums: HashMap<usize, i64> = HashMap::new();
        flame
            .cells
            .iter()
            .filter_map(|it| Some((it.parent?, it.value)))
            .for_each(|(at, it)| *sums.entry(at).or_default() += it);
        // Every sample ends in its deepest function, so what is below a cell is all of it.
        assert!(sums.iter().all(|(at, sum)| flame.cells[*at].value == *sum), "{stacks} {depth} {name:.9}");
    }
}

/// The tree of all functions, made plainly, holds for each cell what the graph says.
#[test]
fn values_are_those_of_the_whole_tree() {
    let (base, now) = (many(3_000, 6, 5, 15, "main.f"), many(20_000, 6, 5, 15, "main.f"));
    let mut whole: HashMap<Vec<String>, [i64; 2]> = HashMap::new();
    for (at, profile) in [&now, &base].into_iter().enumerate() {
        profile.each_sample(|stack, values| {
            let mut names: Vec<String> =
                profile.stack(stack).map(|it| profile.frames[it as usize].function.to_string()).collect();
            names.reverse();
            (0..=names.len()).for_each(|end| whole.entry(names[..end].to_vec()).or_default()[at] += values[0]);
        });
    }
    let flame = Flame::of(Some(&base), &now, None).expect("a tree");
    let mut paths: Vec<Vec<String>> = Vec::new();
    for cell in &flame.cells {
        let mut path = cell.parent.map_or(vec![], |parent| paths[parent].clone());
        path.extend(cell.parent.map(|_| cell.function.clone()));
        if !cell.is_folded {
            let [now, base] = whole[&path];
            assert_eq!((cell.value, cell.grew), (now, now - base), "{path:?}");
        }
        paths.push(path);
    }
    let drawn = flame.cells.iter().filter(|cell| !cell.is_folded).count();
    assert!(drawn > 50, "{drawn}");
    let all = whole[&vec![]][0];
    for (path, values) in whole.iter().filter(|(_, values)| values[0] * 200 >= all) {
        assert!(paths.contains(path), "{path:?} {values:?} is not drawn");
    }
}
