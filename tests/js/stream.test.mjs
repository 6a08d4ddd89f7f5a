import assert from "node:assert/strict";
import {test} from "node:test";

import {MODULE, Origin, until} from "./origin.mjs";

const {stream} = await import(MODULE);

/** A stream of the origin's rows, with all that it says. */
function follow(context, origin, options = {}) {
  const followed = stream(`${origin.url}/rows/stream/`, options);
  context.after(() => followed.close());
  const events = [];
  const states = [];
  followed.on("event", ({op, pk}) => events.push(`${op} ${pk}`));
  followed.on("state", (state) => states.push(state));
  return {followed, events, states};
}

const opened = (followed) => until(() => followed.state === "open", "the stream is open");

test("events come by their names, and as events", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events, states} = follow(context, origin);
  const told = [];
  const off = followed.on("update", ({data}) => told.push(data));
  assert.equal(followed.state, "connecting");
  await opened(followed);
  origin.write(1, {word: "Grüße\u2028"});
  await until(() => told.length === 1);
  assert.deepEqual(told, [{id: 1, word: "Grüße\u2028"}]);
  off();
  origin.write(1, undefined);
  origin.tell({op: "shipped", pk: 1, data: "by train"});
  await until(() => events.length === 3);
  assert.deepEqual(events, ["update 1", "delete 1", "shipped 1"]);
  assert.equal(told.length, 1);
  assert.equal(followed.position, origin.position);
  followed.close();
  await until(() => origin.streams === 0);
  assert.deepEqual(states, ["open", "closed"]);
});

test("a listener's fault is reported, and the others hear what they would", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events} = follow(context, origin);
  const said = context.mock.method(console, "error", () => {});
  followed.on("update", () => {
    throw new Error("a fault of the page");
  });
  await opened(followed);
  origin.write(1, {});
  origin.write(2, {});
  await until(() => events.length === 2);
  assert.equal(said.mock.calls[0].arguments[0].message, "a fault of the page");
  assert.throws(() => followed.on("update", "show"), /takes a function/);
  assert.throws(() => stream(origin.url, {transport: "carrier pigeon"}), /"sse" or/);
});

test("a stream that is cut, or ends, goes on where it was", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events, states} = follow(context, origin);
  await opened(followed);
  origin.write(1, {});
  await until(() => events.length === 1);
  for (const how of ["destroy", "end"]) {
    const {length} = events;
    const {position} = followed;
    origin.cut(how);
    origin.write(2, {});
    origin.write(3, {});
    await until(() => followed.state === "open" && events.length === length + 2);
    assert.ok(origin.requests.at(-1).endsWith(`?since=${position}`));
  }
  assert.deepEqual(events.slice(1), ["update 2", "update 3", "update 2", "update 3"]);
  assert.deepEqual(states, ["open", "stale", "open", "stale", "open"]);
});

test("a server that opens streams and ends them is asked less and less", async (context) => {
  const origin = await Origin.start(context);
  const asked = [];
  origin.retry = undefined;
  origin.afterStream = () => {
    asked.push(performance.now());
    origin.cut("end");
  };
  follow(context, origin);
  await until(() => asked.length === 6);
  const pauses = asked.slice(1).map((at, number) => at - asked[number]);
  // With the luck of the tests a twentieth of the longest pauses.
  pauses.forEach((pause, number) => assert.ok(pause >= 49 * 2 ** number, `${pauses}`));
});

test("it begins where it is told to", async (context) => {
  const origin = await Origin.start(context);
  origin.write(1, {});
  const {position} = origin;
  origin.write(2, {});
  const {followed, events} = follow(context, origin, {since: position});
  await opened(followed);
  await until(() => events.length === 1);
  assert.deepEqual(events, ["update 2"]);
});

test("a gap is asked for once, and what is newer waits", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events, states} = follow(context, origin);
  await opened(followed);
  origin.write(1, {});
  origin.loses = true;
  origin.write(2, {});
  origin.loses = false;
  origin.write(3, {});
  await until(() => events.length === 3);
  assert.deepEqual(events, ["update 1", "update 2", "update 3"]);
  assert.deepEqual(states, ["open", "stale", "open"]);
  assert.equal(origin.asked("/stream/").length, 2);
  assert.ok(origin.requests.at(-1).endsWith("?since=abc.1"));
});

