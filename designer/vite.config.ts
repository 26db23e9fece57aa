import react from "@vitejs/plugin-react";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const target = fileURLToPath(new URL("../server/query/static", import.meta.url));

/** A compressed copy beside each file, so that the server need not compress. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    closeBundle() {
      for (const name of readdirSync(join(target, "assets"))) {
        const file = join(target, "assets", name);
        if (/\.(js|css|ttf)$/.test(name)) writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  base: "/query/static/",
  plugins: [react(), compressed()],
  build: {
    outDir: target,
    emptyOutDir: true,
    target: "es2022",
    // Data addresses of our style would have to be allowed by the page's policy.
    assetsInlineLimit: 0,
    // Monaco is one large part, which is loaded after the sign-in.
    chunkSizeWarningLimit: 4_000,
    modulePreload: { polyfill: false },
  },
});
