// Sends a known set through hot-shots and prints what it sent, as JSON: node send.mjs HOST:PORT MODE.
//
// MODE is plain (a datagram a call), buffered or aggregated. The calls are those of ../go/main.go.
import StatsD from "hot-shots";

const CALLS = 2000;

const [address, mode] = process.argv.slice(2);
const [, host, port] = address.match(/^(.*):(\d+)$/);
const failures = [];
const client = new StatsD({
  host,
  port: Number(port),
  globalTags: ["stadt:köln"],
  includeDatadogTelemetry: true,
  errorHandler: (error) => failures.push(String(error)),
  ...(mode === "plain" ? {} : { maxBufferSize: 1432, bufferFlushInterval: 100 }),
  ...(mode === "aggregated" ? { aggregation: true } : {}),
});

// The tags of one call with those that the client adds by itself.
function own(...tags) {
  const unified = { env: "DD_ENV", service: "DD_SERVICE", version: "DD_VERSION" };
  const added = Object.entries(unified).flatMap(([name, variable]) => (process.env[variable] ? [`${name}:${process.env[variable]}`] : []));
  return [...tags, "stadt:köln", ...added].sort();
}

const sent = { calls: 0, counters: {}, gauges: {}, sets: {}, histograms: {}, distributions: {} };

function metric(n) {
  sent.calls += 1;
  const tags = [`shard:${Math.floor(n / 8) % 3}`];
  const series = (name) => `${name}|${own(...tags).join(",")}`;
  const add = (into, name, value) => (into[series(name)] = (into[series(name)] ?? 0) + value);
  const keep = (into, name, value) => (into[series(name)] ??= []).push(value);
  switch (n % 8) {
    case 0:
      add(sent.counters, "clients.jobs", n % 50);
      return client.increment("clients.jobs", n % 50, tags);
    case 1:
      add(sent.counters, "clients.done", 1);
      return client.increment("clients.done", 1, 1, tags);
    case 2:
      sent.gauges[series("clients.depth")] = n / 4;
      return client.gauge("clients.depth", n / 4, tags);
    case 3:
      (sent.sets[series("clients.users")] ??= {})[`u${(n * 31) % 97}`] = true;
      return client.set("clients.users", `u${(n * 31) % 97}`, tags);
    case 4:
      keep(sent.histograms, "clients.size", (n * 7919) % 1000);
      return client.histogram("clients.size", (n * 7919) % 1000, tags);
    case 5:
      keep(sent.histograms, "clients.wait", (n * 7919) % 500);
      return client.timing("clients.wait", (n * 7919) % 500, tags);
    case 6:
      keep(sent.distributions, "clients.latency", (n * 7919) % 1000);
      return client.distribution("clients.latency", (n * 7919) % 1000, tags);
    default:
      add(sent.counters, "clients.undone", -1);
      return client.decrement("clients.undone", 1, tags);
  }
}

// hot-shots counts UTF-16 units where the protocol counts bytes, so its events arrive whole in ASCII only, at the Agent too.
function event() {
  const at = Math.floor(Date.now() / 1000) - 60;
  const [title, text] = ["Ausfall", "first line\nsecond | line"];
  const fields = { priority: "low", alert_type: "error", source_type_name: "shop", aggregation_key: "k1" };
  client.event(title, text, { ...fields, hostname: "h1", date_happened: new Date(at * 1000) }, ["kind:outage"]);
  return { title, text, ...fields, host: "h1", date_happened: at, tags: own("kind:outage") };
}

function check() {
  const at = Math.floor(Date.now() / 1000) - 60;
  const message = "zu langsam: 3 s";
  const options = { hostname: "h2", message, date_happened: new Date(at * 1000) };
  client.check("clients.up", client.CHECKS.CRITICAL, options, ["kind:probe"]);
  return { check: "clients.up", host_name: "h2", status: 2, timestamp: at, message, tags: own("kind:probe") };
}

for (let n = 0; n < CALLS; n += 1) {
  metric(n);
  // A pace that the smallest receive buffer bears.
  if (n % 10 === 9) await new Promise((done) => setTimeout(done, 5));
}
sent.event = event();
sent.check = check();
await new Promise((done) => client.close(done));
const { packetsDropped = 0, bytesDropped = 0 } = client.telemetry ?? {};
sent.dropped = { packets: packetsDropped, bytes: bytesDropped, failures: failures.length };
if (failures.length) console.error(failures.slice(0, 5));
console.log(JSON.stringify(sent));
