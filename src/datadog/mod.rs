//! Payloads on Datadog's wire: series, sketches, events, checks; size limits; what to do with an answer. Pure.
