//! Events and service checks as owned values: they are rare, cross a queue, and are never aggregated.
//!
//! Parsed from the app's lines or built by an incident; encoded by `datadog` for the intake or by `statsd` for an Agent.

/// An event, the app's own or one of ours. Text is already unescaped (real line feeds).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub title: String,
    pub text: String,
    /// Unix seconds; `None` means "now" at the moment of sending.
    pub timestamp: Option<i64>,
    pub host: Option<String>,
    pub aggregation_key: Option<String>,
    pub priority: Priority,
    /// `None` means the wire's default, `api`.
    pub source_type: Option<String>,
    pub alert_type: AlertType,
    pub tags: Vec<String>,
    /// The raw text of `c:`, `e:` and `card:` as the app sent it; re-sent to an Agent, unused at the intake.
    pub origin: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    #[default]
    Normal,
    Low,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlertType {
    Error,
    Warning,
    #[default]
    Info,
    Success,
}

/// A service check result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCheck {
    pub name: String,
    pub status: Status,
    /// Unix seconds; `None` means "now" at the moment of sending.
    pub timestamp: Option<i64>,
    pub host: Option<String>,
    pub message: Option<String>,
    pub tags: Vec<String>,
    /// As in [`Event::origin`].
    pub origin: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}
