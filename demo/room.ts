import sharp from "sharp";
import { doorOnTheRight, onLeft, panes, WINDOW, windowOnTheLeft } from "./openings.ts";
import { at, HEIGHT, makeRandom, type Point, points, polygon, ROOM, round, WIDTH } from "./perspective.ts";

const BOARD = 0.155; // metres
const SKIRTING = 0.11; // metres

/** The photo that is staged when none is given: an empty room, the same to the last byte every time. */
export async function paintRoom(): Promise<Buffer> {
  return sharp(Buffer.from(roomSvg())).removeAlpha().jpeg({ quality: 90, chromaSubsampling: "4:4:4" }).toBuffer();
}

function roomSvg(): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}">
<defs>${defs()}</defs>
${surfaces()}${floorBoards()}${sunOnFloor()}${corners()}${skirting()}${windowOnTheLeft()}${doorOnTheRight()}${smallThings()}
<rect width="${WIDTH}" height="${HEIGHT}" fill="url(#glow)"/>
<rect width="${WIDTH}" height="${HEIGHT}" fill="url(#vignette)"/>
<rect width="${WIDTH}" height="${HEIGHT}" filter="url(#grain)" opacity="0.075"/>
</svg>`;
}

function defs(): string {
  const stops = (...list: [at: number, colour: string, opacity?: number][]) =>
    list.map(([at, c, o = 1]) => `<stop offset="${at}" stop-color="${c}" stop-opacity="${o}"/>`).join("");
  const [left, right] = [at([ROOM.left, 0, ROOM.back])[0], at([ROOM.right, 0, ROOM.back])[0]];
  const bottom = at([0, ROOM.floor, ROOM.back])[1];
  return `
