//! Which profiles stay when the store is full, and when a newer one takes over. Pure.
//!
//! Pinned are the last baseline of each kind, the evidence of the last incident (the last of each kind; a plain heap until one
//! after a collection is there), and the baseline that it was compared with. A pull that nobody has read yet holds a pin but takes
//! none from another: an answer that is no profile must not cost the good one its place.

use serde::{Deserialize, Serialize};

use super::Kept;
use crate::pipeline::Pin;

/// Why a profile stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pins {
    /// It is not known to be a profile yet.
    #[serde(default)]
    pub unread: bool,
    #[serde(default)]
    pub baseline: bool,
    /// The incident that it belongs to, and as what.
    #[serde(default)]
    pub incident: Option<(String, Role)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    Evidence,
    /// What the evidence was compared with.
    Base,
}

impl Pins {
    /// Of a profile that is just saved.
    pub fn new(pin: &Pin) -> Pins {
        let incident = match pin {
            Pin::Incident(id) => Some((id.clone(), Role::Evidence)),
            Pin::None | Pin::Baseline => None,
        };
        Pins { unread: *pin != Pin::None, baseline: *pin == Pin::Baseline, incident }
    }

    pub fn any(&self) -> bool {
        self.baseline || self.incident.is_some()
    }

    /// The incident that it is evidence of.
    fn evidence(&self) -> Option<&str> {
        self.incident.as_ref().filter(|it| it.1 == Role::Evidence).map(|it| it.0.as_str())
    }
}

/// Takes back every pin that a newer profile has taken over; `kept` stands oldest first.
pub(super) fn take_over(kept: &mut [Kept]) {
    let settled = |it: &Kept| it.pins.evidence().filter(|_| !it.pins.unread).map(str::to_owned);
    let last = kept.iter().rev().find_map(settled);
    for at in 0..kept.len() {
        let (older, newer) = kept.split_at_mut(at + 1);
        let it = &mut older[at];
        it.pins.baseline &= !newer.iter().any(|new| !new.pins.unread && new.pins.baseline && new.kind == it.kind);
        if is_over(it, newer, last.as_deref()) {
            it.pins.incident = None;
        }
        it.pins.unread &= it.pins.any();
    }
}

fn is_over(it: &Kept, newer: &[Kept], last: Option<&str>) -> bool {
    let Some((id, role)) = &it.pins.incident else { return false };
    if !it.pins.unread && last.is_some_and(|last| last != id) {
        return true;
    }
    *role == Role::Evidence && newer.iter().any(|new| ends(new, it, id))
}

/// Whether the newer one ends the pin of an older piece of evidence of this incident.
fn ends(new: &Kept, old: &Kept, id: &str) -> bool {
    let Some(theirs) = new.pins.evidence() else { return false };
    match (old.pins.unread, new.pins.unread) {
        (true, true) => theirs != id || new.kind == old.kind,
        (true, false) => theirs != id || covers(&new.kind, &old.kind),
        (false, false) => theirs == id && covers(&new.kind, &old.kind),
        (false, true) => false,
    }
}

/// Whether evidence of the one kind makes an older one of the other needless.
fn covers(new: &str, old: &str) -> bool {
    new == old || (new, old) == ("heap_gc", "heap")
}

/// The oldest that is not pinned; for a pin the oldest pin, when nothing else is left.
pub(super) fn oldest(kept: &[Kept], pinned: bool, among: impl Fn(&Kept) -> bool) -> Option<usize> {
    let free = kept.iter().position(|kept| among(kept) && !kept.pins.any());
    free.or_else(|| kept.iter().position(among).filter(|_| pinned))
}
