// A server that streams the changes of its rows as Django does behind a proxy, and does
// wrong what a test wants it to.

import {once} from "node:events";
import {createServer} from "node:http";

export const MODULE =
  "../../django_grip/contrib/rest_framework/static/grip_rest_framework/realtime.js";

export class Origin {
  rows = new Map();
  requests = []; // "METHOD path?query" of each.
  headers = []; // Of each.
  refusals = []; // For the next streams: [status, headers, body].
  loses = false; // What is written now reaches nobody.
  hasLog = true;
  isThin = false;
  pageSize = 100;
  retry = 10;
  epoch = "abc";
  log = [];
  beforeStream = () => {};
  beforeList = () => {};
  afterRow = () => {};
  afterRows = () => {};
  afterStream = () => {};
  #open = new Set();
  #server;

  static async start(context) {
    // Pauses are spread by luck, and here they are short.
    context.mock.method(Math, "random", () => 0.05);
    const origin = new Origin();
    origin.#server = createServer((request, response) => origin.#answer(request, response));
    origin.#server.listen(0, "127.0.0.1");
    await once(origin.#server, "listening");
    origin.url = `http://127.0.0.1:${origin.#server.address().port}`;
    context.after(() => {
      origin.#server.closeAllConnections();
      origin.#server.close();
    });
    return origin;
  }

  get seq() {
    return this.log.at(-1)?.seq ?? 0;
  }

  get position() {
    return `${this.epoch}.${this.seq}`;
  }

  get streams() {
    return this.#open.size;
  }

  /** The paths asked for, without their host. */
  asked(part) {
    return this.requests.filter((each) => each.includes(part));
  }

  /** A row is another one, or gone; by more than 1 the number of its event grows. */
  write(pk, data, {op = data ? "update" : "delete", by = 1, ...values} = {}) {
    if (data) this.rows.set(pk, {id: pk, ...data});
    else this.rows.delete(pk);
    const told = data && !this.isThin && {data: this.rows.get(pk)};
    return this.tell({op, pk, ...told, ...values}, by);
  }

  tell(event, by = 1) {
    const entry = this.hasLog ? {seq: this.seq + by, prev: this.seq, ...event} : event;
    if (this.hasLog) this.log.push(entry);
    if (!this.loses) this.#open.forEach((response) => this.#send(response, entry));
    return entry;
  }

  /** Bytes for all that listen, whatever they are. */
  raw(text) {
    this.#open.forEach((response) => response.write(text));
  }

  /** Every stream breaks off; or ends as it should. */
  cut(how = "destroy") {
    this.#open.forEach((response) => response[how]());
    this.#open.clear();
  }

  #send(response, entry) {
    if (entry.op === "close") {
      response.write(`: moved on\nid: ${this.epoch}.${entry.seq}\n\n`);
      return;
    }
    const id = this.hasLog ? `id: ${this.epoch}.${entry.seq}\n` : "";
    response.write(`event: ${entry.op}\n${id}data: ${JSON.stringify(entry)}\n\n`);
  }

  async #answer(request, response) {
    const url = new URL(request.url, this.url);
    this.requests.push(`${request.method} ${request.url}`);
    this.headers.push(request.headers);
    if (url.pathname.endsWith("/ticket/")) {
      this.#json(response, {ticket: `ticket-${this.asked("/ticket/").length}`, expires_in: 60});
    } else if (url.pathname.endsWith("/stream/")) {
      await this.beforeStream();
      if (this.refusals.length > 0) this.#refuse(response, ...this.refusals.shift());
      else this.#stream(response, url.searchParams);
    } else if (url.pathname === "/badged/" && request.headers.authorization === "Bearer 1") {
      this.#refuse(response, 401);
    } else if (url.pathname === "/rows/" || url.pathname === "/badged/") {
      await this.beforeList();
      await this.#list(response, url);
    } else {
      const row = this.rows.get(Number(url.pathname.split("/")[2]));
      await this.afterRow();
      if (row) this.#json(response, row);
      else this.#refuse(response, 404, {}, {detail: "Not found."});
    }
  }

  #refuse(response, status, headers = {}, body = undefined) {
    response.writeHead(status, {"Content-Type": "application/json", ...headers});
    response.end(body === undefined ? "" : JSON.stringify(body));
  }

  #json(response, value, headers = {}) {
    this.#refuse(response, 200, headers, value);
  }

  async #list(response, url) {
    const headers = this.hasLog ? {"Realtime-Position": this.position} : {};
    const rows = [...this.rows.values()];
    await this.afterRows();
    const page = Number(url.searchParams.get("page") ?? 1);
    const end = page * this.pageSize;
    if (page > 1 && end - this.pageSize >= rows.length) {
      this.#refuse(response, 404, headers, {detail: "Invalid page."});
      return;
    }
    // Like DRF behind a proxy: with the name that it knows itself by.
    const next = end < rows.length ? `http://inside:8000/rows/?page=${page + 1}` : null;
    const results = rows.slice(end - this.pageSize, end);
    if (rows.length <= this.pageSize) this.#json(response, rows, headers);
    else this.#json(response, {count: rows.length, next, results}, headers);
  }

  #stream(response, parameters) {
    response.writeHead(200, {"Content-Type": "text/event-stream"});
    response.write(this.retry === undefined ? ":\n\n" : `retry: ${this.retry}\n\n`);
    const since = parameters.get("since");
    const {position} = this;
    const data = this.hasLog ? {position, gapless: true} : {gapless: false};
    const id = this.hasLog && !since ? `id: ${position}\n` : "";
    response.write(`event: ready\n${id}data: ${JSON.stringify({channel: "rows", ...data})}\n\n`);
    const [epoch, seq] = since?.split(".") ?? [];
    const isReset = this.hasLog && since && epoch !== this.epoch;
    if (isReset) {
      response.write(`event: reset\nid: ${position}\ndata: {"reason":"epoch"}\n\n`);
    } else if (since) {
      this.log.filter((each) => each.seq > seq).forEach((each) => this.#send(response, each));
    }
    if (parameters.has("snapshot") && (!since || isReset)) {
      [...this.rows.values()].forEach((row, at, rows) => {
        const part = {op: "snapshot", rows: [row], done: at === rows.length - 1};
        response.write(`event: snapshot\ndata: ${JSON.stringify(part)}\n\n`);
      });
    }
    this.#open.add(response);
    this.afterStream();
    response.on("close", () => this.#open.delete(response));
  }
}

/** Wait until a condition holds; fail after twenty seconds. */
export async function until(condition, what) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`Not within 20 s: ${what ?? condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
