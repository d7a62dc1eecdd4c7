import type { Face } from "./face.ts";
import { falFace } from "./fal/face.ts";
import { huggingFaceFace } from "./huggingface/face.ts";
import { poeFace } from "./poe/face.ts";
import { replicateFace } from "./replicate/face.ts";
import { runpodFace } from "./runpod/face.ts";
import { waveSpeedFace } from "./wavespeed/face.ts";

export const ALL_FACES: readonly Face[] = [replicateFace, runpodFace, falFace, waveSpeedFace, huggingFaceFace, poeFace];
