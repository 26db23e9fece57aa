// The same three thumbnails as media/images.py, by sharp. Started by bench_images.py:
//
//   node images.mjs <folder with node_modules> <picture> <folder for its thumbnails> <threads>
//
// Each line on standard input is one more run, answered with a line of JSON.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [modules, picture, folder, threads] = process.argv.slice(2);
const sharp = createRequire(join(modules, "here"))("sharp");

sharp.concurrency(Number(threads));
sharp.cache(false); // else every run but the first would be for nothing

const SIZES = { large: 1280, medium: 640, small: 240 };

// One decode: each size from the one before.
async function thumbnails() {
  const jpegs = {};
  let latest = sharp(picture).rotate();
  for (const [name, longest] of Object.entries(SIZES)) {
    const { data, info } = await latest
      .resize({ width: longest, height: longest, fit: "inside", withoutEnlargement: true })
      .raw()
      .toBuffer({ resolveWithObject: true });
    const raw = { width: info.width, height: info.height, channels: info.channels };
    jpegs[name] = await sharp(data, { raw }).jpeg({ quality: 80 }).toBuffer();
    latest = sharp(data, { raw });
  }
  return jpegs;
}

async function run() {
  const cpu = process.cpuUsage();
  const began = performance.now();
  const jpegs = await thumbnails();
  const ms = performance.now() - began;
  const { user, system } = process.cpuUsage(cpu);
  const peak = Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))[1]);
  console.log(JSON.stringify({ ms, cpu: (user + system) / 1000, peak_mb: peak / 1024 }));
  return jpegs;
}

for (const [name, jpeg] of Object.entries(await run())) writeFileSync(join(folder, `${name}.jpg`), jpeg);
for await (const _ of createInterface({ input: process.stdin })) await run();
