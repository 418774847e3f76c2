//! Whose code a frame of Rust is, and how people say its name. C symbols beside it (the allocator's, libc's) are told here too,
//! because they stand at both ends of every stack that jemalloc records.
//!
//! The file decides before the name does: a generic function of std, made for the app's type, bears the app's names and lies in
//! `/rustc/<hash>/library/`. Of what std itself is built from, the path is `/rust/deps/hashbrown-0.15.2/…`.

use super::names::{Kind, clean};

/// Longest list of type arguments that is said; what is longer becomes `<…>`.
const MAX_ARGUMENTS: usize = 48;

/// The allocator's own frames by the start of their names, as jemalloc, mimalloc and the compiler's shims have them.
const ALLOCATORS: [&str; 13] = [
    "tikv_jemallocator::",
    "jemallocator::",
    "mimalloc::",
    "alloc::alloc::",
    "alloc::raw_vec::",
    "std::alloc::",
    "__rust_alloc",
    "__rust_realloc",
    "__rg_alloc",
    "__rg_realloc",
    "__rdl_alloc",
    "__rdl_realloc",
    "__rustc::",
];

/// Of jemalloc's C, with and without the prefix that Rust gives it.
const JEMALLOC: [&str; 5] = ["_rjem_", "je_", "prof_backtrace", "prof_alloc_prep", "prof_tctx_create"];

/// C's allocation functions and the roots of every thread, whole names.
const C_RUNTIME: [&str; 15] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "mallocx",
    "rallocx",
    "imalloc",
    "main",
    "_start",
    "start_thread",
    "clone",
    "clone3",
    "__clone3",
    "__libc_start_call_main",
];

/// Steps of an allocation within std, as they are called where debug information has no modules (`line-tables-only`). Their file
/// is no help there: `jemalloc_pprof` keeps one for all functions of a name, whichever it saw first.
const BARE: [&str; 18] = [
    "alloc",
    "alloc_impl",
    "alloc_impl_runtime",
    "alloc_zeroed",
    "allocate",
    "allocate_zeroed",
    "do_reserve_and_handle",
    "exchange_malloc",
    "finish_grow",
    "from_elem",
    "grow_amortized",
    "grow_impl",
    "grow_impl_runtime",
    "grow_one",
    "realloc",
    "try_allocate_in",
    "try_with_capacity_in",
    "with_capacity_in",
];

/// Whether a C symbol is the allocator's or libc's own, and so never a culprit. A Go function has a package and a dot.
pub(super) fn is_c_runtime(function: &str, file: &str) -> bool {
    C_RUNTIME.contains(&function)
        || function.starts_with("__libc_start_main")
        || JEMALLOC.iter().any(|start| function.starts_with(start))
        || is_allocators(file)
}

/// jemalloc's C and the crates that wrap an allocator. A build without full debug information names functions without their
/// crate (`alloc`, `imalloc`), so the file must tell.
fn is_allocators(file: &str) -> bool {
    ["/tikv-jemalloc", "/jemallocator-", "/jemalloc-sys-", "/mimalloc-"].iter().any(|part| file.contains(part))
}

pub(super) fn kind(function: &str, file: &str) -> Kind {
    let plain = plain(function);
    let name = plain.trim_start_matches(['<', '&']);
    let first = name.split('<').next().unwrap_or_default();
    if BARE.contains(&first) || ALLOCATORS.iter().any(|start| name.starts_with(start)) || is_c_runtime(&plain, file) {
        return Kind::Runtime;
    }
    let of_std = ["/rustc/", "/rustlib/src/rust/", "/rust/deps/"].iter().any(|part| file.contains(part));
    if of_std
        || file.is_empty() && name.starts_with("hashbrown::")
        || ["std::", "core::", "alloc::", "rust_begin"].iter().any(|start| name.starts_with(start))
    {
        Kind::Std
    } else if is_dependency(file) {
        Kind::Dependency
    } else {
        Kind::App
    }
}

fn is_dependency(file: &str) -> bool {
    const PLACES: [&str; 4] = ["/registry/src/", "/git/checkouts/", "/.cargo/", "/vendor/"];
    PLACES.iter().any(|place| file.contains(place)) || file.starts_with("vendor/")
}

