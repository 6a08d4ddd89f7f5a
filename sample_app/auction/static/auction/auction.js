// Keeps the lots on the page current, and places bids.
//
// The server renders the page; from then on the event stream says what changed. Every
// [data-field] inside a lot shows the field of that name.

const page = document.body.dataset;
const board = document.querySelector("main");
const cardTemplate = document.querySelector("#card");
const bidTemplate = document.querySelector("#bid");
const bidder = document.querySelector("[name=bidder]");

const STATES = {connecting: "Connecting", open: "Live", lost: "Reconnecting"};
const FIRST_DELAY = 1000;
const LONGEST_DELAY = 15000;
const SILENCE = 50000; // Twice KEEP_ALIVE, the pause after which the proxy says something.

// The stream
//
// Every event has a place in the order of its stream, `seq`, and names the one before it,
// `prev`. So the page knows what it has seen, whatever is repeated, lost or restarted on
// the way, and a stream goes on where the last one ended.

let source;
let position = ""; // Of the last event seen: its epoch and its seq.
let answered; // Up to this seq the answer that opened the stream is complete.
let attempt = 0;
let timer;

const seqOf = (position) => Number(position?.split(".")[1]);

function connect() {
  // A stream that was dropped comes back by itself, and says where it was. This is for
  // one that was refused, went silent, or has a gap.
  source?.close();
  source = new EventSource(page.streamUrl + (position && `?since=${position}`));
  source.addEventListener("ready", begin);
  for (const op of ["create", "update", "delete", "bulk", "refresh"]) {
    source.addEventListener(op, receive);
  }
  source.addEventListener("reset", startAnew);
  source.addEventListener("error", () => {
    setState("lost");
    if (source.readyState === EventSource.CLOSED) {
      const delay = Math.min(FIRST_DELAY * 2 ** attempt++, LONGEST_DELAY);
      connectIn(delay * (0.5 + Math.random() / 2));
    }
  });
  if (page.streamState !== "lost") setState("connecting");
  connectIn(SILENCE);
}

// Scripts do not see the comments that keep a stream alive. So one that is merely quiet is
// opened anew as well, which is a short request.
function connectIn(delay) {
  clearTimeout(timer);
  timer = setTimeout(connect, delay);
}

function setState(state) {
  page.streamState = state;
  document.querySelector(".stream").textContent = STATES[state];
}

function begin({data, lastEventId}) {
  connectIn(SILENCE);
  attempt = 0;
  setState("open");
  const ready = JSON.parse(data);
  answered = seqOf(ready.position);
  // A stream that goes on without a gap brings what the page has missed.
  if (!position || !ready.gapless) refresh();
  position ||= lastEventId;
}

function startAnew({lastEventId}) {
  connectIn(SILENCE);
  position = lastEventId;
  bids.clear(); // The database may be another one.
  refresh();
}

function receive({data, lastEventId}) {
  connectIn(SILENCE);
  const event = JSON.parse(data);
  const last = seqOf(position);
  if (event.seq <= last) return;
  if (event.prev > Math.max(last, answered)) return connect();
  position = lastEventId;
  apply(event);
}

function apply({op, pk, data}) {
  touched.add(pk);
  if (op === "delete") {
    bids.delete(pk);
    find(pk)?.remove();
  } else if (data) {
    show(data);
  } else {
    refresh(); // A bulk change, or one too large for an event: ask.
  }
}

// The rows are asked for when the stream is open, so that nothing falls between. An event
// that arrives before the answer wins: whatever is in the answer and newer is still to
// come. `touched` holds the lots that events have changed since the question.

let touched = new Set();

async function refresh() {
  const newer = (touched = new Set());
  const isOutdated = () => newer !== touched;
  let lots;
  try {
    const response = await fetch(page.apiUrl, {cache: "no-store"});
    if (!response.ok && response.status !== 404) throw new Error(response.statusText);
    lots = response.ok ? [await response.json()].flat() : [];
  } catch {
    setTimeout(() => isOutdated() || refresh(), FIRST_DELAY);
    return;
  }
  if (isOutdated()) return;
  const ids = new Set(lots.map((lot) => lot.id));
  for (const card of cards()) {
    const id = Number(card.dataset.lotId);
    if (!ids.has(id) && !newer.has(id)) card.remove();
  }
  lots.filter((lot) => !newer.has(lot.id)).forEach(show);
}

