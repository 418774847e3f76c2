"""Sends a known set through Datadog's own client for Python and prints what it sent, as JSON: send.py ADDRESS MODE.

ADDRESS is host:port, unix://PATH, unixgram://PATH or unixstream://PATH; MODE is plain (the client's default: a datagram a call),
buffered or aggregated. The calls are those of ../go/main.go.
"""

import collections
import json
import os
import sys
import time

from datadog.dogstatsd.base import DogStatsd

CALLS = 2000


def connect(address, mode):
    options = {"constant_tags": ["stadt:köln"], "disable_buffering": mode == "plain", "disable_aggregation": mode != "aggregated"}
    if "://" in address:
        # By default the client drops (and counts) what finds the kernel's queue full: ten datagrams, net.unix.max_dgram_qlen.
        return DogStatsd(socket_path=address, socket_timeout=10, **options)
    host, port = address.rsplit(":", 1)
    return DogStatsd(host=host, port=int(port), **options)


def own(*tags):
    """The tags of one call with those that the client adds by itself."""
    unified = {"env": "DD_ENV", "service": "DD_SERVICE", "version": "DD_VERSION"}
    added = [f"{name}:{os.environ[variable]}" for name, variable in unified.items() if os.environ.get(variable)]
    return sorted([*tags, "stadt:köln", *added])


class Sent:
    def __init__(self):
        self.counters = collections.Counter()
        self.gauges = {}
        self.sets = collections.defaultdict(dict)
        self.histograms = collections.defaultdict(list)
        self.distributions = collections.defaultdict(list)

    def metric(self, client, n):
        tags = [f"shard:{n // 8 % 3}"]
        series = lambda name: name + "|" + ",".join(own(*tags))
        match n % 8:
            case 0:
                self.counters[series("clients.jobs")] += n % 50
                client.count("clients.jobs", n % 50, tags=tags)
            case 1:
                self.counters[series("clients.done")] += 1
                client.increment("clients.done", tags=tags, sample_rate=1)
            case 2:
                self.gauges[series("clients.depth")] = n / 4
                client.gauge("clients.depth", n / 4, tags=tags)
            case 3:
                self.sets[series("clients.users")][f"u{n * 31 % 97}"] = True
                client.set("clients.users", f"u{n * 31 % 97}", tags=tags)
            case 4:
                self.histograms[series("clients.size")].append(n * 7919 % 1000)
                client.histogram("clients.size", n * 7919 % 1000, tags=tags)
            case 5:
                self.histograms[series("clients.wait")].append(n * 7919 % 500)
                client.timing("clients.wait", n * 7919 % 500, tags=tags)
            case 6:
                self.distributions[series("clients.latency")].append(n * 7919 % 1000)
                client.distribution("clients.latency", n * 7919 % 1000, tags=tags)
            case _:
                self.counters[series("clients.undone")] -= 1
                client.decrement("clients.undone", tags=tags)


def event(client):
    at = int(time.time()) - 60
    title, text = "Ausfall: é", "first line\nsecond | line"
    fields = {"date_happened": at, "priority": "low", "alert_type": "error", "source_type_name": "shop", "aggregation_key": "k1"}
    client.event(title, text, hostname="h1", tags=["kind:outage"], **fields)
    return {"title": title, "text": text, "host": "h1", "tags": own("kind:outage"), **fields}


def check(client):
    at, message = int(time.time()) - 60, "zu langsam: 3 s"
    client.service_check(
        "clients.up", DogStatsd.CRITICAL, timestamp=at, hostname="h2", message=message, tags=["kind:probe"]
    )
    # The client writes `m:` within a message as `m\\:`, and neither the Agent nor we undo that.
    told = {"message": message.replace("m:", "m\\:"), "tags": own("kind:probe")}
    return {"check": "clients.up", "host_name": "h2", "status": 2, "timestamp": at, **told}


def main():
    address, mode = sys.argv[1:]
    client = connect(address, mode)
    sent = Sent()
    for n in range(CALLS):
        sent.metric(client, n)
        # A pace that the smallest receive buffer bears.
        if n % 10 == 9:
            time.sleep(0.005)
    out = vars(sent) | {"calls": CALLS, "event": event(client), "check": check(client)}
    client.flush()
    if mode == "aggregated":
        client.flush_aggregated_metrics()
        client.flush_buffered_metrics()
    # The telemetry is sent and begins anew each ten seconds: this is what the last of them holds.
    out["dropped"] = {"packets": client.packets_dropped, "bytes": client.bytes_dropped}
    client.stop()
    print(json.dumps(out))


main()
