// Statements on their way between lanes, and how many left when arrows would be too many.

const ARROWS_PER_PIXEL = 0.3; // more, and nobody sees which is which

class Arrows {
  constructor(timeline, plot) {
    this.timeline = timeline;
    this.data = timeline.data;
    this.scale = timeline.scale;
    this.plot = plot;
  }

  // Arrivals at one moment are one stroke with a dot at each; what is late is an arrow of its own.
  arrows() {
    const found = new Map();
    this.data.messages.forEach(([kind, source, sent, arrivals, , of], index) => {
      if (this.timeline.hidden.has(`m-${kind}`)) return;
      if (this.timeline.case >= 0 && of !== this.timeline.case) return;
      const from = this.timeline.middle(source);
      if (from === null) return;
      const x = this.scale.x(sent);
      for (const [lane, at] of arrivals) {
        const to = this.timeline.middle(lane);
        if (to === null || to === from || !this.timeline.isSeen(sent, at)) continue;
        const end = this.scale.x(at);
        const isFan = end - x < 4;
        const key = `${kind} ${Math.round(x / 3)} ${from} ${isFan ? "" : `${Math.round(end / 3)} ${to}`}`;
        const one = found.get(key) || { kind, x, from, end: isFan ? x : end, to: [], messages: [] };
        if (!one.to.includes(to)) one.to.push(to);
        if (one.messages.at(-1) !== index) one.messages.push(index);
        found.set(key, one);
      }
    });
    return [...found.values()];
  }

  // How many arrows were too many to draw.
  draw() {
    const arrows = this.arrows();
    this.drawTraffic(this.plot);
    const most = (this.scale.right - this.timeline.gutter) * ARROWS_PER_PIXEL;
    const picked = (one) => this.timeline.isChosen("messages", one.messages);
    const shown = arrows.length <= most ? arrows : arrows.filter(picked);
    const group = make("g", {}, this.plot);
    for (const one of shown) this.drawArrow(group, one, picked(one));
    return arrows.length - shown.length;
  }

  drawArrow(parent, one, isChosen) {
    const isFan = one.end === one.x;
    const top = Math.min(one.from, ...one.to);
    const bottom = Math.max(one.from, ...one.to);
    const path = isFan ? `M${one.x} ${top}V${bottom}` : `M${one.x} ${one.from}L${one.end} ${one.to[0]}`;
    const width = Math.min(4, 1 + Math.log2(one.messages.length) / 2) + (isChosen ? 1 : 0);
    const shape = make("g", {
      class: `arrow m-${one.kind}${isChosen ? " chosen" : ""}`, "data-messages": one.messages.slice(0, 50).join(" "),
    }, parent);
    make("path", { d: path, "stroke-width": width }, shape);
    const tips = one.to.map((y) => {
      if (isFan) return `M${one.x - 2} ${y}h4`;
      const up = one.from < y ? -1 : 1;
      return `M${one.end - 6} ${y + up * 1}L${one.end} ${y}L${one.end - 1} ${y + up * 6}`;
    });
    make("path", { d: tips.join(""), "stroke-width": 1.5 }, shape);
    make("path", { d: path, class: "hit" }, shape);
    make("title", {}, shape, this.data.messages[one.messages[0]][4] +
      (one.messages.length > 1 ? ` and ${one.messages.length - 1} more` : ""));
  }

  // How many statements left at a time: what is there to see when arrows would be too many.
  drawTraffic(plot) {
    if (!this.timeline.traffic) return;
    const base = AXIS_HEIGHT + STEPS_HEIGHT + TRAFFIC_HEIGHT + 6;
    const found = new Map();
    this.data.messages.forEach(([kind, , sent, , , of], index) => {
      if (this.timeline.hidden.has(`m-${kind}`) || !this.timeline.isSeen(sent, sent)) return;
      if (this.timeline.case >= 0 && of !== this.timeline.case) return;
      const key = `${Math.floor(this.scale.x(sent) / 6) * 6} ${kind}`;
      if (!found.has(key)) found.set(key, []);
      found.get(key).push(index);
    });
    const most = Math.max(1, ...[...found.values()].map((one) => one.length));
    make("text", { x: 6, y: base, class: "name" }, this.timeline.svg, this.timeline.gutter < 100 ? "sent" : "statements sent");
    make("line", { x1: this.timeline.gutter, x2: this.scale.right, y1: base, y2: base, class: "lane" }, plot);
    for (const [key, messages] of found) {
      const [x, kind] = key.split(" ");
      const height = 3 + (TRAFFIC_HEIGHT - 6) * (messages.length / most);
      const bar = make("rect", {
        x, y: base - height, width: 5, height, class: `traffic m-${kind}`, "data-messages": messages.slice(0, 50).join(" "),
      }, plot);
      make("title", {}, bar, `${messages.length} ${MESSAGES[kind]}`);
    }
  }
}
