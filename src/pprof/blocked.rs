//! What two further looks at goroutines add to the groups that grew: Go's `goroutineleak` profile, which lists those that can
//! never go on, and a full dump, which tells who started them. Both confirm and neither accuses: the leak of a live ticker, of a
//! global channel or of a connection is in no `goroutineleak` profile.

use super::dump::Dump;
use super::goroutines::Groups;
use super::names;
use super::read::Profile;

/// Places told in one sentence.
const MAX_PLACES: usize = 3;

/// "goroutineleak confirms: 312 blocked for good at `main.query.func1` (main.go:30)"
pub(super) fn leaked_words(leaked: &Profile) -> String {
    let groups = Groups::between(None, leaked);
    let place = |group: &super::goroutines::Group| {
        let at = group.leaf().map(|it| format!(" ({}:{})", names::base_name(&it.file), it.line)).unwrap_or_default();
        format!("{} blocked for good at `{}`{at}", group.grew, group.place())
    };
    let places: Vec<String> = groups.groups.iter().take(MAX_PLACES).map(place).collect();
    match places.is_empty() {
        true => "goroutineleak finds none: what they wait for can still happen".to_owned(),
        false => format!("goroutineleak confirms: {}", places.join(", ")),
    }
}

/// Whether goroutines that stand in a package are among those that are blocked for good, and at least half as many as `grew`.
pub(super) fn confirms(leaked: &Profile, groups: &[super::goroutines::Group]) -> bool {
    let blocked = Groups::between(None, leaked);
    let same = |group: &super::goroutines::Group| {
        let place = group.leaf().map(|leaf| &leaf.function);
        let of = blocked.groups.iter().filter(|it| it.leaf().map(|leaf| &leaf.function) == place);
        of.fold(0_i64, |sum, it| sum.saturating_add(it.grew)) >= group.grew / 2
    };
    groups.first().is_some_and(same)
}

/// "312 of `main.query.func1` were started by `main.query` (main.go:25)", for the groups that grew most.
pub(super) fn creators_words(dump: &Dump, groups: &Groups) -> Option<String> {
    let mut told: Vec<String> = Vec::new();
    let grew = groups.lockstep().iter().filter_map(|group| group.leaf());
    for started in grew.filter_map(|leaf| dump.started.iter().find(|it| *it.stands_in == *leaf.function)) {
        let (place, creator) = (names::short(&started.stands_in), names::short(&started.creator));
        let at = format!("{}:{}", names::base_name(&started.file), started.line);
        let words = format!("{} of `{place}` were started by `{creator}` ({at})", started.count);
        if told.len() < MAX_PLACES && !told.contains(&words) {
            told.push(words);
        }
    }
    (!told.is_empty()).then(|| told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::dump;
    use super::super::testing::goroutines;
    use super::*;

    const SEND: &[&str] = &["runtime.gopark runtime/proc.go 1", "main.query.func1 /app/main.go 30"];

    #[test]
    fn what_is_blocked_for_good_is_said_with_its_place() {
        let now = goroutines(&[(SEND, 300)]);
        let groups = Groups::between(None, &now);
        let (all, few, none) = (goroutines(&[(SEND, 280)]), goroutines(&[(SEND, 3)]), goroutines(&[]));
        assert_eq!(
            leaked_words(&all),
            "goroutineleak confirms: 280 blocked for good at `main.query.func1` (main.go:30)"
        );
        assert!(leaked_words(&none).contains("finds none"));
        assert_eq!([&all, &few, &none].map(|leaked| confirms(leaked, groups.lockstep())), [true, false, false]);
    }

    #[test]
    fn creators_of_what_grew_are_said_and_of_nothing_else() {
        let (calm, now) = (goroutines(&[]), goroutines(&[(SEND, 300)]));
        let groups = Groups::between(Some(&calm), &now);
        let text = "goroutine 7 [chan send]:\nmain.query.func1()\n\t/app/main.go:30 +0x1\n\
                    created by main.query in goroutine 1\n\t/app/main.go:25 +0x8a\n";
        let other =
            "goroutine 8 [select]:\nmain.tick()\n\t/app/t.go:3 +0x1\ncreated by main.main\n\t/app/main.go:2 +0x1\n";
        let words = creators_words(&dump::read(format!("{text}\n{text}\n{other}").as_bytes()), &groups);
        assert_eq!(words.as_deref(), Some("2 of `main.query.func1` were started by `main.query` (main.go:25)"));
        assert_eq!(creators_words(&dump::read(other.as_bytes()), &groups), None);
    }
}
