//! Profile bytes become a profile, two profiles become what grew and who made it. Pure.

pub mod naming;
mod proto;
pub mod read;

pub use naming::{Confidence, Culprit, Naming};
pub use read::{Frame, Profile, ReadError, Sample, SampleType};
