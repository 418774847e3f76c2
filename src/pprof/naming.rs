//! The outcome of comparing two profiles: who made what grew, how sure that is, or why nobody can be named.

/// One leaking allocation: the first frame outside runtime and standard library, and the application frame that made it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Culprit {
    /// The leaf as people say it: `statsd.newStatsdBuffer`.
    pub function: String,
    pub file: String,
    pub line: i64,
    pub grew_bytes: i64,
    pub grew_objects: i64,
    /// Of all positive growth, 0 to 1.
    pub share: f64,
    /// The application frame that made it: `main.handleJob`; empty when the stack holds no application frame.
    pub made_by: String,
    pub made_by_file: String,
    pub made_by_line: i64,
    /// Full function names, leaf first.
    pub stack: Vec<String>,
}

/// How sure a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    High,
    Medium,
    /// Several share the growth and none stands out: the top three are listed.
    Low,
    /// Nobody can be named; the sentence says why.
    Unknown,
}

/// What two moments of one process say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Naming {
    pub confidence: Confidence,
    /// "`statsd.newStatsdBuffer` grew 148 MiB (92 % of heap growth), made in `main.handleJob`" or why there is none.
    pub sentence: String,
    /// Largest growth first, at most ten.
    pub culprits: Vec<Culprit>,
    /// (kind, words): goroutine groups that grew, what did not grow, what else was seen.
    pub evidence: Vec<(String, String)>,
    /// The usual mend, where the culprit is known to have one.
    pub remedy: Option<&'static str>,
}

impl Naming {
    /// Whether somebody is named, be it among three.
    pub fn is_named(&self) -> bool {
        self.confidence != Confidence::Unknown && !self.culprits.is_empty()
    }
}
