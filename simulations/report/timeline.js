// The drawing: a staircase of votes above lanes over time, redrawn whole at every change.

const STEPS_HEIGHT = 116;
const AXIS_HEIGHT = 24;
const STRIPS_FIRST = 80; // heat strips shown before someone asks for all
const TRAFFIC_HEIGHT = 22;

class Timeline {
  constructor(data, svg) {
    this.data = data;
    this.svg = svg;
    this.scale = new Scale(data.length);
    this.scale.show(data.busy[0], data.busy[1]);
    this.hidden = new Set(["other"].map((kind) => `m-${kind}`));
    this.open = new Set();
    this.all = false;
    this.chosen = null; // {what, index}
    this.case = -1;
    this.worstFirst = false;
    const lanes = data.strips.reduce((sum, strip) => sum + strip.lanes.length, 0);
    if (lanes <= 48 || data.strips.length === 1) {
      data.strips.forEach((strip, index) => this.open.add(index));
    }
    this.stripOf = new Map();
    data.strips.forEach((strip, index) => strip.lanes.forEach((lane) => this.stripOf.set(lane, index)));
    this.byLane = new Map();
    data.events.forEach((event, index) => {
      if (!this.byLane.has(event[1])) this.byLane.set(event[1], []);
      this.byLane.get(event[1]).push(index);
    });
    this.trouble = this.countTrouble();
  }

  // What strangers got weighs most; then whatever went wrong.
  countTrouble() {
    const { strips, heat, cases, findings } = this.data;
    const counts = strips.map((strip, index) => (heat[index] || []).reduce((sum, bin) => sum + bin[3], 0));
    for (const [, lane, kind] of this.data.events) {
      if (!["claim", "approve", "release", "recovered", "back"].includes(kind)) counts[this.stripOf.get(lane)] += 1;
    }
    this.stolen = new Set(cases.filter((one) => one.by === "thief" && one.recovered).map((one) => one.group));
    return strips.map((strip, index) => counts[index] + (this.stolen.has(strip.group) ? 1000 : 0));
  }

  draw() {
    const width = this.svg.clientWidth || 800;
    this.gutter = width < 560 ? 74 : 168;
    this.scale.left = this.gutter;
    this.scale.right = width - 14;
    this.layOut();
    const height = this.bottom + 10;
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("height", height);
    const defs = hatches(this.svg);
    const clip = make("clipPath", { id: "plot" }, defs);
    make("rect", { x: this.gutter, y: 0, width: width - this.gutter - 4, height }, clip);
    this.drawRows();
    this.drawAxis(height);
    const plot = make("g", { "clip-path": "url(#plot)" }, this.svg);
    this.drawHeat(plot);
    this.drawBands(plot);
    this.undrawn = new Arrows(this, plot).draw();
    new Staircase(this, plot).draw();
    this.drawMarks(plot);
    this.drawFindings(plot, height);
    this.drawLabels();
  }

  // Rows from top to bottom: strips that are closed are one row, open ones a row a lane.
  layOut() {
    let strips = this.data.strips.map((strip, index) => index);
    if (this.worstFirst) strips.sort((a, b) => this.trouble[b] - this.trouble[a] || a - b);
    if (!this.all && strips.length > STRIPS_FIRST) {
      const shown = this.case >= 0 ? this.data.cases[this.case].group : -1;
      const first = (index) => this.open.has(index) || this.data.strips[index].group === shown;
      const place = new Map(strips.map((strip, index) => [strip, index]));
      strips.sort((a, b) => first(b) - first(a) || place.get(a) - place.get(b));
      strips = strips.slice(0, STRIPS_FIRST);
    }
    this.shown = strips;
    this.rows = [];
    this.rowOf = new Map();
    this.traffic = this.data.messages.length ? TRAFFIC_HEIGHT : 0;
    let y = AXIS_HEIGHT + STEPS_HEIGHT + 14 + this.traffic;
    const open = strips.reduce((sum, one) =>
      sum + (this.open.has(one) ? this.data.strips[one].lanes.length : 0), 0);
    const tall = open <= 14 ? 30 : open <= 40 ? 22 : 16;
    for (const strip of strips) {
      const isOpen = this.open.has(strip);
      if (!isOpen || this.data.strips.length > 1) {
        this.rows.push({ strip, y, height: 17, isHead: isOpen });
        if (!isOpen) for (const lane of this.data.strips[strip].lanes) this.rowOf.set(lane, this.rows.at(-1));
        y += 18;
      }
      if (!isOpen) continue;
      for (const lane of this.data.strips[strip].lanes) {
        const row = { strip, lane, y, height: tall };
        this.rows.push(row);
        this.rowOf.set(lane, row);
        y += tall;
      }
    }
    this.bottom = y;
  }

