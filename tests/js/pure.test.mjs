import assert from "node:assert/strict";
import {test} from "node:test";

import {MODULE} from "./origin.mjs";

const {Sequence, backoff, eventParser} = await import(MODULE);

function parsed(chunks) {
  const found = [];
  const parse = eventParser((block) => found.push(block));
  for (const chunk of chunks) parse(chunk);
  return found;
}

const bytes = (text) => new TextEncoder().encode(text);

test("blocks are the same wherever the bytes are cut, and whatever ends their lines", () => {
  const text =
    "\uFEFFretry: 3127\n\nevent: update\nid: abc.7\ndata: {\"word\":\n" +
    "data: \"Grüße 👋\"}\n: a comment\nunknown: 1\n\ndata:no space\ndata\n\n" +
    "id: abc.8\n\nevent: alone\n\nretry: soon\nid: a\0b\n\n:\n\nevent: cut off\ndata: x";
  const expected = [
    {retry: 3127},
    {event: "update", id: "abc.7", data: '{"word":\n"Grüße 👋"}'},
    {data: "no space\n"},
    {id: "abc.8"},
    {event: "alone"},
  ];
  for (const end of ["\n", "\r\n", "\r"]) {
    const whole = bytes(text.replaceAll("\n", end));
    assert.deepEqual(parsed([whole]), expected);
    assert.deepEqual(parsed([...whole].map((byte) => Uint8Array.of(byte))), expected);
    for (let cut = 0; cut <= whole.length; cut++) {
      assert.deepEqual(parsed([whole.slice(0, cut), whole.slice(cut)]), expected);
    }
  }
});

const event = (seq, prev, rest = {}) => ({seq, prev, ...rest});
const seqs = (events) => events?.map(({seq}) => seq);

test("an event that comes again, or late, is dropped", () => {
  const sequence = new Sequence("abc.7");
  assert.deepEqual(seqs(sequence.take(event(9, 7))), [9]);
  assert.deepEqual(sequence.take(event(9, 7)), []);
  assert.deepEqual(sequence.take(event(8, 7)), []);
  assert.equal(sequence.position, "abc.9");
});

test("what is newer than a gap is kept until the gap is filled", () => {
  const sequence = new Sequence("abc.7");
  assert.equal(sequence.take(event(12, 11)), null);
  assert.equal(sequence.take(event(13, 12)), null);
  assert.equal(sequence.take(event(12, 11)), null);
  assert.deepEqual(seqs(sequence.take(event(9, 7))), [9]);
  assert.equal(sequence.take(event(15, 14)), null);
  assert.deepEqual(seqs(sequence.take(event(11, 9))), [11, 12, 13]);
  assert.ok(sequence.isShort);
  assert.deepEqual(seqs(sequence.complete("abc.14")), [15]);
  assert.ok(!sequence.isShort);
  assert.equal(sequence.position, "abc.15");
});

test("within an answer no event is missing, whatever it names before it", () => {
  const sequence = new Sequence("abc.7");
  sequence.answering("abc.12");
  // Number 8 was a close that others got.
  assert.deepEqual(seqs(sequence.take(event(9, 8))), [9]);
  assert.equal(sequence.take(event(15, 13)), null);
  assert.deepEqual(seqs(sequence.take(event(12, 9))), [12]);
});

test("another epoch begins anew, and a position of the old one says nothing", () => {
  const sequence = new Sequence("abc.7");
  sequence.take(event(20, 18));
  sequence.restart("xyz.2");
  assert.deepEqual(seqs(sequence.take(event(3, 2))), [3]);
  assert.deepEqual(sequence.complete("abc.50"), []);
  assert.equal(sequence.position, "xyz.3");
});

test("without an order every event counts", () => {
  const sequence = new Sequence();
  const same = {op: "update"};
  assert.deepEqual(sequence.take(same), [same]);
  assert.deepEqual(sequence.take(same), [same]);
  assert.equal(sequence.position, undefined);
});

test("any order of arrival ends in the one order, each event once", () => {
  const events = Array.from({length: 8}, (_, at) => event(at * 3 + 3, at * 3));
  const shuffled = (list, seed) =>
    list
      .map((value, at) => [Math.sin(seed * 99 + at * 7), value])
      .sort(([one], [other]) => one - other)
      .map(([, value]) => value);
  for (let seed = 1; seed <= 200; seed++) {
    const sequence = new Sequence("abc.0");
    const applied = shuffled([...events, ...events], seed).flatMap(
      (each) => sequence.take(each) ?? [],
    );
    assert.deepEqual(applied, events);
  }
});

test("the pause grows from a second to half a minute, and is spread", () => {
  const most = [0, 1, 2, 3, 4, 5, 6, 99].map((failures) => backoff(failures, () => 1));
  assert.deepEqual(most, [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  assert.equal(backoff(3, () => 0.5), 4000);
  assert.ok(new Set(Array.from({length: 20}, () => backoff(5))).size > 10);
});