test("a gap that the origin does not fill yet is asked for again", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events} = follow(context, origin);
  await opened(followed);
  origin.write(1, {});
  await until(() => events.length === 1);
  // The proxy was given number 3, and number 2 is not confirmed anywhere.
  const early = {seq: 3, prev: 2, op: "update", pk: 3};
  origin.raw(`event: update\nid: abc.3\ndata: ${JSON.stringify(early)}\n\n`);
  await until(() => origin.asked("since=abc.1").length === 3);
  assert.equal(followed.state, "stale");
  origin.write(2, {});
  await until(() => events.length === 3);
  assert.deepEqual(events, ["update 1", "update 2", "update 3"]);
});

test("a position without an event is no gap", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events} = follow(context, origin);
  await opened(followed);
  origin.cut();
  // A close that others got.
  origin.tell({op: "close"});
  await until(() => followed.state === "open" && origin.streams === 1);
  origin.write(1, {});
  // In what the proxy asked for itself.
  origin.tell({op: "close"});
  origin.write(2, {});
  await until(() => events.length === 2);
  assert.equal(origin.asked("/stream/").length, 2);
});

test("events that come twice are told once", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events} = follow(context, origin);
  await opened(followed);
  const first = origin.write(1, {});
  origin.write(2, {});
  origin.raw(`event: update\nid: abc.1\ndata: ${JSON.stringify(first)}\n\n`);
  origin.write(3, {});
  await until(() => events.includes("update 3"));
  assert.deepEqual(events, ["update 1", "update 2", "update 3"]);
});

test("another epoch is a reset, and the stream goes on from there", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events} = follow(context, origin);
  const resets = [];
  followed.on("reset", ({reason}) => resets.push(reason));
  await opened(followed);
  origin.write(1, {});
  origin.write(2, {});
  await until(() => events.length === 2);
  origin.epoch = "xyz";
  origin.log = origin.log.slice(0, 1);
  origin.cut();
  await until(() => resets.length === 1);
  assert.equal(followed.position, "xyz.1");
  origin.write(2, {});
  await until(() => events.length === 3);
  assert.deepEqual(resets, ["epoch"]);
});

