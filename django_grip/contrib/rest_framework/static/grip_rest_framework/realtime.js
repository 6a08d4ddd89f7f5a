// Streams of a Django site, and lists that follow them. One module, no dependencies.
//
//   const orders = collection("/orders/stream/");
//   orders.on("change", () => render(orders.rows));
//
// Every event has a place in the order of its stream, `seq`, and names the one before it,
// `prev`. So a client knows what it has seen, whatever is repeated, lost or restarted on
// the way, and goes on where it was. See docs/reference/realtime-js.md.

const SILENCE = 50_000; // Twice KEEP_ALIVE, after which the proxy says something.
const FIRST_DELAY = 1_000;
const LONGEST_DELAY = 30_000;
const STEADY = 10_000; // A connection that lasted so long was a good one.
const FIRST_RESUME = 1_500; // An event may have passed between the answer and the hold.
const ROWS_AT_ONCE = 20; // Rows that are asked for one by one; above it, the list is.

/** Follow the events of a stream's URL. Throws TypeError for options that cannot be. */
export function stream(url, options = {}) {
  return new Stream(url, options);
}

/** A live Map of the rows behind a stream's URL, by the text of their pks. */
export function collection(url, options = {}) {
  return new Collection(url, options);
}

/** One WebSocket to a RealtimeSocket, for many streams: give it as `socket`. */
export function socket(url, options = {}) {
  return new Socket(url, options);
}

/** Milliseconds to wait after this many failures in a row: up to 1 s, then up to 30 s. */
export function backoff(failures, random = Math.random) {
  return random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
}

/**
 * A function that takes the bytes of server-sent events as they come, and gives each block
 * to `receive`: `{event, data, id, retry}`, where what was not said is undefined.
 * See https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function eventParser(receive) {
  const decoder = new TextDecoder();
  let unfinished = "";
  let endedInReturn = false;
  let block = {};

  function take(line) {
    if (line === "") {
      const {data, ...rest} = block;
      block = {};
      if (data) rest.data = data.join("\n");
      if (Object.keys(rest).length > 0) receive(rest);
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") (block.data ??= []).push(value);
    else if (name === "event") block.event = value;
    else if (name === "id" && !value.includes("\0")) block.id = value;
    else if (name === "retry" && /^\d+$/.test(value)) block.retry = Number(value);
  }

  return (bytes) => {
    let text = decoder.decode(bytes, {stream: true});
    if (text === "") return;
    // The second half of a line end that was cut.
    if (endedInReturn && text[0] === "\n") text = text.slice(1);
    endedInReturn = text.endsWith("\r");
    if (!/[\r\n]/.test(text)) {
      unfinished += text;
      return;
    }
    const lines = (unfinished + text).split(/\r\n|\r|\n/);
    unfinished = lines.pop();
    lines.forEach(take);
  };
}

/**
 * Which events of a stream to apply, and when: each once, in order, none left out.
 *
 * `position` is EPOCH.SEQ of the last one applied, or undefined.
 */
export class Sequence {
  #epoch;
  #last; // Its number.
  #answered = 0; // Up to here the answer that comes now has all, whatever `prev` says.
  #kept = []; // What is newer than a gap, in order.

  constructor(position) {
    if (position) this.restart(position);
  }

  get position() {
    return this.#last === undefined ? undefined : `${this.#epoch}.${this.#last}`;
  }

