import assert from "node:assert/strict";
import {test} from "node:test";

import {MODULE, Origin, until} from "./origin.mjs";

const {collection} = await import(MODULE);

/** A live list of the origin's rows, with the changes that it tells. */
function list(context, origin, options = {}) {
  const {path = "/rows/stream/", ...rest} = options;
  const rows = collection(`${origin.url}${path}`, rest);
  context.after(() => rows.close());
  const changes = [];
  rows.on("change", ({op, key}) => changes.push(key === undefined ? op : `${op} ${key}`));
  return {rows, changes};
}

const opened = (rows) => until(() => rows.state === "open", "the list is open");
const isEqual = (rows, origin) => {
  const ours = JSON.stringify([...rows.values()].sort((one, other) => one.id - other.id));
  return ours === JSON.stringify([...origin.rows.values()].sort((a, b) => a.id - b.id));
};
const settled = (rows, origin) =>
  until(() => rows.state === "open" && isEqual(rows, origin), "the lists are equal");

async function filled(context, count = 3) {
  const origin = await Origin.start(context);
  for (let pk = 1; pk <= count; pk++) origin.write(pk, {word: `first ${pk}`});
  return origin;
}

test("rows come from the list, and follow the stream", async (context) => {
  const origin = await filled(context);
  const {rows, changes} = list(context, origin);
  await opened(rows);
  assert.equal(rows.size, 3);
  assert.equal(rows.get(2).word, "first 2");
  assert.ok(rows.has("2"));
  const before = rows.rows;
  assert.equal(rows.rows, before);
  origin.write(2, {word: "second"});
  origin.write(4, {word: "new"}, {op: "create"});
  origin.write(1, undefined);
  await until(() => changes.length === 4);
  assert.deepEqual(changes, ["load", "update 2", "create 4", "delete 1"]);
  assert.ok(isEqual(rows, origin));
  assert.notEqual(rows.rows, before);
  assert.deepEqual(rows.rows.map(({id}) => id), [2, 3, 4]);
  assert.deepEqual(origin.requests, ["GET /rows/", "GET /rows/stream/?since=abc.3"]);
});

test("what is written between the rows and the stream is not lost", async (context) => {
  const origin = await filled(context);
  let writes = 0;
  origin.beforeStream = () => {
    if (++writes === 1) origin.write(2, {word: "in between"});
  };
  const {rows} = list(context, origin);
  await settled(rows, origin);
  assert.equal(rows.get(2).word, "in between");
});

test("what is written between the position and the rows does no harm", async (context) => {
  const origin = await filled(context);
  // The rows are read after the position that was given with them.
  origin.afterRows = () => {
    origin.afterRows = () => {};
    origin.write(3, {word: "after the rows"});
  };
  const {rows} = list(context, origin);
  await settled(rows, origin);
});

test("without an event log the rows are loaded when the stream is open", async (context) => {
  const origin = await filled(context);
  origin.hasLog = false;
  origin.beforeStream = () => origin.write(2, {word: `seen by nobody ${Math.random()}`});
  const {rows, changes} = list(context, origin);
  await settled(rows, origin);
  assert.deepEqual(changes, ["load", "load"]);
  origin.write(1, {word: "told"});
  await settled(rows, origin);
  origin.cut();
  origin.loses = true;
  origin.write(3, {word: "told to nobody"});
  origin.loses = false;
  await settled(rows, origin);
  assert.equal(origin.asked("since").length, 0);
});

test("events that come while rows are loaded are applied after", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin);
  await opened(rows);
  origin.afterRows = async () => {
    origin.afterRows = () => {};
    origin.write(1, {word: "while it loads"});
    origin.write(2, undefined);
    await until(() => rows.position === origin.position);
  };
  origin.tell({op: "refresh"});
  await until(() => rows.get(1)?.word === "while it loads");
  await settled(rows, origin);
  assert.ok(!rows.has(2));
});

test("pages are followed, at the address of the list", async (context) => {
  const origin = await filled(context, 25);
  origin.pageSize = 10;
  const {rows} = list(context, origin);
  await settled(rows, origin);
  assert.deepEqual(origin.asked("GET /rows/?page"), ["GET /rows/?page=2", "GET /rows/?page=3"]);
});

test("a row that moved to a page already read is found", async (context) => {
  const origin = await filled(context, 25);
  origin.pageSize = 10;
  let lists = 0;
  origin.beforeList = () => {
    // Row 11 is the first of the second page, and moves to the first one.
    if (++lists === 2) origin.write(1, undefined);
  };
  const {rows} = list(context, origin);
  await settled(rows, origin);
  assert.equal(rows.size, 24);
});

test("a last page that is gone by now has the list loaded again", async (context) => {
  const origin = await filled(context, 11);
  origin.pageSize = 10;
  let lists = 0;
  origin.beforeList = () => {
    if (++lists === 2) origin.write(11, undefined);
  };
  const {rows} = list(context, origin);
  await settled(rows, origin);
  assert.equal(rows.size, 10);
});

