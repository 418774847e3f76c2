//! Settings that are one word out of a few, and the tables of `[filter]` and `[[mapper]]`.

use std::collections::BTreeMap;

use config::Value;
use serde::Deserialize;

use super::value::{Kind, Setting, setting};
use crate::aggregate::Rule;

/// A setting that is one word out of a few.
macro_rules! words {
    ($(#[doc = $about:literal])* $name:ident, $expected:literal, $schema:literal { $($(#[doc = $doc:literal])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $doc])* $variant),* }

        impl $name {
            /// The word as it is written in the file.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        setting!($name, "word", $expected, $schema, |value: &Value| match &value.kind {
            config::ValueKind::String(text) => match text.as_str() { $($word => Some($name::$variant),)* _ => None },
            _ => None,
        });
    };
}

words! {
    /// How a counter reaches Datadog.
    Counters, r#""rate" or "count""#, r#"{"enum":["rate","count"]}"# {
        /// Per second over the window, as the Agent sends it.
        Rate = "rate",
        /// The sum of the window.
        Count = "count",
    }
}
words! {
    /// What `datadog.output` may say.
    OutputChoice, r#""auto", "intake", "agent" or "none""#, r#"{"enum":["auto","intake","agent","none"]}"# {
        /// The intake when there is a key, else the Agent when there is an address, else nothing.
        Auto = "auto",
        Intake = "intake",
        Agent = "agent",
        None = "none",
    }
}
words! {
    /// Where profiles are sent.
    Upload, r#""off", "agent" or "intake""#, r#"{"enum":["off","agent","intake"]}"# {
        Off = "off",
        Agent = "agent",
        Intake = "intake",
    }
}
words! {
    /// The least important log lines that are written.
    LogLevel, r#""error", "warn", "info", "debug" or "trace""#, r#"{"enum":["error","warn","info","debug","trace"]}"# {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}
words! {
    /// How log lines are written.
    LogFormat, r#""text" or "json""#, r#"{"enum":["text","json"]}"# {
        Text = "text",
        Json = "json",
    }
}

/// One entry of `filter.tags`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TagFilter {
    pub metric: String,
    pub action: TagAction,
    pub tags: Vec<String>,
}

/// Whether the tags named are the ones that stay or the ones that go.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TagAction {
    Include,
    Exclude,
}

/// One `[[mapper]]` profile, in the Agent's layout.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct MapperProfile {
    pub name: String,
    pub prefix: String,
    pub mappings: Vec<Mapping>,
}

/// One rule of a mapper profile.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    pub r#match: String,
    #[serde(default)]
    pub match_type: MatchType,
    pub name: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Mapping {
    /// What the aggregate asks.
    ///
    /// # Errors
    /// What is wrong and what would be expected.
    pub fn rule(&self) -> Result<Rule, String> {
        let make = match self.match_type {
            MatchType::Wildcard => Rule::wildcard,
            MatchType::Regex => Rule::regex,
        };
        make(&self.r#match, &self.name, &mut self.tags.iter())
    }
}

/// How `match` of a rule is read.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MatchType {
    #[default]
    Wildcard,
    Regex,
}