// The lots

const cards = () => [...board.querySelectorAll("[data-lot-id]")];
const find = (id) => board.querySelector(`[data-lot-id="${id}"]`);

// An answer may be ahead of the stream, which then tells what is shown already. Bids are
// never taken back, so a lot with fewer of them is an older one.
const bids = new Map();

function show(lot) {
  const card = find(lot.id) ?? addCard(lot);
  if (!card || lot.bid_count < bids.get(lot.id)) return;
  bids.set(lot.id, lot.bid_count);
  card.dataset.status = lot.status;
  fill(card, lot);
  // Follows the price, unless the visitor has typed something else.
  card.querySelector("[name=amount]").defaultValue = lot.next_bid;
  card.querySelector(".bids")?.replaceChildren(...lot.recent_bids.map(bidRow));
  showTimes();
}

function addCard(lot) {
  if (!cardTemplate) return null;
  const card = cardTemplate.content.firstElementChild.cloneNode(true);
  card.dataset.lotId = lot.id;
  card.querySelector("a").href = lot.url;
  board.insertBefore(card, cards().find((other) => Number(other.dataset.lotId) > lot.id) ?? null);
  return card;
}

function bidRow(bid) {
  const row = bidTemplate.content.firstElementChild.cloneNode(true);
  fill(row, bid);
  return row;
}

function fill(element, values) {
  for (const node of element.querySelectorAll("[data-field]")) {
    const value = values[node.dataset.field];
    if (value === undefined) continue;
    if (node.localName === "time") {
      node.dateTime = value;
    } else if (node.textContent !== String(value)) {
      if (node.textContent) flash(node);
      node.textContent = value;
    }
  }
}

function flash(node) {
  node.classList.remove("changed");
  node.getBoundingClientRect(); // Lets the animation begin anew.
  node.classList.add("changed");
}

// Times

function showTimes() {
  for (const node of document.querySelectorAll("time[data-field=placed_at]")) {
    node.textContent = new Date(node.dateTime).toLocaleTimeString([], {
      hourCycle: "h23",
    });
  }
  for (const card of cards()) {
    const closing = card.querySelector("time[data-field=closes_at]");
    const seconds = Math.ceil((new Date(closing.dateTime) - Date.now()) / 1000);
    closing.textContent = countdown(Math.max(seconds, 0));
    const over = seconds <= 0 || card.dataset.status !== "open";
    card.classList.toggle("over", over);
    card.querySelector("fieldset").disabled = over;
  }
}

function countdown(seconds) {
  const parts = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
  const clock = parts.map((part) => String(Math.floor(part)).padStart(2, "0")).join(":");
  return `${Math.floor(seconds / 86400)}d ${clock}`;
}

// Bids

async function placeBid(form) {
  const message = form.querySelector(".message");
  const amount = form.amount.value;
  const id = form.closest("[data-lot-id]").dataset.lotId;
  message.textContent = "";
  try {
    const response = await fetch(`${page.lotsUrl}${id}/bid/`, {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({bidder: bidder.value, amount}),
    });
    form.dataset.outcome = response.ok ? "placed" : "refused";
    if (response.ok) {
      form.reset();
      message.textContent = `Your bid of €${amount} is placed.`;
    } else {
      message.textContent = reasons(await response.json());
    }
  } catch {
    form.dataset.outcome = "refused";
    message.textContent = "The auction does not answer. Try again in a moment.";
  }
}

function reasons(problem) {
  return Object.entries(problem)
    .map(([field, text]) => (field === "detail" ? text : `${field}: ${text}`))
    .join(" ");
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  placeBid(event.target);
});

bidder.value =
  localStorage.getItem("bidder") || `paddle-${100 + Math.floor(Math.random() * 900)}`;
localStorage.setItem("bidder", bidder.value);
bidder.addEventListener("change", () => localStorage.setItem("bidder", bidder.value));

setInterval(showTimes, 1000);
showTimes();
connect();