  middle(lane) {
    const row = this.rowOf.get(lane);
    return row ? row.y + row.height / 2 : null;
  }

  isSeen(from, to) {
    return to >= this.scale.from && from <= this.scale.to;
  }

  dims(of) {
    return this.case >= 0 && of !== this.case ? " dim" : "";
  }

  drawRows() {
    const group = make("g", {}, this.svg);
    this.rows.forEach((row, index) => {
      if (row.lane === undefined) return;
      if (index % 2) {
        make("rect", { x: 0, y: row.y, width: this.scale.right + 10, height: row.height, class: "zebra" }, group);
      }
      const y = row.y + row.height / 2;
      make("line", { x1: this.gutter, x2: this.scale.right, y1: y, y2: y, class: "lane" }, group);
    });
  }

  drawAxis(height) {
    const group = make("g", {}, this.svg);
    const [step, ticks] = this.scale.ticks(this.gutter < 100 ? 62 : 78);
    let day = -1;
    for (const at of ticks) {
      const x = this.scale.x(at);
      make("line", { x1: x, x2: x, y1: AXIS_HEIGHT - 6, y2: height - 6, class: "grid" }, group);
      const today = Math.floor(at / DAY);
      const isFirst = step < DAY && day !== today && at % DAY !== 0;
      day = today;
      const label = (isFirst ? `d${today} ` : "") + tickLabel(at, step);
      make("text", { x, y: 14, "text-anchor": "middle" }, group, label);
    }
    const calm = this.scale.x(this.data.calm);
    if (calm > this.gutter && calm < this.scale.right) {
      make("line", { x1: calm, x2: calm, y1: AXIS_HEIGHT, y2: height - 6, class: "calm" }, group);
      const near = calm > this.scale.right - 70;
      make("text", { x: calm + (near ? -4 : 4), y: height - 2, "text-anchor": near ? "end" : "start" }, group, "faults end");
    }
  }

  drawLabels() {
    const group = make("g", {}, this.svg);
    for (const row of this.rows) {
      if (row.lane === undefined) this.drawStripLabel(row, group);
      else this.drawLaneLabel(row, group);
    }
    const rest = this.data.strips.length - this.shown.length;
    if (rest > 0) {
      const more = make("text", { x: 6, y: this.bottom + 6, class: "name strip" }, group, `and ${rest} more…`);
      more.addEventListener("click", () => { this.all = true; this.draw(); });
    }
  }

  drawStripLabel(row, group) {
    const strip = this.data.strips[row.strip];
    const label = make("g", { class: strip.full ? "strip" : "" , "data-strip": row.strip }, group);
    const sign = strip.full ? (row.isHead ? "▾ " : "▸ ") : "  ";
    const isStolen = this.stolen.has(strip.group);
    const name = this.gutter < 100 ? strip.short : strip.name;
    const text = shortened(name, this.gutter - (isStolen ? 34 : 20), 6.4) + (isStolen ? " ✗" : "");
    make("rect", { x: 0, y: row.y, width: this.gutter, height: row.height, fill: "transparent" }, label);
    make("text", { x: 6, y: row.y + 13, class: isStolen ? "name wrong" : "name" }, label, sign + text);
    make("title", {}, label, `${strip.name}: ${strip.lanes.length} lanes` +
      (isStolen ? ", a stranger got a secret" : ""));
    if (strip.full) label.addEventListener("click", () => this.toggle(row.strip));
  }