test("a thin event has the row asked for, once at a time", async (context) => {
  const origin = await filled(context);
  origin.isThin = true;
  const {rows, changes} = list(context, origin);
  await opened(rows);
  for (let number = 0; number < 10; number++) origin.write(2, {word: `thin ${number}`});
  await settled(rows, origin);
  assert.equal(rows.get(2).word, "thin 9");
  assert.ok(origin.asked("GET /rows/2/").length <= 2);
  origin.write(3, {word: "soon gone"});
  origin.write(3, undefined);
  origin.write(4, {word: "new"}, {op: "create"});
  await settled(rows, origin);
  assert.ok(!rows.has(3));
  assert.ok(changes.includes("create 4"));
});

test("a thin event that comes while its row is read has it asked for again", async (context) => {
  const origin = await filled(context);
  origin.isThin = true;
  const {rows} = list(context, origin);
  await opened(rows);
  origin.afterRow = async () => {
    origin.afterRow = () => {};
    origin.write(2, {word: "written when it was read"});
    await until(() => rows.position === origin.position);
  };
  origin.write(2, {word: "read"});
  await until(() => rows.get(2).word === "written when it was read");
  await settled(rows, origin);
});

test("an event with data wins over a row that is being read", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin);
  await opened(rows);
  for (const data of [{word: "newer"}, undefined]) {
    origin.isThin = true;
    origin.afterRow = async () => {
      origin.afterRow = () => {};
      origin.isThin = false;
      origin.write(2, data);
      await until(() => rows.position === origin.position);
    };
    origin.write(2, {word: "older"});
    await settled(rows, origin);
    await until(() => rows.position === origin.position);
    await settled(rows, origin);
  }
});

test("a thin event of a row that is gone by then takes it out", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin);
  await opened(rows);
  origin.rows.delete(2);
  origin.tell({op: "update", pk: 2, truncated: true});
  await settled(rows, origin);
  assert.equal(rows.size, 2);
});

test("many thin events at once have the list loaded", async (context) => {
  const origin = await filled(context, 60);
  origin.isThin = true;
  const {rows} = list(context, origin);
  await opened(rows);
  for (let pk = 1; pk <= 60; pk++) origin.write(pk, {word: "all of them"});
  await settled(rows, origin);
  assert.ok(origin.requests.length < 40);
});

test("a bulk event has the list loaded; a bulk delete names who goes", async (context) => {
  const origin = await filled(context, 5);
  const {rows, changes} = list(context, origin);
  await opened(rows);
  for (let pk = 1; pk <= 5; pk++) origin.rows.set(pk, {id: pk, word: "in bulk"});
  origin.tell({op: "bulk", action: "update", count: 5, pks: [1, 2, 3, 4, 5]});
  await settled(rows, origin);
  assert.equal(origin.asked("GET /rows/").filter((each) => each.endsWith("/rows/")).length, 2);
  for (const pk of [1, 2]) origin.rows.delete(pk);
  origin.tell({op: "bulk", action: "delete", count: 2, pks: [1, 2]});
  await settled(rows, origin);
  assert.deepEqual(changes, ["load", "load", "delete 1", "delete 2"]);
});

test("refreshes that come together are one load", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin);
  await opened(rows);
  origin.rows.set(1, {id: 1, word: "behind the back"});
  for (let number = 0; number < 50; number++) origin.tell({op: "refresh"});
  await until(() => rows.position === origin.position);
  await settled(rows, origin);
  assert.ok(origin.asked("GET /rows/").length < 20);
});

test("a reset has the list loaded, whatever was on its way", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin);
  await opened(rows);
  origin.write(1, {word: "of the old epoch"});
  await settled(rows, origin);
  origin.epoch = "xyz";
  origin.log = origin.log.slice(0, 1);
  origin.rows = new Map([[7, {id: 7, word: "another database"}]]);
  origin.cut();
  await settled(rows, origin);
  assert.deepEqual([...rows.keys()], ["7"]);
  origin.write(7, {word: "and on"});
  await settled(rows, origin);
});

test("a snapshot is the rows, and is asked for once", async (context) => {
  const origin = await filled(context);
  const {rows, changes} = list(context, origin, {snapshot: true});
  await settled(rows, origin);
  origin.write(2, {word: "after it"});
  await settled(rows, origin);
  origin.cut();
  origin.write(3, {word: "while away"});
  await settled(rows, origin);
  assert.deepEqual(changes, ["load", "update 2", "update 3"]);
  assert.equal(origin.asked("GET /rows/?").length, 0);
  assert.deepEqual(origin.requests, [
    "GET /rows/stream/?snapshot=1",
    "GET /rows/stream/?since=abc.4&snapshot=1",
  ]);
});

