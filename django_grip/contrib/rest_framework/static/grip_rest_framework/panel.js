// The panel of a stream in the browsable API.
//
// It reads the stream with fetch: EventSource tells neither why a stream is refused nor
// of events whose names are not known before. What comes is shown as text.
"use strict";

(() => {
  const KEPT = 100; // Events that stay on the page.

  class Panel {
    constructor(element) {
      this.element = element;
      this.button = element.querySelector("button");
      this.status = element.querySelector('[role="status"]');
      this.log = element.querySelector("ol");
      this.position = null; // The id of the last event: the stream goes on from there.
      this.request = null;
      this.button.addEventListener("click", () => {
        if (this.request) this.request.abort();
        else this.connect();
      });
      this.button.disabled = false;
    }

    async connect() {
      const request = (this.request = new AbortController());
      this.button.textContent = "Disconnect";
      this.show("connecting");
      try {
        const response = await fetch(this.element.dataset.streamUrl, {
          headers: {
            Accept: "text/event-stream",
            ...(this.position && { "Last-Event-ID": this.position }),
          },
          cache: "no-store",
          signal: request.signal,
        });
        const type = response.headers.get("Content-Type") || "";
        if (response.ok && type.startsWith("text/event-stream")) {
          this.show("open");
          await this.read(response.body);
          this.show("closed", "ended by the server");
        } else {
          this.show("refused", await reason(response, type));
        }
      } catch (error) {
        if (request.signal.aborted) this.show("closed");
        else this.show("closed", `the connection failed (${error.message})`);
      }
      this.request = null;
      this.button.textContent = "Connect";
    }

    async read(body) {
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      let fields = {};
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (line) field(fields, line);
          else {
            if (fields.id !== undefined) this.position = fields.id;
            if (fields.data !== undefined) this.add(fields);
            fields = {};
          }
        }
      }
    }

    add({ event = "message", data, id }) {
      const item = document.createElement("li");
      const time = document.createElement("time");
      const name = document.createElement("strong");
      const text = document.createElement("pre");
      time.textContent = new Date().toLocaleTimeString();
      name.textContent = event;
      text.textContent = indented(data);
      item.append(time, " ", name, id === undefined ? "" : ` ${id}`, text);
      this.log.prepend(item);
      while (this.log.children.length > KEPT) this.log.lastChild.remove();
      this.log.hidden = false;
    }

    show(state, why) {
      this.element.dataset.streamState = state;
      this.status.textContent = why ? `${state}: ${why}` : state;
    }
  }

  function field(fields, line) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === "data" && "data" in fields) fields.data += `\n${value}`;
    else fields[name] = value;
  }

  function indented(data) {
    try {
      return JSON.stringify(JSON.parse(data), null, 2);
    } catch {
      return data;
    }
  }

  async function reason(response, type) {
    const status = `${response.status} ${response.statusText}`.trim();
    if (response.ok) return `${status}, but no event stream (${type || "no type"})`;
    const text = await response.text();
    try {
      const body = JSON.parse(text);
      return `${status}. ${body.detail || JSON.stringify(body)}`;
    } catch {
      return type.startsWith("text/plain") ? `${status}. ${text}` : status;
    }
  }

  document.querySelectorAll("[data-stream-url]").forEach((each) => new Panel(each));
})();