<linearGradient id="back" x1="0" y1="0" x2="1" y2="0.25">${stops([0, "#dcd7cd"], [0.3, "#ebe7de"], [0.75, "#e4dfd4"], [1, "#d3cdc1"])}</linearGradient>
<linearGradient id="leftWall" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="${left}" y2="0">${stops([0, "#b9b4aa"], [0.6, "#c6c1b6"], [1, "#cfcac0"])}</linearGradient>
<linearGradient id="rightWall" gradientUnits="userSpaceOnUse" x1="${right}" y1="0" x2="${WIDTH}" y2="0">${stops([0, "#ded8cc"], [1, "#efe9dd"])}</linearGradient>
<linearGradient id="ceiling" x1="0" y1="0" x2="0.5" y2="1">${stops([0, "#efece6"], [0.6, "#e6e3dc"], [1, "#dcd8d0"])}</linearGradient>
<linearGradient id="depth" gradientUnits="userSpaceOnUse" x1="0" y1="${bottom}" x2="0" y2="${HEIGHT}">${stops([0, "#2a1a0c", 0.26], [0.25, "#2a1a0c", 0.06], [0.6, "#fff3dd", 0.04], [1, "#1c1006", 0.2])}</linearGradient>
<linearGradient id="sheen" gradientUnits="userSpaceOnUse" x1="${left}" y1="0" x2="${WIDTH}" y2="0">${stops([0, "#fff6e6", 0.3], [0.45, "#fff6e6", 0.06], [1, "#20140a", 0.16])}</linearGradient>
<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1">${stops([0, "#cfe5f8"], [0.62, "#f4f9fb"], [0.66, "#dfe9d8"], [1, "#b9cda6"])}</linearGradient>
<radialGradient id="glow" gradientUnits="userSpaceOnUse" cx="120" cy="330" r="620">${stops([0, "#fffaf0", 0.3], [0.5, "#fffaf0", 0.08], [1, "#fffaf0", 0])}</radialGradient>
<radialGradient id="vignette" cx="0.5" cy="0.46" r="0.78">${stops([0.55, "#000", 0], [1, "#0c0703", 0.3])}</radialGradient>
<filter id="soft" x="-20%" y="-20%" width="140%" height="140%"><feGaussianBlur stdDeviation="7"/></filter>
<filter id="softer" x="-30%" y="-30%" width="160%" height="160%"><feGaussianBlur stdDeviation="22"/></filter>
<filter id="crisp" x="-10%" y="-10%" width="120%" height="120%"><feGaussianBlur stdDeviation="2.4"/></filter>
<filter id="leaves" x="-10%" y="-10%" width="120%" height="120%"><feGaussianBlur stdDeviation="4"/></filter>
<filter id="grain"><feTurbulence type="fractalNoise" baseFrequency="0.85" numOctaves="2" seed="4"/><feColorMatrix type="saturate" values="0"/></filter>
<clipPath id="floorClip"><polygon points="${points(floor())}"/></clipPath>
<clipPath id="opening"><polygon points="${points(onLeft(WINDOW.near, WINDOW.far, WINDOW.sill, WINDOW.top))}"/></clipPath>`;
}

function floor(): Point[] {
  const { left, right, floor: y, back, front } = ROOM;
  return [
    [left, y, back],
    [right, y, back],
    [right, y, front],
    [left, y, front],
  ];
}

function surfaces(): string {
  const { left, right, floor: low, ceiling: high, back, front } = ROOM;
  return [
    polygon(
      [
        [left, low, back],
        [right, low, back],
        [right, high, back],
        [left, high, back],
      ],
      'fill="url(#back)"',
    ),
    polygon(
      [
        [left, low, back],
        [left, high, back],
        [left, high, front],
        [left, low, front],
      ],
      'fill="url(#leftWall)"',
    ),
    polygon(
      [
        [right, low, back],
        [right, high, back],
        [right, high, front],
        [right, low, front],
      ],
      'fill="url(#rightWall)"',
    ),
    polygon(
      [
        [left, high, back],
        [right, high, back],
        [right, high, front],
        [left, high, front],
      ],
      'fill="url(#ceiling)"',
    ),
    polygon(floor(), 'fill="#a97c50"'),
  ].join("");
}

/** Oak boards that run away from the camera, each with its own tone, length and grain. */
function floorBoards(): string {
  const random = makeRandom(20);
  const y = ROOM.floor;
  const parts: string[] = [];
  for (let x = ROOM.left; x < ROOM.right; x += BOARD) {
    const right = Math.min(x + BOARD, ROOM.right);
    let z = ROOM.front - random() * 1.4;
    while (z < ROOM.back) {
      const end = Math.min(z + 0.9 + random() * 1.1, ROOM.back);
      const start = Math.max(z, ROOM.front);
      if (end > start) {
        const colour = `hsl(${round(28 + random() * 4)},${round(35 + random() * 6)}%,${round(49 + random() * 8)}%)`;
        parts.push(
          polygon(
            [
              [x, y, start],
              [right, y, start],
              [right, y, end],
              [x, y, end],
            ],
            `fill="${colour}"`,
          ),
        );
        for (let line = 0; line < 4; line++) {
          const [from, to] = [x + BOARD * random(), x + BOARD * random()];
          const clamp = (value: number) => Math.min(Math.max(value, x + 0.01), right - 0.01);
          const [a, b] = [at([clamp(from), y, start]), at([clamp(from + (to - from) * 0.25), y, end])];
          const grain = `stroke="#6d4522" stroke-width="${round(0.6 + random())}" opacity="${round(0.06 + random() * 0.12)}"`;
          parts.push(`<line x1="${a[0]}" y1="${a[1]}" x2="${b[0]}" y2="${b[1]}" ${grain}/>`);
        }
        parts.push(
          polygon(
            [
              [x, y, end - 0.006],
              [right, y, end - 0.006],
              [right, y, end],
              [x, y, end],
            ],
            'fill="#4d2f16" opacity="0.55"',
          ),
        );
      }
      z = end;
    }
    parts.push(
      polygon(
        [
          [x, y, ROOM.front],
          [x + 0.005, y, ROOM.front],
          [x + 0.005, y, ROOM.back],
          [x, y, ROOM.back],
        ],
        'fill="#4d2f16" opacity="0.5"',
      ),
    );
  }
  return `<g>${parts.join("")}${polygon(floor(), 'fill="url(#depth)"')}${polygon(floor(), 'fill="url(#sheen)"')}</g>`;
}

/** Where the sun's ray through a point of the window meets the floor. */
function sunlit(y: number, z: number): Point {
  const fall = (y - ROOM.floor) / 1.25;
  return [ROOM.left + fall * 1.35, ROOM.floor, z - fall * 0.28];
}

function sunOnFloor(): string {
  const patches = panes().map(({ near, far, low, high }) =>
    polygon([sunlit(low, near), sunlit(low, far), sunlit(high, far), sunlit(high, near)], 'fill="#fff0cf"'),
  );
  return `<g clip-path="url(#floorClip)"><g opacity="0.34" filter="url(#softer)">${patches.join("")}</g>
