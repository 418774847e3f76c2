//! The table of settings: a section is written down once, as a struct, and becomes the checked type, its documentation, its
//! lines in `sidecar.toml` and its part of the schema.

use super::value::Kind;

/// Settings that are known and not built yet: a value other than the default is refused, never passed over.
pub(super) const NOT_YET: &[&str] = &[];

/// What is said of such a key wherever it is described.
pub(super) const NOT_YET_WORDS: &str = "Not supported yet in this version.";

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `""` for the one key that stands above all sections.
    pub section: &'static str,
    pub name: &'static str,
    /// As TOML.
    pub default: &'static str,
    /// One entry a line, each with a space in front, as the compiler hands them over.
    pub doc: &'static [&'static str],
    pub kind: Kind,
}

impl Key {
    /// `section.name`.
    pub fn path(&self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// The variable that sets it.
    pub fn variable(&self) -> String {
        format!("OOMWATCH_{}", self.path().replace('.', "__").to_uppercase())
    }

    /// False for a key that takes its default only, so far.
    pub fn is_supported(&self) -> bool {
        !NOT_YET.contains(&self.path().as_str())
    }

    /// The description in one line.
    pub fn sentence(&self) -> String {
        let not_yet = (!self.is_supported()).then_some(NOT_YET_WORDS);
        self.doc.iter().map(|line| line.trim()).chain(not_yet).collect::<Vec<_>>().join(" ")
    }
}

/// One table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub name: &'static str,
    pub doc: &'static [&'static str],
    pub keys: &'static [Key],
}

/// Writes down one section. Each field is `name: Type = "default as TOML"`, with its description as a doc comment.
macro_rules! section {
    ($(#[doc = $about:literal])* $name:ident in $section:literal {
        $($(#[doc = $doc:literal])* $key:ident: $type:ty = $default:literal,)*
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* #[doc = ""] #[doc = concat!("Default: `", $default, "`.")] pub $key: $type,)*
        }

        impl $name {
            pub(super) const SECTION: $crate::config::keys::Section = $crate::config::keys::Section {
                name: $section,
                doc: &[$($about),*],
                keys: &[$($crate::config::keys::Key {
                    section: $section,
                    name: stringify!($key),
                    default: $default,
                    doc: &[$($doc),*],
                    kind: <$type as $crate::config::value::Setting>::KIND,
                }),*],
            };

            /// Takes every key out of the layers; a faulty one is told there and stands at its default here.
            pub(super) fn read(layers: &mut $crate::config::layers::Layers) -> Self {
                Self { $($key: layers.take($section, stringify!($key)),)* }
            }
        }
    };
}
pub(super) use section;

/// Every section, in the order of the file.
pub fn sections() -> &'static [Section] {
    use super::{traffic, watching};
    const ALL: &[Section] = &[
        traffic::Top::SECTION,
        traffic::Statsd::SECTION,
        traffic::Aggregate::SECTION,
        traffic::Filter::SECTION,
        traffic::Datadog::SECTION,
        traffic::Agent::SECTION,
        traffic::Spool::SECTION,
        watching::Watch::SECTION,
        watching::Alert::SECTION,
        watching::State::SECTION,
        watching::Profile::SECTION,
        watching::Page::SECTION,
        watching::Health::SECTION,
        watching::Run::SECTION,
        watching::Log::SECTION,
    ];
    ALL
}

/// Every key, in the order of the file.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    sections().iter().flat_map(|section| section.keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_yet_is_a_key() {
        for path in NOT_YET {
            assert!(keys().any(|key| key.path() == *path), "{path}");
        }
    }
}
