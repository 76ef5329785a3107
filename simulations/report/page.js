// What people do with the page: choose, zoom, move, filter, and read what was chosen.

const LOG_ROWS = 400;

class Page {
  constructor(data) {
    this.data = data;
    this.detail = document.getElementById("detail");
    this.svg = document.getElementById("timeline");
    this.overview = document.getElementById("overview");
    this.timeline = new Timeline(data, this.svg);
    this.several = new Set(data.strips.map((strip) => strip.group)).size > 1;
    // On a telephone the drawing comes before what needs no attention.
    const held = document.getElementById("held");
    if (held && window.innerWidth < 600) held.open = false;
    this.fillCases();
    this.fillLegend();
    this.listen();
    this.listenToPointer();
    this.fillLog("");
    this.draw();
  }

  draw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.timeline.draw();
      this.drawOverview();
      const undrawn = this.timeline.undrawn;
      document.getElementById("hint").textContent = undrawn
        ? `Too many arrows to tell apart (${undrawn}): zoom in, or choose a case or a statement.`
        : "Drag to move, double-click or Ctrl and wheel to zoom, click anything for what it says.";
    });
  }

  // --- controls ------------------------------------------------------------------------

  fillCases() {
    const select = document.getElementById("case");
    const left = this.data.left.cases ? ` (${this.data.left.cases} more not here)` : "";
    html("option", { value: -1 }, select, `all ${this.data.cases.length}${left}`);
    this.data.cases.forEach((one, index) => {
      const where = this.several ? `federation ${one.group}, ` : "";
      html("option", { value: index }, select, `${where}${one.name}: ${one.by}, ${one.outcome}`);
    });
    select.addEventListener("change", () => this.chooseCase(Number(select.value)));
  }

  fillLegend() {
    const legend = document.getElementById("legend");
    const kinds = new Set(this.data.events.map((event) => event[2]));
    const sent = new Set(this.data.messages.map((message) => message[0]));
    const wrong = new Set(this.data.bands.map((band) => band[0]));
    const groups = [["k", NAMES, kinds], ["m", MESSAGES, sent], ["b", FAMILIES, wrong]];
    for (const [letter, names, used] of groups) {
      for (const [kind, name] of Object.entries(names)) {
        if (used.has(kind)) this.addToggle(legend, letter, kind, name);
      }
    }
  }

  addToggle(legend, letter, kind, name) {
    const key = `${letter}-${kind}`;
    const hidden = this.timeline.hidden;
    const button = html("button", { type: "button", "aria-pressed": !hidden.has(key) }, legend);
    const icon = make("svg", { viewBox: "-9 -7 18 14", "aria-hidden": "true" }, button);
    if (letter === "k") make("path", { d: SIGNS[kind], class: key, "fill-rule": "evenodd" }, icon);
    if (letter === "m") make("path", { d: "M-8 4L7-4M2-5L7-4L4 0", class: key, fill: "none", "stroke-width": 1.6 }, icon);
    if (letter === "b") {
      make("rect", { x: -8, y: -5, width: 16, height: 10, class: key, "fill-opacity": 0.22 }, icon);
      if (HATCHES[kind] !== undefined) make("rect", { x: -8, y: -5, width: 16, height: 10, fill: `url(#h-${kind})` }, icon);
    }
    html("span", {}, button, name);
    button.addEventListener("click", () => {
      if (hidden.has(key)) hidden.delete(key);
      else hidden.add(key);
      button.setAttribute("aria-pressed", !hidden.has(key));
      this.draw();
    });
  }

  listen() {
    const scale = this.timeline.scale;
    const on = (id, act) => document.getElementById(id).addEventListener("click", () => { act(); this.draw(); });
    on("in", () => scale.zoom(0.5, this.centre()));
    on("out", () => scale.zoom(2, this.centre()));
    on("busy", () => scale.show(this.data.busy[0], this.data.busy[1]));
    on("whole", () => scale.show(0, this.data.length));
    const worst = document.getElementById("worst");
    worst.hidden = this.data.strips.length < 2;
    on("worst", () => {
      this.timeline.worstFirst = !this.timeline.worstFirst;
      worst.setAttribute("aria-pressed", this.timeline.worstFirst);
    });
    on("before", () => this.step(-1));
    on("after", () => this.step(1));
    window.addEventListener("resize", () => this.draw());
    document.getElementById("filter").addEventListener("input", (event) => this.fillLog(event.target.value));
    document.body.addEventListener("click", (event) => {
      const go = event.target.closest(".go");
      if (!go) return;
      if (go.dataset.case !== undefined) this.chooseCase(Number(go.dataset.case), true);
      else if (go.dataset.event !== undefined) this.chooseEvents([Number(go.dataset.event)], true);
      else if (go.dataset.at !== undefined) this.goTo(Number(go.dataset.at));
    });
    this.svg.addEventListener("keydown", (event) => {
      const acts = {
        ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
        "+": () => scale.zoom(0.5, this.centre()), "-": () => scale.zoom(2, this.centre()),
      };
      if (!acts[event.key]) return;
      event.preventDefault();
      acts[event.key]();
      this.draw();
    });
  }

  centre() {
    const { scale, chosen } = this.timeline;
    const at = chosen && chosen.at;
    return at >= scale.from && at <= scale.to ? at : (scale.from + scale.to) / 2;
  }

  step(by) {
    const { chosen, hidden, case: of } = this.timeline;
    let index = chosen && chosen.what === "events" ? chosen.index + by : by > 0 ? 0 : this.data.events.length - 1;
    while (this.data.events[index]) {
      const event = this.data.events[index];
      if (!hidden.has(`k-${event[2]}`) && (of < 0 || event[4] === of)) break;
      index += by;
    }
    if (this.data.events[index]) this.chooseEvents([index], true);
  }

  listenToPointer() {
    const { svg, timeline } = this;
    const scale = timeline.scale;
    let start = null;
    svg.addEventListener("pointerdown", (event) => {
      if (event.button === 0) start = { x: event.clientX, from: scale.from, to: scale.to, moved: false };
    });
    svg.addEventListener("pointermove", (event) => {
      if (!start) return;
      const by = event.clientX - start.x;
      if (!start.moved && Math.abs(by) < 5) return;
      if (!start.moved) svg.setPointerCapture(event.pointerId);
      start.moved = true;
      svg.classList.add("moving");
      const each = (start.to - start.from) / (scale.right - scale.left);
      scale.show(start.from - by * each, start.to - by * each);
      this.draw();
    });
    const end = () => {
      svg.classList.remove("moving");
      this.wasMoved = Boolean(start && start.moved);
      start = null;
    };
    svg.addEventListener("pointerup", end);
    svg.addEventListener("pointercancel", end);
    const at = (event) => scale.at(event.clientX - svg.getBoundingClientRect().left);
    svg.addEventListener("dblclick", (event) => {
      scale.zoom(0.4, at(event));
      this.draw();
    });
    svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      scale.zoom(event.deltaY > 0 ? 1.25 : 0.8, at(event));
      this.draw();
    }, { passive: false });
    svg.addEventListener("click", (event) => { if (!this.wasMoved) this.clicked(event.target); });
    this.overview.addEventListener("click", (event) => {
      const box = this.overview.getBoundingClientRect();
      this.goTo(((event.clientX - box.left) / box.width) * this.data.length);
    });
  }

  clicked(target) {
    const numbers = (text) => text.split(" ").map(Number);
    const one = target.closest("[data-events], [data-messages], [data-band], [data-case]");
    if (!one) return;
    if (one.dataset.events) this.chooseEvents(numbers(one.dataset.events), false);
    else if (one.dataset.messages) this.chooseMessages(numbers(one.dataset.messages));
    else if (one.dataset.band) this.showBand(Number(one.dataset.band));
    else this.chooseCase(Number(one.dataset.case));
  }

  // --- choosing -------------------------------------------------------------------------

  goTo(at) {
    const scale = this.timeline.scale;
    const span = Math.min(scale.to - scale.from, Math.max(3600000, (this.data.busy[1] - this.data.busy[0]) / 8));
    scale.show(at - span / 2, at + span / 2);
    this.timeline.chosen = { what: "time", at };
    this.reveal();
    this.draw();
  }

  reveal() {
    const box = this.svg.getBoundingClientRect();
    if (box.top < 0 || box.top > window.innerHeight * 0.7) {
      document.getElementById("drawing").scrollIntoView({ block: "start" });
    }
  }

  chooseCase(index, reveal) {
    this.timeline.case = index;
    document.getElementById("case").value = index;
    for (const row of document.querySelectorAll("tr")) row.classList.remove("chosen");
    if (index >= 0) {
      const button = document.querySelector(`button[data-case="${index}"]`);
      if (button) button.closest("tr").classList.add("chosen");
      const one = this.data.cases[index];
      const last = this.timeline.lastOf(one);
      const margin = Math.max(60000, (last - one.made) / 12);
      this.timeline.scale.show(one.made - margin, last + margin);
      this.data.strips.forEach((strip, place) => {
        if (strip.group === one.group && strip.full && strip.lanes.length <= 48 && this.data.strips.length > 1) {
          if (this.data.strips.filter((other) => other.group === one.group).length === 1) this.timeline.open.add(place);
        }
      });
      this.showCase(one);
    } else {
      this.timeline.scale.show(this.data.busy[0], this.data.busy[1]);
    }
    if (reveal) this.reveal();
    this.draw();
  }

  chooseEvents(indices, move) {
    const scale = this.timeline.scale;
    const at = this.data.events[indices[0]][0];
    this.timeline.chosen = { what: "events", index: indices[0], at };
    if (move) {
      if (at < scale.from || at > scale.to) scale.show(at - (scale.to - scale.from) / 2, at + (scale.to - scale.from) / 2);
      this.reveal();
    }
    this.clearDetail(indices.length > 1 ? `${indices.length} events` : this.data.events[indices[0]][3]);
    if (indices.length > 1) {
      const list = html("ul", { class: "chain" }, this.detail);
      for (const index of indices) {
        const [when, , , text] = this.data.events[index];
        const item = html("li", {}, list);
        html("button", { type: "button", class: "go", "data-event": index }, item, moment(when));
        item.append(` ${text}`);
      }
    } else this.tellEvent(indices[0]);
    this.draw();
  }

  tellEvent(index) {
    const [at, lane, kind, text, of, , facts] = this.data.events[index];
    const rows = [["when", moment(at)]];
    if (lane >= 0) rows.push(["who", this.nameOf(lane)]);
    if (of >= 0) rows.push(["claim", this.data.cases[of].name]);
    if (kind === "deceived") rows.push(["deceived", "this person was fooled; the vote counts"]);
    this.tell([...rows, ...facts]);
    // The statement that came of it: the same guardian's, on the same case, just before or after.
    const wanted = { approve: "vote", deceived: "vote", release: "release" }[kind];
    const message = this.data.messages.findIndex((one) => one[0] === wanted && one[1] === lane &&
      one[5] === of && one[6].length && Math.abs(one[2] - at) <= 5000);
    if (wanted && message >= 0) {
      html("h3", {}, this.detail, "the statement");
      this.tellMessage(message);
    }
  }

  chooseMessages(indices) {
    const first = this.data.messages[indices[0]];
    this.timeline.chosen = { what: "messages", index: indices[0], at: first[2] };
    this.clearDetail(indices.length > 1 ? `${indices.length} statements` : first[4]);
    for (const index of indices.slice(0, 12)) {
      if (indices.length > 1) html("h3", {}, this.detail, this.data.messages[index][4]);
      this.tellMessage(index);
    }
    if (indices.length > 12) html("p", {}, this.detail, `and ${indices.length - 12} more: zoom in`);
    this.draw();
  }

  tellMessage(index) {
    const [, source, sent, arrivals, , , facts] = this.data.messages[index];
    this.tell([["left", `${this.nameOf(source)}, ${moment(sent)}`], ...facts]);
    if (!arrivals.length) return html("p", {}, this.detail, "reached nobody else");
    const details = html("details", arrivals.length <= 12 ? { open: "" } : {}, this.detail);
    const what = this.data.folded ? " strips (one arrival each is kept)" : "";
    html("summary", {}, details, `reached ${arrivals.length}${what}, the last after ${lasting(Math.max(...arrivals.map((one) => one[1])) - sent)}`);
    const list = html("ul", { class: "excerpt" }, details);
    for (const [lane, at] of arrivals.slice(0, 200)) {
      html("li", {}, list, `${this.nameOf(lane)} after ${lasting(at - sent)}`);
    }
    return details;
  }

  showBand(index) {
    const [family, lanes, begin, end, text] = this.data.bands[index];
    this.timeline.chosen = { what: "band", at: begin };
    this.clearDetail(text);
    const until = end < 0 ? "to the end of the run" : `${moment(end)}, after ${lasting(end - begin)}`;
    this.tell([["sort", FAMILIES[family]], ["from", moment(begin)], ["until", until],
      ["on", lanes.map((lane) => this.nameOf(lane)).join(", ")]]);
    this.draw();
  }

  showCase(one) {
    this.clearDetail(`${one.name}: ${one.outcome}`);
    const stood = one.approvals.length >= one.quorum ? one.approvals[one.quorum - 1][0] : 0;
    const rows = [["by", one.by], ["made", moment(one.made)]];
    rows.push(["quorum", stood ? `${one.quorum}, complete ${moment(stood)}` : `${one.quorum}, never complete`]);
    rows.push(["waiting period", lasting(one.waiting)]);
    if (one.vetoed) rows.push(["vetoed", moment(one.vetoed)]);
    if (one.releases.length) rows.push(["releases", `${one.releases.length}, the first ${moment(one.releases[0][0])}`]);
    if (one.recovered) rows.push(["secret put together", `${moment(one.recovered)}, after ${lasting(one.recovered - one.made)}`]);
    this.tell(rows);
    html("h3", {}, this.detail, "approvals");
    const list = html("ol", { class: "excerpt" }, this.detail);
    for (const [at, lane, deceived] of one.approvals.slice(0, 100)) {
      html("li", {}, list, `${moment(at)} ${this.nameOf(lane)}${deceived ? ", deceived" : ""}`);
    }
    if (!one.approvals.length) html("li", {}, list, "none");
  }

  nameOf(lane) {
    if (lane < 0) return "the world";
    const [name, , , note] = this.data.lanes[lane];
    return note ? `${name} (${note})` : name;
  }

  clearDetail(title) {
    this.detail.replaceChildren();
    this.detail.classList.remove("empty");
    this.detail.scrollTop = 0;
    const close = html("button", { type: "button", class: "close", title: "close" }, this.detail, "×");
    close.addEventListener("click", () => {
      this.detail.replaceChildren();
      this.detail.classList.add("empty");
      this.timeline.chosen = null;
      this.draw();
    });
    html("h3", {}, this.detail, title);
  }

  tell(rows) {
    const list = html("dl", {}, this.detail);
    for (const [key, value] of rows) {
      const row = html("div", {}, list);
      html("dt", {}, row, key);
      html("dd", {}, row, value);
    }
  }

  // --- the list and the overview -----------------------------------------------------------

  fillLog(words) {
    const log = document.getElementById("log");
    log.replaceChildren();
    const wanted = words.trim().toLowerCase();
    let found = 0;
    this.data.events.forEach(([at, , kind, text, , group], index) => {
      const said = this.several ? `federation ${group}: ${text}` : text;
      if (wanted && !said.toLowerCase().includes(wanted)) return;
      found += 1;
      if (found > LOG_ROWS) return;
      const item = html("li", { class: kind }, log);
      html("button", { type: "button", class: "go", "data-event": index }, item, moment(at));
      item.append(` ${said}`);
    });
    const left = found > LOG_ROWS ? `, the first ${LOG_ROWS} of them here` : "";
    const more = this.data.left.events ? `; ${this.data.left.events} more in events.jsonl` : "";
    document.getElementById("count").textContent = `${found} events${left}${more}`;
  }

  drawOverview() {
    const { overview, data } = this;
    const width = overview.clientWidth || 800;
    const x = (at) => (at / Math.max(1, data.length)) * width;
    overview.replaceChildren();
    overview.setAttribute("viewBox", `0 0 ${width} 30`);
    const counts = new Map();
    const add = (at, sort) => {
      const bin = Math.floor(x(at) / 3) * 3;
      const one = counts.get(bin) || [0, 0];
      one[sort] += 1;
      counts.set(bin, one);
    };
    for (const [at, , kind] of data.events) add(at, ["fault", "down", "deceived", "veto", "note"].includes(kind) ? 1 : 0);
    make("line", { x1: 0, x2: width, y1: 26, y2: 26, class: "lane" }, overview);
    for (const [bin, [warm, trouble]] of counts) {
      const height = (count) => Math.min(22, 3 + 3 * Math.log2(count + 1));
      if (warm) make("rect", { x: bin, y: 26 - height(warm), width: 2.5, height: height(warm), class: "heat-warm" }, overview);
      if (trouble) make("rect", { x: bin, y: 26, width: 2.5, height: 4, class: "heat-trouble" }, overview);
    }
    for (const [, at] of data.findings) make("line", { x1: x(at), x2: x(at), y1: 0, y2: 30, class: "broke" }, overview);
    const { from, to } = this.timeline.scale;
    make("rect", { x: x(from), y: 0, width: Math.max(2, x(to) - x(from)), height: 30, class: "window" }, overview);
    for (const at of [from, to]) make("line", { x1: x(at), x2: x(at), y1: 0, y2: 30, class: "window-edge" }, overview);
  }
}

window.report = new Page(JSON.parse(document.getElementById("data").textContent));
