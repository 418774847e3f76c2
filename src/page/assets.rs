//! The built page, embedded. `web/dist` is committed, so building the binary needs no Node.
//!
//! A fixed table and no folder: what is not in it does not exist, whatever the path looks like.

/// (path, content type, bytes)
const ASSETS: [(&str, &str, &[u8]); 5] = [
    ("/", "text/html; charset=utf-8", include_bytes!("../../web/dist/index.html")),
    ("/assets/app.js", "text/javascript; charset=utf-8", include_bytes!("../../web/dist/app.js")),
    ("/assets/app.css", "text/css; charset=utf-8", include_bytes!("../../web/dist/app.css")),
    ("/assets/icon.svg", "image/svg+xml", include_bytes!("../../web/dist/icon.svg")),
    ("/assets/third-party.txt", "text/plain; charset=utf-8", include_bytes!("../../web/THIRD-PARTY.txt")),
];

/// The file at exactly this path, as it came on the wire.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static [u8])> {
    ASSETS.iter().find(|(at, _, _)| *at == path).map(|(_, kind, bytes)| (*kind, *bytes))
}
