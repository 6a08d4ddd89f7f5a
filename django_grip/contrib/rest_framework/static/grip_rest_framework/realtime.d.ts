/** Types of realtime.js. What it does is in docs/reference/realtime-js.md. */

export type State = "connecting" | "open" | "stale" | "denied" | "closed";

/** Why something is not open. */
export interface Problem extends Error {
  /** Of the answer, if there was one. */
  readonly status?: number;
}

/** A part of a row's primary key; a composite one is an array of them. */
export type PrimaryKey = string | number | readonly (string | number)[];

/** What happened: see docs/reference/events.md. */
export interface RealtimeEvent<Row = any> {
  op: "create" | "update" | "delete" | "bulk" | "refresh" | (string & {});
  id?: string;
  channel?: string;
  model?: string;
  pk?: PrimaryKey;
  seq?: number;
  prev?: number;
  ts?: string;
  changed?: string[];
  reason?: "enter" | "leave";
  origin?: string;
  truncated?: boolean;
  action?: "create" | "update" | "delete";
  count?: number;
  pks?: PrimaryKey[];
  data?: Row;
}

export interface Ready {
  channel: string;
  position?: string;
  gapless: boolean;
  /** Whether nothing was missed since the last time. */
  isContinued: boolean;
}

export interface Reset {
  reason: string;
}

export interface Snapshot<Row = any> {
  rows: Row[];
  done: boolean;
}

type Off = () => void;
type Headers = Record<string, string>;

export interface ConnectionOptions {
  /** Sent with each request; a function is called for each. */
  headers?: Headers | (() => Headers | Promise<Headers>);
  /** Ask for a ticket before each connection; a function gives one for a URL. */
  ticket?: boolean | ((url: string) => string | Promise<string>);
  /** Of each request; default "same-origin". */
  credentials?: RequestCredentials;
  /** Milliseconds without a byte after which a connection is given up; default 50,000. */
  silence?: number;
  fetch?: typeof fetch;
  WebSocket?: typeof WebSocket;
}

export interface StreamOptions extends ConnectionOptions {
  /** Default "sse". */
  transport?: "sse" | "websocket";
  /** Follow the stream over this one. */
  socket?: Socket;
  /** Where to begin, as `EPOCH.SEQ`. */
  since?: string;
  /** Begin with the rows. */
  snapshot?: boolean;
  /** What the client's own writes say in X-Realtime-Client; their events are left out. */
  client?: string;
}

export interface Stream<Row = any> {
  readonly url: URL;
  readonly state: State;
  readonly problem?: Problem;
  /** Of the last event, as `EPOCH.SEQ`; undefined without an event log. */
  readonly position?: string;
  on(name: "state", listener: (state: State, problem?: Problem) => void): Off;
  on(name: "ready", listener: (ready: Ready) => void): Off;
  on(name: "reset", listener: (reset: Reset) => void): Off;
  on(name: "snapshot", listener: (part: Snapshot<Row>) => void): Off;
  on(name: "problem", listener: (problem: Problem) => void): Off;
  /** By the event's `op`; "event" is any of them. */
  on(name: string, listener: (event: RealtimeEvent<Row>) => void): Off;
  /** Try again what was denied; else connect anew. */
  reopen(): void;
  close(): void;
}

export interface CollectionOptions<Row = any> extends StreamOptions {
  /** The URL of the rows; default: the stream's without `stream/`. */
  list?: string;
  /** The field of a row that has its pk, or what gives it; default "id". */
  key?: string | ((row: Row) => PrimaryKey);
}

export interface Change<Row = any> {
  op: "load" | "create" | "update" | "delete";
  /** Undefined for "load", which is of all rows; so are the next two. */
  key?: string;
  row?: Row;
  previous?: Row;
  event?: RealtimeEvent<Row>;
  /** Whether the event's `origin` is the option `client`. */
  isOwn: boolean;
}

/** Do not write to it. `get` and `has` take a pk in any form. */
export interface Collection<Row = any> extends ReadonlyMap<string, Row> {
  get(pk: PrimaryKey): Row | undefined;
  has(pk: PrimaryKey): boolean;
  /** The rows as an array, which is another one after each change. */
  readonly rows: readonly Row[];
  readonly state: State;
  readonly problem?: Problem;
  readonly position?: string;
  on(name: "change", listener: (change: Change<Row>) => void): Off;
  on(name: "state", listener: (state: State, problem?: Problem) => void): Off;
  on(name: "event", listener: (event: RealtimeEvent<Row>) => void): Off;
  on(name: "problem", listener: (problem: Problem) => void): Off;
  /** Load the list again. */
  reload(): void;
  /** Try again what was denied; else connect anew. */
  reopen(): void;
  close(): void;
}

export interface Socket {
  readonly state: State;
  readonly problem?: Problem;
  on(name: "state", listener: (state: State, problem?: Problem) => void): Off;
  /** Connect anew, with the cookies of now, and try again what was denied. */
  reopen(): void;
  /** Close it and the streams on it. */
  close(): void;
}

export function stream<Row = any>(url: string | URL, options?: StreamOptions): Stream<Row>;
export function collection<Row = any>(
  url: string | URL,
  options?: CollectionOptions<Row>,
): Collection<Row>;
export function socket(url: string | URL, options?: ConnectionOptions): Socket;

/** Milliseconds to wait after this many failures in a row. */
export function backoff(failures: number, random?: () => number): number;

export interface EventBlock {
  event?: string;
  data?: string;
  id?: string;
  retry?: number;
}

/** Takes the bytes of server-sent events as they come. */
export function eventParser(receive: (block: EventBlock) => void): (bytes: Uint8Array) => void;

/** Which events of a stream to apply, and when. */
export class Sequence {
  constructor(position?: string);
  readonly position?: string;
  readonly isShort: boolean;
  restart(position?: string): void;
  answering(position: string): void;
  complete<Event>(position: string): Event[];
  take<Event extends {seq?: number; prev?: number}>(event: Event): Event[] | null;
}
