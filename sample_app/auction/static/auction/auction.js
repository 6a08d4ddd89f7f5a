// Keeps the lots on the page current, and places bids.
//
// The server renders the page; from then on a live collection says what changed. Every
// [data-field] inside a lot shows the field of that name.

import {collection} from "../grip_rest_framework/realtime.js";

const page = document.body.dataset;
const board = document.querySelector("main");
const cardTemplate = document.querySelector("#card");
const bidTemplate = document.querySelector("#bid");
const bidder = document.querySelector("[name=bidder]");

const STATES = {
  connecting: "Connecting",
  open: "Live",
  stale: "Reconnecting",
  denied: "Not for you",
};

const lots = collection(page.streamUrl);

lots.on("state", (state) => {
  page.streamState = state;
  document.querySelector(".stream").textContent = STATES[state];
  // A lot that is gone, and all of its page.
  if (state === "denied") board.replaceChildren();
});

lots.on("change", ({op, key, row}) => {
  if (op === "load") showAll();
  else if (row) show(row);
  else remove(key);
});

// The lots

const cards = () => [...board.querySelectorAll("[data-lot-id]")];
const find = (id) => board.querySelector(`[data-lot-id="${id}"]`);

// The rows may be ahead of the events, which then tell what is shown already. Bids are
// never taken back, so a lot with fewer of them is an older one, unless all is anew.
const bids = new Map();

function showAll() {
  bids.clear();
  for (const card of cards()) if (!lots.has(card.dataset.lotId)) card.remove();
  lots.rows.forEach(show);
}

function remove(id) {
  bids.delete(Number(id));
  find(id)?.remove();
}

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
      headers: {"Content-Type": "application/json", "X-CSRFToken": csrfToken()},
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

const csrfToken = () => /(?:^|; )csrftoken=(\w+)/.exec(document.cookie)?.[1] ?? "";

function reasons(problem) {
  return Object.entries(problem)
    .map(([field, text]) => (field === "detail" ? text : `${field}: ${text}`))
    .join(" ");
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches(".bid")) return;
  event.preventDefault();
  placeBid(event.target);
});

bidder.value =
  localStorage.getItem("bidder") || `paddle-${100 + Math.floor(Math.random() * 900)}`;
localStorage.setItem("bidder", bidder.value);
bidder.addEventListener("change", () => localStorage.setItem("bidder", bidder.value));

setInterval(showTimes, 1000);
showTimes();
