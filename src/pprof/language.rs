//! Which language a profile's frames are in, and whose code a frame of Node is. Go's and Rust's own rules stand in `names`.

use super::names::Kind;
use super::read::Frame;

/// What a profile was taken of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    Go,
    Node,
    Rust,
}

/// The language of most frames; Go where none tells.
pub fn language(frames: &[Frame]) -> Language {
    let of = |frame: &&Frame| is_javascript(&frame.file);
    let (node, rust) = (frames.iter().filter(of).count(), frames.iter().filter(|frame| is_rust(frame)).count());
    match frames.len() / 2 {
        half if node > half => Language::Node,
        half if rust > half => Language::Rust,
        _ => Language::Go,
    }
}

pub(super) fn is_rust(frame: &Frame) -> bool {
    frame.function.contains("::") || frame.file.ends_with(".rs")
}

fn is_javascript(file: &str) -> bool {
    const ENDINGS: [&str; 7] = [".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx"];
    file.starts_with("node:") || ENDINGS.iter().any(|ending| file.ends_with(ending))
}

/// What V8 tells: files as they were loaded, Node's own under `node:`, and `(external)` or `(root)` for what has no file.
pub(super) fn javascript_kind(function: &str, file: &str) -> Option<Kind> {
    if file.starts_with("node:") {
        Some(Kind::Std)
    } else if file.is_empty() && function.starts_with('(') && function.ends_with(')') {
        Some(Kind::Runtime)
    } else if is_javascript(file) {
        let installed = file.starts_with("node_modules/") || file.contains("/node_modules/");
        Some(if installed { Kind::Dependency } else { Kind::App })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::kind;
    use super::*;

    fn kind_of(function: &str, file: &str) -> Kind {
        kind(&Frame { function: function.into(), file: file.into(), line: 1 })
    }

    #[test]
    fn the_language_is_that_of_most_frames() {
        let frame = |file: &str| Frame { function: "f".into(), file: file.into(), line: 1 };
        let of = |files: &[&str]| language(&files.iter().map(|file| frame(file)).collect::<Vec<_>>());
        assert_eq!(of(&[]), Language::Go);
        assert_eq!(of(&["/app/main.go", "/app/x.js"]), Language::Go);
        assert_eq!(of(&["node:events", "/app/x.js", ""]), Language::Node);
        assert_eq!(of(&["src/main.rs"]), Language::Rust);
    }

    #[test]
    fn javascript_is_told_by_where_its_file_lies() {
        let cases = [
            ("remember", "/app/src/net/app.mjs", Kind::App),
            ("handleJob", "file:///app/jobs.js", Kind::App),
            ("net.Socket", "/app/src/net/server.ts", Kind::App),
            ("LRUCache.set", "/app/node_modules/lru-cache/index.js", Kind::Dependency),
            ("emit", "node:events", Kind::Std),
            ("onStreamRead", "node:internal/stream_base_commons", Kind::Std),
            ("(external)", "", Kind::Runtime),
            ("(anonymous:L#36:C#29)", "/app/app.mjs", Kind::App),
        ];
        for (function, file, expected) in cases {
            assert_eq!(kind_of(function, file), expected, "{function} {file}");
        }
    }
}
