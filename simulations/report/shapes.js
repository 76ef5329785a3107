// The signs of events, and small pieces of SVG.

const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes, parent, text) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  if (parent) parent.appendChild(one);
  return one;
}

function html(name, attributes, parent, text) {
  const one = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  if (parent) parent.appendChild(one);
  return one;
}

// Round 0, 0, about 5 pixels to each side; told apart by form as well as by colour.
const SIGNS = {
  claim: "M0-6L6 0L0 6L-6 0Z",
  approve: "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0Z",
  deceived: "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0ZM-2.2 0A2.2 2.2 0 1 1 2.2 0A2.2 2.2 0 1 1-2.2 0Z",
  veto: "M-5.5-3.5L-3.5-5.5L0-2L3.5-5.5L5.5-3.5L2 0L5.5 3.5L3.5 5.5L0 2L-3.5 5.5L-5.5 3.5L-2 0Z",
  release: "M0-6L6 5L-6 5Z",
  recovered: "M0-7L2-2.2L7-2.2L3 1L4.5 6L0 3L-4.5 6L-3 1L-7-2.2L-2-2.2Z",
  fault: "M1.5-7L-4.5 1L-.5 1L-1.5 7L4.5-1.5L.5-1.5Z",
  down: "M-5-5L5-5L0 4Z",
  back: "M-4-4L4-4L4 4L-4 4ZM-2-2L-2 2L2 2L2-2Z",
  note: "M-3 0A3 3 0 1 0 3 0A3 3 0 1 0-3 0Z",
};

const NAMES = {
  claim: "claim", approve: "approval", deceived: "deceived approval", veto: "veto",
  release: "release", recovered: "secret is back", fault: "fault strikes", down: "node down",
  back: "node back", note: "other events",
};
const MESSAGES = {
  vote: "votes", release: "releases", veto: "carried vetoes", claim: "carried claims",
  other: "other statements",
};
const FAMILIES = {
  off: "node down", network: "network fault", disk: "disk fault", clock: "clock wrong",
  person: "person lost", liar: "lies",
};

// Hatching tells the sorts of trouble apart without colour.
const HATCHES = { off: 45, network: -45, disk: 90, clock: 0, person: 30 };

function hatches(svg) {
  const defs = make("defs", {}, svg);
  for (const [family, turn] of Object.entries(HATCHES)) {
    const pattern = make("pattern", {
      id: `h-${family}`, width: 6, height: 6, patternUnits: "userSpaceOnUse",
      patternTransform: `rotate(${turn})`,
    }, defs);
    make("line", {
      x1: 0, y1: 0, x2: 0, y2: 6, class: `b-${family}`, "stroke-width": 2.4, "stroke-opacity": 0.6,
    }, pattern);
  }
  return defs;
}

function shortened(text, room, size) {
  const most = Math.floor(room / size);
  return text.length <= most ? text : `${text.slice(0, Math.max(1, most - 1))}…`;
}

function sign(parent, kind, x, y, size) {
  const group = make("g", { transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size})` }, parent);
  const known = SIGNS[kind] ? kind : "note";
  make("path", { d: SIGNS[known], class: `k-${known}`, "fill-rule": "evenodd" }, group);
}
