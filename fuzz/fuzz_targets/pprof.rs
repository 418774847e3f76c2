//! Two profiles of any bytes: read, compared, and put into words.
//!
//! An input is the length of the first profile (two bytes, little-endian), the first, and the second; gzip or plain.
#![no_main]

#[path = "../../src/pprof/mod.rs"]
#[allow(dead_code, unused_imports)]
mod pprof;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pprof::{Culprit, Input, Look, Looks, Naming, Profile, names, read::read};

/// Small, so that the caps are met; the program's is 64 MiB.
const MAX_INFLATED: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((length, profiles)) = input.split_first_chunk() else { return };
    let (base, now) = profiles.split_at(usize::from(u16::from_le_bytes(*length)).min(profiles.len()));
    let base = read(base, MAX_INFLATED).ok();
    let Ok(now) = read(now, MAX_INFLATED) else { return };
    whole(&now);
    let alone = naming(None, &now, Looks::default());
    let looks = [base.as_ref().unwrap_or(&now), &now].map(|heap| Look::of(Duration::ZERO, 0, heap, Some(&now)));
    let naming = naming(base.as_ref(), &now, Looks { now: Some(&looks[1]), earlier: &looks[..1] });
    check(&alone);
    check(&naming);
    let _ = pprof::flat(base.as_ref(), &now);
    assert!(pprof::flat(Some(&now), &now).rows.is_empty(), "a profile does not differ from itself");
    assert!(pprof::Growth::between(Some(&now), &now).is_nothing());
});

/// Each profile stands for heap and for goroutines: what a profile holds is the app's choice.
fn naming(base: Option<&Profile>, now: &Profile, looks: Looks) -> Naming {
    let heaps = Input::of_heaps(base, now, 60.0);
    pprof::name(&Input { goroutines: Some((base, now)), rss_growth_bytes: Some(64 << 20), looks, ..heaps })
}

/// What is indexed later without a check.
fn whole(profile: &Profile) {
    profile.each_sample(|stack, values| {
        assert!(profile.stack(stack).all(|frame| (frame as usize) < profile.frames.len()));
        assert_eq!(values.len(), profile.sample_types.len());
    });
    assert!(profile.default_type < profile.sample_types.len().max(1));
}

/// Whatever a profile holds, what leaves is bounded and can be shown.
fn check(naming: &Naming) {
    assert!(!naming.sentence.is_empty());
    assert!(naming.culprits.len() <= 10);
    naming.culprits.iter().for_each(check_culprit);
    fit(&naming.sentence, 4_000);
    naming.evidence.iter().for_each(|(kind, words)| {
        fit(kind, names::MAX_NAME);
        fit(words, 4_000);
    });
}

fn check_culprit(culprit: &Culprit) {
    // Rounding may take a sum of shares past 1 by a hair.
    assert!((0.0..=1.000_001).contains(&culprit.share), "{culprit:?}");
    for name in [&culprit.function, &culprit.file, &culprit.made_by, &culprit.made_by_file, &culprit.via] {
        fit(name, names::MAX_NAME);
    }
    culprit.stack.iter().for_each(|frame| fit(frame, names::MAX_NAME));
}

fn fit(text: &str, most: usize) {
    assert!(text.chars().count() <= most && !text.chars().any(char::is_control), "{text:?}");
}
