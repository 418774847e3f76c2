//! The DogStatsD language: bytes become messages, messages become bytes. Pure.

mod event;
pub mod format;
mod line;
mod number;
mod owned;

pub use event::{parse_check, parse_event};
pub use line::{Kind, Line, Message, ParseError, lines, parse};
pub(crate) use number::number;
pub use owned::{AlertType, Event, Priority, ServiceCheck, Status};
