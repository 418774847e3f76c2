//! Profile bytes become a profile, two profiles become what grew and who made it. Pure.

pub mod naming;
mod proto;
pub mod read;
mod wire;

pub use naming::{Culprit, Naming};
pub use read::{Frame, Profile, ReadError, Sample, SampleType};
