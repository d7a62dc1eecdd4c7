import type { App } from "../src/domain/app.ts";
import { demo } from "./demo.ts";

export const apps: readonly App[] = [demo];
