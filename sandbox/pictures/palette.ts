import { pick, type Random } from "./random.ts";

/** The colours of one scene, as hex. */
export interface Palette {
  readonly night: boolean;
  /** Top, middle, horizon. */
  readonly sky: readonly [string, string, string];
  /** Sun or moon. */
  readonly disc: string;
  /** From far to near. */
  readonly ground: readonly [string, string, string, string];
  readonly accent: string;
  readonly light: string;
}

type Mood = readonly [words: RegExp, palette: Palette];

const MOODS: readonly [Mood, ...Mood[]] = [
  [
    /\b(dusk|sunset|evening|romantic|warm)\b/i,
    {
      night: false,
      sky: ["#2b2059", "#a5466f", "#fbb072"],
      disc: "#ffe3a8",
      ground: ["#83457a", "#5b3569", "#382452", "#1d1438"],
      accent: "#ff7a66",
      light: "#ffd9a0",
    },
  ],
  [
    /\b(dawn|sunrise|morning|soft|pastel|spring)\b/i,
    {
      night: false,
      sky: ["#7593c9", "#efb9bb", "#fee9cd"],
      disc: "#fffaf0",
      ground: ["#b0a8cb", "#848bb8", "#58699a", "#33456c"],
      accent: "#ee8c84",
      light: "#fff3df",
    },
  ],
  [
    /\b(noon|day|sunny|summer|bright|blue)\b/i,
    {
      night: false,
      sky: ["#2c7cc4", "#80c3ea", "#e6f5fb"],
      disc: "#fffbe3",
      ground: ["#9fcbb9", "#6caa8f", "#3e7f67", "#225443"],
      accent: "#f2b441",
      light: "#fffdf2",
    },
  ],
  [
    /\b(night|moon|stars?|midnight|space|neon|dark|cyberpunk)\b/i,
    {
      night: true,
      sky: ["#060a1e", "#16244f", "#41538a"],
      disc: "#f5f1dc",
      ground: ["#2b3a6a", "#1d2a51", "#121b3a", "#080d22"],
      accent: "#ffcf6b",
      light: "#ffe6a6",
    },
  ],
  [
    /\b(autumn|fall|desert|sand|canyon|vintage|gold(en)?)\b/i,
    {
      night: false,
      sky: ["#5d87a1", "#e9c79a", "#fae5c0"],
      disc: "#fff3d2",
      ground: ["#d09a5c", "#b06a3a", "#7b432b", "#46271f"],
      accent: "#d1495b",
      light: "#ffe9c2",
    },
  ],
  [
    /\b(storm(y)?|rain|winter|snow(y)?|fog|mist(y)?|moody|cold)\b/i,
    {
      night: false,
      sky: ["#38475a", "#7d8fa0", "#d5dcdc"],
      disc: "#f5f6f2",
      ground: ["#9aa9b3", "#6e808e", "#475868", "#27333f"],
      accent: "#e0a458",
      light: "#fff4d8",
    },
  ],
  [
    /\b(tropical|teal|ocean|island|lagoon|green)\b/i,
    {
      night: false,
      sky: ["#0e4e63", "#3f9c99", "#f0e0b8"],
      disc: "#fff4cf",
      ground: ["#5fb0a0", "#2f8580", "#17595f", "#0b333d"],
      accent: "#ff8a5b",
      light: "#fff0cc",
    },
  ],
];

/** The mood that the words name, or else one of the seed's choosing; a little turned, so that no two seeds match. */
export function paletteFor(prompt: string, random: Random): Palette {
  const chosen = pick(random, MOODS);
  const turn = (random() - 0.5) * 34; // degrees of hue
  const lift = (random() - 0.5) * 0.07;
  const [, palette] = MOODS.find(([words]) => words.test(prompt)) ?? chosen;
  const shift = (colour: string) => turned(colour, turn, lift);
  const [top, middle, low] = palette.sky;
  const [far, mid, near, nearest] = palette.ground;
  return {
    night: palette.night,
    sky: [shift(top), shift(middle), shift(low)],
    disc: palette.disc,
    ground: [shift(far), shift(mid), shift(near), shift(nearest)],
    accent: shift(palette.accent),
    light: palette.light,
  };
}

/** The colour with its hue turned and its lightness lifted. */
export function turned(hex: string, degrees: number, lift: number): string {
  const { hue, saturation, lightness } = hslOf(hex);
  return hexOf((hue + degrees + 360) % 360, saturation, Math.min(0.97, Math.max(0.03, lightness + lift)));
}

function hslOf(hex: string): { hue: number; saturation: number; lightness: number } {
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255) as [
    number,
    number,
    number,
  ];
  const most = Math.max(red, green, blue);
  const least = Math.min(red, green, blue);
  const spread = most - least;
  const lightness = (most + least) / 2;
  if (spread === 0) return { hue: 0, saturation: 0, lightness };
  const saturation = spread / (1 - Math.abs(2 * lightness - 1));
  const sixth =
    most === red ? (green - blue) / spread : most === green ? (blue - red) / spread + 2 : (red - green) / spread + 4;
  return { hue: (sixth * 60 + 360) % 360, saturation, lightness };
}

function hexOf(hue: number, saturation: number, lightness: number): string {
  const channel = (offset: number) => {
    const turn = (offset + hue / 30) % 12;
    const value =
      lightness - saturation * Math.min(lightness, 1 - lightness) * Math.max(-1, Math.min(turn - 3, 9 - turn, 1));
    return Math.round(value * 255)
      .toString(16)
      .padStart(2, "0");
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`;
}
