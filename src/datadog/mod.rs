//! Payloads on Datadog's wire: series, sketches, events, checks, profiles; size limits; what to do with an answer. Pure.
//!
//! Values in, bytes out. Who sends the bytes, keeps them meanwhile and waits between two tries is `sink`'s business. The one
//! fact to know: Datadog keeps the last point for a given (context, second), so sending a series twice changes nothing.

mod encode;
mod events;
mod payload;
mod pile;
mod profile;
pub mod proto;
mod response;
mod rules;
mod stable;

pub use encode::{Encoded, Encoder, EncoderSettings};
pub use events::{MAX_TEXT, MAX_TITLE, check_payload, event_payload};
pub use payload::{Endpoint, Limits, Payload, split};
pub use profile::{AGENT_PROFILES, INTAKE_PROFILES, MAX_UPLOAD, Occasion, Process, ProfileForm, profile_form};
pub use response::{Answer, Policy, Verdict};
pub use rules::{MAX_AHEAD, MAX_BEHIND, MAX_NAME, MAX_TAG, MAX_TAGS, Refused};
pub use stable::stable_hash;
