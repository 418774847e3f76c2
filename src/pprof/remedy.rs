//! The usual mend of the usual leaks, found by the code a stack passes through. A table to add to; it never invents one.

use super::class::fits;
use super::goroutines::Group;
use super::names;
use super::read::Frame;

const STATSD: &str = "make one StatsD client at start, reuse it, and close it at shutdown";
const HTTP: &str = "read and close every response body, and share one http.Client";
const CLIENT: &str = "make one client at start, reuse it, and close it at shutdown";
const TICKER: &str = "stop every time.NewTicker with defer ticker.Stop()";
const TIMER: &str = "in a loop, reuse one time.NewTimer in place of time.After, and stop it";
const ROWS: &str = "close rows where they are made: defer rows.Close()";
const CONTEXT: &str = "cancel every context that is made: defer cancel()";
const CHANNEL: &str = "let the goroutine end: select on ctx.Done() beside the channel, or close the channel";
const ENDLESS: &str = "let the goroutine end: give it a context and cancel it, or close what it serves";

/// Who allocates: (start of a full function name, or, with a leading `*`, a part of it; the mend). The first that fits wins, so the
/// special stand first. Makers alone: what else a library allocates may be a result that the app keeps.
const MADE: [(&str, &str); 17] = [
    ("*/statsd.New", STATSD),
    ("*/statsd.newStatsdBuffer", STATSD),
    ("gopkg.in/alexcesaro/statsd.v2.New", STATSD),
    ("github.com/smira/go-statsd.NewClient", STATSD),
    ("net/http.(*Transport).dialConn", HTTP),
    ("net/http.(*persistConn)", HTTP),
    ("time.NewTicker", TICKER),
    ("time.Tick", TICKER),
    ("time.After", TIMER),
    ("time.NewTimer", TIMER),
    ("context.With", CONTEXT),
    ("google.golang.org/grpc.NewClient", CLIENT),
    ("google.golang.org/grpc.Dial", CLIENT),
    ("database/sql.Open", CLIENT),
    ("*redis/v9.NewClient", CLIENT),
    ("*mongo.Connect", CLIENT),
    ("*kafka-go.New", CLIENT),
];

/// Whose goroutines they are, likewise.
const KEPT: [(&str, &str); 7] = [
    ("*/statsd.(*", STATSD),
    ("net/http.(*persistConn)", HTTP),
    ("database/sql.(*Rows)", ROWS),
    ("google.golang.org/grpc", CLIENT),
    ("*/go-redis/", CLIENT),
    ("go.mongodb.org/mongo-driver/", CLIENT),
    ("github.com/segmentio/kafka-go", CLIENT),
];

/// The mend for a heap stack, leaf first, by what the app called: frames from the owner on are the app's own affair.
pub(super) fn of_heap<'a>(stack: impl Iterator<Item = &'a Frame>) -> Option<&'static str> {
    let called: Vec<&Frame> = stack.take_while(|frame| names::kind(frame) != names::Kind::App).take(64).collect();
    look_up(&MADE, &called)
}

/// The mend for goroutines of a library that pile up, where it is known.
pub(super) fn of_library(group: &Group) -> Option<&'static str> {
    look_up(&KEPT, &group.stack)
}

fn look_up(table: &[(&str, &'static str)], stack: &[&Frame]) -> Option<&'static str> {
    let found = |(pattern, _): &&(&str, &str)| stack.iter().any(|frame| fits(&frame.function, pattern));
    table.iter().find(found).map(|(_, mend)| *mend)
}

/// The mend for goroutines that pile up: the library's if it is known, else by what they wait on.
pub(super) fn of_goroutine(group: &Group) -> Option<&'static str> {
    of_library(group).or(match group.waits_on()? {
        "a channel send" | "a channel receive" => Some(CHANNEL),
        "a select" | "the network" => Some(ENDLESS),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::goroutines::Groups;
    use super::super::testing;
    use super::*;

    fn mend(stack: &[&str]) -> Option<&'static str> {
        let profile = testing::heap(&[(stack, 1)]);
        of_heap(profile.stack(&profile.samples[0]))
    }

    #[test]
    fn the_usual_leaks_have_a_mend() {
        let app = "main.f main.go 1";
        let cases: [(&[&str], Option<&str>); 6] = [
            (&["github.com/DataDog/datadog-go/v5/statsd.newStatsdBuffer d@v5.9.1/b.go 1", app], Some(STATSD)),
            (
                &["bufio.NewReaderSize bufio/bufio.go 1", "net/http.(*Transport).dialConn net/http/transport.go 1"],
                Some(HTTP),
            ),
            (&["time.newTimer time/sleep.go 1", "time.NewTicker time/tick.go 1", app], Some(TICKER)),
            (&["time.NewTimer time/sleep.go 1", "time.After time/sleep.go 1", app], Some(TIMER)),
            (&["bytes.growSlice bytes/buffer.go 1", app], None),
            (&[app, "time.NewTicker time/tick.go 1"], None),
        ];
        for (stack, expected) in cases {
            assert_eq!(mend(stack), expected, "{stack:?}");
        }
    }

    #[test]
    fn a_goroutine_stuck_on_a_channel_has_one_too() {
        let stack: &[&str] =
            &["runtime.gopark runtime/proc.go 1", "runtime.chanrecv1 runtime/chan.go 1", "main.f main.go 1"];
        let now = testing::goroutines(&[(stack, 9)]);
        assert_eq!(of_goroutine(&Groups::between(None, &now).groups[0]), Some(CHANNEL));
    }
}
