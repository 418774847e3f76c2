//! Profile bytes become a profile, two profiles become what grew and who made it. Pure.

mod blocked;
pub mod class;
mod counts;
mod delta;
pub mod diff;
pub mod dump;
pub mod flame;
pub mod flat;
pub mod goroutines;
pub mod language;
mod look;
mod mistakes;
pub mod names;
pub mod naming;
mod proto;
pub mod read;
mod rust;
mod samples;
mod stacks;
#[cfg(test)]
pub(crate) mod testing;
mod wire;
pub(crate) mod words;

pub use class::Class;
pub use counts::Counts;
pub use diff::{Growth, comparable};
pub use dump::Dump;
pub use flame::Flame;
pub use flat::{Flat, flat};
pub use goroutines::Groups;
pub use look::{Look, Looks};
pub use naming::{Confidence, Culprit, Input, Naming, Unit, name};
pub use read::{Frame, Profile, ReadError, SampleType};