  toggle(strip) {
    if (this.open.has(strip)) this.open.delete(strip);
    else this.open.add(strip);
    this.draw();
  }

  drawLaneLabel(row, group) {
    const [name, short, , note] = this.data.lanes[row.lane];
    const isNarrow = this.gutter < 100;
    const hasRoom = note && row.height >= 28 && !isNarrow;
    const y = row.y + row.height / 2 + (hasRoom ? -2 : 4);
    const shown = (isNarrow ? short : name) + (note && !hasRoom ? " ✗" : "");
    const label = make("text", {
      x: 6, y, class: note ? "name wrong" : "name",
    }, group, shortened(shown, this.gutter - 10, 6.4));
    make("title", {}, label, note ? `${name}: ${note}` : name);
    if (hasRoom) make("text", { x: 6, y: y + 12 }, group, shortened(note, this.gutter - 10, 5.8));
  }

  drawBands(plot) {
    this.data.bands.forEach(([family, lanes, begin, end, text], index) => {
      const until = end < 0 ? this.data.length : end;
      if (this.hidden.has(`b-${family}`) || !this.isSeen(begin, until)) return;
      const x = Math.max(this.scale.x(begin), this.gutter - 4);
      const width = Math.max(2, Math.min(this.scale.x(until), this.scale.right + 8) - x);
      const group = make("g", { class: `band b-${family}`, "data-band": index }, plot);
      make("title", {}, group, text);
      const closed = new Set();
      for (const lane of lanes) {
        const row = this.rowOf.get(lane);
        if (row && row.lane === undefined) closed.add(row);
        if (!row || row.lane === undefined) continue;
        const box = { x, y: row.y + 2, width, height: row.height - 4, rx: 2 };
        make("rect", { ...box, class: `b-${family}` }, group);
        if (HATCHES[family] !== undefined) {
          make("rect", { ...box, fill: `url(#h-${family})`, stroke: "none", "fill-opacity": 1 }, group);
        }
      }
      for (const row of closed) {
        make("rect", { x, y: row.y + 1, width, height: row.height - 3, class: `b-${family}` }, group);
      }
      const first = this.rowOf.get(lanes[0]);
      if (width > 70 && first && first.lane !== undefined && first.height >= 20 && family !== "liar") {
        make("text", { x: x + 5, y: first.y + 12 }, group, shortened(text, width - 8, 5.4));
      }
    });
  }

  // Closed strips: how much happened, by colour and depth; trouble as a line below.
  drawHeat(plot) {
    for (const row of this.rows) {
      if (row.lane !== undefined || row.isHead) continue;
      const group = make("g", {}, plot);
      make("rect", {
        x: this.gutter, y: row.y + 1, width: this.scale.right - this.gutter, height: row.height - 2, class: "zebra",
      }, group);
      for (const [x, width, warm, done, trouble] of this.bins(row.strip)) {
        const depth = (count) => Math.min(1, 0.25 + 0.16 * Math.log2(count + 1));
        if (warm || done) {
          make("rect", {
            x, y: row.y + 1, width, height: row.height - 5, "fill-opacity": depth(warm + done),
            class: done > warm ? "heat-done" : "heat-warm",
          }, group);
        }
        if (trouble) make("rect", { x, y: row.y + row.height - 4, width, height: 3, class: "heat-trouble" }, group);
      }
    }
  }

