//! `/api/profiles/{id}/flame?base={id}&value=…`: a profile as the tree that the page draws, and what grew since another one.
//!
//! Profiles are read here and nowhere else on the page: on a blocking thread, one request at a time and never beside the
//! investigation. A client that goes away changes nothing in that: its place is free when what was read for it is dropped.

use std::io::Cursor;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use super::api;
use super::http::{Body, answer as reply_with};
use super::profiles::{self, JSON, PATIENCE, SILENT, Wires, is_id};
use super::server::parameter;
use crate::pprof::flame::{Cell, Value};
use crate::pprof::{Flame, Profile, read};
use crate::sys;

/// A status and the words that go with it.
type Refusal = (StatusCode, String);

type Reader = fn(Cursor<Bytes>, usize, usize) -> Result<Profile, read::ReadError>;

/// Answers for the profile of an id.
pub(super) async fn answer(wires: &Wires, id: &str, query: Option<&str>) -> Response<Body> {
    match drawn(wires, id, query).await {
        Ok(json) => reply_with(StatusCode::OK, JSON, json),
        Err((status, words)) => reply_with(status, "text/plain; charset=utf-8", words),
    }
}

async fn drawn(wires: &Wires, id: &str, query: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let base = parameter(query, "base");
    if base.is_some_and(|base| !is_id(base)) {
        return Err((StatusCode::BAD_REQUEST, "base: expected the id of a profile, sixteen hex digits\n".to_owned()));
    }
    let value = parameter(query, "value").map(str::to_owned);
    // Of a heap the stacks that hold nothing any more are kept for what was ever allocated alone.
    let is_of_all = value.as_ref().is_some_and(|value| value.starts_with("alloc"));
    let reader: Reader = if is_of_all { read::read_whole } else { read::read_from };
    let busy = |_| (StatusCode::SERVICE_UNAVAILABLE, "another profile is being read: try again\n".to_owned());
    let mut place = tokio::time::timeout(PATIENCE, wires.reading.take()).await.map_err(busy)?;
    let mut before = None;
    if let Some(base) = base {
        let read = decode(wires, base, reader, read::MAX_MEMORY, place).await?;
        (place, before) = (read.0, Some(read.1));
    }
    let max_memory = before.as_ref().map_or(read::MAX_MEMORY, Profile::memory_beside);
    let (place, now) = decode(wires, id, reader, max_memory, place).await?;
    blocking(place, move || draw(before, now, value.as_deref())).await?.1
}

/// A profile of the store, with the place that was held while it was read.
async fn decode(
    wires: &Wires,
    id: &str,
    reader: Reader,
    max_memory: usize,
    place: OwnedSemaphorePermit,
) -> Result<(OwnedSemaphorePermit, Profile), Refusal> {
    let bytes = match profiles::read(wires, id).await {
        Some(Some(bytes)) => bytes,
        Some(None) => return Err((StatusCode::NOT_FOUND, format!("there is no profile {id} any more\n"))),
        None => return Err((StatusCode::SERVICE_UNAVAILABLE, SILENT.to_owned())),
    };
    let (place, read) = blocking(place, move || reader(Cursor::new(bytes), read::MAX_INFLATED, max_memory)).await?;
    let unread = |fault| (StatusCode::UNPROCESSABLE_ENTITY, format!("profile {id} cannot be drawn: {fault}\n"));
    Ok((place, read.map_err(unread)?))
}

/// Does the work on a blocking thread, which holds the place to its end even when nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(OwnedSemaphorePermit, T), Refusal> {
    let held = spawn_blocking(move || {
        let done = work();
        (place, done)
    });
    held.await.map_err(|_| (StatusCode::UNPROCESSABLE_ENTITY, "the profile broke its reader\n".to_owned()))
}

fn draw(base: Option<Profile>, now: Profile, value: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let flame = Flame::of(base.as_ref(), &now, value);
    drop((base, now));
    let json = flame.map(|flame| api::json(&View::from(&flame)));
    sys::give_memory_back();
    json.map_err(|fault| (StatusCode::BAD_REQUEST, format!("{fault}\n")))
}

/// A list and no tree of lists: a stack has more calls than many a reader of JSON follows.
#[derive(Serialize)]
struct View<'a> {
    value: &'a str,
    unit: &'a str,
    values: Vec<ValueView<'a>>,
    /// There is a base, and each cell has grown by `grew`.
    compared: bool,
    /// Each after its parent.
    cells: Vec<CellView<'a>>,
}

#[derive(Serialize)]
struct ValueView<'a> {
    name: &'a str,
    unit: &'a str,
}

#[derive(Serialize)]
struct CellView<'a> {
    /// By place in the list; `null` for the whole.
    parent: Option<usize>,
    name: &'a str,
    /// With its path, where the name is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    value: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    grew: Option<i64>,
    /// Stands for what is too small to be drawn.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    folded: bool,
}

impl<'a> From<&'a Flame> for View<'a> {
    fn from(it: &'a Flame) -> View<'a> {
        View {
            value: &it.value.name,
            unit: &it.value.unit,
            values: it.values.iter().map(|Value { name, unit }| ValueView { name, unit }).collect(),
            compared: it.compared,
            cells: it.cells.iter().map(|cell| CellView::of(cell, it.compared)).collect(),
        }
    }
}

impl<'a> CellView<'a> {
    fn of(cell: &'a Cell, compared: bool) -> CellView<'a> {
        CellView {
            parent: cell.parent,
            name: &cell.name,
            function: Some(&*cell.function).filter(|function| *function != cell.name),
            value: cell.value,
            grew: compared.then_some(cell.grew),
            folded: cell.is_folded,
        }
    }
}