test("silence ends a connection, and any byte is a sign of life", async (context) => {
  const origin = await Origin.start(context);
  const {followed, states} = follow(context, origin, {silence: 1000});
  await opened(followed);
  for (let beats = 0; beats < 30; beats++) {
    origin.raw(":\n\n");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.deepEqual(states, ["open"]);
  await until(() => states.join() === "open,stale,open");
});

for (const [status, headers] of [
  [501, {}],
  [502, {}],
  [503, {"Retry-After": "0"}],
  [429, {}],
  [204, {}],
  [200, {}],
]) {
  test(`after an answer of ${status} that is no stream it tries again`, async (context) => {
    const origin = await Origin.start(context);
    origin.refusals.push([status, headers]);
    const {followed, states} = follow(context, origin);
    const {message} = await until(() => followed.problem);
    const isNoStream = /text\/event-stream; got application\/json/;
    assert.match(message, status === 200 ? isNoStream : /The answer was \d/);
    await opened(followed);
    assert.deepEqual(states, ["open"]);
    assert.equal(origin.requests.length, 2);
  });
}

test("Retry-After is waited for", async (context) => {
  const origin = await Origin.start(context);
  origin.refusals.push([503, {"Retry-After": "1"}]);
  const began = Date.now();
  const {followed} = follow(context, origin);
  await opened(followed);
  assert.ok(Date.now() - began >= 1000);
});

for (const status of [400, 401, 403, 404]) {
  test(`an answer of ${status} is final until reopen()`, async (context) => {
    const origin = await Origin.start(context);
    origin.refusals.push([status, {}, {detail: "Not for you."}]);
    const {followed, states} = follow(context, origin);
    await until(() => followed.state === "denied");
    assert.equal(followed.problem.status, status);
    assert.equal(followed.problem.message, "Not for you.");
    assert.equal(origin.requests.length, 1);
    followed.reopen();
    await opened(followed);
    assert.deepEqual(states, ["denied", "connecting", "open"]);
    assert.equal(followed.problem, undefined);
  });
}

test("who is told of a problem may try again, or close, at once", async (context) => {
  const origin = await Origin.start(context);
  origin.refusals.push([403, {}]);
  const {followed} = follow(context, origin);
  followed.on("state", (state) => {
    if (state === "denied") followed.reopen();
    if (state === "stale") followed.close();
  });
  await opened(followed);
  origin.cut();
  await until(() => followed.state === "closed");
  assert.equal(origin.requests.length, 2);
});

test("rights that are lost while it is cut end it", async (context) => {
  const origin = await Origin.start(context);
  const {followed, states} = follow(context, origin);
  await opened(followed);
  origin.refusals.push([403, {}, {detail: "No more."}]);
  origin.cut("end");
  await until(() => followed.state === "denied");
  assert.deepEqual(states, ["open", "stale", "denied"]);
});

test("headers are asked for at each connection, and once more when refused", async (context) => {
  const origin = await Origin.start(context);
  let token = 0;
  const headers = async () => ({Authorization: `Bearer ${++token}`});
  origin.refusals.push([401, {}], [401, {}]);
  const {followed} = follow(context, origin, {headers});
  await until(() => followed.state === "denied");
  assert.deepEqual(
    origin.headers.map(({authorization}) => authorization),
    ["Bearer 1", "Bearer 2"],
  );
});

test("a ticket is fresh at each connection, and when it was refused", async (context) => {
  const origin = await Origin.start(context);
  const headers = {Authorization: "Bearer of the page"};
  origin.refusals.push([401, {}]);
  const {followed} = follow(context, origin, {ticket: true, headers});
  await opened(followed);
  origin.write(1, {});
  origin.cut();
  await until(() => origin.asked("GET").length === 3);
  assert.deepEqual(origin.requests.slice(0, 4), [
    "POST /rows/stream/ticket/",
    "GET /rows/stream/?ticket=ticket-1",
    "POST /rows/stream/ticket/",
    "GET /rows/stream/?ticket=ticket-2",
  ]);
  assert.ok(origin.requests.at(-1).includes("ticket=ticket-3"));
  assert.equal(origin.headers[0].authorization, "Bearer of the page");
  const own = follow(context, origin, {ticket: async (url) => `of ${new URL(url).pathname}`});
  await opened(own.followed);
  assert.ok(origin.requests.at(-1).endsWith("?ticket=of+%2Frows%2Fstream%2F"));
});

test("own events are left out, and their places are not", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events} = follow(context, origin, {client: "page-7"});
  await opened(followed);
  origin.write(1, {}, {origin: "page-7"});
  origin.write(2, {}, {origin: "page-8"});
  await until(() => events.length === 1);
  assert.deepEqual(events, ["update 2"]);
  assert.equal(origin.asked("/stream/").length, 1);
});

test("what is no envelope harms nobody", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events} = follow(context, origin);
  const said = [];
  followed.on("message", ({data}) => said.push(data));
  await opened(followed);
  origin.raw("data: hello\n\ndata: [1]\n\nevent: update\ndata: {broken\n\n");
  origin.write(1, {});
  await until(() => events.includes("update 1"));
  assert.deepEqual(said, ["hello", [1]]);
});

test("nothing is told after close(), not even of what has come", async (context) => {
  const origin = await Origin.start(context);
  const {followed, events, states} = follow(context, origin);
  followed.on("update", () => followed.close());
  await opened(followed);
  const one = {op: "update", seq: 1, prev: 0, pk: 1};
  const two = {op: "update", seq: 2, prev: 1, pk: 2};
  origin.raw(
    `event: update\ndata: ${JSON.stringify(one)}\n\n` +
      `event: update\ndata: ${JSON.stringify(two)}\n\n`,
  );
  await until(() => followed.state === "closed" && origin.streams === 0);
  followed.reopen();
  assert.deepEqual(events, ["update 1"]);
  assert.deepEqual(states, ["open", "closed"]);
});