/// `tokio@1.40.0` of a file in cargo's registry, `name@rev` of one in its git checkouts.
pub(super) fn package(file: &str) -> Option<String> {
    if let Some((_, below)) = file.split_once("/registry/src/") {
        let folder = below.split('/').nth(1)?;
        let version = |at: &usize| {
            let rest = folder[at + 1..].trim_start_matches(|c: char| c.is_ascii_digit());
            rest.len() < folder.len() - at - 1 && rest.starts_with('.')
        };
        let at = folder.match_indices('-').map(|(at, _)| at).find(version)?;
        return Some(clean(&format!("{}@{}", &folder[..at], &folder[at + 1..])));
    }
    let (_, below) = file.split_once("/git/checkouts/")?;
    let mut parts = below.split('/');
    let (name, rev) = (parts.next()?, parts.next()?);
    Some(clean(&format!("{}@{rev}", name.rsplit_once('-').map_or(name, |(name, _)| name))))
}

/// As a person says it: `jobs::Worker<u32>::handle_job` of `<leaky[1a2b3c4d5e6f7081]::jobs::Worker<u32>>::handle_job::h0123456789abcdef`,
/// with the crate in front.
pub(super) fn short(function: &str) -> String {
    clean(&arguments(&unwrapped(&plain(function)), MAX_ARGUMENTS))
}

/// What instances of one generic function share.
pub(super) fn without_types(function: &str) -> String {
    arguments(&unwrapped(&plain(function)), 0)
}

/// Without what tells builds apart: the hash at the end of a name, those of crates, and LLVM's own endings.
fn plain(function: &str) -> String {
    let mut name = function;
    if let Some((start, end)) = name.rsplit_once(".llvm.")
        && end.bytes().all(|byte| byte.is_ascii_digit())
    {
        name = start;
    }
    if let Some((start, hash)) = name.rsplit_once("::h")
        && hash.len() == 16
        && is_hex(hash)
    {
        name = start;
    }
    let mut out = String::with_capacity(name.len());
    while let Some(at) = name.find('[') {
        let end = name[at..].find(']').map_or(name.len(), |end| at + end + 1);
        let inside = name[at..end].trim_start_matches('[').trim_end_matches(']');
        let is_crate_hash = inside.len() >= 8 && is_hex(inside);
        out.push_str(if is_crate_hash { &name[..at] } else { &name[..end] });
        name = &name[end..];
    }
    out + name
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `<A>::f` is `A::f`: the brackets are the mangling's, unless a trait stands in them.
fn unwrapped(name: &str) -> String {
    let Some(end) = name.starts_with('<').then(|| closing(name)).flatten() else { return name.to_owned() };
    let inside = &name[1..end];
    if inside.contains(" as ") { name.to_owned() } else { format!("{inside}{}", &name[end + 1..]) }
}

/// Where the bracket closes that the text begins with. An arrow is none.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut before) = (0_usize, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => (),
        }
        before = c;
    }
    None
}

/// Each list of type arguments by the last parts of its paths, or `<…>` where that is longer than `most`. One pass over the text
/// and no recursion: it comes from the app.
fn arguments(name: &str, most: usize) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        let Some(end) = closing(&rest[at..]).map(|end| at + end) else { return out + "<…>" };
        let said = last_parts(&rest[at + 1..end]);
        match said.chars().count() {
            n if n <= most || said.contains(" as ") && most > 0 => out.push_str(&format!("<{said}>")),
            _ => out.push_str("<…>"),
        }
        rest = &rest[end + 1..];
    }
    out + rest
}

