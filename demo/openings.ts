import { at, makeRandom, type Point, polygon, ROOM, round } from "./perspective.ts";

/** Metres along and up the left wall. */
export const WINDOW = { near: 2.72, far: 4.02, sill: -0.42, top: 1.0 } as const;
const BAR = 0.035; // metres of the bars between the panes
const REVEAL = 0.14; // metres from the wall's face to the panes

export function onLeft(near: number, far: number, low: number, high: number, x: number = ROOM.left): Point[] {
  return [
    [x, low, near],
    [x, low, far],
    [x, high, far],
    [x, high, near],
  ];
}

export function panes(): { near: number; far: number; low: number; high: number }[] {
  const middle = (WINDOW.near + WINDOW.far) / 2;
  const cross = WINDOW.sill + (WINDOW.top - WINDOW.sill) * 0.66;
  const columns = [
    [WINDOW.near + BAR, middle - BAR / 2],
    [middle + BAR / 2, WINDOW.far - BAR],
  ] as const;
  const rows = [
    [WINDOW.sill + BAR, cross - BAR / 2],
    [cross + BAR / 2, WINDOW.top - BAR],
  ] as const;
  return columns.flatMap(([near, far]) => rows.map(([low, high]) => ({ near, far, low, high })));
}

/** The panes lie deeper than the wall: what is seen of the wall's thickness is the far side and the lintel. */
export function windowOnTheLeft(): string {
  const { near, far, sill, top } = WINDOW;
  const [x, pane] = [ROOM.left, ROOM.left - REVEAL];
  const frame = 0.07;
  const cross = sill + (top - sill) * 0.66;
  const middle = (near + far) / 2;
  const random = makeRandom(7);
  const leaves = Array.from({ length: 46 }, (_, index) => {
    const z = near + 0.1 + ((far + 0.4 - near) * index) / 46;
    const [cx, cy] = at([pane, sill + 0.1 + random() * 0.42, z]);
    const size = round((26 + random() * 22) / z);
    const colour = `hsl(${round(92 + random() * 18)},${round(20 + random() * 12)}%,${round(58 + random() * 18)}%)`;
    return `<ellipse cx="${cx}" cy="${cy}" rx="${size * 2}" ry="${round(size * 1.5)}" fill="${colour}"/>`;
  });
  const bars = [
    onLeft(middle - BAR / 2, middle + BAR / 2, sill, top, pane),
    onLeft(near, far, cross - BAR / 2, cross + BAR / 2, pane),
    onLeft(far - BAR, far, sill, top, pane),
    onLeft(near, near + BAR, sill, top, pane),
    onLeft(near, far, top - BAR, top, pane),
    onLeft(near, far, sill, sill + BAR, pane),
  ];
  const farSide: Point[] = [
    [x, sill, far],
    [pane, sill, far],
    [pane, top, far],
    [x, top, far],
  ];
  const lintel: Point[] = [
    [x, top, near],
    [x, top, far],
    [pane, top, far],
    [pane, top, near],
  ];
  const inside = `<g clip-path="url(#opening)">${polygon(onLeft(near, far, sill, top, pane), 'fill="url(#sky)"')}
<g filter="url(#leaves)" opacity="0.8">${leaves.join("")}</g>
${bars.map((each) => polygon(each, 'fill="#e4e1da"')).join("")}
${polygon(farSide, 'fill="#f6f3ec"')}${polygon(lintel, 'fill="#d7d2c7"')}</g>`;
  const casing = [
    onLeft(near - frame, far + frame, top, top + frame),
    onLeft(near - frame, near, sill, top + frame),
    onLeft(far, far + frame, sill, top + frame),
  ];
  const [low, high, out, from, to] = [sill - 0.045, sill, x + 0.16, near - 0.13, far + 0.13];
  const board: Point[] = [
    [x, high, from],
    [x, high, to],
    [out, high, to],
    [out, high, from],
  ];
  const edge: Point[] = [
    [out, high, from],
    [out, high, to],
    [out, low, to],
    [out, low, from],
  ];
  const end: Point[] = [
    [x, high, from],
    [out, high, from],
    [out, low, from],
    [x, low, from],
  ];
  return [
    `<g filter="url(#soft)" opacity="0.24">${polygon(onLeft(near - 0.1, far + 0.14, sill - 0.3, sill - 0.06), 'fill="#2b2116"')}</g>`,
    inside,
    ...casing.map((each) => polygon(each, 'fill="#e6e2da" stroke="#a8a196" stroke-width="0.8"')),
    polygon(board, 'fill="#fbf9f5"'),
    polygon(edge, 'fill="#d5d0c6"'),
    polygon(end, 'fill="#b9b3a8"'),
    `<g filter="url(#softer)" opacity="0.3">${polygon(onLeft(near, far, sill, top), 'fill="#ffffff"')}</g>`,
  ].join("");
}

export function doorOnTheRight(): string {
  const [near, far, top] = [3.42, 4.22, ROOM.floor + 2.04];
  const x = ROOM.right;
  const low = ROOM.floor;
  const face = (a: number, b: number, from: number, to: number): Point[] => [
    [x, from, a],
    [x, from, b],
    [x, to, b],
    [x, to, a],
  ];
  const jamb = 0.075;
  const height = top - low;
  const panels = [
    face(near + 0.12, far - 0.12, low + 0.2, low + height * 0.44),
    face(near + 0.12, far - 0.12, low + height * 0.5, top - 0.14),
  ];
  const knob = at([x - 0.05, low + 1.02, far - 0.07]);
  const rose = at([x, low + 1.02, far - 0.07]);
  return [
    ...[
      face(near - jamb, near, low, top + jamb),
      face(far, far + jamb, low, top + jamb),
      face(near, far, top, top + jamb),
    ].map((each) => polygon(each, 'fill="#faf7f1" stroke="#b9b1a4" stroke-width="0.9"')),
    polygon(face(near, far, low + 0.01, top), 'fill="#f1ece2" stroke="#8f8778" stroke-width="1.1"'),
    ...panels.map((each) => polygon(each, 'fill="#e8e2d6" stroke="#c3baab" stroke-width="1.6"')),
    `<circle cx="${rose[0]}" cy="${rose[1]}" r="4" fill="#8c8477"/>`,
    `<line x1="${knob[0]}" y1="${knob[1]}" x2="${knob[0] + 13}" y2="${knob[1] + 0.5}" stroke="#6f675c" stroke-width="3.2" stroke-linecap="round"/>`,
  ].join("");
}
