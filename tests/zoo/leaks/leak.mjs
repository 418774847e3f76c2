// Listeners that are never removed, each closing over its request: RATE in MiB a second, after CALM seconds.
import { EventEmitter } from "node:events";

const [rate, calm] = process.argv.slice(2).map(Number);
const bus = new EventEmitter().setMaxListeners(0);
let kept = 0;

setTimeout(() => {
  const began = performance.now();
  setInterval(() => {
    const due = ((performance.now() - began) / 1000) * rate * 64;
    for (; kept < due; kept++) {
      // 2,000 small numbers are 16 KiB of JavaScript heap, and not a buffer outside of it.
      const request = new Array(2000).fill(kept);
      bus.on("shutdown", () => request.length);
    }
  }, 50);
}, calm * 1000);
