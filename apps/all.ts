import type { App } from "../src/domain/app.ts";
import { aiFreedomStudios } from "./ai-freedom-studios.ts";
import { demo } from "./demo.ts";
import { ensaioFotos } from "./ensaio-fotos.ts";
import { imageStudio } from "./image-studio.ts";
import { proHeadshots } from "./pro-headshots.ts";
import { virtualStaging } from "./virtual-staging.ts";

export const apps: readonly App[] = [demo, ensaioFotos, proHeadshots, virtualStaging, imageStudio, aiFreedomStudios];