  /** Begin anew at a position; without one, where there is no order. */
  restart(position) {
    this.#answered = 0;
    this.#kept = [];
    [this.#epoch, this.#last] = position ? split(position) : [];
  }

  /** An answer begins; what it brings goes up to this position without a gap. */
  answering(position) {
    this.#answered = split(position)[1];
  }

  /** Whether something is missing that the present answer does not bring either. */
  get isShort() {
    const until = Math.max(this.#last, this.#answered);
    return this.#kept.length > 0 && this.#kept[0].prev > until;
  }

  /** All up to this position was told. Returns what was kept and now fits. */
  complete(position) {
    const [epoch, seq] = split(position);
    if (this.#last === undefined) [this.#epoch, this.#last] = [epoch, seq];
    if (epoch !== this.#epoch) return [];
    const fitting = this.#kept.filter((event) => event.seq <= seq);
    this.#last = Math.max(this.#last, seq);
    this.#kept = this.#kept.filter((event) => event.seq > seq);
    return [...fitting, ...this.#release()];
  }

  /** What to apply now that this event is here; null where one before it is missing. */
  take(event) {
    const {seq, prev} = event;
    if (seq === undefined || this.#last === undefined) return [event];
    if (seq <= this.#last) return [];
    if (prev > Math.max(this.#last, this.#answered)) {
      const at = this.#kept.findIndex((other) => other.seq >= seq);
      if (at < 0) this.#kept.push(event);
      else if (this.#kept[at].seq !== seq) this.#kept.splice(at, 0, event);
      return null;
    }
    this.#last = seq;
    return [event, ...this.#release()];
  }

  #release() {
    const fitting = [];
    while (this.#kept.length > 0 && this.#kept[0].prev <= this.#last) {
      const event = this.#kept.shift();
      if (event.seq <= this.#last) continue;
      this.#last = event.seq;
      fitting.push(event);
    }
    return fitting;
  }
}

function split(position) {
  const dot = position.lastIndexOf(".");
  return [position.slice(0, dot), Number(position.slice(dot + 1))];
}

class Listeners {
  #byName = new Map();

  on(name, listener) {
    if (typeof listener !== "function") {
      throw new TypeError(`on("${name}", …) takes a function; got ${typeof listener}.`);
    }
    const listeners = this.#byName.get(name) ?? new Set();
    this.#byName.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  tell(name, ...values) {
    for (const listener of [...(this.#byName.get(name) ?? [])]) {
      try {
        listener(...values);
      } catch (error) {
        // The fault of one listener is not that of the stream.
        (globalThis.reportError ?? console.error)(error);
      }
    }
  }
}

/** Why a stream is not open: `status` of the answer, if there was one, and `message`. */
class Problem extends Error {
  constructor(message, {status, retryAfter = 0, delay, isFinal} = {}) {
    super(message);
    this.name = "Problem";
    this.status = status;
    this.retryAfter = retryAfter; // Milliseconds.
    this.delay = delay; // Milliseconds, where it is settled.
    // Whether asking again is of no use, until somebody logs in or the URL is another.
    const isRefusal = status >= 400 && status < 500 && ![408, 409, 425, 429].includes(status);
    this.isFinal = isFinal ?? isRefusal;
  }
}

// Requests

function absolute(url) {
  return new URL(url, globalThis.document?.baseURI);
}

function withParameters(url, parameters) {
  const target = new URL(url);
  for (const [name, value] of Object.entries(parameters)) {
    if (value) target.searchParams.set(name, value);
  }
  return target;
}

async function headersOf({headers}) {
  return typeof headers === "function" ? await headers() : headers;
}

/** The answer to a request, if it is 200. Raises Problem for others, with their reason. */
async function ask(url, options, {headers, ...init} = {}) {
  const response = await (options.fetch ?? globalThis.fetch)(url, {
    cache: "no-store",
    credentials: options.credentials ?? "same-origin",
    headers: {Accept: "application/json", ...headers, ...(await headersOf(options))},
    ...init,
  });
  if (response.status !== 200) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let reason = "";
  try {
    reason = (await response.json())?.detail;
  } catch {
    // No JSON: the status has to do.
  }
  const after = response.headers.get("Retry-After") ?? "";
  const seconds = /^\d+$/.test(after) ? Number(after) : (Date.parse(after) - Date.now()) / 1000;
  return new Problem(reason || `The answer was ${response.status} ${response.statusText}.`, {
    status: response.status,
    retryAfter: seconds > 0 ? seconds * 1000 : 0,
  });
}

/** A fresh ticket for a URL, where the options ask for one. */
async function ticketFor(url, options, signal) {
  if (!options.ticket) return undefined;
  if (typeof options.ticket === "function") return options.ticket(url.href);
  const target = new URL(url);
  target.search = "";
  target.protocol = target.protocol.replace("ws", "http");
  target.pathname += target.pathname.endsWith("/") ? "ticket/" : "/ticket";
  const response = await ask(target, options, {
    method: "POST",
    signal,
    headers: target.origin === globalThis.location?.origin ? csrfHeader() : {},
  });
  return (await response.json()).ticket;
}

function csrfHeader() {
  const [, token] = globalThis.document?.cookie.match(/(?:^|; )csrftoken=([^;]+)/) ?? [];
  return token ? {"X-CSRFToken": token} : {};
}

// Lines

// What waits, and is to be tried at once when the network or the viewer is back.
const lines = new Set();

globalThis.document?.addEventListener?.("visibilitychange", () => {
  if (document.visibilityState === "visible") lines.forEach((line) => line.wake());
});
globalThis.window?.addEventListener?.("online", () => lines.forEach((line) => line.wake()));

/**
 * A connection that is opened again whenever it ends, until it is closed.
 *
 * Subclasses have `connect(signal)`, which settles when the connection has ended, and say
 * `isOpened()` and `heard()`.
 */
class Line {
  retry; // Milliseconds after which the server wants to see us again.
  isClosed = false;
  #options;
  #tell;
  #abort;
  #resume; // Ends a pause.
  #isDenied = false;
  #isOpen = false;
  #isHurried = false; // Whoever was told of a problem wants no pause.
  #failures = 0;
  #openedAt;
  #heardAt;

  constructor(options, tell) {
    this.#options = options;
    this.#tell = tell;
    lines.add(this);
    // A turn later: whoever asked for it listens by then.
    queueMicrotask(() => this.#run());
  }

  get isDenied() {
    return this.#isDenied;
  }

  /** The server has let us in. */
  isOpened() {
    this.#isOpen = true;
    this.#openedAt = Date.now();
    this.#tell("open");
  }

  /** Something came. */
  heard() {
    this.#heardAt = Date.now();
  }

  get silentFor() {
    return Date.now() - this.#heardAt;
  }

  /** End the connection that is; the next one follows as the problem says. */
  restart(problem = new Problem("Asked to begin anew.", {delay: 0})) {
    this.#abort?.abort(problem);
  }

  /** Try now what would be tried later. */
  wake() {
    if (!this.#isDenied) this.#resume?.();
    this.#checkSilence();
  }

  /** Try again what was refused; else begin anew. */
  reopen() {
    if (this.#resume) this.#resume();
    else if (this.#abort) this.restart();
    else this.#isHurried = true;
  }

  close() {
    this.isClosed = true;
    lines.delete(this);
    this.#abort?.abort(new Problem("Closed."));
    this.#resume?.();
  }

  async #run() {
    let isRenewed = false;
    while (!this.isClosed) {
      const abort = new AbortController();
      this.#abort = abort;
      this.#isOpen = false;
      this.heard();
      const watch = setInterval(() => this.#checkSilence(), this.#silence / 10);
      let problem;
      try {
        // Not every request ends when it is told to.
        await Promise.race([this.connect(abort.signal), aborted(abort.signal)]);
        problem = new Problem("The connection ended.");
      } catch (error) {
        problem = abort.signal.aborted ? abort.signal.reason : asProblem(error);
      } finally {
        clearInterval(watch);
        // Whatever still hangs on it.
        abort.abort(problem);
        this.#abort = undefined;
      }
      if (this.isClosed) return;
      if (this.#isOpen) isRenewed = false;
      if (this.#isOpen && Date.now() - this.#openedAt > STEADY) this.#failures = 0;
      if (problem.isFinal) {
        if (isRenewable(problem, this.#options) && !isRenewed) {
          isRenewed = true;
          continue;
        }
        this.#isDenied = true;
        this.#tell("denied", problem);
        await this.#pause();
        this.#isDenied = isRenewed = false;
        this.#failures = 0;
        if (!this.isClosed) this.#tell("connecting");
        continue;
      }
      this.#tell("lost", problem);
      await this.#pause(problem.delay ?? this.#delay(problem));
    }
  }

  get #silence() {
    return this.#options.silence ?? SILENCE;
  }

  #delay({retryAfter}) {
    if (this.#isOpen && this.retry !== undefined) return this.retry;
    return retryAfter + backoff(this.#failures++);
  }

  #checkSilence() {
    if (this.#abort && this.silentFor >= this.#silence) {
      const delay = this.#isOpen ? 0 : undefined;
      this.restart(new Problem("The connection is silent.", {delay}));
    } else if (this.silentFor >= this.#silence * 0.6) {
      this.quiet?.();
    }
  }

  async #pause(delay) {
    const isDue = delay === 0 || this.#isHurried || this.isClosed;
    this.#isHurried = false;
    if (isDue) return;
    let timer;
    await new Promise((resolve) => {
      this.#resume = resolve;
      if (delay !== undefined) timer = setTimeout(resolve, delay);
    });
    clearTimeout(timer);
    this.#resume = undefined;
  }
}

/** Whether asking again shows something else than what was refused. */
function isRenewable({status}, {ticket, headers}) {
  return (status === 401 || status === 403) && Boolean(ticket || typeof headers === "function");
}

/** Raises the reason of a signal, when there is one. */
function aborted(signal) {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}

function asProblem(error) {
  return error instanceof Problem ? error : new Problem(error?.message ?? String(error));
}

/** A stream as server-sent events: its own request, read as it comes. */
class EventLine extends Line {
  #stream;
  #options;

  constructor(stream, options) {
    super(options, (what, problem) => stream._line(what, problem));
    this.#stream = stream;
    this.#options = options;
  }

  async connect(signal) {
    const stream = this.#stream;
    const url = withParameters(stream.url, {
      since: stream.position,
      snapshot: this.#options.snapshot && "1",
      ticket: await ticketFor(stream.url, this.#options, signal),
    });
    const headers = {Accept: "text/event-stream"};
    const response = await ask(url, this.#options, {signal, headers});
    this.heard();
    const type = response.headers.get("Content-Type") ?? "nothing";
    if (!type.startsWith("text/event-stream")) {
      throw new Problem(`${stream.url.pathname} should answer text/event-stream; got ${type}.`);
    }
    const parse = eventParser((block) => {
      if (!signal.aborted) this.#take(block);
    });
    const reader = response.body.getReader();
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      this.heard();
      parse(value);
    }
  }

  #take({event = "message", data, id, retry}) {
    if (retry !== undefined) this.retry = retry;
    const stream = this.#stream;
    if (data === undefined) {
      if (id !== undefined) stream._complete(id);
      return;
    }
    const value = parsed(data);
    if (event === "ready") {
      this.isOpened();
      stream._ready(value);
    } else {
      stream._take({op: event, ...value}, id);
    }
  }

  /** Ask the origin for what is missing: its answer to a new request has it. */
  heal(isAgain) {
    this.restart(new Problem("An event is missing.", {delay: isAgain ? undefined : 0}));
  }
}

/**
 * A WebSocket with the subscriptions of many streams; or at a stream's own URL, where
 * there is one subscription, without an id.
 */
class SocketLine extends Line {
  #url;
  #options;
  #single;
  #subscriptions = new Set();
  #ids = 0;
  #socket;
  #pingedAt = 0;

  constructor(url, options, tell, stream) {
    super(options, (what, problem) => {
      if (what !== "open") {
        for (const each of this.#subscriptions) each.isLost(what, problem);
      }
      tell?.(what, problem);
    });
    this.#url = url;
    this.#options = options;
    if (stream) this.#single = this.follow(stream, options, true);
  }

  follow(stream, options, isSingle = false) {
    const subscription = new Subscription(this, stream, options, isSingle);
    this.#subscriptions.add(subscription);
    if (this.isConnected) subscription.begin();
    return subscription;
  }

  forget(subscription) {
    this.#subscriptions.delete(subscription);
    if (subscription.isSingle) this.close();
  }

  nextId() {
    this.#ids += 1;
    return String(this.#ids);
  }

  get single() {
    return this.#single;
  }

  reopenAll() {
    for (const each of this.#subscriptions) each.forgive();
    this.reopen();
  }

  closeAll() {
    for (const each of [...this.#subscriptions]) each.endStream();
    this.close();
  }

  get isConnected() {
    return this.#socket?.readyState === 1;
  }

  send(operation) {
    if (this.isConnected) this.#socket.send(JSON.stringify(operation));
  }

  async connect(signal) {
    const ticket = await ticketFor(this.#url, this.#options, signal);
    const url = withParameters(this.#url, {...this.#single?.parameters, ticket});
    const target = new URL(url);
    target.protocol = target.protocol.replace("http", "ws");
    const end = await this.#converse(target, signal);
    if (this.#single && end.code >= 4400 && end.code < 4600) {
      throw new Problem(end.reason || "The stream was ended.", {status: end.code - 4000});
    }
    // Of a handshake that is refused nobody tells a page why.
    if (!end.wasOpen && this.#single) {
      await ask(url, this.#options, {signal, method: "HEAD"});
    }
    throw new Problem(end.reason || `The WebSocket ended with code ${end.code}.`);
  }

  #converse(url, signal) {
    const socket = new (this.#options.WebSocket ?? globalThis.WebSocket)(url.href);
    this.#socket = socket;
    let wasOpen = false;
    socket.onopen = () => {
      wasOpen = true;
      this.heard();
      this.isOpened();
      for (const each of this.#subscriptions) each.begin();
    };
    socket.onmessage = ({data}) => {
      if (signal.aborted) return;
      this.heard();
      for (const item of parsedList(data)) this.#take(item);
    };
    return new Promise((resolve) => {
      socket.onclose = ({code, reason}) => resolve({code, reason, wasOpen});
      // A line that is dead does not close in time.
      signal.addEventListener("abort", () => {
        socket.close();
        resolve({code: 1006, reason: "", wasOpen});
      });
    });
  }

  #take(item) {
    for (const each of [...this.#subscriptions]) {
      if (item.op === undefined ? each.isNamed(item) : each.channel === item.channel) {
        each.take(item);
      }
    }
  }

  /** Have somebody say something, before the silence is taken for the end. */
  quiet() {
    if (this.isConnected && Date.now() - this.#pingedAt > this.silentFor) {
      this.#pingedAt = Date.now();
      this.send({type: "ping"});
    }
  }
}

function parsedList(text) {
  try {
    const value = JSON.parse(text);
    return Array.isArray(value) ? value : [];
  } catch {
    return [];
  }
}

/** One stream's share of a SocketLine. */
class Subscription {
  channel; // Once the server has named it.
  isSingle;
  #line;
  #stream;
  #options;
  #id;
  #timer;
  #isDenied = false;
  #isRenewed = false;
  #failures = 0;
  #isResuming = false;

  constructor(line, stream, options, isSingle) {
    this.#line = line;
    this.#stream = stream;
    this.#options = options;
    this.isSingle = isSingle;
  }

  get parameters() {
    return {since: this.#stream.position, snapshot: this.#options.snapshot && "1"};
  }

  async begin() {
    this.#reset();
    if (this.isSingle || this.#isDenied) return;
    const id = this.#line.nextId();
    this.#id = id;
    try {
      const {since, snapshot} = this.parameters;
      const ticket = await ticketFor(this.#stream.url, this.#options);
      if (this.#id !== id) return;
      const {pathname, search} = withParameters(this.#stream.url, {snapshot, ticket});
      this.#line.send({type: "subscribe", id, url: pathname + search, since});
    } catch (error) {
      if (this.#id === id) this.#refused(asProblem(error));
    }
  }

  isNamed({id}) {
    return this.isSingle ? id === undefined : id !== undefined && id === this.#id;
  }

  take(item) {
    if (item.op !== undefined) this.#stream._take(item);
    else if (item.type === "subscribed") this.#subscribed(item);
    else if (item.type === "resumed") this.#resumed(item);
    else if (item.type === "problem") this.#problem(item);
  }

  isLost(what, problem) {
    this.#reset();
    if (!this.#isDenied) this.#stream._line(what, problem);
  }

  forgive() {
    this.#isDenied = false;
  }

  endStream() {
    this.#stream.close();
  }

  heal(isAgain) {
    if (this.#isResuming) return;
    if (!isAgain) this.#resume();
    else this.#resumeIn(FIRST_DELAY);
  }

  restart(problem) {
    if (this.isSingle) this.#line.restart(problem);
    else this.#refused(problem);
  }

  reopen() {
    this.#isDenied = false;
    if (this.isSingle || !this.#line.isConnected) {
      this.#line.reopen();
      return;
    }
    this.#leave();
    this.#stream._line("connecting");
    this.begin();
  }

  close() {
    this.#leave();
    this.#reset();
    this.#line.forget(this);
  }

  #leave() {
    if (this.channel && !this.isSingle) this.#line.send({type: "unsubscribe", id: this.#id});
  }

  #reset() {
    clearTimeout(this.#timer);
    this.channel = undefined;
    this.#id = undefined;
    this.#isResuming = false;
  }

  #subscribed({channel, position, gapless}) {
    this.channel = channel;
    this.#failures = 0;
    this.#isRenewed = false;
    this.#stream._ready({channel, position, gapless});
    if (position !== undefined) this.#resumeIn(FIRST_RESUME);
  }

  #resumeIn(delay) {
    clearTimeout(this.#timer);
    // A listener may have closed it.
    if (this.channel === undefined) return;
    this.#timer = setTimeout(() => this.#resume(), delay);
  }

  #resume() {
    clearTimeout(this.#timer);
    if (this.channel === undefined) return;
    this.#isResuming = true;
    this.#line.send({type: "resume", id: this.#id, since: this.#stream.position});
  }

  #resumed({position, more}) {
    this.#isResuming = false;
    if (position !== undefined) this.#stream._complete(position);
    if (more) this.#resume();
  }

  #problem({status, reason = "The server gives no reason."}) {
    // Of the socket's own stream a close says the rest.
    if (this.isSingle) return;
    // What it was granted is over; whether it may go on is asked anew.
    if (this.channel === undefined) this.#refused(new Problem(reason, {status}));
    else this.#again(new Problem(reason, {status}), 0);
  }

  #refused(problem) {
    if (isRenewable(problem, this.#options) && !this.#isRenewed) {
      this.#isRenewed = true;
      this.#again(problem, 0);
    } else if (problem.isFinal) {
      this.#reset();
      this.#isDenied = true;
      this.#stream._line("denied", problem);
    } else {
      this.#again(problem, problem.retryAfter + backoff(this.#failures++));
    }
  }

  #again(problem, delay) {
    this.#reset();
    this.#stream._line("lost", problem);
    this.#timer = setTimeout(() => this.begin(), delay);
  }
}

/** The share of a stream in a socket of its own. */
function singleLine(stream, options) {
  return new SocketLine(stream.url, options, undefined, stream).single;
}

class Socket {
  #listeners = new Listeners();
  #line;
  #state = "connecting";
  #problem;

  constructor(url, options) {
    let wasOpen = false;
    this.#line = new SocketLine(absolute(url), options, (what, problem) => {
      if (what === "open") wasOpen = true;
      const lost = wasOpen ? "stale" : "connecting";
      this.#setState(what === "lost" ? lost : what, problem);
    });
  }

  get state() {
    return this.#state;
  }

  get problem() {
    return this.#problem;
  }

  on(name, listener) {
    return this.#listeners.on(name, listener);
  }

  /** Connect anew, for instance as somebody else, and try again what was refused. */
  reopen() {
    this.#line.reopenAll();
  }

  /** Close it and the streams on it. */
  close() {
    this.#setState("closed");
    this.#line.closeAll();
  }

  _follow(stream, options) {
    return this.#line.follow(stream, options);
  }

  #setState(state, problem) {
    if (this.#state === "closed") return;
    this.#problem = problem;
    if (state === this.#state) return;
    this.#state = state;
    this.#listeners.tell("state", state, problem);
  }
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
    return {data: value};
  } catch {
    return {data: text};
  }
}

class Stream {
  #listeners = new Listeners();
  #options;
  #sequence;
  #line;
  #state = "connecting";
  #problem;
  #wasOpen = false;
  #healing; // The position behind which something is missing.

  constructor(url, options) {
    const {transport = options.socket ? "websocket" : "sse", socket} = options;
    if (transport !== "sse" && transport !== "websocket") {
      throw new TypeError(`transport is "sse" or "websocket"; got "${transport}".`);
    }
    this.url = absolute(url);
    this.#options = options;
    this.#sequence = new Sequence(options.since);
    if (socket) this.#line = socket._follow(this, options);
    else if (transport === "websocket") this.#line = singleLine(this, options);
    else this.#line = new EventLine(this, options);
  }

  get state() {
    return this.#state;
  }

  get position() {
    return this.#sequence.position;
  }

  get problem() {
    return this.#problem;
  }

  on(name, listener) {
    return this.#listeners.on(name, listener);
  }

  reopen() {
    if (this.#state !== "closed") this.#line.reopen();
  }

  close() {
    if (this.#state === "closed") return;
    this.#setState("closed");
    this.#line.close();
  }

  // What follows is for the lines.

  _line(what, problem) {
    if (what === "open") return; // That is for `ready` to say.
    if (what === "connecting") this.#setState("connecting");
    else if (what === "denied") this.#setState("denied", problem);
    else this.#setState(this.#wasOpen ? "stale" : "connecting", problem);
  }

  /** An answer begins: `{channel, position, gapless}`. */
  _ready(ready) {
    const {position} = ready;
    const before = this.position;
    if (position === undefined) this.#sequence.restart();
    else if (before === undefined) this.#sequence.restart(position);
    else this.#sequence.answering(position);
    this.#wasOpen = true;
    this.#setState("open");
    this.#listeners.tell("ready", {
      channel: ready.channel,
      position,
      gapless: ready.gapless,
      isContinued: position !== undefined && before !== undefined,
    });
    // The origin tells no more than the proxies have confirmed.
    if (this.#sequence.isShort) this.#heal();
  }

  /** All up to a position was told. */
  _complete(position) {
    if (this.#state === "closed") return;
    this.#apply(this.#sequence.complete(position));
    if (this.#sequence.isShort) this.#heal();
    else if (this.#state === "stale") this.#setState("open");
  }

  _take(item, id) {
    if (this.#state === "closed") return;
    if (item.op === "reset") {
      const position = item.position ?? id;
      this.#sequence.restart(position);
      this.#listeners.tell("reset", item);
    } else if (item.op === "snapshot") {
      this.#listeners.tell("snapshot", item);
    } else if (item.op === "problem") {
      const {reason = "The server gives no reason.", status} = item;
      const problem = new Problem(reason, {status});
      this.#listeners.tell("problem", problem);
      if (problem.isFinal) this.#line.restart(problem);
    } else {
      const events = this.#sequence.take(item);
      if (events === null) this.#heal();
      else this.#apply(events);
    }
  }

  #apply(events) {
    for (const event of events) {
      if (this.#state === "closed") return;
      this.#tell(event);
    }
  }

  #tell(event) {
    const {client} = this.#options;
    if (client !== undefined && event.origin === client && !this.#options._own) return;
    this.#listeners.tell(event.op, event);
    this.#listeners.tell("event", event);
  }

  #heal() {
    const isAgain = this.#healing === this.position;
    this.#healing = this.position;
    this.#setState("stale", new Problem("An event is missing."));
    this.#line.heal(isAgain);
  }

  #setState(state, problem) {
    if (this.#state === "closed") return;
    this.#problem = problem;
    if (state === this.#state) return;
    this.#state = state;
    this.#listeners.tell("state", state, problem);
  }
}

class Collection extends Map {
  #listeners = new Listeners();
  #options;
  #url;
  #stream;
  #state = "connecting";
  #problem;
  #refusal; // Of the list.
  #rows; // The values as an array, while nothing changes.
  #closing = new AbortController();
  #pauses = new Set(); // What ends those of what failed.
  #waiter = {wake: () => this.#refusal?.isFinal || this.#hurry()};
  #isDue = false; // The list is to be loaded.
  #isLoading = false;
  #isLoaded = false;
  #isOneRow = false;
  #waiting = []; // Events that came while the list is loaded.
  #snapshot; // The rows of one that is not whole yet.
  #asked = new Map(); // Rows that are asked for one by one.
  #shaky; // Up to here, what came or went may have moved a row past a page.
  #loads = 0; // In a row, as pages moved.
  #soon; // The timer of the next one.

  constructor(url, options) {
    super();
    this.#url = absolute(url);
    this.#options = options;
    lines.add(this.#waiter);
    if (options.snapshot) this.#follow();
    else this.#load();
  }

  get state() {
    return this.#state;
  }

  get problem() {
    return this.#problem;
  }

  get position() {
    return this.#stream?.position;
  }

  /** The rows as an array, which is another one after each change. */
  get rows() {
    return (this.#rows ??= Object.freeze([...this.values()]));
  }

  get(pk) {
    return super.get(textOf(pk));
  }

  has(pk) {
    return super.has(textOf(pk));
  }

  on(name, listener) {
    return this.#listeners.on(name, listener);
  }

  /** Load the list again. */
  reload() {
    if (this.#state === "closed") return;
    this.#loads = 0;
    this.#load();
  }

  /** Try again what was refused. */
  reopen() {
    this.#hurry();
    this.#stream?.reopen();
  }

  close() {
    this.#stream?.close();
    clearTimeout(this.#soon);
    lines.delete(this.#waiter);
    this.#closing.abort();
    this.#setState("closed");
    this.#hurry();
  }

  // The stream

  #follow(since) {
    const options = {...this.#options, since: since ?? this.#options.since, _own: true};
    this.#stream = new Stream(this.#url, options);
    this.#stream.on("ready", ({isContinued}) => {
      const wasCut = this.#snapshot !== undefined;
      this.#snapshot = options.snapshot && !isContinued ? [] : undefined;
      if (!this.#snapshot && (wasCut || !isContinued)) this.reload();
    });
    this.#stream.on("snapshot", (part) => this.#snapshot && this.#takeSnapshot(part));
    this.#stream.on("reset", () => {
      this.#snapshot = undefined;
      this.#waiting = [];
      this.reload();
    });
    this.#stream.on("event", (event) => this.#take(event));
    this.#stream.on("state", () => this.#settle());
    this.#stream.on("problem", (problem) => this.#listeners.tell("problem", problem));
  }

  #takeSnapshot({rows, done}) {
    this.#snapshot.push(...rows);
    if (!done) return;
    const found = this.#snapshot;
    this.#snapshot = undefined;
    this.#show(found);
    this.#applyWaiting();
  }

  #take(event) {
    if (this.#isLoading || this.#snapshot) this.#waiting.push(event);
    else this.#apply(event);
  }

  /** Apply what came while the rows were read, which those up to `seq` were read after. */
  #applyWaiting(seq) {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const event of waiting) if (!(event.seq <= seq)) this.#apply(event, true);
  }

  #apply(event, wasWaiting = false) {
    const {op, pk, data, action, pks} = event;
    if (op === "refresh" || (op === "bulk" && !(action === "delete" && pks))) {
      this.reload();
    } else if (op === "bulk") {
      for (const each of pks) this.#remove(textOf(each), event);
    } else if (op === "delete") {
      this.#remove(textOf(pk), event);
    } else if (op === "create" || op === "update") {
      if (data === undefined) this.#askFor(pk, event);
      else this.#put(textOf(pk), data, event);
    }
    const isWithin = event.seq === undefined ? wasWaiting : event.seq <= this.#shaky;
    if (this.#shaky !== undefined && isWithin && op !== "update") this.#loadSoon();
    this.#listeners.tell("event", event);
    this.#settle();
  }

  #put(key, row, event) {
    this.#asked.delete(key);
    this.#change(key, row, event);
  }

  #remove(key, event) {
    this.#asked.delete(key);
    if (super.has(key)) this.#change(key, undefined, event);
  }

  #change(key, row, event) {
    const previous = super.get(key);
    if (row === undefined) super.delete(key);
    else super.set(key, row);
    this.#rows = undefined;
    const op = row === undefined ? "delete" : previous === undefined ? "create" : "update";
    const isOwn = event?.origin !== undefined && event.origin === this.#options.client;
    this.#listeners.tell("change", {op, key, row, previous, event, isOwn});
  }

  // The list

  /** At once; then less and less often, where rows come and go all the time. */
  #loadSoon() {
    const delay = this.#loads > 1 ? backoff(this.#loads) : 0;
    this.#soon ??= setTimeout(() => this.#load(), delay);
  }

  async #load() {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    this.#isDue = true;
    if (this.#isLoading || this.#state === "closed") return;
    this.#isLoading = true;
    this.#settle();
    let failures = 0;
    let isRenewed = false;
    while (this.#isDue && this.#state !== "closed") {
      this.#isDue = false;
      try {
        const found = await this.#fetchList();
        if (this.#state === "closed") return;
        failures = 0;
        isRenewed = false;
        this.#refusal = undefined;
        this.#loads += 1;
        this.#showList(found);
      } catch (error) {
        if (this.#state === "closed") return;
        this.#isDue = true;
        const problem = asProblem(error);
        if (isRenewable(problem, this.#options) && !isRenewed) {
          isRenewed = true;
          continue;
        }
        this.#refusal = problem;
        const {isFinal, retryAfter} = problem;
        this.#settle();
        await this.#pause(isFinal ? undefined : retryAfter + backoff(failures++));
      }
    }
    this.#isLoading = false;
    this.#settle();
  }

  async #fetchList() {
    const url = this.#listUrl();
    let rows = [];
    let first; // Where the events stood before the first page was read.
    for (let pages = 1; ; pages++) {
      const response = await this.#ask(url).catch((problem) => {
        // The last page goes with its last row.
        if (pages > 1 && problem.status === 404) problem.isFinal = false;
        throw problem;
      });
      const position = response.headers.get("Realtime-Position") ?? undefined;
      if (pages === 1) first = position;
      const body = await response.json();
      this.#isOneRow = !Array.isArray(body) && !Array.isArray(body.results);
      rows = rows.concat(this.#isOneRow ? [body] : (body.results ?? body));
      if (!body.next) {
        // Pages that are numbered move when a row before them comes or goes.
        const isShaky = pages > 1 && body.count !== undefined;
        return {rows, position: first, shaky: isShaky ? (numberOf(position) ?? 0) : undefined};
      }
      // Whatever the server takes for its own name.
      url.search = new URL(body.next, url).search;
    }
  }

  #showList({rows, position, shaky}) {
    this.#shaky = shaky;
    this.#show(rows);
    if (!this.#stream) this.#follow(position);
    // What is in the rows already would show something older for a moment.
    this.#applyWaiting(sameEpoch(position, this.position) ? numberOf(position) : undefined);
  }

  #show(rows) {
    this.#asked.clear();
    this.#rows = undefined;
    super.clear();
    for (const row of rows) super.set(this.#keyOf(row), row);
    this.#isLoaded = true;
    this.#listeners.tell("change", {op: "load", isOwn: false});
    this.#settle();
  }

  #keyOf(row) {
    const {key = "id"} = this.#options;
    const pk = typeof key === "function" ? key(row) : row[key];
    if (pk === undefined) {
      throw new Problem(
        `Expected the pk of each row as "${key}"; a row has ${Object.keys(row)}. Give the ` +
          "name of the field, or a function of the row, as the option `key`.",
        {isFinal: true},
      );
    }
    return textOf(pk);
  }

  #listUrl() {
    const url = absolute(this.#options.list ?? this.#url);
    if (this.#options.list === undefined) {
      url.search = "";
      url.pathname = url.pathname.replace(/\/stream(\/?)$/, "$1");
    }
    return url;
  }

  // Rows that an event names without their data

  #askFor(pk, event) {
    const key = textOf(pk);
    const asked = this.#asked.get(key);
    if (asked) {
      asked.event = event;
      asked.isAgain = true;
    } else if (this.#isOneRow || this.#asked.size >= ROWS_AT_ONCE) {
      this.reload();
    } else {
      this.#fetchRow(key, pk, event);
    }
  }

  async #fetchRow(key, pk, event) {
    const asked = {event, isAgain: true};
    this.#asked.set(key, asked);
    this.#settle();
    const url = this.#listUrl();
    url.search = "";
    url.pathname = url.pathname.replace(/(\/?)$/, `/${encodeURIComponent(key)}$1`);
    // Whoever takes it away knows better, or has shown all anew.
    const isWanted = () => this.#asked.get(key) === asked && this.#state !== "closed";
    for (let failures = 0; asked.isAgain && isWanted(); ) {
      asked.isAgain = false;
      try {
        const row = await (await this.#ask(url)).json();
        if (isWanted()) this.#change(key, row, asked.event);
        failures = 0;
      } catch (error) {
        const {status, retryAfter} = asProblem(error);
        if (status === 403 || status === 404) {
          if (isWanted() && super.has(key)) this.#change(key, undefined, asked.event);
        } else {
          asked.isAgain = true;
          await this.#pause(retryAfter + backoff(failures++));
        }
      }
    }
    if (isWanted()) this.#asked.delete(key);
    this.#settle();
  }

  #ask(url) {
    return ask(url, this.#options, {signal: this.#closing.signal});
  }

  #hurry() {
    this.#pauses.forEach((end) => end());
  }

  async #pause(delay) {
    let timer, end;
    await new Promise((resolve) => {
      end = resolve;
      this.#pauses.add(end);
      if (delay !== undefined) timer = setTimeout(end, delay);
    });
    clearTimeout(timer);
    this.#pauses.delete(end);
  }

  #settle() {
    const {state = "connecting", problem} = this.#stream ?? {};
    const refusal = this.#refusal;
    const isBehind = this.#isLoading || this.#snapshot || this.#soon || this.#asked.size > 0;
    if (refusal?.isFinal) this.#setState("denied", refusal);
    else if (state === "denied") this.#setState(state, problem);
    else if (!this.#isLoaded) this.#setState("connecting", refusal ?? problem);
    else if (state === "open" && isBehind) this.#setState("stale", refusal);
    else this.#setState(state, problem);
  }

  #setState(state, problem) {
    if (this.#state === "closed") return;
    this.#problem = problem;
    if (state === this.#state) return;
    this.#state = state;
    this.#listeners.tell("state", state, problem);
  }
}

/** Keys are text, as in HTML: a composite one is its JSON. */
function textOf(pk) {
  return Array.isArray(pk) ? JSON.stringify(pk) : String(pk);
}

function numberOf(position) {
  return position && split(position)[1];
}

function sameEpoch(one, other) {
  return one && other && split(one)[0] === split(other)[0];
}
