export { photo } from "../../demo/photo.ts";
