//! Profile bytes become a profile, two profiles become what grew and who made it. Pure.

mod blocked;
pub mod class;
mod delta;
pub mod diff;
pub mod dump;
pub mod flat;
pub mod goroutines;
pub mod language;
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
pub use diff::Growth;
pub use dump::Dump;
pub use flat::{Flat, flat};
pub use goroutines::Groups;
pub use naming::{Confidence, Culprit, Input, Naming, Unit, name};
pub use read::{Frame, Profile, ReadError, SampleType};
