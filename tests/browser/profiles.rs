//! Profiles of the leaking worker for the page's flame graph, gzipped as the app would serve them.

use std::collections::HashMap;

use super::wire::{field, gzipped, number};
use super::{HOSTILE, MIB};

const KIB: u64 = 1024;
const STATSD: &str = "github.com/DataDog/datadog-go/v5/statsd";
const REDIS: &str = "github.com/redis/go-redis/v9";

/// Stacks, outermost function first, with what they hold before and now.
fn heap() -> Vec<(Vec<String>, [u64; 2])> {
    let worker = "runtime.goexit main.worker main.handleJob";
    let client = format!("{worker} {STATSD}.New {STATSD}.newClientWithWriter");
    let serve = "runtime.goexit net/http.(*conn).serve net/http.serverHandler.ServeHTTP main.(*Server).ServeHTTP";
    let redis = format!("{worker} {REDIS}.(*Client).Process {REDIS}.(*baseClient).process");
    let main = "runtime.main main.main";
    let rows = [
        (format!("{client} {STATSD}.newBufferPool {STATSD}.newStatsdBuffer"), [480 * KIB, 149 * MIB]),
        (format!("{client} {STATSD}.newBufferPool"), [0, 2 * MIB]),
        (format!("{client} {STATSD}.newAggregator"), [0, 6 * MIB]),
        (format!("{client} {STATSD}.newSender {STATSD}.newUDPWriter net.Dial"), [0, 3 * MIB]),
        (format!("{worker} encoding/json.Unmarshal encoding/json.(*decodeState).object"), [2 * MIB, 3 * MIB]),
        (format!("{worker} encoding/json.Unmarshal reflect.mapassign"), [MIB, MIB]),
        (format!("{redis} {REDIS}.(*conn).readReply bufio.NewReaderSize"), [4 * MIB, 4 * MIB]),
        (format!("{redis} {REDIS}/internal/pool.(*ConnPool).Get {REDIS}/internal/pool.NewConn"), [3 * MIB, 2 * MIB]),
        (
            format!("{main} main.loadTemplates html/template.(*Template).Parse text/template/parse.Parse"),
            [6 * MIB, 6 * MIB],
        ),
        (format!("{main} main.warmCache main.(*Cache).Put"), [14 * MIB, 5 * MIB]),
        (format!("{main} main.loadConfig os.ReadFile"), [MIB, 0]),
        (format!("{serve} main.(*Server).metrics compress/gzip.NewWriterLevel"), [2 * MIB, 2 * MIB]),
        (format!("{serve} main.(*Server).jobs bytes.(*Buffer).grow"), [MIB, 3 * MIB]),
        (format!("{serve} bufio.NewWriterSize"), [700 * KIB, 600 * KIB]),
        ("runtime.mstart runtime.mstart1 runtime.schedinit runtime.malg".to_owned(), [MIB, MIB]),
        (format!("{main} main.register"), [40 * KIB, 40 * KIB]),
        (format!("{main} main.flags"), [20 * KIB, 20 * KIB]),
    ];
    let mut stacks: Vec<_> =
        rows.into_iter().map(|(stack, held)| (stack.split(' ').map(str::to_owned).collect(), held)).collect();
    stacks.push((vec!["runtime.main".to_owned(), "main.main".to_owned(), HOSTILE.to_owned()], [2 * MIB, 4 * MIB]));
    stacks
}

fn goroutines() -> Vec<(Vec<String>, [u64; 2])> {
    let row = |stack: String, held| (stack.split(' ').map(str::to_owned).collect(), held);
    vec![
        row(format!("{STATSD}.(*Client).watch runtime.selectgo runtime.gopark"), [1, 312]),
        row(format!("{STATSD}.(*sender).sendLoop runtime.selectgo runtime.gopark"), [1, 312]),
        row(format!("{STATSD}.(*aggregator).start.func1 runtime.selectgo runtime.gopark"), [1, 312]),
        row("main.worker main.handleJob net.(*conn).Read internal/poll.runtime_pollWait runtime.gopark".into(), [8, 8]),
        row("main.main net/http.ListenAndServe net.(*TCPListener).Accept runtime.gopark".into(), [1, 1]),
    ]
}

/// The profile that the store of the preview has under an id.
pub fn kept(id: &str) -> Vec<u8> {
    let heap_types = [("inuse_objects", "count"), ("inuse_space", "bytes")];
    match id {
        "02f8b6d4e17ca935" => encoded(&heap_types, &heap(), 0),
        "1be07a55c94d20f3" => encoded(&[("goroutine", "count")], &goroutines(), 1),
        "9c40e1b7a2d35f68" => encoded(&heap_types, &heap(), 1),
        _ => b"\x1f\x8bas pulled".to_vec(),
    }
}

/// The profile on the wire; each function has one location of the same number.
fn encoded(types: &[(&str, &str)], stacks: &[(Vec<String>, [u64; 2])], column: usize) -> Vec<u8> {
    let mut texts = vec![String::new()];
    let mut out = Vec::new();
    for (name, unit) in types {
        texts.extend([(*name).to_owned(), (*unit).to_owned()]);
        let last = texts.len() as u64 - 1;
        out.extend(field(1, &[number(1, last - 1), number(2, last)].concat()));
    }
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    for (stack, held) in stacks {
        let mut sample = Vec::new();
        for function in stack.iter().rev() {
            let next = numbers.len() as u64 + 1;
            let id = *numbers.entry(function.as_str()).or_insert(next);
            if id == next {
                texts.push(function.clone());
                let name = texts.len() as u64 - 1;
                let line = [number(1, id), number(2, 7)].concat();
                out.extend(field(4, &[number(1, id), field(4, &line)].concat()));
                out.extend(field(5, &[number(1, id), number(2, name), number(3, name)].concat()));
            }
            sample.extend(number(1, id));
        }
        let value = held[column];
        let values = if types.len() == 1 { vec![value] } else { vec![value / 8_192, value] };
        values.into_iter().for_each(|value| sample.extend(number(2, value)));
        out.extend(field(2, &sample));
    }
    texts.iter().for_each(|text| out.extend(field(6, text.as_bytes())));
    gzipped(&out)
}