test("a snapshot that was cut is not taken for whole", async (context) => {
  const origin = await filled(context, 1);
  const {rows} = list(context, origin, {snapshot: true});
  let count = 0;
  rows.on("change", () => (count += 1));
  origin.rows.clear();
  await until(() => origin.streams === 1);
  // No part of it has come that is the last.
  origin.raw('event: snapshot\ndata: {"op":"snapshot","rows":[{"id":1}],"done":false}\n\n');
  origin.rows.set(2, {id: 2});
  await until(() => rows.position !== undefined);
  assert.equal(count, 0);
  assert.equal(rows.state, "connecting");
  origin.cut();
  await settled(rows, origin);
  assert.deepEqual([...rows.keys()], ["2"]);
});

test("a list that fails is tried again; one that is refused is not", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin, {list: "http://127.0.0.1:1/"});
  await until(() => rows.problem);
  assert.equal(rows.state, "connecting");
  rows.close();
  assert.equal(rows.state, "closed");

  const other = list(context, origin, {list: `${origin.url}/nowhere/`}).rows;
  await until(() => other.state === "denied");
  assert.equal(other.problem.status, 404);
  assert.equal(other.problem.message, "Not found.");
  assert.equal(origin.asked("/nowhere/").length, 1);
  other.reopen();
  await until(() => origin.asked("/nowhere/").length === 2);
});

test("headers are asked for once more when the list is refused", async (context) => {
  const origin = await filled(context);
  let calls = 0;
  const headers = () => ({Authorization: `Bearer ${++calls}`});
  const {rows} = list(context, origin, {headers, list: `${origin.url}/badged/`});
  await opened(rows);
  assert.deepEqual(
    origin.headers.slice(0, 2).map(({authorization}) => authorization),
    ["Bearer 1", "Bearer 2"],
  );
});

test("a stream that is refused leaves the rows, and says so", async (context) => {
  const origin = await filled(context);
  origin.refusals.push([403, {}, {detail: "Look, but do not listen."}]);
  const {rows} = list(context, origin);
  await until(() => rows.state === "denied");
  assert.equal(rows.size, 3);
  assert.equal(rows.problem.message, "Look, but do not listen.");
  rows.reopen();
  await settled(rows, origin);
});

test("one row is a list of one", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin, {path: "/rows/2/stream/"});
  await opened(rows);
  assert.deepEqual(rows.rows, [{id: 2, word: "first 2"}]);
  origin.isThin = true;
  origin.write(2, {word: "second"});
  await until(() => rows.get(2).word === "second");
});

test("rows without the key say what to do", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin, {key: "uuid"});
  await until(() => rows.state === "denied");
  assert.match(rows.problem.message, /"uuid"; a row has id,word\..*option `key`/);
  const named = list(context, origin, {key: ({id, word}) => `${word} ${id}`}).rows;
  await opened(named);
  assert.ok(named.has("first 1 1"));
});

test("a composite key is the text of its JSON", async (context) => {
  const origin = await Origin.start(context);
  origin.rows.set(1, {hall: 3, number: "A 1", status: "free"});
  const key = ({hall, number}) => [hall, number];
  const {rows} = list(context, origin, {key});
  await opened(rows);
  origin.tell({op: "update", pk: [3, "A 1"], data: {hall: 3, number: "A 1", status: "taken"}});
  await until(() => rows.get([3, "A 1"]).status === "taken");
  assert.equal(rows.size, 1);
});

test("own changes are marked, and are in the rows", async (context) => {
  const origin = await filled(context);
  const {rows} = list(context, origin, {client: "page-7"});
  const own = [];
  rows.on("change", ({key, isOwn}) => key && own.push([key, isOwn]));
  await opened(rows);
  origin.write(1, {word: "mine"}, {origin: "page-7"});
  origin.write(2, {word: "yours"}, {origin: "page-8"});
  await settled(rows, origin);
  assert.deepEqual(own, [["1", true], ["2", false]]);
});

test("it stays equal through everything at once", async (context) => {
  const origin = await filled(context, 30);
  origin.pageSize = 12;
  const {rows} = list(context, origin);
  let random = 7;
  const next = (below) => (random = (random * 48271) % 2147483647) % below;
  for (let step = 0; step < 600; step++) {
    const pk = 1 + next(40);
    const what = next(100);
    origin.isThin = what > 90;
    origin.loses = what > 80 && what < 85;
    if (what < 8) origin.write(pk, undefined);
    else if (what === 8) origin.cut(next(2) ? "end" : "destroy");
    else if (what === 9) origin.tell({op: "refresh"});
    else if (what === 10) origin.tell({op: "close"});
    else origin.write(pk, {word: `step ${step}`}, {op: origin.rows.has(pk) ? "update" : "create"});
    if (next(5) === 0) await new Promise((resolve) => setTimeout(resolve, next(4)));
  }
  origin.loses = origin.isThin = false;
  origin.write(99, {word: "the last"}, {op: "create"});
  await settled(rows, origin);
  await until(() => rows.position === origin.position);
  await settled(rows, origin);
});
