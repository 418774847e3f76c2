// A healthy Node server: a cache of 5,000 sessions that forgets the oldest, and garbage with every request.
import { createServer } from "node:http";

const sessions = new Map();
let next = 0;

createServer((request, response) => {
  const session = { id: next++, words: Array.from({ length: 200 }, (_, n) => `word ${n} of ${next}`) };
  sessions.set(session.id, session);
  if (sessions.size > 5000) sessions.delete(sessions.keys().next().value);
  setTimeout(() => response.end(JSON.stringify(session)), 2);
}).listen(Number(process.argv[2]), "127.0.0.1");
