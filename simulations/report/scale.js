"use strict";
// Times: how they are written, and where on the page they are. All in virtual milliseconds.

const DAY = 86400000;
const TICKS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000, 120000, 300000,
  600000, 1800000, 3600000, 7200000, 21600000, 43200000, DAY, 2 * DAY, 5 * DAY, 10 * DAY,
  30 * DAY, 90 * DAY, 365 * DAY, 1825 * DAY,
];

function moment(at) {
  const two = (value) => String(value).padStart(2, "0");
  const rest = at % DAY;
  const hours = two(Math.floor(rest / 3600000));
  const minutes = two(Math.floor(rest / 60000) % 60);
  const seconds = two(Math.floor(rest / 1000) % 60);
  return `d${Math.floor(at / DAY)} ${hours}:${minutes}:${seconds}.` +
    String(Math.floor(at % 1000)).padStart(3, "0");
}

function lasting(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120000) return `${+(ms / 1000).toFixed(1)} s`;
  if (ms < 7200000) return `${Math.round(ms / 60000)} min`;
  if (ms < 2 * DAY) return `${+(ms / 3600000).toFixed(1)} h`;
  return `${+(ms / DAY).toFixed(1)} d`;
}

function tickLabel(at, step) {
  if (step >= DAY) return `d${Math.round(at / DAY)}`;
  const text = moment(at);
  const [day, clock] = text.split(" ");
  if (at % DAY === 0) return day;
  if (step >= 60000) return clock.slice(0, 5);
  return step >= 1000 ? clock.slice(0, 8) : clock.slice(3);
}

// What part of the run is seen, and where its times are between two edges in pixels.
class Scale {
  constructor(length) {
    this.length = Math.max(1, length);
    this.from = 0;
    this.to = this.length;
    this.left = 0;
    this.right = 1;
  }

  show(from, to) {
    const span = Math.min(this.length, Math.max(20, to - from));
    const start = Math.max(0, Math.min(this.length - span, from));
    this.from = start;
    this.to = start + span;
  }

  x(at) {
    return this.left + ((at - this.from) / (this.to - this.from)) * (this.right - this.left);
  }

  at(x) {
    return this.from + ((x - this.left) / (this.right - this.left)) * (this.to - this.from);
  }

  zoom(factor, around) {
    const span = (this.to - this.from) * factor;
    const share = (around - this.from) / (this.to - this.from);
    this.show(around - share * span, around + (1 - share) * span);
  }

  move(by) {
    this.show(this.from + by, this.to + by);
  }

  ticks(room) {
    const most = Math.max(2, Math.floor((this.right - this.left) / room));
    const step = TICKS.find((one) => (this.to - this.from) / one <= most) || TICKS.at(-1);
    const found = [];
    for (let at = Math.ceil(this.from / step) * step; at <= this.to; at += step) found.push(at);
    return [step, found];
  }
}
