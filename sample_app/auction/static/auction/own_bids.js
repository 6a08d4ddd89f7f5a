// Keeps the list of one's own bids current, until one logs out.

import {collection} from "../grip_rest_framework/realtime.js";

const page = document.body.dataset;
const list = document.querySelector("main ol");
const template = document.querySelector("#own-bid");

const STATES = {
  connecting: "Connecting",
  open: "Live",
  stale: "Reconnecting",
  denied: "Logged out",
};

const bids = collection(page.streamUrl);

bids.on("state", (state) => {
  page.streamState = state;
  document.querySelector(".stream").textContent = STATES[state];
  if (state === "denied") list.replaceChildren();
});

bids.on("change", () => {
  const newestFirst = bids.rows.toSorted((one, other) => other.id - one.id);
  list.replaceChildren(...newestFirst.map(item));
});

function item(bid) {
  const row = template.content.firstElementChild.cloneNode(true);
  const link = row.querySelector("a");
  link.href = bid.url;
  link.textContent = bid.title;
  row.querySelector("[data-field=amount]").textContent = bid.amount;
  return row;
}
