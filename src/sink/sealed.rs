//! A small file of ours that outlives us: a first line with its kind, a version and a checksum, then a body. What is of another
//! version, or is not what was written, is told apart and never used.

/// The bytes of the file: `<kind> <version> <checksum of the body as eight hex digits>`, a line end, the body.
pub(super) fn seal(kind: &str, version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{kind} {version} {:08x}\n", crc32fast::hash(body)).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The body, or why it cannot be used: a reason and words.
pub(super) fn open<'a>(kind: &str, version: u32, bytes: &'a [u8]) -> Result<&'a [u8], (&'static str, String)> {
    let damaged = |why: &str| ("damaged", why.to_owned());
    let end = memchr::memchr(b'\n', bytes).ok_or_else(|| damaged("it has no first line"))?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| damaged("its first line is no text"))?;
    let words: Vec<&str> = head.split(' ').collect();
    let [its_kind, its_version, sum] = words[..] else { return Err(damaged("its first line is not ours")) };
    if its_kind != kind {
        return Err(damaged("its first line is not ours"));
    }
    if its_version != version.to_string() {
        return Err(("version", format!("it is of version {its_version}, and this program knows {version}")));
    }
    if sum != format!("{:08x}", crc32fast::hash(body)) {
        return Err(damaged("its checksum is not that of its content"));
    }
    Ok(body)
}
