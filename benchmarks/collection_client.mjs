// A live list for streams.py: see there.
//
//   node --experimental-websocket collection_client.mjs
//
// Does the jobs of standard input, a line of JSON each, and answers in kind.

import {createHash} from "node:crypto";
import {createInterface} from "node:readline";

const {collection} = await import(
  "../django_grip/contrib/rest_framework/static/grip_rest_framework/realtime.js"
);

const jobs = {
  /** Follow the list behind a stream's URL: milliseconds until it is there. */
  async open({url, ...options}) {
    const begun = performance.now();
    rows = collection(url, options);
    told = {load: 0, create: 0, update: 0, delete: 0, stale: 0};
    rows.on("change", ({op}) => (told[op] += 1));
    rows.on("state", (state) => state === "stale" && (told.stale += 1));
    await until(() => rows.state === "open", 20_000);
    return {ms: performance.now() - begun, size: rows.size};
  },

  /** Wait for the rows of this hash: how long it took, if they came. */
  async compare({hash, patience}) {
    const begun = performance.now();
    const isEqual = await until(() => rows.state === "open" && hashed() === hash, patience * 1000);
    const {size, state, position} = rows;
    return {isEqual, ms: performance.now() - begun, size, state, position, ...told};
  },

  async close() {
    rows.close();
    return null;
  },
};

let rows, told;

/** Of the rows as JSON, in the order of their ids, their fields in that of their names. */
function hashed() {
  const sorted = [...rows.values()].sort((one, other) => one.id - other.id);
  const text = JSON.stringify(
    sorted.map((row) => Object.fromEntries(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1)))),
  );
  return createHash("sha256").update(text).digest("hex");
}

async function until(condition, patience) {
  const deadline = performance.now() + patience;
  while (!condition()) {
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return true;
}

console.log(JSON.stringify("ready"));
for await (const line of createInterface({input: process.stdin})) {
  const {job, ...given} = JSON.parse(line);
  console.log(JSON.stringify(await jobs[job](given)));
}
process.exit();
