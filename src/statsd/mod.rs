//! The DogStatsD language: bytes become messages, messages become bytes. Pure.

mod owned;

pub use owned::{AlertType, Event, Priority, ServiceCheck, Status};