<g opacity="0.62" filter="url(#crisp)" style="mix-blend-mode:soft-light">${patches.join("")}</g><g opacity="0.3" filter="url(#crisp)">${patches.join("")}</g></g>`;
}

/** Less light reaches where two surfaces meet. */
function corners(): string {
  const { left, right, floor: low, ceiling: high, back, front } = ROOM;
  const edges: [Point, Point, number, number][] = [
    [[left, low, back], [left, high, back], 26, 0.2],
    [[right, low, back], [right, high, back], 24, 0.16],
    [[left, high, back], [right, high, back], 20, 0.13],
    [[left, low, back], [right, low, back], 26, 0.26],
    [[left, high, back], [left, high, front], 26, 0.16],
    [[right, high, back], [right, high, front], 26, 0.12],
    [[left, low, back], [left, low, front], 34, 0.34],
    [[right, low, back], [right, low, front], 30, 0.24],
  ];
  return `<g filter="url(#soft)" stroke="#35281a" fill="none">${edges
    .map(([from, to, width, opacity]) => {
      const [a, b] = [at(from), at(to)];
      return `<line x1="${a[0]}" y1="${a[1]}" x2="${b[0]}" y2="${b[1]}" stroke-width="${width}" opacity="${opacity}"/>`;
    })
    .join("")}</g>`;
}

function skirting(): string {
  const { left, right, floor: low, back, front } = ROOM;
  const top = low + SKIRTING;
  const edge = (from: Point, to: Point) => {
    const [a, b] = [at(from), at(to)];
    return `<line x1="${a[0]}" y1="${a[1]}" x2="${b[0]}" y2="${b[1]}" stroke="#8d8579" stroke-width="1.4" opacity="0.7"/>`;
  };
  return [
    polygon(
      [
        [left, low, back],
        [right, low, back],
        [right, top, back],
        [left, top, back],
      ],
      'fill="#f3f0ea"',
    ),
    polygon(
      [
        [left, low, back],
        [left, top, back],
        [left, top, front],
        [left, low, front],
      ],
      'fill="#cfcabf"',
    ),
    polygon(
      [
        [right, low, back],
        [right, top, back],
        [right, top, front],
        [right, low, front],
      ],
      'fill="#f7f3ec"',
    ),
    edge([left, top, back], [right, top, back]),
    edge([left, top, back], [left, top, front]),
    edge([right, top, back], [right, top, front]),
    edge([left, low, back], [right, low, back]),
    edge([left, low, back], [left, low, front]),
    edge([right, low, back], [right, low, front]),
  ].join("");
}

/** What makes a room look lived in before anyone moves in: a socket, a switch, a ceiling rose. */
function smallThings(): string {
  const { floor: low, ceiling: high, back, right } = ROOM;
  const plate = (x: number, y: number) => {
    const [left, top] = at([x, y, back]);
    return `<rect x="${left}" y="${top}" width="14" height="14" rx="2" fill="#f7f5f0" stroke="#b5ada0" stroke-width="0.8"/>`;
  };
  const [sx, sy] = at([-1.5, low + 0.36, back]);
  const [cx, cy] = at([0.35, high, 3.3]);
  const light = at([right, low + 1.1, 4.42]);
  return [
    plate(-1.5, low + 0.36),
    `<circle cx="${sx + 7}" cy="${sy + 7}" r="3.6" fill="none" stroke="#b5ada0" stroke-width="0.9"/>`,
    `<polygon points="${light[0] - 4},${light[1] - 8} ${light[0] + 4},${light[1] - 9} ${light[0] + 4},${light[1] + 6} ${light[0] - 4},${light[1] + 5}" fill="#fbf9f4" stroke="#b5ada0" stroke-width="0.8"/>`,
    `<ellipse cx="${cx}" cy="${cy + 3}" rx="34" ry="7" fill="#35281a" opacity="0.16" filter="url(#crisp)"/>`,
    `<ellipse cx="${cx}" cy="${cy}" rx="30" ry="5.5" fill="#faf8f4" stroke="#cfc9be" stroke-width="0.8"/>`,
    `<ellipse cx="${cx}" cy="${cy + 4}" rx="9" ry="5" fill="#f2eee6"/>`,
  ].join("");
}