/// `Vec<u8>, Global` of `alloc::vec::Vec<u8>, alloc::alloc::Global`.
fn last_parts(text: &str) -> String {
    let (mut out, mut word) = (String::with_capacity(text.len()), 0);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ':' && chars.peek() == Some(&':') {
            chars.next();
            out.truncate(word);
        } else {
            out.push(c);
            if !(c.is_alphanumeric() || "_{}#".contains(c)) {
                word = out.len();
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_without_hashes_and_with_readable_generics() {
        let cases = [
            ("shop::cart::grow", "shop::cart::grow"),
            ("shop::cart::grow::h0123456789abcdef", "shop::cart::grow"),
            ("shop::cart::grow::h0123456789abcdef.llvm.1234567890", "shop::cart::grow"),
            ("shop::cart::house", "shop::cart::house"),
            ("leaky[1a2b3c4d5e6f7081]::jobs::remember", "leaky::jobs::remember"),
            ("<leaky[1a2b3c4d5e6f7081]::jobs::Worker<u32>>::handle_job", "leaky::jobs::Worker<u32>::handle_job"),
            ("<shop::Cart as core::ops::drop::Drop>::drop::h0123456789abcdef", "<Cart as Drop>::drop"),
            ("shop::fill::<alloc::vec::Vec<shop::Item>, alloc::alloc::Global>", "shop::fill::<Vec<Item>, Global>"),
            (
                "shop::fill<std::collections::HashMap<alloc::string::String, alloc::vec::Vec<shop::Very>>, shop::Long>",
                "shop::fill<HashMap<String, Vec<Very>>, Long>",
            ),
            (&format!("shop::fill<shop::{}>", "Long".repeat(20)), "shop::fill<…>"),
            ("shop::run::{{closure}}", "shop::run::{{closure}}"),
            ("shop::apply<fn(u8) -> u16>", "shop::apply<fn(u8) -> u16>"),
            ("shop::broken<u8", "shop::broken<…>"),
            ("shop::take<[u8]>", "shop::take<[u8]>"),
        ];
        for (function, expected) in cases {
            assert_eq!(short(function), expected, "{function}");
        }
        assert_eq!(without_types("<a::W<u32>>::f::h0123456789abcdef"), without_types("<a::W<u64>>::f"));
        let deep = format!("a::f{}", "<".repeat(100_000));
        assert_eq!(short(&deep), "a::f<…>");
    }

    #[test]
    fn code_is_told_by_its_file_before_its_name() {
        use Kind::{App, Dependency, Runtime, Std};
        let library = "/rustc/9e2abe0c6/library/alloc/src/vec/mod.rs";
        let registry = "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        let cases = [
            ("<alloc::vec::Vec<T> as Clone>::clone", library, Std),
            ("hashbrown::raw::RawTable<T,A>::reserve_rehash", "/rust/deps/hashbrown-0.15.2/src/raw/mod.rs", Std),
            (
                "hashbrown::raw::RawTable<T,A>::reserve_rehash",
                &format!("{registry}/hashbrown-0.15.2/src/raw.rs"),
                Dependency,
            ),
            ("alloc::raw_vec::RawVec<T,A>::grow_one", library, Runtime),
            (
                "<tikv_jemallocator::Jemalloc as core::alloc::global::GlobalAlloc>::alloc",
                &format!("{registry}/t/l.rs"),
                Runtime,
            ),
            ("__rustc[1a2b3c4d5e6f7081]::__rg_alloc", "", Runtime),
            ("_rjem_je_prof_backtrace", "", Runtime),
            ("prof_backtrace_impl", "/target/build/tikv-jemalloc-sys-1/out/build/src/prof_sys.c", Runtime),
            ("shop::cart::grow", "/src/shop/src/cart.rs", App),
            ("alloc", &format!("{registry}/tikv-jemallocator-0.7.0/src/lib.rs"), Runtime),
            ("from_elem<u64>", library, Runtime),
            ("allocate", &format!("{registry}/backtrace-0.3.77/src/gimli/stash.rs"), Runtime),
            ("insert<u64>", library, Std),
            ("hashbrown::raw::RawTable<T,A>::reserve_rehash", "", Std),
            ("shop::cart::grow", "", App),
            ("remember", "/src/shop/src/cart.rs", App),
            ("shop::cart::grow", "src/cart.rs", App),
            ("<shop::Cart as core::ops::drop::Drop>::drop", "src/cart.rs", App),
            ("serde::f", "/app/vendor/serde/src/lib.rs", Dependency),
            ("own::f", "/home/me/.cargo/git/checkouts/own-0123456789abcdef/1a2b3c4/src/lib.rs", Dependency),
        ];
        for (function, file, expected) in cases {
            assert_eq!(kind(function, file), expected, "{function} in {file}");
        }
        assert!(is_c_runtime("malloc", "") && is_c_runtime("__libc_start_main@@GLIBC_2.34", ""));
        assert!(!is_c_runtime("leveldb_put", ""));
    }

    #[test]
    fn a_dependency_has_its_version() {
        let registry = "/usr/local/cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        let cases = [
            (format!("{registry}/tokio-1.40.0/src/lib.rs"), Some("tokio@1.40.0")),
            (format!("{registry}/tokio-util-0.7.0-alpha.1/src/lib.rs"), Some("tokio-util@0.7.0-alpha.1")),
            (format!("{registry}/foo-2d-1.0.0/src/lib.rs"), Some("foo-2d@1.0.0")),
            (format!("{registry}/odd/src/lib.rs"), None),
            ("/c/git/checkouts/own-0123456789abcdef/1a2b3c4/src/lib.rs".to_owned(), Some("own@1a2b3c4")),
            ("src/main.rs".to_owned(), None),
        ];
        for (file, expected) in cases {
            assert_eq!(package(&file).as_deref(), expected, "{file}");
        }
    }
}
