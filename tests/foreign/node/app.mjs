// A Node service that leaks and serves its heap profile by Datadog's own profiler, under the paths of Go's net/http/pprof.
// Prints the port of its profiles; grows by RATE KiB ten times a second once it was told to (POST /leak).
import { createServer } from "node:http";
import pprof from "@datadog/pprof";

pprof.heap.start(64 * 1024, 64);

const remembered = [];

function remember(job) {
  // Kept in the V8 heap, which the profiler sees; a Buffer's bytes lie outside of it.
  remembered.push(new Array(16 * 1024).fill(job + 0.5));
}

function handleJob(job) {
  for (let part = 0; part < Number(process.env.PARTS ?? "8"); part += 1) remember(job);
}

async function answer(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  if (pathname === "/leak") {
    let job = 0;
    setInterval(() => handleJob((job += 1)), 100);
    response.end();
  } else if (pathname === "/debug/pprof/heap") {
    if (searchParams.get("gc") && globalThis.gc) globalThis.gc();
    const profile = await pprof.encode(pprof.heap.profile());
    response.setHeader("Content-Type", "application/octet-stream");
    response.end(profile);
  } else {
    response.statusCode = 404;
    response.end();
  }
}

const server = createServer((request, response) => void answer(request, response));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