  bins(strip) {
    if (!this.data.strips[strip].full) {
      const [from, to] = this.data.busy;
      const size = (to - from) / this.data.bins;
      return (this.data.heat[strip] || [])
        .filter(([bin]) => this.isSeen(from + bin * size, from + (bin + 1) * size))
        .map(([bin, ...counts]) => {
          const x = this.scale.x(from + bin * size);
          return [x, Math.max(2, this.scale.x(from + (bin + 1) * size) - x), ...counts];
        });
    }
    const found = new Map();
    for (const lane of this.data.strips[strip].lanes) {
      for (const index of this.byLane.get(lane) || []) {
        const [at, , kind, , of] = this.data.events[index];
        if (!this.isSeen(at, at) || this.hidden.has(`k-${kind}`)) continue;
        if (this.case >= 0 && of !== this.case) continue;
        const x = Math.floor(this.scale.x(at) / 4) * 4;
        const bin = found.get(x) || [x, 4, 0, 0, 0];
        const sort = ["approve", "claim"].includes(kind) ? 2 : ["release", "recovered"].includes(kind) ? 3 : 4;
        bin[sort] += 1;
        found.set(x, bin);
      }
    }
    return found.values();
  }

  isChosen(what, indices) {
    return this.chosen !== null && this.chosen.what === what && indices.includes(this.chosen.index);
  }

  lastOf(one) {
    const times = [one.made, one.vetoed, one.recovered];
    for (const [at] of one.approvals) times.push(at);
    for (const [at] of one.releases) times.push(at);
    return Math.max(...times);
  }

  // --- marks -------------------------------------------------------------------------------

  drawMarks(plot) {
    const group = make("g", {}, plot);
    for (const row of this.rows) {
      if (row.lane !== undefined) this.drawLaneMarks(group, row);
    }
  }

  drawLaneMarks(parent, row) {
    const latest = new Map();
    const clusters = [];
    for (const index of this.byLane.get(row.lane) || []) {
      const [at, , kind, , of] = this.data.events[index];
      if (this.hidden.has(`k-${kind}`) || !this.isSeen(at, at)) continue;
      const x = this.scale.x(at);
      const dim = this.dims(of);
      // A short night is one sign, not two on top of each other.
      if (kind === "back" && latest.has("down") && x - latest.get("down").x < 12) continue;
      const before = latest.get(kind + dim);
      if (before && x - before.x < 7) before.events.push(index);
      else {
        const cluster = { kind, x, dim, events: [index] };
        latest.set(kind + dim, cluster);
        clusters.push(cluster);
      }
    }
    const y = row.y + row.height / 2;
    const size = row.height >= 22 ? 1 : 0.75;
    for (const one of clusters) {
      const is = this.isChosen("events", one.events);
      const group = make("g", {
        class: `mark${is ? " chosen" : one.dim}`, "data-events": one.events.slice(0, 50).join(" "),
      }, parent);
      make("title", {}, group, one.events.slice(0, 5).map((index) => this.data.events[index][3]).join("\n"));
      sign(group, one.kind, one.x, y, size * (is ? 1.35 : 1));
      if (one.events.length > 1 && row.height >= 22) {
        make("text", { x: one.x + 5, y: y - 5 }, group, one.events.length);
      }
    }
  }

  drawFindings(plot, height) {
    const seen = new Set();
    for (const [id, at, statement] of this.data.findings) {
      const x = this.scale.x(at);
      const key = `${id} ${Math.round(x / 8)}`;
      if (seen.has(key) || !this.isSeen(at, at)) continue;
      seen.add(key);
      const line = make("line", { x1: x, x2: x, y1: AXIS_HEIGHT, y2: height - 6, class: "broke" }, plot);
      make("title", {}, line, `${id}: ${statement}`);
      const near = x > this.scale.right - 40;
      make("text", { x: x + (near ? -4 : 4), y: AXIS_HEIGHT + 10, class: "broke", "text-anchor": near ? "end" : "start" }, plot, id);
    }
    if (this.chosen && this.chosen.at !== undefined) {
      const x = this.scale.x(this.chosen.at);
      make("line", { x1: x, x2: x, y1: AXIS_HEIGHT - 6, y2: height - 6, class: "cursor" }, plot);
    }
  }
}
