// Above the lanes: how each claim's votes climb to the quorum; of many claims, how many so far.

const STAIRS_MAX = 6;

class Staircase {
  constructor(timeline, plot) {
    this.timeline = timeline;
    this.data = timeline.data;
    this.scale = timeline.scale;
    this.left = timeline.gutter;
    this.isNarrow = timeline.gutter < 100;
    this.plot = plot;
    this.base = AXIS_HEIGHT + STEPS_HEIGHT;
    this.labels = make("g", {}, timeline.svg);
  }

  draw() {
    const { base, left, labels } = this;
    make("line", { x1: left, x2: this.scale.right, y1: base, y2: base, class: "lane" }, labels);
    make("text", { x: left - 6, y: base, "text-anchor": "end" }, labels, "0");
    const shown = this.shown();
    if (shown.length > STAIRS_MAX) this.drawMany(shown.map((index) => this.data.cases[index]));
    else this.drawFew(shown);
  }

  shown() {
    if (this.timeline.case >= 0) return [this.timeline.case];
    return this.data.cases.map((one, index) => index).filter((index) => {
      const one = this.data.cases[index];
      return this.timeline.isSeen(one.made, this.timeline.lastOf(one));
    });
  }

  title(text, short) {
    const y = AXIS_HEIGHT + 10;
    make("text", { x: 6, y, class: "name" }, this.labels, this.isNarrow ? short : text);
  }

  height(most) {
    return (count) => this.base - (count / most) * (STEPS_HEIGHT - 14);
  }

  drawFew(shown) {
    const cases = shown.map((index) => this.data.cases[index]);
    const most = Math.max(2, ...cases.map((one) => Math.max(one.quorum, one.approvals.length))) + 0.6;
    const y = this.height(most);
    this.title("votes to the quorum", "votes");
    if (!cases.length) return;
    const { quorum } = cases[0];
    make("line", { x1: this.left, x2: this.scale.right, y1: y(quorum), y2: y(quorum), class: "quorum" }, this.plot);
    make("text", { x: this.left - 6, y: y(quorum) + 4, "text-anchor": "end" }, this.labels,
      this.isNarrow ? `${quorum}` : `quorum ${quorum}`);
    shown.forEach((index, place) => this.drawOne(index, y, shown.length > 1 ? place : -1));
  }

  drawOne(index, y, place) {
    const one = this.data.cases[index];
    const { scale, timeline } = this;
    const group = make("g", { "data-case": index, class: "stair" }, this.plot);
    make("title", {}, group, `${one.name}: ${one.approvals.length} approvals, ${one.outcome}`);
    const last = timeline.lastOf(one);
    const stood = one.approvals.length >= one.quorum ? one.approvals[one.quorum - 1][0] : 0;
    if (stood && one.waiting && place < 0) {
      const x = scale.x(stood);
      const width = scale.x(stood + one.waiting) - x;
      make("rect", { x, y: y(one.quorum), width, height: y(0) - y(one.quorum), class: "wait" }, group);
      const from = Math.max(x, this.left);
      if (x + width - from > 90) make("text", { x: from + 5, y: y(0) - 5 }, group, `waits ${lasting(one.waiting)}`);
    }
    const line = (steps, from) => {
      let path = `M${scale.x(from)} ${y(0)}`;
      steps.forEach(([at], count) => { path += `H${scale.x(at)}V${y(count + 1)}`; });
      return `${path}H${scale.x(last)}`;
    };
    make("path", { d: line(one.approvals, one.made), class: "steps" }, group);
    make("path", { d: line(one.approvals, one.made), class: "hit" }, group);
    if (one.releases.length) make("path", { d: line(one.releases, one.releases[0][0]), class: "steps released" }, group);
    one.approvals.forEach(([at, , deceived], count) => {
      if (deceived) sign(group, "deceived", scale.x(at), y(count + 1), 0.7);
    });
    const half = y(one.quorum * 0.5);
    if (one.vetoed) sign(group, "veto", scale.x(one.vetoed), half, 1);
    if (one.recovered) sign(group, "recovered", scale.x(one.recovered), half, 1.1);
    if (place >= 0) {
      const x = Math.max(this.left + 3, scale.x(one.made) + 3);
      make("text", { x, y: y(0) - 4 - (place % 3) * 12 }, group, one.name);
    }
  }

  // Too many claims for a staircase each: how many had come how far by then.
  drawMany(cases) {
    const stood = (one) => one.approvals.length >= one.quorum ? one.approvals[one.quorum - 1][0] : 0;
    const lines = [
      ["claim", "claims", cases.map((one) => one.made || 1)],
      ["approve", "had a quorum", cases.map(stood)],
      ["veto", "vetoed", cases.map((one) => one.vetoed)],
      ["release", "secret back", cases.map((one) => one.by === "thief" ? 0 : one.recovered)],
      ["deceived", "secret stolen", cases.map((one) => one.by === "thief" ? one.recovered : 0)],
    ];
    this.title("claims so far", "claims");
    const y = this.height(cases.length * 1.05);
    make("text", { x: this.left - 6, y: y(cases.length) + 4, "text-anchor": "end" }, this.labels, cases.length);
    let place = 0;
    for (const [kind, name, all] of lines) {
      const times = all.filter(Boolean).sort((a, b) => a - b);
      if (!times.length) continue;
      let path = `M${this.left} ${y(0)}`;
      times.forEach((at, count) => { path += `H${this.scale.x(at).toFixed(1)}V${y(count + 1).toFixed(1)}`; });
      make("path", { d: `${path}H${this.scale.right}`, class: `many k-${kind}` }, this.plot);
      const label = { x: 6, y: AXIS_HEIGHT + 26 + place * 14, class: `many k-${kind}` };
      make("text", label, this.labels, this.isNarrow ? `${times.length}` : `${name} ${times.length}`);
      place += 1;
    }
  }
}
